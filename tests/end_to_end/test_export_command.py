"""`nas export`: a network as a file that anybody can run, equal to the one that was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from command_line import record_of, refused
from sklearn.datasets import load_digits

import nas as package
from nas.data import load_data
from nas.deliver import ready
from nas.export import read_metadata
from nas.train_settings import TrainSettings
from nas.trained import load_supernet
from search_spaces import Arch


def fed(metadata, pictures) -> np.ndarray:
    """Pictures [n, 8, 8] of 0 to 16 as the network wants them, by what its file says and nothing else."""
    how = metadata["nas.preprocessing"]
    assert how["resize"]["to"] == [8, 8]  # nothing to do
    assert how["value_range"] == [0, 255]
    assert how["input"]["layout"] == "NCHW"
    pixels = np.rint(pictures * (255 / 16))[:, None].astype(np.float32)
    return (pixels / how["divisor"] - np.float32(how["mean"])) / np.float32(how["std"])


def scores(path, inputs) -> np.ndarray:
    """What ONNX Runtime gives."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def trained(run: Path, arch):
    """The network as PyTorch has it, from the weights of the training."""
    settings = TrainSettings(**record_of(run)["settings"])
    data = load_data(settings.data, image_size=settings.image_size)
    supernet = load_supernet(run, settings, data)
    return ready(supernet, supernet.space.arch(arch), data)


def test_an_exported_network_classifies_raw_digits_as_pytorch_does(nas, searched, supernet) -> None:
    """From the pixels of scikit-learn, fed as the file's own properties say."""
    ran = nas("export", searched, "--output", "best.onnx", "--json")
    result = json.loads(ran.out)
    assert "equal to PyTorch on 64 test images" in ran.err
    metadata = read_metadata("best.onnx")
    raw = load_digits()
    inputs = fed(metadata, raw.images[:200])
    module = trained(supernet, metadata["nas.arch"])
    with torch.no_grad():
        expected = module(torch.from_numpy(inputs)).numpy()
    got = scores("best.onnx", inputs)
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()
    assert (got.argmax(1) == expected.argmax(1)).all()
    named = [metadata["nas.classes"][i] for i in got.argmax(1)]
    assert np.mean([a == str(b) for a, b in zip(named, raw.target[:200])]) > 0.15  # it has learned something
    record = record_of(searched)
    chosen = next(r for r in record["result"]["front"] if r["id"] == record["result"]["chosen"])
    assert result["arch"] == chosen["arch"] == metadata["nas.arch"]
    assert result["digest"] == metadata["nas.arch_digest"] == Arch(chosen["arch"]).digest
    assert result["opset"] == 18


def test_what_the_search_handed_over_is_the_same_file(nas, searched) -> None:
    handed_over = Path(record_of(searched)["result"]["files"]["file"])
    assert nas("export", searched, "-o", "again.onnx", "-q").code == 0
    inputs = np.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype(np.float32)
    assert scores("again.onnx", inputs).tolist() == scores(str(handed_over), inputs).tolist()
    assert read_metadata("again.onnx")["nas.numbers"] == read_metadata(handed_over)["nas.numbers"]


def test_safetensors_give_a_plain_module_that_is_equal_to_the_onnx_file(nas, searched) -> None:
    assert nas("export", searched, "-o", "net.onnx", "-q").code == 0
    ran = nas("export", searched, "--format", "safetensors", "-o", "net.safetensors")
    assert "for nas.load_subnet()" in ran.out
    module = package.load_subnet("net.safetensors")
    assert isinstance(module, torch.nn.Module)
    assert not module.training
    assert not any(type(part).__module__.startswith("supernets") for part in module.modules())
    inputs = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module(inputs).numpy()
    assert np.abs(scores("net.onnx", inputs.numpy()) - expected).max() < 1e-4 * np.abs(expected).max()
    # It is anybody's: it trains as any module does.
    module.train()(inputs).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize("which", ["largest", "smallest", "file", "id"])
