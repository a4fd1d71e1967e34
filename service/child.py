"""Child processes that cannot outlive us, however we end."""

import os
import sys
from collections.abc import Sequence

# The kernel signal is per thread that forked and survives exec; doing it in a fresh interpreter
# instead of a preexec function keeps the fork safe beside threads.
_LAUNCHER = """
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit("parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def dying_with_us(command: Sequence[str]) -> list[str]:
    """Give the command that runs `command` in its place, killed by the kernel when we die."""
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
