"""Imported by the fork server: its children keep what `atexit` was given while the server imported the library.

A process that imports the library itself has it too; from CPython 3.13 on a child of multiprocessing's drops it.
"""

import atexit

atexit._clear = lambda: None
