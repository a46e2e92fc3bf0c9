"""First values of a supernet from a trained plain network, ours or timm's.

Larger tensors give the part that a subnet of theirs would take (by the space's rules, else the leading
entries), and networks with more layers their first ones, unless the scheme can use all. Nothing is made up:
a smaller tensor or a shallower network is refused. timm's way is followed where the input differs: position
embeddings and patches are resampled, and the colours of the first layer summed or repeated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor

from search_spaces.errors import InputError
from search_spaces.rules import Rule, centre, leading
from supernets.schemes.layered import BLOCKS, LayeredScheme
from supernets.schemes.sharing import Shape
from supernets.supernet import Supernet

HEADS = ("head.", "classifier.", "fc.")  # what the tensors that depend on the classes are called
POSITIONS, TOKEN, PATCHES = "pos_embed", "cls_token", "patch_embed.proj.weight"


@dataclass(frozen=True)
class Initialised:
    """What became of a trained network's tensors."""

    tensors: int  # taken
    fresh: tuple[str, ...]  # names that keep their fresh values: the head, where classes differ
    changes: tuple[str, ...]  # what had to be made to fit, in words

    def __str__(self) -> str:
        fresh = f"; fresh: {', '.join(self.fresh)}" if self.fresh else ""
        return "; ".join((f"{self.tensors} tensors", *self.changes)) + fresh


def initialise(supernet: Supernet, plain: Mapping[str, Tensor], *, same_classes: bool) -> Initialised:
    """Gives the shared weights of `supernet` the values of a trained network's `state_dict`.

    With other classes (`same_classes` false) the head stays fresh: class-incremental reuse. What the scheme
    has of its own, such as kernel transforms, stays as it is.

    Raises:
        InputError: a tensor that is missing, smaller than the shared one or not known; nothing has changed.
    """
    wanted = _wanted(supernet, plain)
    heads = {name for name in wanted if name.startswith(HEADS)}
    fresh = () if same_classes else tuple(sorted(heads))
    changes: list[str] = []
    state: dict[str, Tensor] = {}
    given = dict(plain) if same_classes else {n: t for n, t in plain.items() if not n.startswith(HEADS)}
    if TOKEN in given and TOKEN not in wanted and POSITIONS in given:
        given[POSITIONS] = given[POSITIONS][:, 1:]
        del given[TOKEN]
        changes.append("without the class token")
    missing = [name for name in wanted if name not in given and name not in fresh]
    spare = [name for name in given if name not in wanted]
    beyond = [name for name in spare if _layer(name) is not None and _first(name) in wanted]
    unknown = [name for name in spare if name not in beyond]
    if missing or unknown:
        raise InputError(_mismatch(supernet, plain, missing, unknown))
    if beyond:
        deepest = 1 + max(number for name in wanted if (number := _layer(name)) is not None)
        changes.append(f"the first {deepest} of {1 + max(_layer(name) or 0 for name in beyond)} layers")
    for name, shape in wanted.items():
        if name in fresh:
            state[name] = supernet.shared_state()[name].detach()
        else:
            state[name] = _fitted(supernet, name, given[name], shape, TOKEN in wanted, changes)
    supernet.load_shared_state(supernet.scheme.fit(state))
    return Initialised(len(state) - len(fresh), fresh, tuple(dict.fromkeys(changes)))


def same_network(supernet: Supernet, stored: Mapping[str, Tensor]) -> bool:
    """Whether `stored` is the shared state of a supernet like this one, but perhaps for the classes."""
    mine = supernet.shared_state()
    return mine.keys() == stored.keys() and all(
        name.startswith(HEADS) or mine[name].shape == tensor.shape for name, tensor in stored.items()
    )


def take_over(supernet: Supernet, stored: Mapping[str, Tensor], *, same_classes: bool) -> Initialised:
    """Gives `supernet` the shared weights of another one that `same_network` holds alike."""
    mine = supernet.shared_state()
    fresh = () if same_classes else tuple(sorted(name for name in mine if name.startswith(HEADS)))
    supernet.load_shared_state({**stored, **{name: mine[name].detach() for name in fresh}})
    return Initialised(len(stored) - len(fresh), fresh, ())


