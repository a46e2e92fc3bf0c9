"""External teachers: a run's largest subnet, or a network of timm; what they see, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from nas.cli import main
from nas.data import ImageData, load_data
from nas.teacher import open_teacher
from nas.train_job import prepare
from nas.train_settings import TrainSettings
from nas.trained import calibration, load_supernet
from search_spaces import InputError
from supernets.evaluate import recalibrate

SMALL = (
    *("--image-size", "8", "--epochs", "6", "--batch-size", "256", "--device", "cpu", "-q", "--json"),
    *("--space-set", "depths=[1,2]", "--space-set", "kernels=[3]", "--space-set", "expands=[1,2]"),
    *("--space-set", "resolutions=[8]", "--space-set", "width=0.5"),
)


@pytest.fixture(scope="module")
def data() -> ImageData:
    found = load_data("digits", image_size=8)
    assert isinstance(found, ImageData)
    return found


def network(**changes: object) -> nn.Module:
    """A small network of timm with weights of its own."""
    torch.manual_seed(3)
    net = timm.create_model("test_efficientnet", **{"num_classes": 10, "in_chans": 1, **changes})
    return net.eval()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file(network().state_dict(), path := tmp_path / "w.safetensors")
    return path


def images(data: ImageData) -> torch.Tensor:
    return next(iter(data.validation_batches(16)))[0]


def test_weights_of_a_file_answer_the_data_s_images_as_they_are(data, weights) -> None:
    teacher = open_teacher(f"timm:test_efficientnet@{weights}", data)
    x = images(data)
    assert torch.equal(teacher(x), network()(x.contiguous(memory_format=torch.channels_last)))
    assert not any(p.requires_grad for p in teacher.module.parameters())
    assert not any(m.training for m in teacher.module.modules())
    assert teacher.record["image_size"] == 8
    larger = open_teacher(f"timm:test_efficientnet@{weights}", data, 32)
    assert larger(x).shape == (16, 10)
    assert not torch.equal(larger(x), teacher(x))
    assert larger.record != teacher.record


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}]
)
def test_checkpoints_of_torch_are_read_with_weights_only(data, tmp_path, wrap) -> None:
    state = {f"module.{name}": value for name, value in network().state_dict().items()}
    torch.save(wrap(state), tmp_path / "w.pth")
    teacher = open_teacher(f"timm:test_efficientnet@{tmp_path / 'w.pth'}", data)
    mine = network().state_dict()
    assert all(torch.equal(value, mine[name]) for name, value in teacher.module.state_dict().items())


class Harm:
    def __reduce__(self):
        return Path("harmed").touch, ()


def test_a_pickle_that_would_run_code_is_refused(data, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.pth").write_bytes(pickle.dumps({"state_dict": Harm()}))
    torch.save({"state_dict": Harm()}, "v.pth")
    for file in ("w.pth", "v.pth"):
        with pytest.raises(InputError, match="no weights that can be read safely"):
            open_teacher(f"timm:test_efficientnet@{file}", data)
    assert not Path("harmed").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:resnet81", r"timm has no network 'resnet81'; did you mean 'resnet\d+[a-z]*'\?$"),
        ("timm:resnet18", r"gives 1000 classes, 'digits' has 10; fine-tune it and give the file"),
        (
            "timm:resnet18@{file}",
            r"w.safetensors is not a resnet18 of timm: \S+ is only in the",
        ),
        ("absent", "is no run folder; give a run of nas train, timm:NAME or timm:NAME@FILE"),
    ],
)
def test_a_wrong_teacher_is_said_in_one_line(data, weights, name, said) -> None:
    with pytest.raises(InputError, match=said) as caught:
        open_teacher(name.format(file=weights), data)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(data) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file of weights for timm:resnet18.*absent\.pth"):
        open_teacher("timm:resnet18@absent.pth", data)


def test_weights_of_other_classes_or_channels_are_refused(data, tmp_path) -> None:
    for number, changes in enumerate(({"num_classes": 7}, {"in_chans": 3})):
        path = tmp_path / f"{number}.safetensors"
        save_file(network(**changes).state_dict(), path)
        with pytest.raises(InputError, match=r"is \[.*\], not \[.*\] as for these classes and channels"):
            open_teacher(f"timm:test_efficientnet@{path}", data)


def test_weights_that_cannot_be_fetched_name_the_other_way(data, monkeypatch) -> None:
    """As on a machine without a network: a network that has weights for ten classes, none of them here."""

    create = timm.create_model

    def offline(*args: object, pretrained: bool = False, **keywords: object) -> nn.Module:
        if pretrained:
            raise FileNotFoundError("cannot find the requested files\nin the local cache")
        return create(*args, **keywords)

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: None)
    with pytest.raises(ConnectionError, match=r"fetched \(cannot find.*\); with.*timm:resnet18@FILE$"):
        open_teacher("timm:resnet18", data)


def test_fetched_weights_see_images_at_their_size_and_on_their_scale(data, monkeypatch) -> None:
    """A stand-in for the download: what matters is what the network is shown."""
    net = network()
    net.pretrained_cfg = {"input_size": (3, 24, 24), "mean": (0.5, 0.3, 0.1), "std": (0.2, 0.2, 0.2)}
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: net)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: None)
    teacher = open_teacher("timm:resnet18", data)
    seen: list[torch.Tensor] = []
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x = torch.rand(2, 1, 24, 24)
    mean, std = torch.tensor(data.mean).view(-1, 1, 1), torch.tensor(data.std).view(-1, 1, 1)
    teacher((x - mean) / std)
    torch.testing.assert_close(seen[0], (x - 0.3) / 0.2)
    teacher(images(data))
    assert seen[1].shape[-1] == 24


def trained(*arguments: str) -> Path:
    assert main(["train", *SMALL, *arguments]) == 0
    return Path("runs") / arguments[arguments.index("--name") + 1]


def test_a_run_teaches_by_its_largest_subnet_from_start_to_resume(
    data, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    first = trained("--name", "first", "--epochs", "2")
    teacher = open_teacher("runs/first", data)
    supernet = load_supernet(
        first, TrainSettings(**json.loads((first / "run.json").read_text())["settings"]), data
    )
    alone = recalibrate(supernet.extract(supernet.space.largest), calibration(data))
    x = images(data)
    assert torch.allclose(teacher(x), alone(x), atol=1e-6)

    second = trained("--name", "second", "--recipe", "progressive_shrinking", "--teacher", "runs/first")
    record = json.loads((second / "run.json").read_text())
    assert record["teacher"]["name"] == "runs/first"
    assert record["teacher"]["sha256"] == json.loads((first / "supernet.json").read_text())["sha256"]
    assert {phase["teacher"] for phase in record["recipe"]["phases"]} == {"given"}
    assert main(["train", "--resume", str(second), "-q", "--json"]) == 0
    capsys.readouterr()
    trained("--name", "other", "--epochs", "1")
    (tmp_path / "runs" / "first").rename(tmp_path / "runs" / "old")
    (tmp_path / "runs" / "other").rename(tmp_path / "runs" / "first")
    assert main(["train", "--resume", str(second), "-q", "--json"]) == 2
    assert "is not what runs/second began with" in capsys.readouterr().err


def test_a_recipe_and_its_teacher_must_go_together(tmp_path) -> None:
    plain = {"image_size": 8, "device": "cpu", "epochs": 6}
    able = "finetune, progressive_shrinking, sws, tleg, uniform can"
    with pytest.raises(InputError, match=f"recipe 'sandwich' learns from no --teacher; {able}"):
        prepare(TrainSettings(teacher="runs/x", **plain))
    asking = {"recipe": "uniform", "recipe_settings": {"teacher": "given"}}
    with pytest.raises(InputError, match="recipe 'uniform' needs a teacher: --teacher RUN, timm:NAME"):
        prepare(TrainSettings(**asking, **plain))
    (tmp_path / "run.json").touch()
    with pytest.raises(InputError, match="a run, which knows its image size"):
        prepare(TrainSettings(recipe="uniform", teacher=str(tmp_path), teacher_size=32, **plain))
