"""The next batches, made in another thread while this one trains."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The items in their order, up to `depth` of them made before they are asked for.

    What making one raises is raised here, in its place. The thread ends when the iterator is closed or
    forgotten. `items` must not use what the calling thread changes, such as the global random generators.
    """
    ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
    closed = threading.Event()

    def make() -> None:
        try:
            for item in items:
                if not _put((True, item)):
                    return
            _put((False, None))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that asks
            _put((False, error))

    def _put(made: tuple[bool, T | BaseException | None]) -> bool:
        while not closed.is_set():
            try:
                ready.put(made, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    threading.Thread(target=make, name="batches", daemon=True).start()
    try:
        while True:
            more, item = ready.get()
            if isinstance(item, BaseException) and not more:
                raise item
            if not more:
                return
            yield item  # type: ignore[misc]
    finally:
        closed.set()
