"""What a learngene saves: parameters stored once, in place of those of every network made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.space import SearchSpace
from supernets.supernet import Supernet


@dataclass(frozen=True)
class Storage:
    """Parameters of a learngene, and of the networks of some depths that it stands for."""

    learngene: int  # all that is stored: layers, embeddings, norm and head
    networks: Mapping[int, int]  # depth -> parameters of the plain network

    @property
    def total(self) -> int:
        """Parameters of all the networks, stored each on its own."""
        return sum(self.networks.values())

    @property
    def ratio(self) -> float:
        """How many times fewer are stored."""
        return self.total / self.learngene


def storage(learngene: Supernet, networks: Mapping[int, SearchSpace]) -> Storage:
    """What `learngene` stores in place of the largest networks of these spaces, by their depth."""
    return Storage(
        sum(p.numel() for p in learngene.parameters()),
        {depth: _parameters(space) for depth, space in sorted(networks.items())},
    )


def _parameters(space: SearchSpace) -> int:
    return sum(p.numel() for p in space.skeleton(space.largest).parameters())
