"""Several ranks in processes of their own, connected by gloo as torchrun would connect them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import pytest

# Forked from a clean server that has loaded the libraries: each rank costs what it does, not the imports.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["supernets.trainer", "search_spaces.vit", "timm.optim", "timm.scheduler", "torch.distributed"]
)


def together(size: int, act: Callable[..., Any], *arguments: Any, seconds: float = 60.0) -> list[Any]:
    """What `act(ranks, *arguments)` returns on each of `size` connected ranks."""
    results = _run(size, act, arguments, seconds)
    for good, value in results:
        assert good, value
    return [value for _, value in results]


def failing(size: int, act: Callable[..., Any], *arguments: Any, seconds: float = 60.0) -> list[Any]:
    """The exception that leaves each rank: (its class, its text, whether this rank is to say it)."""
    results = _run(size, act, arguments, seconds)
    assert not any(good for good, _ in results)
    return [told[1:] for _, told in results]


def _run(
    size: int, act: Callable[..., Any], arguments: tuple[Any, ...], seconds: float
) -> list[tuple[bool, Any]]:
    _need_gloo()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = []
    for rank in range(size):
        here, there = _context.Pipe()
        process = _context.Process(target=_act, args=(there, rank, size, port, act, arguments))
        process.start()
        there.close()
        running.append((process, here))
    results = []
    try:
        for process, pipe in running:
            assert pipe.poll(seconds), "took too long"
            try:
                results.append(pickle.loads(pipe.recv_bytes()))
            except EOFError:
                results.append((False, ("", "killed", "", None)))
            process.join(seconds)
    finally:
        for process, _ in running:
            process.kill()
    return results


def _act(
    pipe: Connection, rank: int, size: int, port: int, act: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    import torch

    from supernets.distributed import joined

    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)},
        **{"LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }
    torch.set_num_threads(1)
    try:
        with joined() as ranks:
            value = act(ranks, *arguments)
        pipe.send_bytes(pickle.dumps((True, value)))  # by value: this process ends before the other reads
    except BaseException as error:  # told to the test
        told = (traceback.format_exc(), type(error).__name__, str(error), getattr(error, "speaks", None))
        pipe.send_bytes(pickle.dumps((False, told)))


def _need_gloo() -> None:
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("this torch has no gloo, which connects ranks on the CPU")
