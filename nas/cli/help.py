"""What `--help` prints: what the command does, examples to copy, and its settings in groups."""

from __future__ import annotations

import inspect
import sys
from typing import Any, ClassVar

import rich.console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from nas.config import Option
from nas.setting_groups import GROUPS

FLAGS_WIDTH = 28
MAX_WIDTH = 110


class Command(TyperCommand):
    """A command whose help is made from its settings."""

    settings: ClassVar[tuple[Option, ...]] = ()
    examples: ClassVar[str] = ""
    config: ClassVar[bool] = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help; the parser's own formatter is not used."""
        del formatter
        arguments = [option for option in self.settings if option.setting.argument]
        given = [o.setting.metavar or o.name.upper() for o in arguments]
        usage = [name if o.required else f"[{name}]" for o, name in zip(arguments, given)]
        if self.config and not arguments:
            usage.append("[CONFIG]")
        page = _page()
        _heading(page, f"{ctx.command_path} {' '.join([*usage, '[OPTIONS]'])}", self.help or "")
        _examples(page, self.examples)
        if self.config:
            rows = [(Text("CONFIG"), Text("YAML file of the settings below"))]
            if arguments:
                rows = [(Text("--config, -c FILE"), Text("YAML file of the settings below"))]
        else:
            rows = []
        rows = [(Text(name), _described(o)) for o, name in zip(arguments, given)] + rows
        _section(page, "Arguments" if not (self.config and arguments) else "Input", rows)
        groups = {o.setting.group for o in self.settings if not o.setting.argument}
        for group in sorted(groups, key=GROUPS.index):
            members = [o for o in self.settings if o.setting.group == group and not o.setting.argument]
            _section(page, group, [(_flags(o), _described(o)) for o in members])
        if self.config:
            page.print(
                Padding(
                    "Flags go before variables (--batch-size is NAS_BATCH_SIZE), variables before the file "
                    "(batch_size: 64), the file before the defaults.",
                    (0, 0, 1, 1),
                ),
                style="dim",
            )


class Group(TyperGroup):
    """The top level: what there is to do, and how to begin."""

    examples: ClassVar[str] = ""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help; the parser's own formatter is not used."""
        del formatter
        page = _page()
        _heading(page, f"{ctx.command_path} COMMAND [OPTIONS]", self.help or "")
        _examples(page, self.examples)
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            assert command is not None
            text = inspect.cleandoc(command.help or "").partition("\n\n")[0]
            rows.append((Text(name, style="cyan"), Text(text.replace("\n", " "))))
        _section(page, "Commands", rows, width=12)
        options = [
            (Text(", ".join(p.opts), style="cyan"), Text(getattr(p, "help", None) or ""))
            for p in self.get_params(ctx)
        ]
        _section(page, "Options", options)
        page.print(Padding("nas COMMAND --help teaches each command by examples.", (0, 0, 1, 1)), style="dim")


def _page() -> rich.console.Console:
    page = rich.console.Console(file=sys.stdout, emoji=False, highlight=False)
    page.width = min(page.width, MAX_WIDTH)
    return page


def _heading(page: rich.console.Console, usage: str, text: str) -> None:
    page.print()
    page.print(Padding(Text.assemble(("usage: ", "dim"), (usage, "bold")), (0, 0, 1, 1)))
    paragraphs = [" ".join(p.split("\n")) for p in inspect.cleandoc(text).split("\n\n")]
    page.print(Padding(Text("\n\n".join(paragraphs)), (0, 0, 1, 1)))


def _examples(page: rich.console.Console, examples: str) -> None:
    lines = [line.partition("  #") for line in inspect.cleandoc(examples).splitlines()]
    if not lines:
        return
    page.print(Text(" Examples", style="bold"))
    width = max((len(c.rstrip()) for c, mark, _ in lines if mark), default=0)
    for line, mark, comment in lines:
        shown = Text("   ").append(line.rstrip(), style="green")
        if mark:
            gap = " " * max(1, width - len(line.rstrip()) + 2)
            shown.append(f"{gap}#{comment}", style="dim")
        page.print(shown, soft_wrap=True)
    page.print()


def _section(
    page: rich.console.Console, title: str, rows: list[tuple[Text, Text]], width: int = FLAGS_WIDTH
) -> None:
    if not rows:
        return
    page.print(Text(f" {title}", style="bold"))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=width, no_wrap=True, overflow="fold")
    table.add_column(ratio=1)
    for flags, text in rows:
        table.add_row(flags, text)
    page.print(Padding(table, (0, 0, 1, 3)))


def _flags(option: Option) -> Text:
    flag = f"--no-{option.flag[2:]}" if option.type is bool and option.default else option.flag
    parts = [(flag, "cyan")]
    if option.setting.short:
        parts.append((f", {option.setting.short}", "cyan"))
    if option.type is not bool:
        parts.append((f" {option.setting.metavar or 'TEXT'}", "dim"))
    return Text.assemble(*parts)


def _described(option: Option) -> Text:
    text = Text(option.setting.help)
    if option.type is bool and option.default:
        return Text("do not ").append_text(text)
    names = option.setting.names
    if names is not None:
        text.append(f": {', '.join(names())}" + (", or module:attribute" if option.setting.own else ""))
    if option.type is not bool and option.default not in (None, {}, ()) and not option.required:
        default = ",".join(option.default) if isinstance(option.default, tuple) else f"{option.default}"
        text.append(f" (default {default})", style="dim")
    return text
