"""`nas spaces` and `nas targets`: what can be searched, and for which devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from nas.catalogue_settings import SpacesSettings, TargetsSettings
from nas.cli.options import command
from nas.console import Console, quantity
from search_spaces.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace

SPACES = """
    nas spaces                # all of them, with their extent
    nas spaces mobilenet_v3   # the choices of one
    nas spaces vit --space-set image_size=64 --space-set classes=10
    nas spaces my_package.my_module:space
"""
TARGETS = """
    nas targets               # all devices, and how their latency is known
    nas targets jetson        # one in full, with its sources
"""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""

    @command(app, SpacesSettings, SPACES, config=False)
    def spaces(settings: SpacesSettings, console: Console) -> Mapping[str, Any] | None:
        """List the search spaces with their extent, or the choices of one."""
        from nas.resolve import call, names, resolve

        listed = [settings.space] if settings.space else names("space")
        with console.progress("reading", len(listed), "spaces") as bar:
            found = []
            for name in listed:
                found.append(call("space", name, resolve("space", name), settings.space_settings))
                bar.update(len(found), name)
        facts = [_space_facts(space) for space in found]
        console.table(
            ["space", "networks", "input", "parameters", "MACs"],
            [
                (
                    fact["name"],
                    quantity(float(fact["size"])),
                    "x".join(map(str, fact["input_shape"])),
                    _range(fact["params"]),
                    _range(fact["macs"]),
                )
                for fact in facts
            ],
        )
        if settings.space:
            console.say()
            console.table(
                ["choice", "options", "only when"],
                [(c["name"], _short(c["options"]), _when(c["when"])) for c in facts[0]["choices"]],
            )
        console.next_step(f"nas train --space {settings.space or 'NAME'}")
        return {"spaces": facts}

    @command(app, TargetsSettings, TARGETS, config=False)
    def targets(settings: TargetsSettings, console: Console) -> Mapping[str, Any] | None:
        """List the devices that a search can aim at, and how the latency on each is known."""
        from predictors.targets import all as all_targets

        rows = all_targets()
        if settings.target is None:
            console.table(
                ["target", "also", "latency", "device"],
                [
                    (row.name, ", ".join(row.aliases), row.truth.partition(" ")[0], row.title)
                    if row.available
                    else (row.name, "", "-", row.title)
                    for row in rows
                ],
            )
            console.next_step("nas search --target NAME")
            return {"targets": [asdict(row) for row in rows]}
        row = next((r for r in rows if settings.target in (r.name, *r.aliases)), None)
        if row is None:
            known = [name for r in rows for name in (r.name, *r.aliases)]
            raise InputError(f"unknown target {settings.target!r}{did_you_mean(settings.target, known)}")
        facts = asdict(row)
        console.table(["", ""], [(key, _words(value)) for key, value in facts.items()])
        console.next_step(f"nas search --target {settings.target}")
        return facts


def _space_facts(space: SearchSpace) -> dict[str, Any]:
    """A space as JSON: its extent from the smallest and the largest network, and its choices."""
    ends = space.costs(space.index([space.smallest, space.largest]))
    return {
        "name": space.name,
        "settings": dict(space.settings),
        "size": space.size,
        "input_shape": list(space.input_shape(space.largest)),
        "params": ends.params.tolist(),
        "macs": ends.macs.tolist(),
        "choices": [
            {
                "name": choice.name,
                "options": list(choice.options),
                "when": None if choice.when is None else {k: list(v) for k, v in choice.when.items()},
            }
            for choice in space.choices
        ],
    }


def _range(ends: list[int]) -> str:
    return f"{quantity(ends[0])} - {quantity(ends[1])}"


def _when(when: Mapping[str, list[Any]] | None) -> str | None:
    return None if not when else ", ".join(f"{name} in {_short(values)}" for name, values in when.items())


def _short(values: list[Any]) -> str:
    return ", ".join(map(str, values))


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
