# a program asks the kernel not to end it with its launcher any more: refused
PROGRAM = """
import ctypes, os
print(ctypes.CDLL(None).prctl(1, 0, 0, 0, 0))
"""
CASES = [("", "-1\n")]
EXPECT = "pass"
