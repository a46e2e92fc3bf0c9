"""Errors that every package shares: what the user got wrong, and what failed a check."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something the user gave cannot be used. The message is the one line that the command line prints."""


class SpaceError(InputError):
    """An arch, an option or a population that is not part of its search space."""


class VerificationError(RuntimeError):
    """A result that was checked against its reference and differs from it."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error line about an unknown name: the nearest known one, and all of them when few.

    >>> did_you_mean("mobilnet", ["mobilenet_v3", "vit"])
    "; did you mean 'mobilenet_v3'? (known: mobilenet_v3, vit)"
    """
    names = sorted(set(known))
    near = get_close_matches(name.lower(), [n.lower() for n in names], n=1)
    guess = next((n for n in names if near and n.lower() == near[0]), None)
    hint = f"; did you mean {guess!r}?" if guess else ""
    if not names:
        return hint
    listed = ", ".join(names) if len(names) <= 40 else ", ".join(names[:40]) + ", ..."
    return f"{hint} (known: {listed})" if hint else f"; known: {listed}"
