"""The search space that a name means, made for the data at hand."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from nas.data import Data
from nas.resolve import call, resolve
from search_spaces import InputError, SearchSpace

_FLAGS = {"image_size": "--image-size", "context": "--context"}
_FOREIGN = {"images": ("context",), "text": ("channels", "image_size")}  # what the other kind would give


def make_space(name: str, given: Mapping[str, Any], data: Data) -> SearchSpace:
    """The space of that name for the sizes of the data: classes, channels and image size, or vocabulary and
    context.

    Raises:
        InputError: a keyword that the space does not take, or a space that does not fit the data.
    """
    factory = resolve("space", name)
    sizes = dict(data.space_settings)
    for keyword in (*sizes, *_FOREIGN[data.kind]):
        if keyword in given:
            hint = f"; use {_FLAGS[keyword]}" if keyword in _FLAGS and keyword in sizes else ""
            raise InputError(f"{keyword} comes from the data, not from the space's settings{hint}")
    if isinstance(factory, SearchSpace):
        space: Any = factory
    else:
        if not all(_takes(factory, keyword) for keyword in sizes):
            raise _other_kind(name, data)
        space = call("space", name, factory, {**sizes, **given})
    if not isinstance(space, SearchSpace):
        raise InputError(f"space {name!r} made a {type(space).__name__}, not a SearchSpace")
    _check(space, name, data)
    if ":" in name:
        space.name = name
    return space


def saved_space(record: Mapping[str, Any]) -> SearchSpace:
    """The space of a run, from what its run.json says of it; the data is not needed.

    Raises:
        InputError: it cannot be made any more.
    """
    name = str(record["name"])
    factory = resolve("space", name)
    space: Any = factory
    if not isinstance(factory, SearchSpace):
        space = call("space", name, factory, record["settings"])
    if ":" in name:
        space.name = name
    return space


def _takes(factory: Callable[..., Any], keyword: str) -> bool:
    parameters = inspect.signature(factory).parameters
    return keyword in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _other_kind(name: str, data: Data) -> InputError:
    if data.kind == "text":
        return InputError(
            f"space {name!r} does not read text (it has no setting 'context'), but {data.name} is text; "
            "use --space gpt"
        )
    missing = ", ".join(data.space_settings)
    return InputError(
        f"space {name!r} does not read images (it lacks one of {missing}), but {data.name} holds images; "
        "use --space mobilenet_v3, or --data text:PATH"
    )


def _check(space: SearchSpace, name: str, data: Data) -> None:
    """Raises InputError unless the networks of `space` take what `data` holds."""
    sizes, shape = data.space_settings, space.input_shape(space.largest)
    tokens = data.kind == "text"
    if space.reads_tokens != tokens:
        raise _other_kind(name, data)
    wanted = (sizes["context"],) if tokens else (sizes["channels"], sizes["image_size"], sizes["image_size"])
    if (shape, space.classes) != (wanted, sizes["classes"]):
        takes, holds = (" x ".join(map(str, s)) for s in (shape, wanted))
        raise InputError(
            f"space {name!r} takes {takes} and gives {space.classes} classes, but {data.name} has {holds} "
            f"and {sizes['classes']}"
        )
