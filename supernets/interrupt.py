"""SIGINT and SIGTERM as a wish to stop that the training loop grants between two steps."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop and has saved. `folder`, `step` (optimiser steps done) and `signum`."""

    def __init__(self, folder: Path, step: int, signum: int) -> None:
        super().__init__(f"saved at step {step} in {folder}")
        self.folder = folder
        self.step = step
        self.signum = signum


class StopRequest:
    """Which signal asked to stop: None until one does."""

    signum: int | None = None
    at: float = 0.0  # on the monotonic clock


@contextmanager
def stop_on_signal(echo_s: float = 0.0) -> Iterator[StopRequest]:
    """Within it the first SIGINT or SIGTERM is noted, and the second raises KeyboardInterrupt at once.

    One within `echo_s` seconds of the first counts as the same: a launcher hands on to its workers the Ctrl-C
    that the terminal has sent them already.

    Outside the main thread, where handlers cannot be set, it notes nothing. The handlers that were there are
    put back at the end.
    """
    request = StopRequest()

    def note(signum: int, _frame: FrameType | None) -> None:
        if request.signum is None:
            request.signum, request.at = signum, time.monotonic()
        elif time.monotonic() - request.at >= echo_s:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
