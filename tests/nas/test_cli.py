"""The command line: help that matches the settings, hints for typos, one document by --json."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from nas.catalogue_settings import SpacesSettings, TargetsSettings
from nas.cli import main
from nas.cli.app import app
from nas.cli.options import OUTPUT, command, settings_of
from nas.config import ConfigError, Settings, options, setting
from nas.console import Console
from nas.expand_settings import ExpandSettings
from nas.run_settings import AuditSettings, DashboardSettings, ExportSettings, GenerateSettings, ShowSettings
from nas.search_settings import SearchSettings
from nas.train_settings import TrainSettings

COMMANDS: dict[str, type[Settings]] = {
    "search": SearchSettings,
    "train": TrainSettings,
    "audit": AuditSettings,
    "expand": ExpandSettings,
    "export": ExportSettings,
    "generate": GenerateSettings,
    "show": ShowSettings,
    "dashboard": DashboardSettings,
    "spaces": SpacesSettings,
    "targets": TargetsSettings,
}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def nas(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line: exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "80")
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        signal.signal(signal.SIGTERM, before)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_setting_and_shows_examples(nas: Run, name: str) -> None:
    code, out, err = nas(name, "--help")
    assert (code, err) == (0, "")
    for option in options(COMMANDS[name]):
        shown = option.setting.metavar or "" if option.setting.argument else option.flag[2:]
        assert shown in out, option.name
    assert f"nas {name}" in out.partition("Examples")[2]
    assert OUTPUT in out
    assert "--json" in out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80


def test_help_lists_the_commands(nas: Run) -> None:
    code, out, _ = nas("--help")
    assert code == 0
    for name in COMMANDS:
        assert f"   {name} " in out
    assert nas() == (0, out, "")


def test_examples_in_the_help_use_flags_that_exist(nas: Run) -> None:
    for name in ("", *COMMANDS):
        _, out, _ = nas(*name.split(), "--help")
        for line in out.splitlines():
            words = line.partition("  #")[0].split()
            if words[:1] == ["nas"] and len(words) > 1 and words[1] in COMMANDS:
                flags = {option.flag for option in options(COMMANDS[words[1]])} | {"--json", "--help"}
                shorts = {option.setting.short for option in options(COMMANDS[words[1]])}
                assert [w for w in words if w.startswith("-") and w not in flags | shorts] == [], line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serch"], "no such command 'serch'. Did you mean 'search'?"),
        (["search", "--taget", "x"], "no such option: --taget; did you mean --target?"),
        (["train", "--space", "vitt"], "--space: unknown name 'vitt'; did you mean 'vit'?"),
        (["train", "--recipe", "sandwitch"], "--recipe: unknown name 'sandwitch'; did you mean 'sandwich'?"),
        (["spaces", "mobilnet"], "NAME: unknown name 'mobilnet'; did you mean 'mobilenet_v3'?"),
        (["targets", "jetsn"], "unknown target 'jetsn'; did you mean 'jetson'?"),
        (["export", "runs/a", "--format", "onx"], "--format: unknown name 'onx'; did you mean 'onnx'?"),
        (["train", "--epochs", "x"], "--epochs = 'x': expected a whole number"),
        (["train", "--epochs", "0"], "--epochs = '0': must be at least 1"),
        (["train", "--space-set", "width"], "--space-set: expected KEY=VALUE, found 'width'"),
        (["search", "--max-params", "2X", "--searcher", "a:b"], "--max-params = '2X': 'X' in '2X'"),
        (
            ["search", "--objectives", "latncy"],
            "--objectives: unknown name 'latncy'; did you mean 'latency'?",
        ),
        (["expand", "runs/a"], "depth is missing: layers of the network"),
        (["expand", "runs/a", "--depth", "0"], "--depth: a network has from 1 to 1000 layers"),
        (["expand", "runs/a", "--depth", "4,x"], "expected a number of layers, or several such as 4,6,8"),
        (["expand", "runs/a", "--depth", "4,4"], "names a depth twice"),
        (["export"], "missing argument 'RUN' (see nas export --help)"),
        (["show", "a", "b"], "unexpected extra argument"),
        (["dashboard"], "give either the run folder of a search or --storage URL"),
    ],
)
def test_a_typo_costs_one_line(nas: Run, arguments: list[str], expected: str) -> None:
    code, out, err = nas(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("nas: error: ")
    assert expected in err
    assert err.count("\n") == 1


def test_a_config_file_is_named_with_its_line(nas: Run, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("# a study\nepoch: 3\n")
    assert nas("train", str(path))[::2] == (
        2,
        f"nas: error: {path}, line 2: unknown setting 'epoch'; did you mean 'epochs'?\n",
    )
    path.write_text("forma: onnx\n")
    assert "did you mean 'format'?" in nas("export", "runs/a", "--config", str(path))[2]
    code, _, err = nas("train", str(tmp_path / "absent.yaml"))
    assert code == 4
    assert err == f"nas: error: no such file or directory: {tmp_path}/absent.yaml\n"


def test_json_is_one_document_and_nothing_else(nas: Run) -> None:
    code, out, _ = nas("targets", "--json")
    assert code == 0
    names = [row["name"] for row in json.loads(out)["targets"]]
    assert "cpu" in names
    code, out, _ = nas("targets", "jetson", "--json")
    assert json.loads(out)["name"] == "jetson-orin-nano"


def test_spaces_show_their_extent(nas: Run) -> None:
    small = ("--space-set", "image_size=32", "--space-set", "classes=10")
    code, out, _ = nas("spaces", "vit", *small)
    assert code == 0
    assert "3x32x32" in out
    assert "next: nas train --space vit" in out
    code, out, _ = nas("spaces", "vit", *small, "--json")
    fact = json.loads(out)["spaces"][0]
    assert fact["params"][0] < fact["params"][1]
    assert fact["macs"][0] < fact["macs"][1]
    assert fact["size"] > 1
    assert {"name", "options", "when"} == set(fact["choices"][0])


def test_quiet_leaves_the_result(nas: Run) -> None:
    assert "next:" in nas("targets")[1]
    code, out, err = nas("targets", "-q")
    assert (code, err) == (0, "")
    assert "jetson-orin-nano" in out
    assert "next:" not in out


@pytest.fixture
def toy(tmp_path: Path) -> typer.Typer:
    """A real command of its own, with a body that reports its settings."""

    class Toy(TrainSettings):
        pass

    toy_app = typer.Typer()

    @toy_app.callback()
    def top() -> None: ...

    @command(toy_app, Toy, "")
    def toy(settings: Toy, console: Console) -> dict[str, object]:
        """Do it."""
        console.say("for people")
        return settings.as_dict()

    return toy_app


def test_flags_win_over_variables_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("epochs: 4\nseed: 4\nlr: 0.4\n")
    flags = {"config": str(path), "epochs": "2"}
    got = settings_of("train", TrainSettings, flags, {"NAS_EPOCHS": "3", "NAS_SEED": "3"})
    assert (got.epochs, got.seed, got.lr, got.batch_size) == (2, 3, 0.4, 64)


def test_resume_takes_everything_from_the_run(tmp_path: Path) -> None:
    run = tmp_path / "a"
    run.mkdir()
    with pytest.raises(FileNotFoundError, match=r"no run\.json|not a run folder"):
        settings_of("train", TrainSettings, {"resume": str(run)}, {})
    saved = TrainSettings(epochs=7, lr=0.3).as_dict()
    (run / "run.json").write_text(json.dumps({"what": "train", "settings": saved}))
    got = settings_of("train", TrainSettings, {"resume": str(run)}, {"NAS_EPOCHS": "3", "NAS_DEVICE": "cpu"})
    assert (got.epochs, got.lr, got.device, got.resume) == (7, 0.3, "cpu", str(run))
    with pytest.raises(ConfigError, match="--epochs = '8': the run has 7"):
        settings_of("train", TrainSettings, {"resume": str(run), "epochs": "8"}, {})
    with pytest.raises(ConfigError, match="is a run of 'nas train'"):
        settings_of("search", TrainSettings, {"resume": str(run)}, {})
    (run / "run.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        settings_of("train", TrainSettings, {"resume": str(run)}, {})


def test_a_command_is_generated_from_its_settings(
    toy: typer.Typer, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = typer.main.get_command(toy)
    arguments = ["toy", "--json", "--epochs", "3", "--space-set", "a=1", "--space-set", "b=[2]", "-n"]
    assert parser.main(args=arguments, standalone_mode=False) in (0, None)
    out, err = capsys.readouterr()
    assert err == "for people\n"
    document = json.loads(out)
    assert document["epochs"] == 3
    assert document["space_settings"] == {"a": 1, "b": [2]}
    assert document["dry_run"] is True


def test_a_switch_that_is_on_is_turned_off_by_no() -> None:
    flags = {
        option.flag for option in options(SearchSettings) if option.type is bool and option.default is True
    }
    assert flags == {"--export"}
    parameters = {p.name: p for p in typer.main.get_command(app).commands["search"].params}  # type: ignore[attr-defined]
    assert parameters["export"].secondary_opts == ["--no-export"]


def test_values_complete() -> None:
    environ = {
        **os.environ,
        "_NAS_COMPLETE": "complete_bash",
        "COMP_WORDS": "nas train --space mob",
        "COMP_CWORD": "3",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from nas.cli import main; main()"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["mobilenet_v3"]


def test_no_setting_is_called_like_an_output_flag() -> None:
    from nas.cli.options import Output

    for cls in COMMANDS.values():
        assert {o.flag for o in options(Output)}.isdisjoint(o.flag for o in options(cls))
        shorts = [o.setting.short for o in (*options(cls), *options(Output)) if o.setting.short]
        assert len(shorts) == len(set(shorts))
    assert setting("x", "help").metadata["setting"].help == "help"
