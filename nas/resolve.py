"""A name finds its file: `vit` is search_spaces/vit.py, `package.module:attribute` is anybody's own.

There is no registry. A file of the right folder that defines the attribute of its kind is one more name.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin

from search_spaces.errors import InputError, did_you_mean

Kind: TypeAlias = Literal["space", "scheme", "recipe", "policy", "searcher"]

FOLDERS: dict[Kind, str] = {
    "space": "search_spaces",
    "scheme": "supernets.schemes",
    "recipe": "supernets.recipes",
    "policy": "supernets.policies",
    "searcher": "nas.searchers",
}
"""The package whose files are the names of a kind. The attribute that a file must define is called as the
kind; a scheme or a policy, which is a class, as its file: `uniform` is class `Uniform` of uniform.py."""

_REFERENCE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


def names(kind: Kind) -> list[str]:
    """The names of `kind` that this installation has, sorted: files that define the attribute.

    The files are read, not imported, so this is cheap enough for completion and for `--help`.
    """
    return sorted(
        path.stem
        for folder in _folders(FOLDERS[kind])
        for path in folder.glob("*.py")
        if not path.stem.startswith("_") and _defines(path, _attribute(kind, path.stem))
    )


def resolve(kind: Kind, name: str) -> Callable[..., Any]:
    """The factory that `name` means: the attribute of that file, or `module:attribute` of anybody's own.

    A `module:attribute` is imported as Python does, and from the current directory too. It runs that module's
    code: never pass one that came out of a file which the user did not write.

    Raises:
        InputError: an unknown name, a module that is not there or does not import, a missing attribute, or
            one that cannot be called.
    """
    assert kind in get_args(Kind)
    if ":" in name:
        return _own(kind, name)
    known = names(kind)
    if name not in known:
        raise InputError(
            f"unknown {kind} {name!r}{did_you_mean(name, known)}; your own: package.module:attribute"
        )
    factory = getattr(importlib.import_module(f"{FOLDERS[kind]}.{name}"), _attribute(kind, name))
    assert callable(factory)
    return factory


def call(kind: Kind, name: str, factory: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """`factory(**given)`, where `factory` is what `name` means.

    Raises:
        InputError: a keyword that it does not have, or a value that it cannot take.
    """
    parameters = inspect.signature(factory).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for keyword in given:
            if keyword not in parameters:
                raise InputError(
                    f"{kind} {name!r} has no setting {keyword!r}{did_you_mean(keyword, parameters)}"
                )
    types = _types(factory)
    for keyword, value in given.items():
        if not _fits(value, types.get(keyword, Any)):
            wanted = parameters[keyword].annotation
            if get_origin(types[keyword]) is Literal:
                shown = " or ".join(map(str, get_args(types[keyword])))
            else:
                shown = str(getattr(wanted, "__name__", wanted)).replace("Sequence[", "list[")
            raise InputError(f"{kind} {name!r}: {keyword} must be {shown}, not {value!r}")
    try:
        return factory(**given)
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{kind} {name!r} cannot be made from {dict(given)}: {error}") from error


def _types(factory: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of the factory's parameters; as they are written where a name in them is not known."""
    try:
        signature = inspect.signature(factory, eval_str=True)
    except Exception:  # noqa: BLE001 - an annotation of the user's may be any expression
        signature = inspect.signature(factory)
    return {name: p.annotation for name, p in signature.parameters.items() if p.annotation is not p.empty}


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value may be given for a parameter that is annotated so; other types are not judged."""
    origin, inside = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in inside)
    if origin is Literal:
        return value in inside
    if origin is Sequence:
        return isinstance(value, list | tuple) and all(_fits(part, inside[0]) for part in value)
    if wanted in (None, NoneType):
        return value is None
    exact = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
    name = wanted if isinstance(wanted, str) else getattr(wanted, "__name__", "")
    return type(value) in exact[name] if name in exact else True


def _attribute(kind: Kind, name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_")) if kind in ("scheme", "policy") else kind


def _own(kind: Kind, reference: str) -> Callable[..., Any]:
    if not _REFERENCE.fullmatch(reference):
        raise InputError(f"{kind} {reference!r} is not of the form package.module:attribute")
    module_name, _, path = reference.partition(":")
    _add_current_directory()
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(missing + "."):
            raise InputError(
                f"{kind} {reference!r}: no module {missing!r} is installed or in {os.getcwd()}"
            ) from None
        raise InputError(
            f"{kind} {reference!r}: {module_name} needs {missing!r}, which is not installed"
        ) from error
    except Exception as error:
        raise InputError(
            f"{kind} {reference!r}: importing {module_name} failed with {type(error).__name__}: "
            + str(error).partition("\n")[0]
        ) from error
    for part in path.split("."):
        public = (
            [name for name in vars(found) if not name.startswith("_")] if hasattr(found, "__dict__") else []
        )
        if not hasattr(found, part):
            raise InputError(
                f"{kind} {reference!r}: {module_name} has no {path!r}{did_you_mean(part, public)}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise InputError(
            f"{kind} {reference!r} is a {type(found).__name__}; a {kind} is a function or a class"
        )
    return found


def _folders(package: str) -> list[Path]:
    """Where the files of `package` lie, found without importing it (its top level may be heavy)."""
    top, *rest = package.split(".")
    spec = importlib.util.find_spec(top)
    roots = spec.submodule_search_locations if spec else None
    return [Path(root, *rest) for root in roots or []]


def _defines(path: Path, attribute: str) -> bool:
    """Whether the module at `path` binds `attribute` at its top level, read from the source."""
    try:
        source = path.read_text(encoding="utf-8")
        if attribute not in source:
            return False
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError):
        return False
    return any(attribute in _bound(statement) for statement in tree.body)


def _bound(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        return [statement.target.id]
    return []


def _add_current_directory() -> None:
    """The current directory at the end of the import path, where an installed command does not have it.

    At the end, because a file of the user must not shadow the standard library or one of our packages; and
    for good, because a module may import its neighbours as late as when it builds a network.
    """
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
        importlib.invalidate_caches()
