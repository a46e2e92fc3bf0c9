"""Channels that several tensors have in common, so that they can change places together.

A space declares them beside its rules. Whoever permutes the channels of a group in all of its tensors alike
leaves every network that has all of them as it was, up to the order of float sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ChannelGroup:
    """One set of channels.

    read_by: the tensor whose weights read the channels, the measure of what each is worth.
    tensors: every tensor that has these channels, `read_by` among them, with the axis on which they lie.
    choices: names of the choices that decide how many there are.
    """

    read_by: str
    tensors: Mapping[str, int]
    choices: tuple[str, ...]

    def __post_init__(self) -> None:
        assert self.read_by in self.tensors


def batch_norm(path: str) -> dict[str, int]:
    """The tensors of the batch normalisation at `path`, as entries of `ChannelGroup.tensors`."""
    return {f"{path}.{leaf}": 0 for leaf in ("weight", "bias", "running_mean", "running_var")}


def inverted_residual(path: str, squeeze_excite: bool, choices: tuple[str, ...]) -> list[ChannelGroup]:
    """The expanded channels of timm's `InvertedResidual` at `path`, and the squeezed ones."""
    expanded = {
        f"{path}.conv_pw.weight": 0,
        **batch_norm(f"{path}.bn1"),
        f"{path}.conv_dw.weight": 0,
        **batch_norm(f"{path}.bn2"),
        f"{path}.conv_pwl.weight": 1,
    }
    if not squeeze_excite:
        return [ChannelGroup(f"{path}.conv_pwl.weight", expanded, choices)]
    reduce, expand = f"{path}.se.conv_reduce", f"{path}.se.conv_expand"
    expanded |= {f"{reduce}.weight": 1, f"{expand}.weight": 0, f"{expand}.bias": 0}
    squeezed = {f"{reduce}.weight": 0, f"{reduce}.bias": 0, f"{expand}.weight": 1}
    return [
        ChannelGroup(f"{path}.conv_pwl.weight", expanded, choices),
        ChannelGroup(f"{expand}.weight", squeezed, choices),
    ]
