"""Structure without values: fast copies of modules that live on the meta device."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

P = ParamSpec("P")
M = TypeVar("M", bound=nn.Module)


def clone_skeleton(module: M) -> M:
    """A module of the same structure whose registries are its own, so that its tensors can be replaced.

    Some thirty times faster than `copy.deepcopy`. Plain attributes are shared; a module that keeps other
    modules or tensors in plain attributes (lists, dicts) is deep-copied, since those would go stale.
    """
    if any(_keeps_references(m) for m in module.modules()):
        return copy.deepcopy(module)
    return _clone(module, {})


def _clone(module: Any, done: dict[int, Any]) -> Any:
    if id(module) in done:
        return done[id(module)]
    twin = module.__new__(type(module))
    done[id(module)] = twin
    # PyTorch keeps registries and hooks in dictionaries with leading underscores: each twin needs its own.
    state = {k: v.copy() if k[0] == "_" and isinstance(v, (dict, set)) else v for k, v in module.__dict__.items()}
    for registry in ("_parameters", "_buffers"):
        state[registry] = {k: None if t is None else _twin(t, done) for k, t in state[registry].items()}
    state["_modules"] = {k: None if m is None else _clone(m, done) for k, m in module._modules.items()}
    twin.__dict__.update(state)
    return twin



def _twin(tensor: Tensor, done: dict[int, Any]) -> Any:
    """A tensor object of its own: two blocks made from one are not tied."""
    if id(tensor) not in done:
        fresh = tensor.detach()
        done[id(tensor)] = nn.Parameter(fresh, requires_grad=False) if isinstance(tensor, nn.Parameter) else fresh
    return done[id(tensor)]


def _keeps_references(module: nn.Module) -> bool:
    for name, value in module.__dict__.items():
        if name in ("_parameters", "_buffers", "_modules"):
            continue
        if isinstance(value, (nn.Module, Tensor)):
            return True
        if isinstance(value, (list, tuple)) and any(isinstance(v, (nn.Module, Tensor)) for v in value):
            return True
        if isinstance(value, dict) and value and any(isinstance(v, (nn.Module, Tensor)) for v in value.values()):
            return True
    return False


def remembered(make: Callable[P, M]) -> Callable[P, M]:
    """A constructor of blocks whose meta-device results are remembered by their arguments.

    Building a network of a fresh arch then costs a copy per block instead of a construction. On a real
    device it constructs as always, with fresh initial values.
    """
    made: dict[Any, M] = {}

    @wraps(make)
    def construct(*args: P.args, **kwargs: P.kwargs) -> M:
        if torch.get_default_device().type != "meta":
            return make(*args, **kwargs)
        key = (args, tuple(kwargs.items()))
        if key not in made:
            made[key] = make(*args, **kwargs).requires_grad_(False)
        return clone_skeleton(made[key])

    return construct
