"""What can be chosen, and when a choice is in force."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search_spaces.arch import Option
from search_spaces.errors import SpaceError


@dataclass(frozen=True, init=False)
class Choice:
    """One decision of a search space.

    `options` run from smallest to largest; numbers in another order are refused. `when` names earlier choices
    with the options under which this one is in force: `Choice("block3.kernel", (3, 5, 7), when={"depth": (3,
    4)})` exists in networks of three or more blocks. Without `when` it is always in force.
    """

    name: str
    options: tuple[Option, ...]
    when: Mapping[str, tuple[Option, ...]]

    def __init__(
        self,
        name: str,
        options: Sequence[Option],
        when: Mapping[str, Sequence[Option]] | None = None,
    ) -> None:
        if len(options) == 0:
            raise SpaceError(f"choice {name!r} has no options")
        if len(set(options)) != len(options):
            raise SpaceError(f"choice {name!r} lists an option twice: {', '.join(map(str, options))}")
        if len(options) > 30_000:
            raise SpaceError(f"choice {name!r} has {len(options)} options; at most 30000 are possible")
        for option in options:
            if type(option) not in (int, float, str) or (type(option) is float and not math.isfinite(option)):
                raise SpaceError(
                    f"choice {name!r} has option {option!r} ({type(option).__name__}); "
                    "an option is an int, a finite float or a str"
                )
        numbers = [option for option in options if not isinstance(option, str)]
        if len(numbers) == len(options) and numbers != sorted(numbers):
            raise SpaceError(
                f"choice {name!r} has options {', '.join(map(str, options))}; give them from small to large"
            )
        for parent, allowed in (when or {}).items():
            if isinstance(allowed, str) or not isinstance(allowed, Sequence):
                raise SpaceError(f"choice {name!r}: when {parent!r} takes a list of options, not {allowed!r}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "options", tuple(options))
        object.__setattr__(self, "when", {k: tuple(v) for k, v in (when or {}).items()})

    def __hash__(self) -> int:
        return hash((self.name, self.options, frozenset(self.when.items())))

    @property
    def ordinal(self) -> bool:
        """Whether the options are numbers, so that larger has a meaning."""
        return all(not isinstance(option, str) for option in self.options)

    def position(self, option: Option) -> int:
        """The index of an option. Raises `SpaceError` when it is none of them."""
        try:
            return self.options.index(option)
        except ValueError:
            allowed = ", ".join(map(str, self.options))
            raise SpaceError(f"{self.name} = {option} is not an option (options: {allowed})") from None
