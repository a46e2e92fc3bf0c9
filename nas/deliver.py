"""`nas export`: one network of a run as an ordinary file, checked against the network that was trained."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from nas.console import Console
from nas.data import Data
from nas.export import export_onnx, onnx_metadata
from nas.run_record import read_record, supernet_of
from nas.run_settings import ExportSettings
from nas.runs import versions
from nas.study import read_study
from nas.subnet_file import save_subnet
from nas.trained import calibration, check_data, load_supernet, open_data, settings_of
from predictors import targets
from predictors.target import Target
from search_spaces import Arch, InputError, SearchSpace
from supernets import Supernet
from supernets.evaluate import recalibrate, resize_to

SAMPLES = {"images": 64, "text": 8}  # real inputs on which an exported file is compared
_DEFAULT_OPSET = 18


def run(settings: ExportSettings, console: Console) -> Mapping[str, Any]:
    """The command. Returns what `--json` prints."""
    folder = Path(settings.run)
    record = read_record(folder)
    if settings.output is not None:
        _check_output(Path(settings.output))
    if record["what"] == "search":
        supernet_folder = supernet_of(folder, record)
        if not supernet_folder.exists():
            raise FileNotFoundError(
                errno.ENOENT, f"the supernet of {folder} is not there any more", str(supernet_folder)
            )
        told = record["settings"]
        target: Target | None = targets.find(
            told["target"] or "cpu", told["target_precision"], told["target_batch"] or 1
        )
    else:
        supernet_folder, target = folder, None
    train_settings = settings_of(supernet_folder)
    data = open_data(train_settings)
    check_data(supernet_folder, data)
    supernet = load_supernet(supernet_folder, train_settings, data)
    arch, facts = find_arch(settings.arch, folder, record, supernet)
    stem = settings.output or stem_of(folder, supernet.space, arch)
    files = deliver(
        supernet,
        data,
        arch,
        Path(stem),
        kind=settings.format,
        target=target,
        facts=facts,
        console=console,
        opset=settings.opset,
        batch=settings.batch,
        exact_path=settings.output is not None,
    )
    return {"arch": dict(arch), "digest": arch.digest, **files}


def stem_of(folder: Path, space: SearchSpace, arch: Arch) -> Path:
    """Where a network of a run is kept, without the ending that says its format."""
    return folder / f"{space.name.rpartition(':')[2]}-{arch.digest}"


def _check_output(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "--output is a folder; give a file in it", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder for --output", str(path.parent))


def find_arch(
    wanted: str, folder: Path, record: Mapping[str, Any], supernet: Supernet
) -> tuple[Arch, dict[str, Any]]:
    """The arch that `wanted` means in a run, with what the run knows about it.

    Raises:
        InputError: no such network in this run.
    """
    space = supernet.space
    if wanted in ("largest", "smallest"):
        return getattr(space, wanted), {}
    if wanted.endswith(".json"):
        return space.arch(Arch.from_json(Path(wanted).read_text())), {}
    if record["what"] != "search":
        raise InputError(
            f"{folder} is a training, which picked no network: --arch is largest, smallest or a JSON file"
        )
    result = record.get("result")
    if wanted == "best":
        if not result:
            raise InputError(f"the search {folder} is not finished; first: nas search --resume {folder}")
        wanted = str(result["chosen"])
    front = {str(row["id"]): row for row in (result or {}).get("front", [])}
    if wanted in front:
        row = front[wanted]
        numbers = {k: v for k, v in row.items() if k not in ("id", "arch")}
        return space.arch(row["arch"]), {"numbers": numbers, "provenance": record.get("provenance", {})}
    study = read_study(folder, record)
    trials = {str(trial.number): trial for trial in study.trials}
    if wanted not in trials:
        raise InputError(
            f"no network {wanted!r} in {folder}: --arch is best or an ID from 0 to {len(trials) - 1}"
        )
    trial = trials[wanted]
    return space.arch(trial.arch), {
        "numbers": dict(trial.values),
        "provenance": study.attrs.get("provenance", {}),
    }


def deliver(
    supernet: Supernet,
    data: Data,
    arch: Arch,
    stem: Path,
    *,
    kind: str,
    target: Target | None,
    facts: Mapping[str, Any],
    console: Console,
    opset: int | None = None,
    batch: str = "dynamic",
    exact_path: bool = False,
) -> dict[str, Any]:
    """Writes `arch` as ONNX or safetensors beside `stem`, and says so. Returns what was written.

    Raises:
        VerificationError: the file computes something else than the network.
    """
    shape = supernet.space.input_shape(arch)
    module = ready(supernet, arch, data)
    samples, _ = next(iter(data.test_batches(SAMPLES[data.kind])))
    samples = resize_to(samples, shape)
    facts = {
        **facts,
        **data.facts(shape),
        "data": {"name": data.name, "fingerprint": data.fingerprint},
        "software": versions(),
    }
    if target is not None:
        facts["target"] = {k: v for k, v in target.describe().items() if k not in ("device", "sources")}
    path = stem if exact_path else Path(f"{stem}.{kind}")
    if kind == "safetensors":
        digest = save_subnet(module, path, arch=arch, space=supernet.space, extra=facts)
        console.say(f"[bold]export[/bold]    {path}, for nas.load_subnet()")
        return {"file": str(path), "format": kind, "sha256": digest}
    fixed = batch != "dynamic"
    report = export_onnx(
        module,
        path,
        input_shape=shape,
        samples=samples,
        metadata=onnx_metadata(arch, supernet.space, facts),
        opset=opset or (target.opset if target is not None else _DEFAULT_OPSET),
        dynamic_batch=not fixed,
    )
    console.say(
        f"[bold]export[/bold]    {path}: ONNX opset {report.opset}, {report.bytes / 1e6:.2f} MB; "
        f"equal to PyTorch on {len(samples)} test {data.inputs} "
        f"(largest relative difference {report.max_relative_error:.0e})"
    )
    return {
        "file": str(path),
        "format": kind,
        "sha256": report.sha256,
        "opset": report.opset,
        "max_relative_error": report.max_relative_error,
    }


def ready(supernet: Supernet, arch: Arch, data: Data) -> nn.Module:
    """The network as handed over: its own weights and batch-norm statistics, in eval mode, on the CPU."""
    shape = supernet.space.input_shape(arch)
    module = supernet.extract(arch).cpu()
    return recalibrate(module, (resize_to(x, shape) for x in calibration(data)))
