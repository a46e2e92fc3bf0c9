"""What the console writes where: for people, as one document, quietly; tables, numbers and foreign names."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch

from nas.cli.errors import report
from nas.console import Console, plain, printable, quantity
from search_spaces.errors import InputError


def test_names_cannot_steer_the_terminal() -> None:
    err = io.StringIO()
    report(InputError("run 'a\x1b[2Jb\rc\u202e'"), Console(stderr=err))
    assert err.getvalue() == "nas: error: run 'a\\x1b[2Jb\\rc\\u202e'\n"
    assert printable("é ü 東") == "é ü 東"


class TestConsole:
    def console(self, **more: bool) -> tuple[Console, io.StringIO, io.StringIO]:
        out, err = io.StringIO(), io.StringIO()
        return Console(stdout=out, stderr=err, **more), out, err

    def test_tables_are_plain_in_a_pipe(self) -> None:
        console, out, _ = self.console()
        console.table(
            ["id", "accuracy", "note"], [(1, 0.98765, "a"), (20, None, "a long note " * 30)], marked=0
        )
        lines = out.getvalue().splitlines()
        assert lines[:2] == ["id  accuracy  note", " 1    0.9877  a"]
        assert len(lines) == 3, "a pipe has no width: nothing is wrapped"
        assert "\x1b" not in out.getvalue()

    def test_json_keeps_stdout_for_the_document(self) -> None:
        console, out, err = self.console(json=True)
        console.say("hello")
        console.table(["a"], [(1,)])
        console.result("text")
        console.warn("careful")
        with console.progress("work", 3) as bar:
            bar.update(3)
        console.document({"a": float("nan"), "b": (1, Path("x")), "c": torch.ones(2).numpy()})
        assert json.loads(out.getvalue()) == {"a": None, "b": [1, "x"], "c": [1.0, 1.0]}
        assert err.getvalue() == "hello\nwarning: careful\n"

    def test_quiet_hides_all_but_results_and_warnings(self) -> None:
        console, out, err = self.console(quiet=True)
        console.say("hello")
        console.next_step("nas")
        console.result("text")
        console.warn("careful")
        assert (out.getvalue(), err.getvalue()) == ("text\n", "warning: careful\n")

    def test_details_are_for_verbose(self) -> None:
        console, out, _ = self.console()
        console.detail("x")
        assert out.getvalue() == ""
        console, out, _ = self.console(verbose=True)
        console.detail("x")
        assert out.getvalue() == "x\n"

    def test_plain_values(self) -> None:
        assert plain({1: {2}, "x": [float("inf"), Path("a")]}) == {"1": [2], "x": [None, "a"]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (7_600_000, "7.60 M"),
        (12_345, "12.3 k"),
        (2.5e9, "2.50 G"),
        (1.1e19, "1.1e+19"),
    ],
)
def test_quantities_read_in_three_digits(value: float, text: str) -> None:
    assert quantity(value) == text
