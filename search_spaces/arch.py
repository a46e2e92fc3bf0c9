"""One point of a search space."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TypeAlias

from search_spaces.errors import SpaceError

Option: TypeAlias = int | float | str


class Arch(Mapping[str, Option]):
    """An immutable assignment of options to choices, in canonical form.

    Only choices that are in force appear, so equal networks are equal archs: in caches, in stores and in the
    eyes of a predictor. `SearchSpace.arch` makes one from any mapping and checks it. Hashable, comparable,
    safe to share between threads.
    """

    def __init__(self, assignment: Mapping[str, Option]) -> None:
        self._assignment = dict(sorted(assignment.items()))
        self._hash = hash(tuple(self._assignment.items()))

    def __getitem__(self, name: str) -> Option:
        return self._assignment[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._assignment)

    def __len__(self) -> int:
        return len(self._assignment)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Arch) or self._assignment != other._assignment:
            return False
        types = map(type, self._assignment.values())  # 1 == 1.0, but their JSON and their digests differ
        return all(a is type(b) for a, b in zip(types, other._assignment.values(), strict=True))

    def __reduce__(self) -> tuple[type[Arch], tuple[dict[str, Option]]]:
        return Arch, (self._assignment,)  # the kept hash holds in one process only

    def __repr__(self) -> str:
        return f"Arch({self.to_json()})"

    def integer(self, name: str) -> int:
        """The option of an integer choice."""
        value = self._assignment[name]
        if not isinstance(value, int):
            raise SpaceError(f"{name} = {value!r} is not an integer")
        return value

    def to_json(self) -> str:
        """Canonical JSON: sorted names, no blanks. Equal archs give equal strings."""
        return json.dumps(self._assignment, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Arch:
        """The arch that `to_json` wrote. Raises `SpaceError` for anything else."""
        try:
            raw = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise SpaceError(f"an arch is a JSON object, not {text[:60]!r} ({error})") from None
        if not isinstance(raw, dict) or not all(type(v) in (int, float, str) for v in raw.values()):
            raise SpaceError(f"an arch maps names to numbers or strings, not {text[:60]!r}")
        return cls(raw)

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits of the SHA-256 of `to_json`: the key of this arch in every store."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a finite number")
