"""Subnet files come back as what was saved, or not at all."""

from __future__ import annotations

import json
import pickle
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from nas.subnet_file import load_subnet, read_subnet, save_subnet
from search_spaces import Arch, Choice, SearchSpace, mobilenet_v3, vit
from search_spaces.errors import InputError
from supernets.files import clean_temporaries

SPACES = {
    "mobilenet_v3": mobilenet_v3.space(classes=4, channels=1, image_size=32, width=0.5),
    "vit": vit.space(classes=4, channels=3, image_size=32),
}
EXTRA = {
    "classes": ["a", "b", "c", "d"],
    "preprocessing": {"mean": [0.5], "std": [0.25]},
    "accuracy": {"test": 0.97},
}


class Net(nn.Module):
    """Two layers that share one weight, and a buffer that is not saved."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("two", torch.tensor([2.0]), persistent=False)

    def forward(self, x):
        return self.second(self.first(x.mean((2, 3)))) * self.two


def tied_space(widths=(2, 4)):
    return SearchSpace(
        f"{__name__}:tied_space",
        [Choice("width", widths)],
        lambda arch: Net(arch.integer("width")),
        input_shape=(2, 4, 4),
        settings={"widths": widths},
    )


def saved(space, path, **more):
    torch.manual_seed(0)
    module = space.build(space.smallest)
    return module, save_subnet(module, path, arch=space.smallest, space=space, extra={**EXTRA, **more})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small file, as bytes, and its path."""
    path = tmp_path_factory.mktemp("subnet") / "net.safetensors"
    saved(tied_space(), path)
    return path.read_bytes(), path


@pytest.mark.parametrize("name", SPACES)
def test_the_same_network_comes_back(name, tmp_path):
    space, path = SPACES[name], tmp_path / "net.safetensors"
    module, digest = saved(space, path)
    state = torch.random.get_rng_state()
    loaded = load_subnet(path)
    assert torch.equal(torch.random.get_rng_state(), state), "loading drew from the global generator"
    assert not any(part.training for part in loaded.modules())
    assert type(loaded) is type(module)
    x = torch.randn(2, *space.input_shape(space.smallest))
    with torch.no_grad():
        assert torch.equal(loaded(x), module.eval()(x))
    file = read_subnet(path)
    assert (file.arch, file.space, file.extra, file.digest) == (space.smallest, name, EXTRA, digest)
    assert file.space_settings == json.loads(json.dumps(space.settings))
    assert "torch" in file.versions


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        saved(SPACES["vit"], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "b"]
    assert clean_temporaries(tmp_path) == []


def test_views_into_shared_weights_are_saved_as_their_values(tmp_path):
    space = tied_space()
    shared = torch.arange(64.0).reshape(8, 8)
    module = space.build(space.smallest)
    module.first.weight = module.second.weight = nn.Parameter(shared[:2, :2])
    save_subnet(module, tmp_path / "net", arch=space.smallest, space=space, extra={})
    assert (tmp_path / "net").stat().st_size < 1500
    loaded = load_subnet(tmp_path / "net", space=tied_space)
    assert torch.equal(loaded.first.weight, shared[:2, :2])
    assert loaded.second.weight is loaded.first.weight, "the two layers no longer share their weight"
    assert loaded.two.item() == 2.0


def test_a_file_does_not_choose_the_code_that_reads_it(whole):
    with pytest.raises(
        InputError, match=r"test_subnet_file:tied_space', which is code of its own; .* pass space="
    ):
        load_subnet(whole[1])
    assert load_subnet(whole[1], space=f"{__name__}:tied_space")(torch.zeros(1, 2, 4, 4)).shape == (1, 2)


def test_every_flipped_bit_is_noticed(whole, tmp_path):
    content, path = whole[0], tmp_path / "net"
    for bit in np.random.default_rng(0).permutation(8 * len(content))[:600].tolist():
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError) as caught:
            read_subnet(path)
        assert "\n" not in str(caught.value)


