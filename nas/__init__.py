"""Train one set of shared weights, then find, for any hardware, the sub-network that is worth deploying.

    model = nas.load_subnet("runs/digits/model.safetensors")
    study = nas.load_study("runs/digits")

The names load on first use, so that `import nas` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.study import load_study
    from nas.subnet_file import load_subnet

__all__ = ["load_study", "load_subnet"]

_HOMES = {"load_study": "nas.study", "load_subnet": "nas.subnet_file"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'nas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