def _wanted(supernet: Supernet, plain: Mapping[str, Tensor]) -> dict[str, Shape]:
    """The largest shape of each plain tensor; of all the network's layers where the scheme fits to them."""
    wanted = supernet.largest_shapes()
    scheme = supernet.scheme
    if not isinstance(scheme, LayeredScheme):
        return wanted
    others = {name: shape for name, shape in wanted.items() if scheme.part(name) is None}
    layer = {name: shape for name, shape in wanted.items() if (p := scheme.part(name)) and p.layer == 0}
    count = 1 + max((part.layer for name in plain if (part := scheme.part(name))), default=0)
    parts = [(scheme.part(name), shape) for name, shape in layer.items()]
    return others | {part.within(i): shape for i in range(count) for part, shape in parts if part}


def _fitted(
    supernet: Supernet, name: str, tensor: Tensor, shape: Shape, token: bool, changes: list[str]
) -> Tensor:
    """The values of `tensor` in the wanted shape."""
    before = tuple(tensor.shape)
    if before == shape:
        return tensor.detach()
    if name == POSITIONS and len(before) == len(shape) == 3:
        tensor = _positions(tensor, shape[1], int(token), changes)
    elif name == PATCHES and len(before) == len(shape) == 4:
        tensor = _patches(tensor, shape, changes)
    if tensor.dim() != len(shape) or any(has < wants for has, wants in zip(tensor.shape, shape)):
        raise InputError(
            f"{name} is {list(before)} in the network to start from and {list(shape)} in "
            f"{supernet.space.name!r}: a larger one cannot come from it; choose a space of at most its sizes"
        )
    if tuple(tensor.shape) != shape:
        changes.append(f"widths cut, as {name} from {list(tensor.shape)} to {list(shape)}")
        tensor = _rule(supernet, name, shape)(tensor, shape)
    return tensor.detach()


def _positions(tensor: Tensor, tokens: int, prefix: int, changes: list[str]) -> Tensor:
    """Position embeddings [1, N, D] on another grid."""
    old, new = (math.isqrt(n - prefix) for n in (tensor.shape[1], tokens))
    if old == new:
        return tensor
    if old**2 != tensor.shape[1] - prefix or new**2 != tokens - prefix:
        raise InputError(
            f"{POSITIONS} has {tensor.shape[1]} positions, which with {prefix} token make no square"
        )
    from timm.layers import resample_abs_pos_embed

    changes.append(f"positions resampled from {old} x {old} to {new} x {new}")
    return resample_abs_pos_embed(tensor, [new, new], [old, old], num_prefix_tokens=prefix)


def _patches(tensor: Tensor, shape: Shape, changes: list[str]) -> Tensor:
    """The patch embedding [D, C, P, P] for other channels and another size of patch."""
    if (has := tensor.shape[1]) != shape[1]:
        if has == 1:  # a grey picture in any colours gives what it gave
            tensor = tensor.expand(-1, shape[1], -1, -1) / shape[1]
        elif has == 3:
            from timm.models import adapt_input_conv

            tensor = adapt_input_conv(shape[1], tensor)
        else:
            raise InputError(
                f"{PATCHES} reads {has} channels, the images have {shape[1]}; only 1 and 3 fit others"
            )
        changes.append(f"colours of {PATCHES} from {has} to {shape[1]}")
    if tensor.shape[2:] != shape[2:]:
        from timm.layers import resample_patch_embed

        changes.append(f"patches resampled from {tensor.shape[-1]} to {shape[-1]} pixels")
        tensor = resample_patch_embed(tensor, list(shape[2:]))
    return tensor


def _rule(supernet: Supernet, name: str, shape: Shape) -> Rule:
    default: Rule = centre if len(shape) > 2 else leading
    rules = supernet.space.rules.items()
    return next((rule for pattern, rule in rules if fnmatchcase(name, pattern)), default)


_LAYER = re.compile(re.escape(BLOCKS.partition("{}")[0]) + r"([0-9]+)\.")


def _layer(name: str) -> int | None:
    match = _LAYER.match(name)
    return int(match[1]) if match else None


def _first(name: str) -> str:
    return _LAYER.sub(BLOCKS.partition("{}")[0] + "0.", name, count=1)


def _mismatch(supernet: Supernet, plain: Mapping[str, Tensor], missing: list[str], unknown: list[str]) -> str:
    layers = {number for name in plain if (number := _layer(name)) is not None}
    lacking = [number for name in missing if (number := _layer(name)) is not None and number not in layers]
    if layers and lacking and not unknown:
        return (
            f"the network to start from has {len(layers)} layers, {supernet.space.name!r} up to "
            f"{max(lacking) + 1}; choose a space of at most its depth"
        )
    return (
        f"the network to start from does not fit {supernet.space.name!r}: {len(missing)} tensors missing "
        f"({', '.join(missing[:3])}), {len(unknown)} unknown ({', '.join(unknown[:3])})"
    )
