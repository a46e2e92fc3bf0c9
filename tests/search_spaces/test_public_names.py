"""The names that the package promises are the things themselves, whatever was imported before."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import search_spaces


def run(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=True,
        text=True,
    ).stdout


def test_no_public_name_is_a_module():
    """`trace`, the function, was once hidden by the file of that name as soon as that was imported."""
    program = (
        "import types, search_spaces, search_spaces.space, search_spaces.table\n"
        "import search_spaces as s\n"
        "print([n for n in s.__all__ if isinstance(getattr(s, n), types.ModuleType)])"
    )
    assert run(program) == "[]\n"


def test_errors_and_choices_come_without_torch():
    program = (
        "import sys; from search_spaces import InputError, Choice, Arch, did_you_mean\n"
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    assert run(program) == "False False\n"


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'Arc'"):
        search_spaces.Arc  # noqa: B018
