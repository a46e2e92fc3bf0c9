"""`nas expand`: from a trained learngene to networks of any depth, as runs and as files."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from command_line import quietly, record_of, refused

from nas import load_subnet
from nas.initial import open_trained
from nas.subnet_file import read_subnet
from supernets.checkpoint import load_tensors

DIM = 16
SMALL = (
    *("--image-size", "8", "--batch-size", "128", "--epochs", "1"),
    *("--space", "vit", "--space-set", "patch=4", "--space-set", f"embed_dims=[{DIM}]"),
    *("--space-set", "heads=[2]", "--space-set", "head_dim=8", "--space-set", "mlp_ratios=[4.0]"),
    *("--space-set", "pool=mean"),
)
BLOCK = 12 * DIM**2 + 13 * DIM
OTHERS = DIM * 16 + DIM + 4 * DIM + 2 * DIM + 10 * DIM + 10  # patches, positions, norm, head


@pytest.fixture(scope="module", params=["sws", "tleg"])
def learngene(request, tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("learngene")
    stages = ("--scheme-set", "stages=[1,2,1]") if request.param == "sws" else ()
    quietly(
        *("train", *SMALL, "--space-set", "depths=[4]", "--recipe", request.param, *stages),
        *("--runs", str(runs), "--name", request.param, "--device", "cpu"),
    )
    return runs / request.param


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return load_tensors(run / "supernet.safetensors")[0]


def test_the_record_says_the_scheme_and_who_taught(learngene) -> None:
    record = record_of(learngene)
    assert record["settings"]["scheme"] == record["recipe"]["scheme"]
    assert record["recipe"]["phases"][0]["teacher"] == "none"
    assert record["recipe"]["phases"][0]["policy"]["loss"] == "labels"
    stored = 3 if learngene.name == "sws" else 2
    assert sum(t.numel() for t in tensors(learngene).values()) == stored * BLOCK + OTHERS


def test_descendants_shallower_and_deeper_are_runs_and_files(nas, learngene, tmp_path) -> None:
    ran = nas("expand", learngene, "--depth", "2,4,7", "--output", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert [row["depth"] for row in said["networks"]] == [2, 4, 7]
    stored = (3 if learngene.name == "sws" else 2) * BLOCK + OTHERS
    networks = {str(depth): depth * BLOCK + OTHERS for depth in (2, 4, 7)}
    assert said["storage"] == {
        "learngene": stored,
        "networks": networks,
        "total": sum(networks.values()),
        "ratio": sum(networks.values()) / stored,
    }
    auxiliary = open_trained(learngene).supernet
    x = torch.randn(3, 1, 8, 8)
    for row in said["networks"]:
        model = load_subnet(row["file"])
        assert len(model.blocks) == row["depth"]
        storages = {p.untyped_storage().data_ptr() for p in model.parameters()}
        assert len(storages) == len(list(model.parameters()))
        assert sum(p.numel() for p in model.parameters()) == networks[str(row["depth"])]
        if row["depth"] == 4:
            with torch.no_grad():
                assert torch.equal(model(x), auxiliary(x, auxiliary.space.largest))
        assert read_subnet(row["file"]).extra["numbers"]["test_accuracy"] == row["test_accuracy"]
    exported = nas("export", said["networks"][2]["run"], "--arch", "largest", "--format", "safetensors")
    assert exported.code == 0, exported.err
    shown = nas("show", said["networks"][2]["run"])
    assert (shown.code, shown.err) == (0, "")
    assert f"expanded  to depth 7 out of {learngene}, not fine-tuned" in shown.out
    assert f"test accuracy {round(said['networks'][2]['test_accuracy'], 4)}" in shown.out
    again = nas("expand", learngene, "--depth", "2,4,7", "--output", tmp_path / "again", "-q")
    assert again.code == 0
    for depth in (2, 4, 7):
        first, second = (tensors(tmp_path / name / f"depth-{depth}") for name in ("out", "again"))
        assert all(torch.equal(first[name], second[name]) for name in first)
    refused(nas("expand", learngene, "--depth", "2,4", "-o", tmp_path / "out"), 2, "exists; give another")


def test_other_data_with_the_same_or_other_classes(nas, learngene, tmp_path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(12):
            _picture(tmp_path / "pictures" / name / f"{i}.png", seed=i)
    ran = nas(
        *("expand", learngene, "--depth", "3", "--data", f"imagefolder:{tmp_path / 'pictures'}"),
        *("--image-size", "8", "--output", tmp_path / "three", "--json"),
    )
    assert ran.code == 0, ran.err
    record = record_of(tmp_path / "three")
    assert record["init"]["fresh"] == ["head.bias", "head.weight"]
    assert tensors(tmp_path / "three")["head.weight"].shape == (3, DIM)


def test_fine_tuning_an_interrupted_descendant_goes_on_to_the_same_weights(
    nas, start, learngene, tmp_path
) -> None:
    command = ("expand", learngene, "--depth", "3", "--epochs", "3", "--lr", "0.001")
    assert nas(*command, "-o", tmp_path / "whole").code == 0
    # Untied and trained: layers that began equal differ.
    trained = tensors(tmp_path / "whole")
    assert not torch.equal(trained["blocks.0.mlp.fc1.weight"], trained["blocks.1.mlp.fc1.weight"])
    out = tmp_path / "cut"
    process = start(*command, "-o", out, "--checkpoint-minutes", "0")
    process.wait_until(lambda: (out / "checkpoint.json").exists())
    process.send(signal.SIGINT)
    ended = process.wait()
    assert ended.code == 130, ended
    assert f"nas expand {learngene} --depth 3 --epochs 3 --lr 0.001" in ended.out
    assert nas(*command, "-o", out).code == 0
    resumed = tensors(out)
    assert trained.keys() == resumed.keys()
    assert all(torch.equal(trained[name], resumed[name]) for name in trained)
    assert (
        record_of(out)["result"]["test_accuracy"] == record_of(tmp_path / "whole")["result"]["test_accuracy"]
    )


def test_what_cannot_be_expanded_is_said_in_one_line(nas, supernet, tmp_path) -> None:
    refused(nas("expand", supernet, "--depth", "3"), 2, "shares by 'slice'", "--recipe sws or --recipe tleg")
    refused(nas("expand", tmp_path / "no", "--depth", "3"), 4, "no such run folder")


def _picture(path: Path, seed: int) -> None:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
