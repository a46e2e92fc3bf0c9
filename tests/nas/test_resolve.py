"""Names find their files."""

from __future__ import annotations

import subprocess
import sys

import pytest

import search_spaces.vit
import supernets.policies.uniform
from nas.resolve import call, names, resolve
from search_spaces.errors import InputError


def test_every_name_resolves():
    assert {"mobilenet_v3", "vit"} <= set(names("space"))
    assert "uniform" in names("policy")
    for kind in ("space", "recipe", "policy", "searcher"):
        assert all(callable(resolve(kind, name)) for name in names(kind))
    assert resolve("space", "vit") is search_spaces.vit.space
    assert resolve("policy", "uniform") is supernets.policies.uniform.Uniform


def test_names_are_read_without_importing():
    code = (
        "import sys; from nas.resolve import names; print(names('space'), 'search_spaces.vit' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{names('space')} False"


def test_a_wrong_name_gets_a_suggestion():
    with pytest.raises(InputError, match="unknown space 'mobilenet'; did you mean 'mobilenet_v3'"):
        resolve("space", "mobilenet")


@pytest.mark.parametrize("name", ["../vit", "", "__init__", "errors", "vit.space", "os.path"])
def test_what_is_no_space_is_refused(name):
    with pytest.raises(InputError, match="unknown space"):
        resolve("space", name)


def test_ones_own_file_is_found_in_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "my_resolved_space.py").write_text(
        "def wide(**settings):\n    return settings\n\n\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert resolve("space", "my_resolved_space:wide")(a=1) == {"a": 1}
    with pytest.raises(InputError, match="has no 'wid'; did you mean 'wide'"):
        resolve("space", "my_resolved_space:wid")
    with pytest.raises(InputError, match="is a int; a space is a function or a class"):
        resolve("space", "my_resolved_space:number")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_of_that_name", "needs 'nothing_of_that_name', which is not installed"),
        ("1 / 0", "failed with ZeroDivisionError: division by zero"),
        ("def (", "failed with SyntaxError"),
    ],
)
def test_a_module_that_does_not_import_says_why(tmp_path, monkeypatch, source, message):
    name = f"broken_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=message):
        resolve("space", f"{name}:space")


def test_a_module_that_is_not_there_and_references_that_are_none():
    with pytest.raises(InputError, match="no module 'no_such_module_of_mine'"):
        resolve("space", "no_such_module_of_mine:space")
    for reference in (":space", "a:", "a b:c", "a:b:c", "/tmp/x.py:space"):
        with pytest.raises(InputError, match=r"is not of the form package\.module:attribute"):
            resolve("space", reference)


@pytest.mark.parametrize(
    ("recipe", "setting", "said"),
    [
        ("matformer", {"joint": "no"}, "joint must be bool, not 'no'"),
        ("matformer", {"probabilities": ["x", 1]}, r"probabilities must be list\[float\]"),
        ("sortednet", {"dimensions": "depth"}, r"dimensions must be list\[str\], not 'depth'"),
        ("sortednet", {"archs": [5]}, "cannot be made from"),
        ("progressive_shrinking", {"teacher": "none"}, "teacher must be largest or given, not 'none'"),
        ("uniform", {"optimizer": 5}, "optimizer must be str, not 5"),
    ],
)
def test_values_of_another_type_are_refused_in_one_line(recipe, setting, said) -> None:
    with pytest.raises(InputError, match=said) as refused:
        call("recipe", recipe, resolve("recipe", recipe), setting)
    assert "\n" not in str(refused.value)


def test_values_of_parameters_without_a_type_are_not_judged() -> None:
    def own(a, *, b: "Unknown | int" = 3, **more):  # type: ignore[no-untyped-def, name-defined] # noqa: F821, UP037
        return a, b, more

    assert call("space", "own", own, {"a": [1], "b": "x", "c": None}) == ([1], "x", {"c": None})
