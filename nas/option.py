"""How a setting describes itself: what the field of a settings class says beside its name and type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field
from typing import Any, NamedTuple

VARIABLES = "NAS_"  # the prefix of environment variables


@dataclass(frozen=True)
class Setting:
    """What a field says beside its name, type and default."""

    help: str
    group: str
    metavar: str | None = None
    flag: str | None = None  # where it is not the name itself
    short: str | None = None
    names: Callable[[], Sequence[str]] | None = None  # the values that are allowed
    own: bool = False  # `module:attribute` is allowed too, beside `names`
    read: Callable[[Any], Any] | None = None  # from text or number to the value; raises InputError
    least: float | None = None
    most: float | None = None
    argument: bool = False  # positional on the command line
    portable: bool = False  # may change when a run is resumed: it does not alter what is computed


def setting(default: Any, help: str, *, group: str = "Options", **more: Any) -> Any:
    """A dataclass field with its default and a `Setting`."""
    metadata = {"setting": Setting(help, group, **more)}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata, hash=False)
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def one_of(*allowed: str) -> Callable[[], tuple[str, ...]]:
    """`Setting.names` of a setting whose values are a few words."""
    return lambda: allowed


@dataclass(frozen=True)
class Option:
    """One setting of a command: the field's name, type and default, with its `Setting`."""

    name: str
    type: type  # bool, int, float, str, tuple (of texts) or dict
    optional: bool  # None is allowed
    default: Any  # dataclasses.MISSING when it must be given
    setting: Setting

    @property
    def flag(self) -> str:
        return self.setting.flag or "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return VARIABLES + self.name.upper()

    @property
    def required(self) -> bool:
        return self.default is MISSING


class Given(NamedTuple):
    """A value that somebody gave, how they called it, and where (`study.yaml, line 3`; empty for a flag)."""

    value: Any
    label: str
    where: str = ""
    text: bool = False  # from a flag or a variable: "3" may be a number
