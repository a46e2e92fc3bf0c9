"""A language model from the text to the file: training, search, export, and what is refused."""

from __future__ import annotations

import csv
import inspect
import io
import json
import math
import shutil
import signal
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from command_line import quietly, record_of, refused
from torch.nn import functional as F

import nas as package
from nas.data import load_data
from nas.export import read_metadata
from nas.train_settings import TrainSettings
from nas.trained import load_supernet
from supernets.evaluate import scores

GPT = (
    *("--space", "gpt", "--space-set", "depths=[1,2]", "--space-set", "embed_dims=[8,16]"),
    *("--space-set", "head_dim=4", "--space-set", "ffn_ratios=[1.0,2.0]"),
    *("--context", "16", "--batch-size", "32", "--epochs", "1"),
    *("--lr", "0.01", "--recipe-set", "optimizer=adamw"),
)
"""A handful of networks of a few thousand parameters; 25 steps."""
STEPS = 25


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "source.txt"
    path.write_text(inspect.getsource(inspect)[:16_000])
    return path


@pytest.fixture(scope="session")
def language_model(text, tmp_path_factory) -> Path:
    """The run folder of a trained supernet. Not to be changed."""
    runs = tmp_path_factory.mktemp("language")
    quietly(
        *("train", *GPT, "--data", f"text:{text}", "--runs", str(runs), "--name", "model", "--device", "cpu")
    )
    return runs / "model"


@pytest.fixture(scope="session")
def found(language_model) -> Path:
    """The run folder of a search of it. Not to be changed."""
    quietly(
        *("search", "--supernet", str(language_model), "--target", "jetson", "--evaluations", "10"),
        *("--population", "5", "--runs", str(language_model.parent), "--name", "found", "--device", "cpu"),
    )
    return language_model.parent / "found"


def opened(run: Path):
    """The data of a training and its supernet."""
    settings = TrainSettings(**record_of(run)["settings"])
    data = load_data(settings.data, context=settings.context)
    return data, load_supernet(run, settings, data)


def test_a_training_says_what_it_reads_and_how_perplexed_it_ends(nas, text, language_model) -> None:
    ran = nas("train", *GPT, "--data", f"text:{text}", "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    for said in (
        "source: 12,800 train, 1,600 validation, 1,600 test; bytes, context 16",
        f"{STEPS} steps of 32 windows on cpu",
    ):
        assert said in ran.out
    data, supernet = opened(language_model)
    result = record_of(language_model)["result"]
    ends = [supernet.space.largest, supernet.space.smallest]
    again = scores(supernet, ends, data.validation_batches(3), [])
    for i, which in enumerate(("largest", "smallest")):
        perplexity = result["validation_perplexity"][which]
        assert perplexity == pytest.approx(again.perplexity[i], rel=1e-6)
        assert result["validation_bits_per_byte"][which] == pytest.approx(math.log2(perplexity))
        assert result["validation_accuracy"][which] == again.accuracy[i]
        assert perplexity < 100  # a uniform guess is 256
    shown = nas("show", language_model)
    assert "tokens_per_s" in shown.out
    assert "images" not in shown.out


def test_a_training_that_is_killed_ends_with_the_same_weights(nas, start, text, language_model) -> None:
    run = Path("runs/killed")
    process = start(
        "train", *GPT, "--data", f"text:{text}", "--checkpoint-minutes", "0", "--name", "killed",
        die_at=("replace", 40),
    )  # fmt: skip
    assert process.wait().code == -signal.SIGKILL
    done = json.loads((run / "checkpoint.json").read_text())["meta"]["position"]["global_step"]
    assert 0 < done < STEPS
    assert nas("train", "--resume", run, "-q").code == 0
    for name in ("supernet.safetensors", "checkpoint.safetensors"):
        assert (run / name).read_bytes() == (language_model / name).read_bytes()


def test_a_search_trades_perplexity_against_latency(nas, language_model, found) -> None:
    record = record_of(found)
    assert record["settings"]["objectives"] == ["perplexity", "latency"]
    assert record["provenance"]["perplexity"]["kind"] == "measured"
    assert "1584 validation tokens" in record["provenance"]["perplexity"]["detail"]
    data, supernet = opened(language_model)
    rows = record["result"]["front"]
    archs = [supernet.space.arch(row["arch"]) for row in rows]
    for name, batches in (
        ("perplexity", data.validation_batches(7)),
        ("test_perplexity", data.test_batches(7)),
    ):
        again = scores(supernet, archs, batches, [])
        assert [row[name] for row in rows] == pytest.approx(again.perplexity.tolist(), rel=1e-6)
    assert rows == sorted(rows, key=lambda row: (row["latency"], row["perplexity"]))
    for before, after in pairwise(rows):
        assert before["perplexity"] > after["perplexity"]
    trials = package.load_study(found).trials
    assert len(trials) == 10
    best = min(trial.values["perplexity"] for trial in trials)
    assert rows[-1]["perplexity"] == best
    assert record["result"]["largest"].keys() == {"test_perplexity"}
    table = list(csv.DictReader(io.StringIO((found / "front.csv").read_text())))
    assert [float(line["test_perplexity"]) for line in table] == [row["test_perplexity"] for row in rows]
    assert "test perplexity" in (found / "README.txt").read_text()
    assert "accuracy" not in (found / "README.txt").read_text()
    page = (found / "front.html").read_text()
    assert "perplexity on source validation (measured)" in page
    assert "perplexity on test data" in page


