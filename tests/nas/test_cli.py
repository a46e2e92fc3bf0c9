"""The command line: help that matches the settings, hints for typos, one document by --json, exit codes."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer

from nas.catalogue_settings import SpacesSettings, TargetsSettings
from nas.cli import environment, main
from nas.cli.app import app
from nas.cli.errors import Terminated, exit_code, message, report
from nas.cli.options import OUTPUT, command, settings_of
from nas.config import ConfigError, Settings, options, setting
from nas.console import Console, plain, printable, quantity
from nas.expand_settings import ExpandSettings
from nas.run_settings import DashboardSettings, ExportSettings, GenerateSettings, ShowSettings
from nas.search_settings import SearchSettings
from nas.train_settings import TrainSettings
from search_spaces.errors import InputError, SpaceError, VerificationError
from supernets.files import Busy

COMMANDS: dict[str, type[Settings]] = {
    "search": SearchSettings,
    "train": TrainSettings,
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


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("wrong"), 2, "wrong"),
        (ConfigError("wrong"), 2, "wrong"),
        (SpaceError("wrong"), 2, "wrong"),
        (Busy("runs/a is in use by pid 1"), 3, "runs/a is in use by pid 1"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), 4, "permission denied: a"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", b"a"),
            4,
            "no such file or directory: a",
        ),
        (FileNotFoundError("no folder 'a'"), 4, "no folder 'a'"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a"), 4, "not a directory: a"),
        (ModuleNotFoundError("install dask", name="dask"), 4, "install dask"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), 4, "connection refused"),
        (OSError(errno.ENOSPC, "No space left on device", "a"), 5, "disk full: a"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a"), 5, "disk quota used up: a"),
        (OSError(errno.EFBIG, "File too large", "a"), 5, "file size limit reached: a"),
        (MemoryError(), 5, "out of memory; try a smaller --batch-size, --image-size or --context"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to"),
            5,
            "out of memory (CUDA out of memory. Tried to)",
        ),
        (VerificationError("differs by 3"), 6, "differs by 3"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated(), 143, "terminated"),
        (ValueError("a\nb"), 1, "ValueError: a (a bug? --debug shows where)"),
        (ModuleNotFoundError("No module named 'nas.x'", name="nas.x"), 1, "ModuleNotFoundError: No module"),
        (RuntimeError(), 1, "RuntimeError: no message"),
    ],
)
def test_each_failure_has_its_code_and_its_line(error: BaseException, code: int, line: str) -> None:
    assert exit_code(error) == code
    assert message(error).startswith(line)
    err = io.StringIO()
    assert report(error, Console(stderr=err)) == code
    assert err.getvalue().startswith(f"nas: error: {line}")
    assert err.getvalue().count("\n") == 1


def test_an_interrupted_run_says_how_to_go_on() -> None:
    error = KeyboardInterrupt("saved at step 3")
    error.resume_command = "nas train --resume runs/a"  # type: ignore[attr-defined]
    err = io.StringIO()
    assert report(error, Console(stdout=err, stderr=err)) == 130
    assert err.getvalue() == ("nas: error: interrupted: saved at step 3\n  next: nas train --resume runs/a\n")


def test_the_traceback_is_for_debug_only() -> None:
    err = io.StringIO()
    report(ValueError("x"), Console(stderr=err))
    assert "Traceback" not in err.getvalue()
    assert "nas: error: ValueError: x" in err.getvalue()
    err = io.StringIO()
    try:
        raise ValueError("x")
    except ValueError as error:
        report(error, Console(stderr=err), debug=True)
    assert err.getvalue().startswith("Traceback (most recent call last)")
    assert "nas: error: ValueError: x" in err.getvalue()


def test_names_cannot_steer_the_terminal() -> None:
    err = io.StringIO()
    report(InputError("run 'a\x1b[2Jb\rc\u202e'"), Console(stderr=err))
    assert err.getvalue() == "nas: error: run 'a\\x1b[2Jb\\rc\\u202e'\n"
    assert printable("é ü 東") == "é ü 東"


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


def test_a_closed_pipe_is_no_error() -> None:
    line = f"{sys.executable} -m nas targets | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] in ("0", "141")


def test_sigterm_is_reported_with_its_code(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from nas.cli import options\n"
        "options.check_packages = lambda: os.kill(os.getpid(), signal.SIGTERM)\n"
        "from nas.cli import main\n"
        "sys.exit(main(['targets']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "nas: error: terminated\n")


def test_a_foreign_package_of_our_name_is_called_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.check_packages()
    foreign = tmp_path / "kernels"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "nas", "targets"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 4
    assert f"'kernels' resolves to {foreign}, which is not part of this program" in done.stderr


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


def test_no_setting_is_called_like_an_output_flag() -> None:
    from nas.cli.options import Output

    for cls in COMMANDS.values():
        assert {o.flag for o in options(Output)}.isdisjoint(o.flag for o in options(cls))
        shorts = [o.setting.short for o in (*options(cls), *options(Output)) if o.setting.short]
        assert len(shorts) == len(set(shorts))
    assert setting("x", "help").metadata["setting"].help == "help"
