"""The house holds: imports go down only, engines stay in their files, `nas --help` loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("kernels", "search_spaces", "supernets", "predictors", "nas")  # each imports only those before it
STANDARD_HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pandas",
    "sklearn",
    "scipy",
    "matplotlib",
    "plotly",
}
ENGINES = {
    # engine: the files that may import it; None: any number of files, but never at the top of one
    "optuna": 6,
    "optuna_dashboard": 2,
    "pymoo": 2,
    "sqlalchemy": 3,
    "onnx": 4,
    "onnxruntime": 2,
    "onnxscript": 1,
    "matplotlib": 2,
    "plotly": 3,
    "timm": None,
    "torchvision": None,
    "pandas": None,
    "sklearn": None,
}
# A space is made of its blocks, a searcher of its engine; their files are imported when they are asked for.
AT_THE_TOP = {"timm": "search_spaces", "pymoo": "nas/searchers"}
HEAVY = STANDARD_HEAVY | set(ENGINES)


def modules() -> Iterator[Path]:
    for layer in LAYERS:
        yield from sorted((ROOT / layer).rglob("*.py"))


def imported(path: Path, *, top_only: bool = False) -> Iterator[tuple[str, int]]:
    """The dotted names that a file imports, with line; `top_only` leaves out functions and TYPE_CHECKING."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if top_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the whole name of the module"
            assert node.module is not None
            yield node.module, node.lineno
        pending += ast.iter_child_nodes(node)


def shown(path: Path, line: int, name: str) -> str:
    return f"{path.relative_to(ROOT)}:{line} imports {name}"


def test_every_layer_is_a_folder_and_nas_has_files() -> None:
    assert [layer for layer in LAYERS if not (ROOT / layer).is_dir()] == []
    assert any(path.parts[-2:] == ("nas", "__init__.py") for path in modules())


def test_imports_go_down_only() -> None:
    wrong = []
    for path in modules():
        allowed = LAYERS[: LAYERS.index(path.relative_to(ROOT).parts[0]) + 1]
        for name, line in imported(path):
            top = name.partition(".")[0]
            if top in LAYERS and top not in allowed:
                wrong.append(shown(path, line, name))
    assert wrong == []


def test_nothing_imports_the_tests_or_the_studies() -> None:
    wrong = [
        shown(path, line, name)
        for path in modules()
        for name, line in imported(path)
        if name.partition(".")[0] in ("tests", "studies", "pytest", "hypothesis")
    ]
    assert wrong == []


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_imported_where_it_is_used(engine: str) -> None:
    wrong = [
        shown(path, line, name)
        for path in modules()
        for name, line in imported(path, top_only=True)
        if name.partition(".")[0] == engine
        and path.relative_to(ROOT).parent.as_posix() != AT_THE_TOP.get(engine)
    ]
    assert wrong == []


@pytest.mark.parametrize("engine", [name for name, files in ENGINES.items() if files is not None])
def test_an_engine_stays_in_few_files(engine: str) -> None:
    limit = ENGINES[engine]
    using = sorted(
        {
            str(path.relative_to(ROOT))
            for path in modules()
            if any(name.partition(".")[0] == engine for name, _ in imported(path))
        }
    )
    assert limit is not None
    assert len(using) <= limit, f"{engine} is used in {using}"


def test_the_command_line_imports_nothing_heavy_at_the_top() -> None:
    light = [ROOT / "nas" / name for name in ("__init__.py", "__main__.py")]
    light += [ROOT / "nas" / f"{name}.py" for name in ("config", "option", "values", "strict_yaml")]
    light += [ROOT / "nas" / f"{name}.py" for name in ("console", "resolve", "run_record", "setting_groups")]
    light += (ROOT / "nas").glob("*_settings.py")
    light += (ROOT / "nas" / "cli").glob("*.py")
    wrong = [
        shown(path, line, name)
        for path in light
        for name, line in imported(path, top_only=True)
        if name.partition(".")[0] in HEAVY
    ]
    assert wrong == []


def loaded_by(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter has loaded after the code."""
    tail = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{tail}"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return HEAVY & set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import nas",
        "import nas.cli",
        "import nas.config, nas.search_settings, nas.run_settings, nas.catalogue_settings",
        "from nas.cli import main; main(['--help'])",
        "from nas.cli import main; main(['search', '--help'])",
        "from nas.cli import main; main(['serch'])",
        "from nas.cli import main; main(['search', '--searcher', 'nsga'])",
    ],
)
def test_help_and_typos_load_nothing_heavy(code: str) -> None:
    assert loaded_by(code) == set()


def test_import_nas_runs_no_code_of_the_kernels() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import nas, sys; print('triton' in sys.modules, 'kernels' in sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == ["False", "False"]
