"""Vision transformers of a few thousand parameters, and supernets of them, for the tests of learngenes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from drawn import randomise
from torch import Tensor, nn

from search_spaces import SearchSpace, vit
from supernets import Supernet
from supernets.schemes import LayeredScheme

DIM = 16
MLP_RATIO = 4
BLOCK = 12 * DIM**2 + 13 * DIM
"""Parameters of a block with an MLP four times as wide: the formula of both papers."""


def depths(*wanted: int, **settings: object) -> SearchSpace:
    """Transformers of these depths that are alike in everything else."""
    return vit.space(
        **{
            "image_size": 8,
            "patch": 4,
            "channels": 1,
            "classes": 3,
            "depths": wanted,
            "embed_dims": (DIM,),
            "heads": (2,),
            "head_dim": DIM // 2,
            "mlp_ratios": (float(MLP_RATIO),),
            "pool": "mean",
            **settings,
        }
    )


def learngene(scheme: LayeredScheme, *wanted: int, **settings: object) -> Supernet:
    """A supernet of those depths, with weights that are not at their first values."""
    return randomise(Supernet(depths(*wanted, **settings), scheme, seed=1)).eval()


def of_depth(supernet: Supernet, depth: int, scheme: LayeredScheme) -> nn.Module:
    """The descendant of a depth that the supernet's own space may lack."""
    other = Supernet(depths(depth), scheme)
    other.load_shared_state(supernet.shared_state())
    return other.extract(other.space.largest)


def layers(module: nn.Module, leaf: str = "attn.qkv.weight") -> list[Tensor]:
    """One tensor of each block, in order."""
    path, _, name = leaf.rpartition(".")
    return [getattr(block.get_submodule(path), name) for block in module.blocks]  # type: ignore[union-attr]


LEAVES: Sequence[str] = [
    f"{module}.{kind}"
    for module in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    for kind in ("weight", "bias")
]


def pictures(n: int = 3, seed: int = 0) -> Tensor:
    """Inputs of the networks above."""
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def count(module: nn.Module) -> int:
    """Learnable numbers."""
    return sum(p.numel() for p in module.parameters())
