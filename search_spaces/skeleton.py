"""Structure without values: fast copies of modules that live on the meta device."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial, wraps
from types import BuiltinFunctionType, FunctionType
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

P = ParamSpec("P")
M = TypeVar("M", bound=nn.Module)


class Skeleton(Generic[M]):
    """A module whose structure can be copied some fifty times faster than by `copy.deepcopy`.

    A copy has registries, collections and tensor objects of its own, so that its tensors can be replaced;
    numbers, names, functions and the like are shared. A module with hooks, or with anything else in an
    attribute, is deep-copied, since what refers to another module would go stale. Safe to share between
    threads.
    """

    def __init__(self, module: M) -> None:
        self._module = module
        self._parts: list[_Part] = []
        self._tensors: list[Tensor] = []
        if all(_is_simple(m) for m in module.modules()):
            self._take_apart()

    def copy(self) -> M:
        """A module of the same structure."""
        if not self._parts:
            return copy.deepcopy(self._module)
        with torch._C.DisableTorchFunction():  # the mode of the meta device looks at every call
            tensors = [_twin(tensor) for tensor in self._tensors]
        modules: list[Any] = [part.kind.__new__(part.kind) for part in self._parts]
        for module, part in zip(modules, self._parts):
            state = module.__dict__
            state.update(part.state)
            for name, kind in part.empty:
                state[name] = kind()
            for name, value in part.filled:
                state[name] = value.copy()
            for registry, leaf, i in part.tensors:
                state[registry][leaf] = tensors[i]
            for name, i in part.children:
                state["_modules"][name] = modules[i]
        return modules[0]

    def _take_apart(self) -> None:
        modules = list(self._module.modules())
        at = {id(module): i for i, module in enumerate(modules)}
        tensor_at: dict[int, int] = {}
        for module in modules:
            own = {name: v for name, v in module.__dict__.items() if type(v) in _COLLECTIONS}
            tensors = []
            for registry in ("_parameters", "_buffers"):
                for leaf, tensor in own[registry].items():
                    if tensor is not None:
                        if id(tensor) not in tensor_at:
                            tensor_at[id(tensor)] = len(self._tensors)
                            self._tensors.append(tensor)
                        tensors.append((registry, leaf, tensor_at[id(tensor)]))
            self._parts.append(
                _Part(
                    type(module),
                    dict(module.__dict__),
                    tuple((name, type(v)) for name, v in own.items() if not v),
                    tuple((name, v) for name, v in own.items() if v),
                    tuple(tensors),
                    tuple((name, at[id(m)]) for name, m in module._modules.items() if m is not None),
                )
            )


@dataclass(frozen=True, slots=True)
class _Part:
    """How to make one module of a copy; tensors and modules by their positions."""

    kind: type[nn.Module]
    state: Mapping[str, Any]  # all attributes; collections among them are replaced
    empty: tuple[tuple[str, type], ...]
    filled: tuple[tuple[str, Any], ...]
    tensors: tuple[tuple[str, str, int], ...]  # registry, name in it, which
    children: tuple[tuple[str, int], ...]


def _twin(tensor: Tensor) -> Tensor:
    """A tensor object of its own: two blocks made from one are not tied."""
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(tensor, requires_grad=False)
    return tensor.detach()


_PLAIN = (bool, int, float, str, type(None), type, Enum, BuiltinFunctionType)
_TORCH_PLAIN = (torch.dtype, torch.device, torch.Size, torch.memory_format)
_COLLECTIONS = (dict, OrderedDict, set, list)
_REGISTRIES = ("_parameters", "_buffers", "_modules")


def _is_simple(module: nn.Module) -> bool:
    """Whether the attributes refer to no module or tensor other than through the registries."""
    return all(
        name in _REGISTRIES or (not value if name.endswith("_hooks") else _is_plain(value))
        for name, value in module.__dict__.items()
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    if isinstance(value, partial):
        return _is_plain(value.func) and _is_plain(value.args) and _is_plain(value.keywords)
    if isinstance(value, FunctionType):
        return value.__closure__ is None
    return isinstance(value, _PLAIN + _TORCH_PLAIN)


def remembered(make: Callable[P, M]) -> Callable[P, M]:
    """A constructor of blocks whose meta-device results are remembered by their arguments.

    Building a network of a fresh arch then costs a copy per block instead of a construction. On a real
    device it constructs as always, with fresh initial values.
    """
    made: dict[Any, Skeleton[M]] = {}

    @wraps(make)
    def construct(*args: P.args, **kwargs: P.kwargs) -> M:
        if torch.get_default_device().type != "meta":
            return make(*args, **kwargs)
        key = (args, tuple(kwargs.items()))
        if key not in made:
            made[key] = Skeleton(make(*args, **kwargs).requires_grad_(False))
        return made[key].copy()

    return construct
