"""What people and programs read: lines and tables in a terminal, plain lines in a pipe, or one JSON document.

Results go to stdout; progress, warnings and errors to stderr. With `json` stdout carries exactly one document
and all that is meant for people goes to stderr.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, NoReturn, Protocol

import rich.console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 4000  # columns where nobody's terminal sets them: never wrap, never cut
PLAIN_SECONDS = 10.0  # between two progress lines in a pipe


class Bar(Protocol):
    """The progress of one piece of work."""

    def update(self, done: float, note: str = "") -> None:
        """`done` of the total is done; `note` is a few words with the latest numbers."""

    def extend(self, total: float) -> None:
        """The total is another than was said."""


class Console:
    """Where the commands write. Safe to use from one thread.

    Args:
        json: stdout is for one JSON document (`document`); lines for people go to stderr.
        quiet: only results, warnings and errors.
        verbose: `detail` is shown too.
        color: False for none; None decides by terminal, NO_COLOR and TERM.
    """

    def __init__(
        self,
        *,
        json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        color: bool | None = None,
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
    ) -> None:
        self.json, self.quiet, self.verbose = json, quiet, verbose
        self._out = _Rich(stdout or sys.stdout, color)
        self._err = _Rich(stderr or sys.stderr, color)

        self._live = False

    @classmethod
    def silent(cls) -> Console:
        """One that writes nothing: for processes beside the one that speaks."""
        nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process
        return cls(quiet=True, stdout=nowhere, stderr=nowhere)

    @property
    def _people(self) -> _Rich:
        # Above a live bar, lines must pass through the console that draws the bar.
        return self._err if self.json or (self._live and self._out.is_terminal) else self._out

    def say(self, text: str = "") -> None:
        """A line for people, hidden by `quiet`. May hold Rich markup: `rich.markup.escape` foreign text."""
        if not self.quiet:
            self._people.print(text, soft_wrap=True, highlight=False)

    def detail(self, text: str) -> None:
        """A line for the curious, shown with `verbose`."""
        if self.verbose:
            self._people.print(text, style="dim", soft_wrap=True, highlight=False)

    def result(self, text: str) -> None:
        """Text that was asked for, exactly as it is; not hidden by `quiet`. Nothing with `json`."""
        if not self.json:
            self._out.file.write(text if text.endswith("\n") else text + "\n")

    def warn(self, text: str) -> None:
        """One line on stderr that is never hidden."""
        self._err.print(Text.assemble(("warning: ", "yellow"), printable(text)), soft_wrap=True)

    def error(self, text: str) -> None:
        """The one line of a failure: `nas: error: ...`."""
        self._err.print(Text.assemble(("nas: error: ", "bold red"), printable(text)), soft_wrap=True)

    def next_step(self, command: str) -> None:
        """What one would type next."""
        if not self.quiet:
            self._people.print(Text.assemble(("  next: ", "dim"), printable(command)), soft_wrap=True)

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        marked: int | None = None,
    ) -> None:
        """Rows under headings; columns of numbers to the right, those with a text in them to the left.

        None is shown as a dash; row `marked` stands out. Nothing with `json`: pass the numbers to `document`.
        """
        if self.json:
            return
        body = [list(row) for row in rows]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(columns))
        for i, name in enumerate(columns):
            texts = any(isinstance(row[i], str) for row in body)
            table.add_column(
                Text(name),
                justify="left" if texts else "right",
                header_style="dim",
                overflow="fold",
                no_wrap=i == 0,
            )
        for i, row in enumerate(body):
            table.add_row(*map(_cell, row), style="bold green" if i == marked else None)
        if self._out.is_terminal:
            self._out.print(table)
            return
        with self._out.capture() as captured:
            self._out.print(table)
        self._out.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))

    def document(self, value: Any) -> None:
        """The JSON document on stdout, with `json`. NaN and infinities become null."""
        if self.json:
            self._out.file.write(
                json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            )
            self._out.file.flush()

    def flush(self) -> None:
        """Everything is written; a reader that has gone away shows here, as a BrokenPipeError."""
        self._out.file.flush()

    @contextmanager
    def progress(self, title: str, total: float, unit: str = "") -> Iterator[Bar]:
        """A bar with the time left on stderr; in a pipe a line now and then; nothing when quiet."""
        if self.quiet:
            yield _Silent()
        elif self._err.is_terminal:
            self._live = True
            try:
                with _Live(self._err, title, total, unit) as bar:
                    yield bar
            finally:
                self._live = False
        else:
            yield _Plain(self._err, title, total, unit)

    def traceback(self, error: BaseException) -> None:
        """The whole traceback of the error, on stderr."""
        import traceback

        self._err.print(Text("".join(traceback.format_exception(error)).rstrip()), soft_wrap=True)


class _Rich(rich.console.Console):
    def __init__(self, file: IO[str], color: bool | None) -> None:
        system: Literal["auto"] | None = None if color is False else "auto"
        width = None if file.isatty() else PIPE_WIDTH
        super().__init__(file=file, color_system=system, width=width, emoji=False, highlight=False)

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


class _Silent:
    def update(self, done: float, note: str = "") -> None: ...

    def extend(self, total: float) -> None: ...


class _Plain:
    def __init__(self, console: _Rich, title: str, total: float, unit: str) -> None:
        self._console, self._title, self._total, self._unit = console, title, total, unit
        self._start = self._last = time.monotonic()
        self._spoke = False

    def update(self, done: float, note: str = "") -> None:
        now = time.monotonic()
        finished = done >= self._total and self._spoke
        if now - self._last < PLAIN_SECONDS and not finished:
            return
        self._last, self._spoke = now, True
        text = f"{self._title} {done:g}/{self._total:g}" + (f" {self._unit}" if self._unit else "")
        left = (now - self._start) * (self._total - done) / done if done else math.nan
        eta = f", {_duration(left)} left" if 0 < left < math.inf else ""
        self._console.print(Text(text + (f", {note}" if note else "") + eta), soft_wrap=True)

    def extend(self, total: float) -> None:
        self._total = total


class _Live:
    def __init__(self, console: _Rich, title: str, total: float, unit: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bars = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("[dim]{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self._task = self._bars.add_task(title, total=total, note="")

    def update(self, done: float, note: str = "") -> None:
        self._bars.update(self._task, completed=done)
        if note:
            self._bars.update(self._task, note=note)

    def extend(self, total: float) -> None:
        self._bars.update(self._task, total=total)

    def __enter__(self) -> _Live:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


def plain(value: Any) -> Any:
    """The value in JSON's own types, also of NumPy values, tuples, sets and paths; NaN is None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return os.fspath(value) if isinstance(value, Path) else value


def quantity(value: float, unit: str = "") -> str:
    """Three significant digits with k, M, G or T: 7600000 is `7.60 M`; beyond that `1.1e+19`."""
    if not math.isfinite(value):
        return "-"
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if scale <= abs(value) < scale * 1e3:
            digits = f"{value / scale:#.3g}".rstrip(".")
            return f"{digits} {letter}{unit}"
    text = f"{value:.1e}" if abs(value) >= 1e15 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def printable(text: str) -> str:
    """The text on one line, with whatever could steer a terminal written out."""
    line = " ".join(text.split("\n"))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _cell(value: object) -> Text:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Text("-", style="dim")
    return Text(f"{value:.4g}" if isinstance(value, float) else printable(str(value)))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
