"""Runs, as `sitecustomize`, when a Python program starts: hides the variable that led here, keeps stacks of threads
small.

A thread would reserve as much stack as the main thread may use, so that two of them fill the memory limit.
"""

import _thread
import os

os.environ.pop("PYTHONPATH", None)
_thread.stack_size(8 << 20)