def test_every_truncation_is_noticed(whole, tmp_path):
    content, path = whole[0], tmp_path / "net"
    for size in [*range(0, len(content), 37), len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"is not a whole subnet file|is damaged"):
            load_subnet(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(InputError):
        load_subnet(path)


class Payload:
    """What pickle would run on loading."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_a_malicious_pickle_does_not_run(form, tmp_path):
    marker, path = tmp_path / "it ran", tmp_path / "net.safetensors"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Payload(marker)))
    else:
        torch.save({"weight": Payload(marker)}, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(InputError, match="pickles are never loaded"):
        load_subnet(path)
    assert not marker.exists()


def test_a_space_that_is_a_command_does_not_run(whole, tmp_path):
    """A file may carry a valid digest and still be hostile."""
    marker = tmp_path / "it ran"
    space = tied_space()
    space.name, space.settings = "os:system", {"command": f"touch '{marker}'"}
    save_subnet(space.build(space.smallest), tmp_path / "net", arch=space.smallest, space=space, extra={})
    with pytest.raises(InputError, match="'os:system', which is code of its own"):
        load_subnet(tmp_path / "net")
    assert not marker.exists()


def test_a_header_whose_length_looks_like_a_pickle(tmp_path):
    """The first byte of the file is the low byte of its header's length, and pickles begin with 0x80."""
    space = tied_space()
    module = space.build(space.smallest)
    for pad in range(0, 256):
        save_subnet(module, tmp_path / "net", arch=space.smallest, space=space, extra={"pad": "x" * pad})
        if (tmp_path / "net").read_bytes()[0] == 0x80:
            break
    else:
        pytest.skip("headers are padded to lengths that never look like one")
    assert read_subnet(tmp_path / "net").extra == {"pad": "x" * pad}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"hello, this is text" * 10,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        save({"a": torch.zeros(2)}),
        save({"a": torch.zeros(2)}, {"nas": "[]"}),
        save({"a": torch.zeros(2)}, {"nas": "{}"}),
        save({"a": torch.zeros(2)}, {"nas": "[" * 100_000}),
    ],
)
def test_foreign_files_are_refused_in_a_line(content, tmp_path):
    (tmp_path / "net").write_bytes(content)
    with pytest.raises(InputError, match=r"net (is not a|is damaged)") as caught:
        load_subnet(tmp_path / "net")
    assert "\n" not in str(caught.value)


def test_a_network_of_another_arch_is_refused(tmp_path):
    space = tied_space()
    save_subnet(space.build(space.smallest), tmp_path / "net", arch=space.largest, space=space, extra={})
    with pytest.raises(InputError, match=r"first.bias is float32 \[2\] in the file, float32 \[4\] in arch"):
        load_subnet(tmp_path / "net", space=tied_space)


def test_settings_and_archs_that_the_space_does_not_know(tmp_path):
    space = tied_space()
    module = space.build(space.smallest)
    save_subnet(module, tmp_path / "net", arch=Arch({"depth": 3}), space=space, extra={})
    with pytest.raises(InputError, match="'depth' is not a choice"):
        load_subnet(tmp_path / "net", space=tied_space)
    space.name, space.settings = "vit", {"colour": "red"}
    save_subnet(module, tmp_path / "net", arch=space.smallest, space=space, extra={})
    with pytest.raises(InputError, match="space 'vit' does not take its settings"):
        load_subnet(tmp_path / "net")
    space.name = "vitt"
    save_subnet(module, tmp_path / "net", arch=space.smallest, space=space, extra={})
    with pytest.raises(InputError, match="unknown space 'vitt'; did you mean 'vit'"):
        load_subnet(tmp_path / "net")


def test_facts_that_are_not_json_leave_the_earlier_file(whole, tmp_path):
    path = tmp_path / "net"
    path.write_bytes(b"earlier")
    for value in ({1, 2}, float("nan"), torch.zeros(1)):
        with pytest.raises(InputError, match="must be JSON"):
            saved(tied_space(), path, value=value)
    assert path.read_bytes() == b"earlier"
    assert [entry.name for entry in tmp_path.iterdir()] == ["net"]


def test_a_missing_file_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_subnet(tmp_path / "net")
