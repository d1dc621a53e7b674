(* Runs the tests of a function task in OCaml: the program is a unit of its own, and after it the standard library's names
   are opened again. *)
let entry__ = Program.@ENTRY@
module Stdlib__ = Stdlib
open! Program
open! Stdlib__
module Stdlib = Stdlib__
let @ENTRY@ = entry__
@TESTS@
let () = @UNIT@.finish ()
