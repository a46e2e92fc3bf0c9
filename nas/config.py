"""Settings: frozen dataclasses whose fields say everything once, for flags, YAML keys, variables and help.

    @dataclass(frozen=True)
    class TrainSettings(Settings):
        epochs: int | None = setting(None, "passes over the data", group="Training", least=0)

is the flag `--epochs`, the YAML key `epochs` and the variable `NAS_EPOCHS`. Where several give a value, the
order is flags, variables, YAML, defaults; `build` keeps where each came from, so that an error can say it.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nas import strict_yaml
from nas.option import Given, Option, Setting, setting
from nas.strict_yaml import ConfigError
from nas.values import at, convert, short

__all__ = ["ConfigError", "Given", "Option", "Setting", "Settings", "setting"]

S = TypeVar("S", bound="Settings")


@dataclass(frozen=True)
class Settings:
    """The base of all settings: every value is checked and put into its type when the object is made."""

    def __post_init__(self) -> None:
        for option in options(type(self)):
            value = convert(option, Given(getattr(self, option.name), option.name))
            object.__setattr__(self, option.name, value)

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values, to be written into `run.json` and read back by `build`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def options(cls: type[Settings]) -> tuple[Option, ...]:
    """The settings of the class, in order."""
    hints = get_type_hints(cls)
    found = []
    for f in fields(cls):
        hint, optional = hints[f.name], False
        if get_origin(hint) in (Union, types.UnionType):
            optional = type(None) in get_args(hint)
            hint = next(arg for arg in get_args(hint) if arg is not type(None))
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        base = get_origin(hint) or hint
        found.append(
            Option(f.name, dict if base is Mapping else base, optional, default, f.metadata["setting"])
        )
    return tuple(found)


def build(cls: type[S], *layers: Mapping[str, Given]) -> S:
    """The settings that the layers give, the first layer first; defaults for the rest.

    Raises:
        ConfigError: an unknown name, or a value that does not fit, even where another layer overrides it.
    """
    known = {option.name: option for option in options(cls)}
    values: dict[str, Any] = {}
    for layer in layers:
        for name, given in layer.items():
            if name not in known:
                raise ConfigError(
                    at(given) + f"unknown setting {given.label!r}{_nearest(given.label, known)}"
                )
            value = convert(known[name], given)
            values.setdefault(name, value)
    missing = [option for option in known.values() if option.required and option.name not in values]
    if missing:
        raise ConfigError(f"{missing[0].name} is missing: {missing[0].setting.help}")
    return cls(**values)


def from_flags(cls: type[Settings], flags: Mapping[str, Any]) -> dict[str, Given]:
    """The layer of the flags that were given: those that are not None and not empty."""
    return {
        option.name: Given(flags[option.name], _called(option), text=True)
        for option in options(cls)
        if flags.get(option.name) not in (None, [], ())
    }


def from_variables(cls: type[Settings], environment: Mapping[str, str]) -> dict[str, Given]:
    """The layer of the variables `NAS_...`; an empty variable counts as not set."""
    return {
        option.name: Given(environment[option.variable], option.variable, text=True)
        for option in options(cls)
        if not option.setting.argument and environment.get(option.variable)
    }


def from_yaml(path: Path | str) -> dict[str, Given]:
    """The layer of a YAML file. Dashes in keys count as underscores."""
    document = strict_yaml.read(path)
    layer: dict[str, Given] = {}
    for key, value in document.values.items():
        name = key.replace("-", "_")
        if name in layer:
            raise ConfigError(f"{document.where(key)}: {key!r} was already set as {layer[name].label!r}")
        layer[name] = Given(value, key, document.where(key))
    return layer


def from_saved(settings: Mapping[str, Any], where: str) -> dict[str, Given]:
    """The layer of the settings that a run saved by `Settings.as_dict`."""
    return {name: Given(value, name, where) for name, value in settings.items()}


def resumed(cls: type[S], saved: Mapping[str, Given], asked: Mapping[str, Given]) -> S:
    """The settings of a run that is continued: the saved ones, of which only the portable may be changed.

    Raises:
        ConfigError: another value is asked for of a setting that decides what the run computes.
    """
    known = {option.name: option for option in options(cls)}
    portable = {name: g for name, g in asked.items() if name not in known or known[name].setting.portable}
    before, after = build(cls, saved), build(cls, asked, saved)
    for name, given in asked.items():
        was, now = getattr(before, name), getattr(after, name)
        if name not in portable and was != now:
            raise ConfigError(
                f"{at(given)}{given.label} = {short(given.value)}: the run has {short(was)}, and a resumed "
                f"run keeps its settings; leave {given.label} out, or start a new run"
            )
    return build(cls, portable, saved)


def _called(option: Option) -> str:
    return (option.setting.metavar or option.name) if option.setting.argument else option.flag


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name.replace("-", "_").lower(), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else "; --help lists the settings"
