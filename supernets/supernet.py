"""A supernet: one set of shared tensors, and any subnet as a plain module over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor, nn

from search_spaces import Arch, InputError, Option, SearchSpace, SpaceError
from search_spaces.skeleton import Skeleton
from search_spaces.space import RESOLUTION
from supernets.schemes import Scheme, Slice
from supernets.schemes.sharing import Shape
from supernets.tensors import TensorTree

_LEVELS = 8  # covering archs step through at most this many options of a choice
_SKELETONS = 128  # archs whose skeletons are remembered
_DRAWS = 1024  # archs of which it is remembered that they were drawn


class _Slot(NamedTuple):
    """Where one tensor of a subnet goes."""

    module: int  # position in `modules()`
    leaf: str
    name: str  # dotted name in the plain network; of the first holder where a tensor is tied
    shape: Shape
    is_parameter: bool


@dataclass(frozen=True)
class _Plan:
    """What goes into the skeleton of an arch."""

    slots: tuple[_Slot, ...]
    constants: Mapping[tuple[int, str], Tensor]  # buffers that the constructor computes and nobody learns


class Supernet(nn.Module):
    """Shared weights for every arch of a space.

    `subnet(arch)` is a plain module over views of the shared tensors, `extract(arch)` the same module with
    tensors of its own; in eval mode both give equal outputs bit for bit. Nothing is activated or remembered:
    two subnets can be alive at once, and threads may draw and run different ones together.

    Args:
        space: what can be built.
        scheme: how tensors are shared; default `Slice`.
        seed: of the initial values. The global random state is left alone.

    Source: weight sharing, Cai et al. 2020, arXiv:1908.09791; Chen et al. 2021, arXiv:2107.00651.
    """

    def __init__(self, space: SearchSpace, scheme: Scheme | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.space = space
        self.scheme = scheme or Slice()
        self.shared = TensorTree()
        self._again = lru_cache(maxsize=_SKELETONS)(self._remember)
        self._draws = lru_cache(maxsize=_DRAWS)(lambda _: count())
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed CUDA's for good
            self._allocate()

    def extra_repr(self) -> str:
        """What `print` shows of it."""
        return f"{self.space!r}, {sum(p.numel() for p in self.parameters()):,} parameters"

    def subnet(self, arch: Arch) -> nn.Module:
        """The subnet `arch`: a plain module whose tensors are views of the shared weights.

        Gradients flow into the shared weights, and BatchNorm in train mode updates the shared running
        statistics. Draw it anew after an optimizer step: a scheme may compute a tensor rather than view it.
        Input [B, *space.input_shape(arch)].

        Raises:
            SpaceError: `arch` is not a point of this supernet's space.
        """
        return self._assemble(arch, own=False)

    def extract(self, arch: Arch) -> nn.Module:
        """The subnet `arch` as a module with its own parameters and buffers, in eval mode.

        Raises:
            SpaceError: `arch` is not a point of this supernet's space.
        """
        with torch.no_grad():
            return self._assemble(arch, own=True).eval()

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        """`subnet(arch)(x)`."""
        return self.subnet(arch)(x)

    def touched(self, archs: Iterable[Arch]) -> dict[str, Tensor | None]:
        """Which entries of this module's parameters the archs read, by name as in `named_parameters`.

        A boolean mask of the parameter's shape, or None for all of it; parameters that no arch reads are
        absent.
        """
        masks: dict[str, Tensor | None] = {
            name: torch.zeros(p.shape, dtype=torch.bool, device=p.device)
            for name, p in self.named_parameters()
        }
        view = _MaskView(masks)
        for arch in archs:
            for slot in self._build(arch)[1].slots:
                if slot.is_parameter:
                    self.scheme.touch(slot.name, slot.shape, view, arch)
        return {name: mask for name, mask in masks.items() if mask is None or bool(mask.any())}

    def largest_shapes(self) -> dict[str, Shape]:
        """The largest shape of each tensor of the plain networks; a tied one is under its first name."""
        return {name: tuple(map(max, zip(*seen, strict=True))) for name, seen in self._shapes.items()}

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay shall leave alone, as timm's optimisers ask for them."""
        return {f"shared.{name}" for name in self.scheme.undecayed()}

    def shared_state(self) -> dict[str, Tensor]:
        """All tensors by name: the shared ones as in the plain network, the scheme's own under "scheme."."""
        state = dict(self.shared)
        return state | {
            f"scheme.{name}": tensor for name, tensor in self.scheme.state_dict(keep_vars=True).items()
        }

    def load_shared_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes the values of all tensors, in place; also from a plain network's `state_dict`.

        A plain network's state may lack the scheme's own tensors, which then stay as they are, and may name a
        tied tensor more than once.

        Raises:
            InputError: names or shapes that differ, or a tied tensor with two values.
        """
        mine = self.shared_state()
        for name, first in self._tied.items():
            if name in state and first in state and not torch.equal(state[name], state[first]):
                raise InputError(
                    f"the weights do not fit {self.space.name!r}: {name} and {first} are one tensor there, "
                    "but have two values here"
                )
        state = {name: value for name, value in state.items() if name not in self._tied}
        missing = [n for n in mine if n not in state and not n.startswith("scheme.")]
        unknown = [n for n in state if n not in mine]
        if missing or unknown:
            raise InputError(
                f"the weights do not fit {self.space.name!r}: {len(missing)} missing "
                f"({', '.join(missing[:3])}), {len(unknown)} unknown ({', '.join(unknown[:3])})"
            )
        for name, value in state.items():
            if mine[name].shape != value.shape:
                raise InputError(
                    f"the weights do not fit {self.space.name!r}: {name} is {list(value.shape)}, "
                    f"not {list(mine[name].shape)}"
                )
        with torch.no_grad():
            for name, value in state.items():
                mine[name].copy_(value)

    # -- assembling ----------------------------------------------------------------------------------------

    def _assemble(self, arch: Arch, *, own: bool) -> nn.Module:
        modules, plan = self._draw(arch)
        taken: dict[str, Tensor] = {}
        for slot in plan.slots:
            tensor = taken.get(slot.name)
            if tensor is None:
                tensor = self.scheme.take(slot.name, slot.shape, self.shared, arch)
                if own:
                    tensor = tensor.detach().clone(memory_format=torch.contiguous_format)
                    if slot.is_parameter:
                        tensor = nn.Parameter(tensor, requires_grad=slot.name not in self._frozen)
                taken[slot.name] = tensor
            home = modules[slot.module]
            registry = home._parameters if slot.is_parameter else home._buffers
            registry[slot.leaf] = tensor  # type: ignore[assignment]
        for (position, leaf), tensor in plan.constants.items():
            modules[position]._buffers[leaf] = (
                tensor.to(self._device()).clone() if own else tensor.to(self._device())
            )
        if any(module.training != self.training for module in modules):
            modules[0].train(self.training)
        return modules[0]

    def _device(self) -> torch.device:
        return self.shared[next(iter(self.shared))].device

    def _draw(self, arch: Arch) -> tuple[list[nn.Module], _Plan]:
        """The modules, root first, of a skeleton that nobody else holds.

        Few archs are drawn twice (the largest, the smallest, the chosen one), and taking a skeleton apart to
        copy it later costs more than building it.
        """
        if next(self._draws(arch)) == 0:
            return self._build(arch)
        skeleton, plan = self._again(arch)
        return list(skeleton.copy().modules()), plan

    def _remember(self, arch: Arch) -> tuple[Skeleton[nn.Module], _Plan]:
        modules, plan = self._build(arch)
        return Skeleton(modules[0]), plan

    def _build(self, arch: Arch) -> tuple[list[nn.Module], _Plan]:
        checked = self.space.arch(arch)
        modules = dict(self.space.skeleton(checked).named_modules())
        slots, constants = _slots(modules)
        for slot in slots:
            if slot.name not in self._shapes:
                raise SpaceError(
                    f"weight {slot.name!r} of {arch!r} is in none of the covering archs of its space"
                )
        values: dict[tuple[int, str], Tensor] = {}
        if constants:
            with torch.random.fork_rng(devices=[]):
                real = list(self.space.build(checked).modules())
            values = {(i, leaf): real[i]._buffers[leaf] for i, leaf in constants}  # type: ignore[misc]
        return list(modules.values()), _Plan(slots, values)

    # -- allocation ----------------------------------------------------------------------------------------

    def _allocate(self) -> None:
        """Shared tensors: each name at the largest shape over the covering archs, values from real builds."""
        shapes: dict[str, set[Shape]] = {}
        learnable: dict[str, bool] = {}
        for arch in _covering(self.space):
            for slot in _slots(dict(self.space.skeleton(arch).named_modules()))[0]:
                shapes.setdefault(slot.name, set()).add(slot.shape)
                learnable[slot.name] = slot.is_parameter
        self._shapes = shapes
        for name, seen in shapes.items():
            if len({len(shape) for shape in seen}) > 1:
                raise SpaceError(
                    f"weight {name!r} of {self.space.name!r} is {' or '.join(map(str, sorted(seen)))}: "
                    "tensors of different ranks cannot be shared; give them different names"
                )
        largest = self.largest_shapes()
        plain: dict[str, Tensor] = {}
        self._tied: dict[str, str] = {}  # further names of a tensor, and its first
        for arch in _covering(self.space):
            state = self.space.build(arch).state_dict(keep_vars=True)
            first: dict[int, str] = {}
            for name, value in state.items():
                if first.setdefault(id(value), name) != name:
                    self._tied[name] = first[id(value)]
                elif name in largest and name not in plain and tuple(value.shape) == largest[name]:
                    plain[name] = value
            if len(plain) == len(largest):
                break
        short = [name for name in largest if name not in plain]
        if short:
            raise SpaceError(
                f"no covering arch of {self.space.name!r} has weight {short[0]!r} at its largest shape "
                f"{list(largest[short[0]])}; order each choice's options from smallest to largest"
            )
        self._frozen = {n for n, t in plain.items() if learnable[n] and not t.requires_grad}
        self.scheme.bind(self.space, shapes)
        for name, value in self.scheme.stored(plain).items():
            tensor = value.detach().clone()
            if learnable.get(name, True):
                tensor = nn.Parameter(tensor, requires_grad=name not in self._frozen)
            self.shared.put(name, tensor)


class _MaskView(dict[str, "Tensor | None"]):
    """Masks by the scheme's names ("blocks.0.weight"), kept by the supernet's ("shared.blocks.0.weight")."""

    def __init__(self, masks: dict[str, Tensor | None]) -> None:
        super().__init__()
        self._masks = masks

    @staticmethod
    def _full(name: str) -> str:
        return name if name.startswith("scheme.") else f"shared.{name}"

    def __getitem__(self, name: str) -> Tensor | None:
        return self._masks[self._full(name)]

    def __setitem__(self, name: str, mask: Tensor | None) -> None:
        self._masks[self._full(name)] = mask


def _covering(space: SearchSpace) -> Iterator[Arch]:
    """A few archs that between them show every tensor at its largest, and its smaller shapes.

    The largest; then all choices that others depend on at their last option and the rest at their first,
    second, ... option; then each option of choices that are not numbers.
    """
    yield space.largest
    parents = {name for choice in space.choices for name in choice.when}
    free = [c for c in space.choices if c.name not in parents and c.name != RESOLUTION]
    last = {c.name: c.options[-1] for c in space.choices}
    for level in range(min(max((len(c.options) for c in free), default=0), _LEVELS)):
        yield _fitting(space, {c.name: c.options[min(level, len(c.options) - 1)] for c in free})
    for choice in space.choices:
        if not choice.ordinal:
            for option in choice.options[:-1]:
                yield _fitting(space, {**last, choice.name: option})


def _fitting(space: SearchSpace, wanted: Mapping[str, Option]) -> Arch:
    """The arch with the wanted options and every other choice at its last one."""
    kept: dict[str, Option] = {}
    for choice in space.choices:
        if all(p in kept and kept[p] in allowed for p, allowed in choice.when.items()):
            kept[choice.name] = wanted.get(choice.name, choice.options[-1])
    return space.arch(kept)


def _slots(modules: Mapping[str, nn.Module]) -> tuple[tuple[_Slot, ...], list[tuple[int, str]]]:
    """The tensors of a network's named modules in order, and the buffers that its constructor computes."""
    slots: list[_Slot] = []
    constants: list[tuple[int, str]] = []
    first: dict[int, str] = {}
    for position, (path, child) in enumerate(modules.items()):
        prefix = f"{path}." if path else ""
        for leaf, parameter in child._parameters.items():
            if parameter is not None:
                name = first.setdefault(id(parameter), prefix + leaf)
                slots.append(_Slot(position, leaf, name, tuple(parameter.shape), True))
        for leaf, buffer in child._buffers.items():
            if buffer is None:
                continue
            if leaf in child._non_persistent_buffers_set:
                constants.append((position, leaf))
            else:
                name = first.setdefault(id(buffer), prefix + leaf)
                slots.append(_Slot(position, leaf, name, tuple(buffer.shape), False))
    return tuple(slots), constants
