"""`nas train` from the command to the weights, and back again by --resume."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from command_line import TINY, record_of, refused

from nas.data import load_data
from nas.train_settings import TrainSettings
from nas.trained import load_supernet
from supernets.checkpoint import load_tensors
from supernets.evaluate import recalibrate, top1

FILES = {"run.json", "log.jsonl", "supernet.safetensors", "supernet.json", "checkpoint.safetensors"}


def test_a_training_leaves_a_run_folder_and_says_what_comes_next(nas) -> None:
    ran = nas("train", *TINY, "--name", "one")
    assert (ran.code, ran.err) == (0, "")
    assert {path.name for path in Path("runs/one").iterdir()} > FILES
    for said in (
        "digits: 1,079 train, 359 validation, 359 test; 10 classes, 1 x 8 x 8",
        "216 networks",
        "-> runs/one",
        "validation accuracy: largest",
        "next: nas search --supernet runs/one",
    ):
        assert said in ran.out
    record = record_of(Path("runs/one"))
    assert record["what"] == "train"
    assert record["result"]["validation_accuracy"]["largest"] > 0.2
    assert record["data"]["sizes"] == {"train": 1079, "validation": 359, "test": 359}
    assert record["recipe"]["phases"][0]["epochs"] == 2
    assert {"torch", "elastic-nas"} <= record["versions"].keys()
    assert shlex.split(record["command"])[0]
    # The same command again is another run, the same name is not.
    refused(nas("train", *TINY, "--name", "one"), 2, "runs/one exists", "nas train --resume runs/one")


def test_the_scheme_is_the_recipe_s_and_another_one_is_said(nas) -> None:
    Path("kernels_recipe.py").write_text(
        "from dataclasses import replace\n"
        "from supernets.recipes import uniform\n"
        "def recipe(epochs=1, lr=1e-3):\n"
        "    return replace(uniform.recipe(epochs=epochs, lr=lr), scheme='kernel_transform')\n"
    )
    recipe = ("--recipe", "kernels_recipe:recipe", "--epochs", "1")
    ran = nas("train", *TINY, *recipe, "--name", "own")
    assert ran.code == 0, ran.err
    assert record_of(Path("runs/own"))["settings"]["scheme"] == "kernel_transform"
    ran = nas("train", *TINY, *recipe, "--scheme", "slice", "--name", "other")
    assert ran.code == 0, ran.err
    assert "slice, where recipe uniform has kernel_transform" in ran.out
    record = record_of(Path("runs/other"))
    assert (record["settings"]["scheme"], record["recipe"]["scheme"]) == ("slice", "kernel_transform")


def test_json_holds_the_numbers_and_nothing_else_is_on_stdout(nas) -> None:
    ran = nas("train", *TINY, "--json")
    result = json.loads(ran.out)
    run = Path(result["run"])
    assert run == Path("runs/train-digits-mobilenet_v3")
    assert record_of(run)["result"] == {k: v for k, v in result.items() if k != "run"}
    assert 0 < result["validation_accuracy"]["smallest"] <= 1
    assert "digits" in ran.err
    assert nas("train", *TINY, "--json", "-q", "--dry-run").err == ""


def test_the_numbers_are_those_of_the_weights_in_the_folder(nas, supernet) -> None:
    """The two accuracies in the record, computed again from the file, by the plain route."""
    record = record_of(supernet)
    data = load_data("digits", image_size=8)
    loaded = load_supernet(supernet, TrainSettings(**record["settings"]), data)
    calibration = [x for x, _ in data.calibration_batches()]
    for which in ("largest", "smallest"):
        module = recalibrate(loaded.extract(getattr(loaded.space, which)), calibration)
        assert top1(module, data.validation_batches(64)) == record["result"]["validation_accuracy"][which]
    assert not loaded.training


def test_another_seed_makes_other_weights(nas, supernet) -> None:
    other = json.loads(nas("train", *TINY, "--json", "-q", "--seed", "1").out)
    assert other["weights"]["sha256"] != record_of(supernet)["result"]["weights"]["sha256"]


def test_a_finished_training_can_be_resumed_and_changes_nothing(nas, supernet) -> None:
    run = Path(shutil.copytree(supernet, "copy"))
    result = json.loads(nas("train", "--resume", run, "--json", "-q").out)
    assert {"run": str(supernet), **record_of(supernet)["result"]} == {**result, "run": str(supernet)}
    for name in ("supernet.safetensors", "checkpoint.safetensors", "log.jsonl"):
        assert (run / name).read_bytes() == (supernet / name).read_bytes()


def test_a_dry_run_writes_nothing_and_says_what_it_would_cost(nas) -> None:
    ran = nas("train", *TINY, "--dry-run", "--name", "x")
    assert (ran.code, ran.err) == (0, "")
    assert "2 epochs, 16 steps of 128 images on cpu; about" in ran.out
    plan = json.loads(nas("train", *TINY, "--dry-run", "--json").out)
    assert plan["steps"] == 16
    assert plan["estimated_seconds"] > 0
    assert plan["space"]["size"] == "216"
    assert list(Path().iterdir()) == []


def test_a_file_of_settings_is_the_same_as_flags(nas, supernet) -> None:
    settings = """
        image_size: 8
        epochs: 2
        batch_size: 128
        space_settings: {depths: [1, 2], kernels: [3], expands: [2, 3], resolutions: [8], width: 0.5}
    """
    Path("tiny.yaml").write_text("\n".join(line.strip() for line in settings.splitlines()))
    result = json.loads(nas("train", "tiny.yaml", "--json", "-q").out)
    assert result["weights"] == record_of(supernet)["result"]["weights"]
    refused(nas("train", "tiny.yaml", "--epochs", "0"), 2, "--epochs", "at least 1")


def test_a_resumed_run_keeps_its_settings(nas, supernet) -> None:
    refused(
        nas("train", "--resume", supernet, "--epochs", "9"), 2, "--epochs", "the run has 2", "start a new run"
    )
    refused(nas("train", "--resume", "runs/absent"), 4, "no such run folder: runs/absent")
    refused(nas("search", "--resume", supernet), 2, "is a run of 'nas train'")


def test_a_space_and_a_recipe_of_ones_own(nas) -> None:
    Path("own_space_of_train.py").write_text(
        "from torch import nn\n"
        "from search_spaces import Choice, SearchSpace\n"
        "def space(*, classes, channels, image_size, most=8):\n"
        "    def build(arch):\n"
        "        return nn.Sequential(nn.Conv2d(channels, arch['width'], 3), nn.ReLU(), nn.Flatten(),\n"
        "                             nn.Linear(arch['width'] * (image_size - 2) ** 2, classes))\n"
        "    return SearchSpace('own', [Choice('width', tuple(range(1, most + 1)))], build,\n"
        "                       input_shape=(channels, image_size, image_size))\n"
    )
    space = ("--space", "own_space_of_train:space", "--image-size", "8", "--epochs", "1")
    ran = nas("train", *space, "--space-set", "most=4", "--json", "-q")
    assert (ran.code, ran.err) == (0, "")
    record = record_of(Path(json.loads(ran.out)["run"]))
    assert record["space"]["name"] == "own_space_of_train:space"
    assert record["space"]["size"] == "4"
    refused(nas("train", *space, "--space-set", "mots=4"), 2, "no setting 'mots'", "did you mean 'most'?")
    refused(nas("train", *space, "--space-set", "classes=4"), 2, "classes comes from the data")
    refused(nas("train", *space, "--recipe-set", "m=4"), 2, "recipe 'sandwich' has no setting 'm'")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--space", "mobilenet"), "did you mean 'mobilenet_v3'?"),
        (("--space", "no_such_module:space"), "no module 'no_such_module'"),
        (("--recipe", "sandwhich"), "did you mean 'sandwich'?"),
        (("--scheme", "slices"), "did you mean 'slice'?"),
        (("--scheme-set", "inner=slice"), "scheme 'slice' has no setting 'inner'"),
        (("--data", "digit"), "did you mean 'digits'?"),
        (("--data", "fashion_mnits"), "did you mean 'fashionmnist'?"),
        (("--device", "gpu"), "device 'gpu' is not auto, cpu, cuda or cuda:N"),
        (("--precision", "fp8"), "known: auto, bf16, fp16, fp32"),
        (("--space-set", "widht=2"), "did you mean 'width'?"),
        (("--space-set", "image_size=16"), "use --image-size"),
        (("--space-set", "depths=[0]"), "depths"),
        (("--space-set", "depths=3"), "depths"),
        (("--space-set", "width=wide"), "space 'mobilenet_v3': width must be float, not 'wide'"),
        (("--recipe-set", "n=1.5"), "recipe 'sandwich': n must be int, not 1.5"),
        (("--recipe-set", "n=0"), "n"),
        (("--image-size", "4"), "resolutions"),
    ],
)
def test_a_mistake_costs_one_line_and_leaves_nothing(nas, arguments, said) -> None:
    ran = nas("train", *arguments, "--epochs", "1", "-q", "--json")
    refused(ran, 2, said)
    assert ran.out == ""
    assert list(Path().iterdir()) == []


def test_weights_are_plain_safetensors(nas, supernet) -> None:
    tensors, meta = load_tensors(supernet / "supernet.safetensors")
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    assert meta["steps"] == 16
    assert meta["skipped"] == 0
