"""Are the packages that Python would import ours? `kernels` is a name on the public index too."""

from __future__ import annotations

from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("nas", "search_spaces", "supernets", "predictors", "kernels")


def check_packages() -> None:
    """Nothing, when our packages are the ones that Python finds.

    Raises:
        ImportError: one is missing, is somebody else's, or was written over by somebody else's.
    """
    home = _home("nas")
    for package in PACKAGES:
        found = _home(package)
        if found is None:
            raise ImportError(f"the package {package!r} of this program is not installed; install it again")
        if found != home:
            raise ImportError(
                f"{package!r} resolves to {found / package}, which is not part of this program (in {home}); "
                f"pip uninstall {package}, or use a virtual environment of its own"
            )
    for package in PACKAGES[1:]:
        foreign = next(iter(distributions(name=package, path=[str(home)])), None)
        if foreign is not None:
            raise ImportError(
                f"a foreign package {package!r} {foreign.version} is installed over the one of this program "
                f"in {home}; pip uninstall {package} and install this program again, or use a virtual "
                "environment of its own"
            )


def _home(package: str) -> Path | None:
    """The folder that holds the package which an import would give."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))).resolve().parent
