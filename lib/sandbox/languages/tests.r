# Runs the tests of a function task in R. The functions that the tests use are copied before the program is evaluated, into
# an environment from which the program's own are not seen. The mark comes on stdin, once.
local({
  input <- file("stdin")
  mark <- readLines(input, 1L)
  close(input)
  take <- function(name) {
    if (!file.exists(name)) return(NULL)
    text <- readLines(name, warn = FALSE, encoding = "UTF-8")
    unlink(name)
    text
  }
  readings <- Filter(Negate(is.null), list(take("program.r"), take("other.r")))
  tests <- parse(text = take("given.r"), keep.source = FALSE)
  unlink("main.r")
  entry <- "@ENTRY@"

  own <- new.env(parent = baseenv())
  used <- all.names(tests, unique = TRUE)
  for (name in c(used, "==", "!=", "(", "{", "if", "!")) {
    if (exists(name, envir = globalenv())) assign(name, get(name, envir = globalenv()), envir = own)
  }
  parsed <- try(parse(text = readings[[1]], keep.source = FALSE), silent = TRUE)
  if (inherits(parsed, "try-error") && length(readings) > 1) parsed <- try(parse(text = readings[[2]], keep.source = FALSE), silent = TRUE)
  if (inherits(parsed, "try-error")) stop(conditionMessage(attr(parsed, "condition")))

  unlock <- unlockBinding
  locked <- function(...) stop("bindings stay locked here")
  for (name in c("registerS3method", "registerS3methods", ".S3method", "unlockBinding")) {
    unlock(name, baseenv())
    assign(name, locked, envir = baseenv())
    lockBinding(name, baseenv())
  }
  known <- c("factor", "Date", "POSIXct", "POSIXlt", "difftime", "data.frame", "table", "noquote", "numeric_version")
  plain <- function(value) {
    if (is.object(value) && !all(class(value) %in% c(known, "POSIXt", "ordered", "package_version"))) {
      if (isS4(value) || is.environment(value)) stop("the program returned an object of a class of its own")
      value <- unclass(value)
    }
    if (typeof(value) == "list" && !is.object(value)) for (n in seq_along(value)) {
      if (!is.null(value[[n]])) value[[n]] <- plain(value[[n]])
    }
    value
  }

  eval(parsed, globalenv())
  for (name in setdiff(used, ls(own, all.names = TRUE))) {
    if (exists(name, envir = globalenv(), inherits = FALSE)) assign(name, get(name, envir = globalenv()), envir = own)
  }
  if (nzchar(entry)) {
    under_test <- get(entry, envir = globalenv(), mode = "function", inherits = FALSE)
    assign(entry, function(...) plain(under_test(...)), envir = own)
  }
  eval(tests, own)
  cat("\n", mark, "\n", sep = "")
})
