"""The command line of a command, generated from its settings class: nothing is written twice."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

from nas.cli.environment import check_packages
from nas.cli.errors import report
from nas.cli.help import Command
from nas.config import (
    Option,
    Settings,
    build,
    from_flags,
    from_variables,
    from_yaml,
    options,
    resumed,
    setting,
)
from nas.console import Console
from nas.run_record import saved_settings
from nas.setting_groups import OUTPUT
from search_spaces.errors import InputError

S = TypeVar("S", bound=Settings)
Body = Callable[[S, Console], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Output(Settings):
    """How a command reports; the same flags at every command, and no part of a study file."""

    json: bool = setting(False, "one JSON document on stdout, all else on stderr", group=OUTPUT)
    quiet: bool = setting(False, "only results, warnings and errors", group=OUTPUT, short="-q")
    verbose: bool = setting(False, "more about what happens", group=OUTPUT, short="-v")
    color: bool = setting(True, "colour the output; NO_COLOR does the same", group=OUTPUT)
    debug: bool = setting(False, "on an error show the whole traceback", group=OUTPUT)


def command(
    app: typer.Typer, cls: type[S], examples: str, *, config: bool = True
) -> Callable[[Body[S]], Body[S]]:
    """Register the body `(settings, console) -> document` as a command whose options are the fields of `cls`.

    With `config` a YAML file may give settings: as an argument where the command has no other, else by
    `--config`. What the body returns is printed with `--json`. An exception becomes a line and a code.
    """

    def register(body: Body[S]) -> Body[S]:
        name = body.__name__.rstrip("_")

        def run(**flags: Any) -> None:
            if code := _run(name, cls, body, flags):
                raise typer.Exit(code)

        run.__name__, run.__doc__ = name, body.__doc__
        run.__signature__ = _signature(cls, config)  # type: ignore[attr-defined]
        app.command(name, cls=_help_for(cls, examples, config), add_help_option=True)(run)
        return body

    return register


def _run(name: str, cls: type[S], body: Body[S], flags: dict[str, Any]) -> int:
    console, debug = Console(), bool(flags.get("debug"))
    try:
        output = build(Output, from_flags(Output, flags), from_variables(Output, os.environ))
        debug = output.debug
        console = Console(
            json=output.json,
            quiet=output.quiet,
            verbose=output.verbose,
            color=None if output.color else False,
        )
        check_packages()
        if name != "train" and int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ:
            raise InputError(f"nas {name} runs in one process; torchrun serves 'nas train' only")
        document = body(settings_of(name, cls, flags, os.environ), console)
        if document is not None:
            console.document(document)
        console.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - every failure ends in a line and a code
        return report(error, console, debug)
    return 0


def settings_of(name: str, cls: type[S], flags: Mapping[str, Any], environment: Mapping[str, str]) -> S:
    """The settings that flags, variables and the YAML file give, or those of the run that `resume` names.

    Raises:
        ConfigError: a setting that cannot be used, or one beside `resume` that the run does not have.
        OSError: the YAML file or the run cannot be read.
    """
    given, variables = from_flags(cls, flags), from_variables(cls, environment)
    written = from_yaml(flags["config"]) if flags.get("config") else {}
    if not any(option.name == "resume" for option in options(cls)):
        return build(cls, given, variables, written)
    settings = build(cls, given, variables, written)
    run = getattr(settings, "resume", None)
    if run is None:
        return settings
    # Variables are habits of a machine, not wishes for this run: only those that may differ are taken.
    movable = {option.name for option in options(cls) if option.setting.portable}
    habits = {key: value for key, value in variables.items() if key in movable}
    return resumed(cls, saved_settings(run, name), {**habits, **written, **given})


def _signature(cls: type[Settings], config: bool) -> inspect.Signature:
    arguments = [option for option in options(cls) if option.setting.argument]
    parameters = [_parameter(option) for option in options(cls)]
    if config:
        kind: Any = typer.Option("--config", "-c") if arguments else typer.Argument()
        parameters.append(_keyword("config", Annotated[str | None, kind], None))
    parameters += [_parameter(option) for option in options(Output)]
    return inspect.Signature(parameters)


def _parameter(option: Option) -> inspect.Parameter:
    """The parameter of the option; its text is converted by `nas.config`, so that all errors read alike."""
    complete = _completion(option)
    if option.setting.argument:
        place = typer.Argument(metavar=option.setting.metavar, autocompletion=complete)
        if option.required:
            return _keyword(option.name, Annotated[str, place], inspect.Parameter.empty)
        return _keyword(option.name, Annotated[str | None, place], None)
    short = [option.setting.short] if option.setting.short else []
    if option.type is bool:
        flag = f"{option.flag}/--no-{option.flag[2:]}" if option.default else option.flag
        return _keyword(option.name, Annotated[bool | None, typer.Option(flag, *short)], None)
    kind = typer.Option(option.flag, *short, autocompletion=complete)
    base = list[str] | None if option.type in (dict, tuple) else str | None
    return _keyword(option.name, Annotated[base, kind], None)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _completion(option: Option) -> Callable[[str], list[str]] | None:
    names = option.setting.names
    if names is None:
        return None
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def _help_for(cls: type[Settings], examples: str, config: bool) -> type[Command]:
    settings = (*options(cls), *options(Output))
    return type("Command", (Command,), {"settings": settings, "examples": examples, "config": config})
