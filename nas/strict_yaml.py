"""YAML that cannot surprise: no aliases, tags or duplicate keys, bounded size, YAML 1.2, line numbers.

PyYAML's `safe_load` runs no code, but lets the last of two equal keys win, expands aliases without limit,
reads `1e-3` as text and `no` as false. A study file is written by hand and passed around, so all of these
are refused or read as YAML 1.2 reads them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import InputError

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 5_000


class ConfigError(InputError):
    """A setting, in a file or on the command line, that cannot be used. The message says where it stands."""


@dataclass(frozen=True)
class Document:
    """A mapping read from YAML, and the line of each of its keys (dotted: `space_settings.width`), from 1."""

    name: str
    values: dict[str, Any]
    lines: dict[str, int]

    def where(self, key: str) -> str:
        """`study.yaml, line 3` for the key, which may be dotted."""
        return f"{self.name}, line {self.lines[key]}" if key in self.lines else self.name


def read(path: Path | str) -> Document:
    """The settings in a YAML file.

    Raises:
        ConfigError: not a mapping, not strict YAML, or larger than a megabyte.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        raw = file.read(MAX_BYTES + 1)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text") from None
    return mapping(text, str(path))


def mapping(text: str, name: str) -> Document:
    """The mapping that `text` holds; an empty text is an empty mapping. `name` heads the error lines."""
    node = _compose(text, name)
    lines: dict[str, int] = {}
    value = None if node is None else _value(node, name, "", lines)
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: expected 'key: value' lines, found {kind(value)}")
    return Document(name, value, lines)


def scalar(text: str, name: str) -> Any:
    """The value of a flag such as `width=1.2` or `depths=[2, 3]`: one YAML value, strictly read."""
    node = _compose(text, name)
    return None if node is None else _value(node, name, "", {})


def kind(value: object) -> str:
    """What a value is, in the words of the error messages."""
    if isinstance(value, bool):
        return f"the switch {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {value!r}"
    if isinstance(value, str):
        return f"the text {_short(value)!r}"
    if isinstance(value, list | tuple):
        return "a list"
    return "nothing" if value is None else "a mapping"


class _Strict(yaml.SafeLoader):
    """Composes nodes only: aliases, anchors, tags and depth are refused before anything is built."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the shape that PyYAML wants
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":int", ":float"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self._name, self._depth, self._nodes = name, 0, 0

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        # The scanner reads ahead, in time that grows with the square of the open brackets: stop it early.
        if self.flow_level >= MAX_DEPTH:
            raise ConfigError(f"{self._name}, line {self.line + 1}: nested deeper than {MAX_DEPTH} levels")
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(f"{self._name}, line {line}: anchors and aliases (& and *) are not allowed")
        if getattr(event, "tag", None):
            raise ConfigError(f"{self._name}, line {line}: tags ({_short(event.tag)}) are not allowed")
        self._depth += 1
        self._nodes += 1
        if self._depth > MAX_DEPTH:
            raise ConfigError(f"{self._name}, line {line}: nested deeper than {MAX_DEPTH} levels")
        if self._nodes > MAX_NODES:
            raise ConfigError(f"{self._name}, line {line}: more than {MAX_NODES} values")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


# The core schema of YAML 1.2 (section 10.3.2), without octal and hexadecimal numbers.
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.nan|\.NaN|\.NAN)$", "-+."),
):
    _Strict.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def _compose(text: str, name: str) -> yaml.Node | None:
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise ConfigError(f"{name}: larger than {MAX_BYTES:,} bytes")
    try:
        loader = _Strict(text, name)
        try:
            node: yaml.Node | None = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        where = f"{name}, line {mark.line + 1}" if mark else name
        raise ConfigError(f"{where}: not YAML: {problem}") from None
    return node


def _value(node: yaml.Node, name: str, path: str, lines: dict[str, int]) -> Any:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = _value(key_node, name, "", {}) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise ConfigError(
                    f"{name}, line {line}: the key {_short(key_node.value)!r} is not text (quote it)"
                )
            dotted = f"{path}.{key}" if path else key
            if key in values:
                raise ConfigError(f"{name}, line {line}: {key!r} was already set on line {lines[dotted]}")
            lines[dotted] = line
            values[key] = _value(value_node, name, dotted, lines)
        return values
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, name, path, lines) for item in node.value]
    text = str(node.value)
    match node.tag.rpartition(":")[2]:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            if len(text) > 30:
                raise ConfigError(f"{name}, line {line}: a whole number of {len(text)} digits")
            return int(text)
        case "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        case "str" | "timestamp" | "value" | "merge":
            return text
        case other:
            raise ConfigError(f"{name}, line {line}: values of the kind {other!r} are not allowed")


def _short(value: object, limit: int = 60) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
