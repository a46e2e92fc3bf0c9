"""The settings of `nas spaces` and `nas targets`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from nas.config import Settings, setting
from nas.resolve import names
from nas.setting_groups import MODEL


@dataclass(frozen=True)
class SpacesSettings(Settings):
    """`nas spaces`: what can be searched."""

    space: str | None = setting(
        None,
        "show this space's choices",
        metavar="NAME",
        names=partial(names, "space"),
        own=True,
        argument=True,
    )
    space_settings: Mapping[str, Any] = setting(
        {},
        "keyword of the space, such as image_size=64; may be repeated",
        group=MODEL,
        metavar="KEY=VALUE",
        flag="--space-set",
    )


@dataclass(frozen=True)
class TargetsSettings(Settings):
    """`nas targets`: what can be searched for."""

    target: str | None = setting(None, "describe this target in full", metavar="NAME", argument=True)
