"""From what was given, a flag's text or a value out of YAML, to a checked value of the setting's type."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from nas import strict_yaml
from nas.option import Given, Option
from nas.strict_yaml import ConfigError, kind
from search_spaces.errors import InputError, did_you_mean


def convert(option: Option, given: Given) -> Any:
    """The value as the option's type, checked against its range and its names.

    Raises:
        ConfigError: says where the value was given, the value, and what is allowed.
    """
    value = given.value
    try:
        if value is None:
            if option.optional:
                return None
            raise InputError(f"expected {wanted(option)}")
        value = option.setting.read(value) if option.setting.read else _typed(option, given)
        _check_range(option, value)
        _check_names(option, value)
    except InputError as error:
        named = option.setting.names is not None  # such errors name the value themselves
        shown = "" if named or isinstance(given.value, dict | list | tuple) else f" = {short(given.value)}"
        raise ConfigError(f"{at(given)}{given.label}{shown}: {error}") from None
    return value


def wanted(option: Option) -> str:
    """The kind of value that the option takes, in words."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", tuple: "names"}
    return words.get(option.type, "KEY: VALUE pairs")


def at(given: Given) -> str:
    """The head of an error line about the value."""
    return f"{given.where}: " if given.where else ""


def short(value: Any) -> str:
    """The value as a study file would write it, cut to a readable length."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def _typed(option: Option, given: Given) -> Any:
    value = given.value
    if option.type is bool:
        result: Any = _switch(value, given.text)
    elif option.type in (int, float):
        result = _number(value, given.text, whole=option.type is int)
    elif option.type is tuple:
        result = _texts(value)
    elif option.type is dict:
        result = _pairs(value, given.text)
    else:
        result = value if isinstance(value, str) and "\0" not in value else None
    if result is None:
        quote = option.type is str and isinstance(value, int | float)
        found = f", found {kind(value)}" if isinstance(value, dict | list | tuple) else ""
        raise InputError(f"expected {wanted(option)}{found}" + (f'; quote it: "{value}"' if quote else ""))
    return result


def _switch(value: Any, text: bool) -> bool | None:
    word = value.strip().lower() if text and isinstance(value, str) else None
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    return value if isinstance(value, bool) else None


def _number(value: Any, text: bool, whole: bool) -> int | float | None:
    """A finite number; `1e4` is a whole one too."""
    if isinstance(value, bool) or not isinstance(value, int | float | (str if text else int)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number) or (whole and not number.is_integer()):
        return None
    return (value if isinstance(value, int) else int(number)) if whole else number


def _texts(value: Any) -> tuple[str, ...] | None:
    """Names from a list, from `a,b`, or from the values of a repeated flag, each perhaps `a,b`."""
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        return None
    return tuple(name.strip() for part in parts for name in part.split(",") if name.strip())


def _pairs(value: Any, text: bool) -> dict[str, Any] | None:
    """A mapping from a mapping, or from `KEY=VALUE` texts; dashes in keys count as underscores."""
    if text:
        value = dict(_pair(part) for part in (value.split() if isinstance(value, str) else value))
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return None
    return {key.replace("-", "_"): item for key, item in value.items()}


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"expected KEY=VALUE, found {text!r}")
    return key.strip(), strict_yaml.scalar(value, f"the value of {key.strip()!r}")


def _check_range(option: Option, value: Any) -> None:
    least, most = option.setting.least, option.setting.most
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if (least is not None and value < least) or (most is not None and value > most):
        low = "" if least is None else f"at least {least:g}"
        high = "" if most is None else f"at most {most:g}"
        raise InputError(f"must be {' and '.join(filter(None, (low, high)))}")


def _check_names(option: Option, value: Any) -> None:
    if option.setting.names is None:
        return
    values: Iterable[Any] = value if isinstance(value, tuple) else (value,)
    known = option.setting.names()
    if not value:
        raise InputError(f"expected one of {', '.join(known)}")
    for name in values:
        if name not in known and not (option.setting.own and ":" in str(name)):
            raise InputError(f"unknown name {short(name)}{did_you_mean(str(name), known)}")
