"""What was left out of a collection of images, and when that is too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.errors import InputError

BAD_LIMIT = 0.01  # more than this share of unreadable images, and at least two of them, stops the run


@dataclass(frozen=True)
class Skipped:
    """An image that could not be used."""

    name: str  # relative to the collection's folder
    reason: str


@dataclass(frozen=True)
class Report:
    """What loading found: images, those skipped and why, other files that were passed over, remarks."""

    found: int
    skipped: tuple[Skipped, ...] = ()
    other_files: int = 0
    notes: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return {
            "found": self.found,
            "skipped": [{"name": s.name, "reason": s.reason} for s in self.skipped],
            "other_files": self.other_files,
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """One line per skipped image, for a file beside the run; empty when there is none."""
        return "".join(f"{s.name}\t{s.reason}\n" for s in self.skipped)


def shown(name: str) -> str:
    """`name` as one line of valid text: undecodable bytes and control characters are written as escapes."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_skipped(skipped: Sequence[Skipped], found: int, where: str) -> None:
    """Raise InputError when too many of the `found` images of `where` were skipped (see BAD_LIMIT)."""
    if len(skipped) < 2 or len(skipped) <= BAD_LIMIT * found:
        return
    first = ", ".join(f"{s.name} ({s.reason})" for s in skipped[:3])
    more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    raise InputError(
        f"{len(skipped)} of the {found} images of {where} cannot be read, more than {BAD_LIMIT:.0%}: "
        f"{first}{more}; repair or remove them"
    )
