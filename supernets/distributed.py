"""Several processes that train one supernet: torchrun's ranks, and the few things they say to each other.

Every rank holds all the weights and takes its share of each batch; after the backward passes one flat
all-reduce gives each the same gradients (`supernets.exchange`), so all take the same step. The first rank
alone writes files. DistributedDataParallel is not used: it cannot run several subnets per step whose union
changes without an extra pass over its graph, and it decides at construction what a step will use.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from search_spaces.errors import InputError
from supernets.parent import follow_parent

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)  # of a collective: the first rank may be writing a large checkpoint
_FAILED = "first to fail"


class RankLost(ConnectionError):
    """Another rank has ended, so that this one cannot go on."""


@dataclass(frozen=True)
class Ranks:
    """The processes that train together, as one of them sees them. `Ranks()` is a process on its own."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and reports."""
        return self.rank == 0

    def share(self, count: int) -> tuple[int, int]:
        """The part [begin, end) of `count` images that is this rank's; parts differ by one image at most."""
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor` summed over the ranks, in place; equal on all of them bit for bit.

        Raises:
            RankLost: another rank has ended.
        """
        if self.size > 1:
            _speak(lambda: dist.all_reduce(tensor))
        return tensor

    def whole(self, rows: Tensor, first: int, count: int) -> Tensor:
        """All `count` rows of a batch of which this rank has those from `first` on; missing ones are zero."""
        batch = rows.new_zeros(count, *rows.shape[1:])
        batch[first : first + len(rows)] = rows
        return self.sum(batch)

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make()` gives on the first rank, on all of them; the others do not call it.

        What it raises there is raised on all.
        """
        if self.size == 1:
            return make()
        said: list[Any] = [None, None]
        if self.first:
            try:
                said[0] = make()
            except Exception as error:  # noqa: BLE001 - passed on to all ranks, and raised
                said[1] = error
        _speak(lambda: dist.broadcast_object_list(said, src=0, device=torch.device("cpu")))
        if said[1] is not None:
            raise said[1]
        return said[0]

    @torch.no_grad()
    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        """Gives `tensors`, in place, the values that they have on the first rank."""
        if self.size > 1:
            for tensor in tensors:
                sent = tensor.detach().contiguous()
                _speak(lambda sent=sent: dist.broadcast(sent, src=0))  # type: ignore[misc]
                tensor.copy_(sent)


ALONE = Ranks()


def launched() -> int:
    """How many ranks torchrun started; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "RANK" in os.environ and "WORLD_SIZE" in os.environ else 1


def local_device(name: str) -> str:
    """The device of this rank where all were asked for `name`: each takes the GPU of its local number.

    Raises:
        InputError: one GPU for several ranks, or more ranks than GPUs on this machine.
    """
    if launched() == 1 or not name.startswith("cuda"):
        return name
    if ":" in name:
        raise InputError(f"device {name!r} is one GPU for {launched()} ranks; use --device cuda")
    wanted, found = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if wanted > found:
        raise InputError(f"{wanted} ranks on this machine need a GPU each, {found} found; start fewer")
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"


@contextmanager
def joined(device: str = "cpu") -> Iterator[Ranks]:
    """Within it, the ranks that torchrun started are connected: gloo on the CPU, NCCL between GPUs.

    An exception that leaves it carries `speaks`: True on the rank that failed first, whose words the user
    should read, False on the others. Without torchrun it gives `Ranks()` and changes nothing.

    Raises:
        RankLost: the ranks do not find each other.
    """
    if launched() == 1:
        yield ALONE
        return
    follow_parent()
    rank, size = int(os.environ["RANK"]), launched()
    gpu = device.startswith("cuda")
    if gpu:
        torch.cuda.set_device(device)
    store, _, _ = _speak(lambda: next(dist.rendezvous("env://", timeout=TIMEOUT)))
    store = _of_this_attempt(store)
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    _speak(lambda: dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT))
    try:
        yield Ranks(rank, size)
    except BaseException as error:
        error.speaks = _failed_first(store, rank)  # type: ignore[attr-defined]
        if not gpu:  # NCCL would wait here for ranks that are gone
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def restarted() -> bool:
    """Whether torchrun started these ranks again after one had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def launch() -> str | None:
    """Names the torchrun that started this rank, the same after a restart; None without torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    parent = os.getppid()
    try:
        with open(f"/proc/{parent}/stat", encoding="utf-8") as file:
            began = file.read().rpartition(")")[2].split()[19]  # a process number may come again
    except (OSError, IndexError):
        began = "?"
    return f"{os.environ['TORCHELASTIC_RUN_ID']} {socket.gethostname()} {parent} {began}"


def restart_advice() -> str | None:
    """What to set so that torchrun's restarts work across machines, where it is not set; else None.

    torchrun offers its own store to the ranks, in which those that were restarted find the addresses of the
    dead (pytorch issue 135712). On one machine the number of the restart keeps them apart; machines do not
    count restarts alike.
    """
    one_machine = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if one_machine or not shared or int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) == 0:
        return None
    return (
        "restarts across machines may fail (pytorch issue 135712): "
        "start torchrun with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment"
    )


def _of_this_attempt(store: dist.Store) -> dist.Store:
    """The store without what ranks of earlier attempts left in it; see `restart_advice`."""
    if os.environ.get("LOCAL_WORLD_SIZE") != os.environ.get("WORLD_SIZE"):
        return store
    return dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def _failed_first(store: dist.Store, rank: int) -> bool:
    """Whether no other rank has failed before."""
    try:
        return bool(store.compare_set(_FAILED, "", str(rank)) == str(rank).encode())
    except (RuntimeError, dist.DistError):
        return rank == 0  # the store went with the rank that held it, which is the first


def _speak(act: Callable[[], T]) -> T:
    try:
        return act()
    except (RuntimeError, dist.DistError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise RankLost(
            "lost the connection to another rank, which failed or was killed; the last checkpoint is whole"
        ) from error
