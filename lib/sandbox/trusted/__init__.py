"""Processes and code that decide verdicts; they never run a program."""