def test_show_lists_the_front_by_perplexity(nas, found) -> None:
    ran = nas("show", found, "--plot", "again.svg")
    assert ran.code == 0
    assert "perplexity (measured)" in ran.out
    assert "test perplexity" in ran.out
    assert Path("again.svg").stat().st_size > 1000


def test_a_pick_by_perplexity_and_a_search_for_both_measures(nas, language_model, found) -> None:
    rows = record_of(found)["result"]["front"]
    bound = rows[0]["perplexity"] + 1
    run = Path(shutil.copytree(found, "found"))
    ran = nas("search", "--resume", run, "--pick", f"perplexity<{bound}", "--no-export", "--json", "-q")
    assert json.loads(ran.out)["chosen"] == rows[-1]["id"]  # the least perplexed of all
    below = rows[-1]["perplexity"] / 2
    refused(
        nas("search", "--resume", run, "--pick", f"perplexity<{below}", "--no-export", "-q"),
        2, f"no candidate has perplexity < {below:g}", "the lowest perplexity seen is",
    )  # fmt: skip
    both = nas(
        *("search", "--supernet", language_model, "--target", "jetson", "--no-export", "--json", "-q"),
        *("--objectives", "accuracy,perplexity", "--evaluations", "4", "--population", "4"),
    )
    row = json.loads(both.out)["front"][0]
    assert row.keys() >= {"accuracy", "perplexity", "test_accuracy", "test_perplexity"}


def test_the_exported_network_reads_bytes_and_says_so(nas, text, language_model, found) -> None:
    chosen = record_of(found)["result"]
    file = Path(chosen["files"]["file"])
    metadata = read_metadata(file)
    assert metadata["nas.encoding"]["tokens"] == "bytes"
    assert metadata["nas.encoding"]["context"] == 16
    row = next(row for row in chosen["front"] if row["id"] == chosen["chosen"])
    assert metadata["nas.numbers"]["test_perplexity"] == row["test_perplexity"]
    assert not {"nas.classes", "nas.preprocessing"} & metadata.keys()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.type, given.shape) == ("tensor(int64)", ["batch", "tokens"])
    assert nas("export", found, "--format", "safetensors", "-o", "net.safetensors").code == 0
    module = package.load_subnet("net.safetensors")
    # The file, fed by hand from the text's last bytes as its metadata says, scores what was reported.
    test = np.frombuffer(text.read_bytes()[-1600:], np.uint8).astype(np.int64)
    windows = np.stack([test[i : i + 17] for i in range(0, 1584, 16)])
    (logits,) = session.run(None, {given.name: windows[:, :-1]})
    with torch.no_grad():
        torch.testing.assert_close(
            torch.from_numpy(logits), module(torch.from_numpy(windows[:, :-1])), atol=1e-4, rtol=1e-4
        )
    loss = F.cross_entropy(torch.from_numpy(logits).flatten(0, 1), torch.from_numpy(windows[:, 1:]).flatten())
    assert math.exp(loss) == pytest.approx(row["test_perplexity"], rel=1e-4)


def test_an_export_for_one_input_at_a_time_fixes_the_tokens_too(nas, language_model) -> None:
    ran = nas("export", language_model, "--arch", "smallest", "--batch", "1", "--opset", "17", "-o", "x.onnx")
    assert ran.code == 0, ran
    assert "equal to PyTorch on 8 test windows" in ran.out
    session = onnxruntime.InferenceSession("x.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 16]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--data", "text:none.txt"), 4, ("none.txt", "no file or folder")),
        (("--data", "text:"), 2, ("text:PATH",)),
        (("--data", "short.txt"), 2, ("150 bytes, too few for a context of 16", "--context 14 or less")),
        (("--data", "text.txt", "--image-size", "8"), 2, ("image_size = 8 is for images", "--context")),
        (("--data", "digits"), 2, ("context = 16 is for text",)),
        (("--data", "text.txt", "--space", "mobilenet_v3"), 2, ("does not read text", "--space gpt")),
        (("--data", "text.txt", "--space-set", "context=8"), 2, ("context comes from the data", "--context")),
        (
            ("--data", "text.txt", "--recipe", "uniform", "--recipe-set", "mixup=0.2"),
            2,
            ("mixup = 0.2", "set mixup to 0"),
        ),
    ],
)
def test_what_does_not_fit_text_is_refused_before_anything_is_written(
    nas, text, arguments, code, said
) -> None:
    shutil.copy(text, "text.txt")
    Path("short.txt").write_text(text.read_text()[:150])
    settings = [part for part in GPT if part != "optimizer=adamw"]
    settings.remove("--recipe-set")
    refused(nas("train", *settings, *arguments), code, *said)
    assert not Path("runs").exists()


def test_images_have_no_perplexity_and_no_language_model(nas) -> None:
    refused(
        nas("search", "--objectives", "perplexity,latency", "--target", "jetson"),
        2, "objective 'perplexity' is for text, but digits holds images; use accuracy",
    )  # fmt: skip
    refused(nas("train", "--space", "gpt"), 2, "space 'gpt' does not read images", "--data text:PATH")
    assert not Path("runs").exists()


def test_a_teacher_that_reads_less_than_its_pupil_is_refused(nas, language_model, text) -> None:
    longer = ("--space", "gpt", "--data", f"text:{text}", "--context", "32", "--recipe", "uniform")
    ran = nas("train", *longer, "--epochs", "1", "--teacher", language_model)
    refused(ran, 2, "reads 16 tokens at once, not 32; use --context 16 or less")
