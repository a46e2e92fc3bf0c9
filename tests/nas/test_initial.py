"""`--init`: by run, by file and by timm's names, offline; and what cannot be had, in one line."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from nas.initial import begin_with, open_trained
from nas.subnet_file import save_subnet
from nas.timm_models import parse_timm, timm_state
from search_spaces import InputError, vit
from supernets import LinearExpansion, Supernet

TEST_VIT = {"image_size": 160, "patch": 16, "embed_dims": (64,), "heads": (2,), "head_dim": 32}


class Labels:
    """What of a data set counts here."""

    def __init__(self, *classes: str) -> None:
        self._classes = classes

    def describe(self) -> dict[str, object]:
        return {"classes": list(self._classes)}


def space(**settings: object):
    return vit.space(**{"classes": 3, **TEST_VIT, "depths": (6,), "mlp_ratios": (3.0,), **settings})


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    return timm.create_model("test_vit").eval()


@pytest.fixture(scope="module")
def file(trained, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "test_vit.safetensors"
    save_file(trained.state_dict(), path)
    return path


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_file_of_timm_s_is_the_first_weights_and_its_head_is_left(trained, file, tmp_path, ending):
    if ending == "pth":
        file = tmp_path / "test_vit.pth"
        torch.save({"state_dict": trained.state_dict(), "epoch": 3}, file)
    supernet = Supernet(space()).eval()
    record = begin_with(supernet, f"timm:test_vit@{file}", Labels("a", "b", "c"))
    assert record["fresh"] == ("head.bias", "head.weight")
    assert "other classes" in record["summary"]
    model = supernet.extract(supernet.space.largest)
    x = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        tokens = trained.forward_features(x)[:, 0]
        assert torch.equal(model(x), model.head(tokens))


def test_all_layers_of_a_pretrained_transformer_go_into_a_learngene(trained, file):
    supernet = Supernet(space(depths=(3,)), LinearExpansion())
    begin_with(supernet, f"timm:test_vit@{file}", Labels("a", "b", "c"))
    layers = torch.stack([block.attn.qkv.weight for block in trained.blocks]).double().detach()
    line = torch.stack([torch.ones(6), torch.arange(6) / 6], dim=1).double()
    expected = torch.linalg.lstsq(line, layers.flatten(1)).solution
    state = supernet.shared_state()
    for row, kind in zip(expected, ("base", "slope"), strict=True):
        found = state[f"blocks.{kind}.attn.qkv.weight"].detach().double().flatten()
        torch.testing.assert_close(found, row, atol=1e-6, rtol=1e-4)


def test_our_own_file_keeps_its_head_where_the_classes_are_the_same(tmp_path):
    mine = space(depths=(2,))
    plain = mine.build(mine.largest)
    path = tmp_path / "mine.safetensors"
    save_subnet(plain, path, arch=mine.largest, space=mine, extra={"classes": ["a", "b", "c"]})
    for classes, fresh in ((("a", "b", "c"), ()), (("a", "b", "d"), ("head.bias", "head.weight"))):
        supernet = Supernet(space(depths=(1, 2)))
        assert begin_with(supernet, str(path), Labels(*classes))["fresh"] == fresh
        same = torch.equal(supernet.shared_state()["head.weight"], plain.head.weight)
        assert same == (not fresh)
        assert torch.equal(supernet.shared_state()["blocks.1.mlp.fc1.weight"], plain.blocks[1].mlp.fc1.weight)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("timm:vit_smal_patch16_224", "did you mean 'vit_small_patch16_224'"),
        ("timm:test_vit2@{file}", "test_vit.safetensors is not a test_vit2 of timm"),
        ("timm:test_vit@{broken}", "holds no weights that can be read safely"),
        ("timm:test_vit@{pickle}", "holds no weights that can be read safely"),
        ("{broken}", "no whole safetensors file"),
        ("{empty}", "no whole safetensors file"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(file, tmp_path, reference, said):
    broken, pickle, empty = (tmp_path / n for n in ("b.safetensors", "p.pth", "e.safetensors"))
    broken.write_bytes(file.read_bytes()[:-7])
    empty.write_bytes(b"")
    torch.save(Labels("x"), pickle)
    reference = reference.format(file=file, broken=broken, pickle=pickle, empty=empty)
    with pytest.raises(InputError, match=said) as caught:
        begin_with(Supernet(space()), reference, Labels("a", "b", "c"))
    assert str(caught.value).startswith(f"--init {reference}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reference", ["timm:test_vit@nowhere.pth", "nowhere.safetensors", "runs/nowhere"])
def test_what_is_not_there_is_named(reference):
    with pytest.raises(FileNotFoundError) as caught:
        begin_with(Supernet(space()), reference, Labels("a", "b", "c"))
    assert "nowhere" in str(caught.value.filename)


@pytest.mark.parametrize(
    "reason", [urllib.error.URLError("no route"), ConnectionError("refused"), TimeoutError("late")]
)
def test_without_a_network_the_way_by_a_file_is_named(monkeypatch, reason):
    def fail(*args: object, **named: object) -> None:
        raise reason

    monkeypatch.setattr("timm.create_model", fail)
    with pytest.raises(ConnectionError, match=r"could not be fetched .*timm:test_vit@FILE") as caught:
        timm_state(parse_timm("timm:test_vit"))
    assert "\n" not in str(caught.value)


def test_a_run_that_is_not_finished_or_of_another_command_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"what": "train", "space": {}, "settings": {}}')
    with pytest.raises(InputError, match="is not finished; first: nas train --resume"):
        open_trained(tmp_path)
    (tmp_path / "run.json").write_text('{"what": "search"}')
    with pytest.raises(InputError, match="give one of 'nas train'"):
        open_trained(tmp_path)