def test_any_network_of_a_run_by_its_name(nas, searched, supernet, which) -> None:
    trials = package.load_study(searched).trials
    rows = {"largest": 0, "smallest": 1, "file": 7, "id": 9}
    wanted = {name: trials[row].arch for name, row in rows.items()}
    Path("arch.json").write_text(json.dumps(dict(trials[7].arch)))
    given = {"file": "arch.json", "id": str(trials[9].number)}.get(which, which)
    common = ("--arch", given, "--format", "safetensors", "-o", "x.safetensors", "--json", "-q")
    assert json.loads(nas("export", searched, *common).out)["arch"] == dict(wanted[which])
    module, reference = package.load_subnet("x.safetensors"), trained(supernet, wanted[which])
    inputs = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(module(inputs), reference(inputs))
    if which != "id":
        first = Path("x.safetensors").read_bytes()
        assert nas("export", supernet, *common).code == 0
        if which != "file":
            assert package.load_subnet("x.safetensors")(inputs).tolist() == module(inputs).tolist()
        assert len(first) > 1000


def test_a_fixed_batch_and_an_older_opset(nas, searched) -> None:
    assert nas("export", searched, "--opset", "17", "--batch", "1", "-o", "fixed.onnx", "-q").code == 0
    one = np.zeros((1, 1, 8, 8), np.float32)
    assert scores("fixed.onnx", one).shape == (1, 10)
    with pytest.raises(Exception, match="invalid dimensions"):
        scores("fixed.onnx", np.zeros((2, 1, 8, 8), np.float32))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--arch", "99"), 2, "no network '99' in"),
        (("--arch", "-1"), 2, "no network '-1' in"),
        (("--arch", "bset"), 2, "--arch is best or an ID from 0 to 23"),
        (("--arch", "absent.json"), 4, "no such file or directory: absent.json"),
        (("--arch", "wrong.json"), 2, "is not a choice of 'mobilenet_v3'"),
        (("--arch", "empty.json"), 2, "an arch is a JSON object"),
        (("--opset", "16"), 2, "at least 17"),
        (("--opset", "99"), 2, "opset 99 is not written"),
        (("--batch", "8"), 2, "'dynamic' or 1"),
        (("--output", "no/such/folder/x.onnx"), 4, "no/such/folder"),
        (("--output", "."), 4, "--output is a folder"),
    ],
)
def test_a_mistake_costs_one_line_and_leaves_nothing(nas, searched, arguments, code, said) -> None:
    Path("wrong.json").write_text('{"depht": 3}')
    Path("empty.json").write_text("")
    before = sorted(Path().iterdir())
    ran = nas("export", searched, *arguments, "--json", "-q")
    refused(ran, code, said)
    assert ran.out == ""
    assert sorted(Path().iterdir()) == before


def test_a_training_picked_none_and_an_unfinished_search_neither(nas, searched, supernet) -> None:
    refused(nas("export", supernet, "-q"), 2, "--arch is largest, smallest or a JSON file")
    refused(nas("export", "absent", "-q"), 4, "no such run folder: absent")
    run = Path(shutil.copytree(searched, "run"))
    record = record_of(run)
    del record["result"]
    (run / "run.json").write_text(json.dumps(record))
    refused(nas("export", run, "-q"), 2, f"is not finished; first: nas search --resume {run}")


def test_runs_that_were_moved_together_still_find_each_other(nas, searched, supernet, monkeypatch) -> None:
    """And a folder seen from another folder than the one in which it was made."""
    for run in (searched, supernet):
        shutil.copytree(run, Path("moved") / run.name)
    record = record_of(Path("moved/found"))
    record["supernet"] = "runs/tiny"  # as a search in another folder, with relative paths, has it
    Path("moved/found/run.json").write_text(json.dumps(record))
    monkeypatch.chdir("moved/found")
    assert nas("export", ".", "--format", "safetensors", "-q").code == 0
    shutil.rmtree("../tiny")
    refused(nas("export", ".", "-q"), 4, "the supernet of . is not there any more: runs/tiny")
