"""A worker that does not outlive the launcher which started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from functools import cache

GRACE_S = 30.0  # to save after the launcher's death; torchrun itself waits as long
_PR_SET_PDEATHSIG = 1


@cache
def follow_parent() -> None:
    """From now on the death of the parent process stops this one: SIGTERM at once, and after 30 s for good.

    A killed torchrun leaves its workers running otherwise, with the run folder locked. Linux sends the signal
    by itself; elsewhere, and for a process that hangs in a collective, a thread watches.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=_watch, args=(parent,), name="follow parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    if sys.platform != "linux":
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(128 + signal.SIGTERM)
