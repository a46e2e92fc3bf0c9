"""What can be built: choices, archs, encoders, cost counting, and the spaces themselves."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search_spaces.arch import Arch, Option
    from search_spaces.choice import Choice
    from search_spaces.cost import Costs
    from search_spaces.errors import InputError, SpaceError, VerificationError, did_you_mean
    from search_spaces.rules import centre, heads, index_set, leading
    from search_spaces.space import Population, SearchSpace
    from search_spaces.trace import Layer

_HOMES = {
    "arch": ("Arch", "Option"),
    "choice": ("Choice",),
    "cost": ("Costs",),
    "errors": ("InputError", "SpaceError", "VerificationError", "did_you_mean"),
    "rules": ("centre", "heads", "index_set", "leading"),
    "space": ("Population", "SearchSpace"),
    "trace": ("Layer",),
}
_MODULE = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Arch",
    "Choice",
    "Costs",
    "InputError",
    "Layer",
    "Option",
    "Population",
    "SearchSpace",
    "SpaceError",
    "VerificationError",
    "centre",
    "did_you_mean",
    "heads",
    "index_set",
    "leading",
]


def __getattr__(name: str) -> Any:
    """Loads on first use: the command line needs `errors` long before it needs torch."""
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)
