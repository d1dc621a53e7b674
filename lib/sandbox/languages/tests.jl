# Runs the tests of a function task in Julia: the program has a module of its own, and this file, read to its end before
# the first line runs, is removed before the program is loaded.
rm(@__FILE__)
module Program end
Base.include(Program, joinpath(pwd(), "program.jl"))
@ENTRY@ = Program.@ENTRY@
@TESTS@
println("\n@MARK@")
