"""ONNX files compute what PyTorch computes, or are not written."""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from nas.export import export_onnx, onnx_metadata, read_metadata, verify_onnx
from nas.onnx_opset import to_opset_17
from search_spaces import gpt, mobilenet_v3, vit
from search_spaces.errors import InputError, VerificationError

SHAPE = (3, 12, 12)
FACTS = {
    "classes": ["cat", "d'og \u00e9"],
    "preprocessing": {"mean": [0.5], "std": [0.25]},
    "target": "jetson",
}


class Tiny(nn.Module):
    """A convolution, a norm, both kinds of pooling, a gate, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.gate = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        return self.head(x.amax((2, 3)))


class Traced(nn.Module):
    """Another network when it is exported than when it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.head(x.mean((2, 3)))
        return x * 1.01 if torch.compiler.is_exporting() else x


def images(shape, n=6):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1))


def weighted(module):
    """`module` with weights and statistics that are not the initial ones."""
    generator = torch.Generator().manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(
                torch.rand(tensor.shape, generator=generator) * 0.4 + (0.8 if tensor.ndim == 1 else -0.2)
            )
    return module


def of_space(space):
    """The smallest network of `space`, with its metadata and images."""
    arch = space.smallest
    return weighted(space.build(arch)), onnx_metadata(arch, space, FACTS), images(space.input_shape(arch))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small network with its file of opset 17."""
    module, path = weighted(Tiny()).train(), tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    report = export_onnx(
        module, path, input_shape=SHAPE, samples=images(SHAPE), metadata={"nas.note": "first"}, opset=17
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert all(part.training for part in module.modules()), "the module's mode was not given back"
    return module.eval(), report


def test_the_report_describes_the_file(exported):
    module, report = exported
    content = report.path.read_bytes()
    assert (report.bytes, report.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert report.nodes == len(onnx.load(report.path).graph.node)
    assert report.max_relative_error < 1e-5
    assert verify_onnx(report.path, module, images(SHAPE, 40)) < 1e-5
    assert [entry.name for entry in report.path.parent.iterdir()] == ["tiny.onnx"], "something else was left"


def test_opset_17_has_its_axes_as_attributes(exported):
    model = onnx.load(exported[1].path)
    reductions = [node for node in model.graph.node if node.op_type in ("ReduceMean", "ReduceMax")]
    assert len(reductions) == 2
    assert all(len(node.input) == 1 and node.attribute[0].name in ("axes", "keepdims") for node in reductions)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert model.ir_version == 8


def test_nothing_of_this_machine_is_in_the_file(exported):
    content = exported[1].path.read_bytes()
    for trace in (b"site-packages", str(Path(__file__).parents[2]).encode(), b".py", b"Traceback"):
        assert trace not in content


@pytest.mark.parametrize(
    ("space", "opset"),
    [
        (mobilenet_v3.space(classes=5, channels=1, image_size=32, width=0.5), 18),
        (vit.space(classes=5, image_size=32), 17),
        (vit.space(classes=5, image_size=16, relative_positions=True), 18),
    ],
    ids=["mobilenet_v3", "vit", "vit with relative positions"],
)
def test_a_network_of_each_space(space, opset, tmp_path):
    module, metadata, samples = of_space(space)
    path = tmp_path / "model.onnx"
    shape = space.input_shape(space.smallest)
    report = export_onnx(module, path, input_shape=shape, samples=samples, metadata=metadata, opset=opset)
    assert report.opset == opset
    assert report.max_relative_error < 1e-5
    found = read_metadata(path)
    assert space.arch(found["nas.arch"]) == space.smallest
    assert found["nas.arch_digest"] == space.smallest.digest
    assert found["nas.space"] == {"name": space.name, "settings": json.loads(json.dumps(space.settings))}
    assert {name: found[f"nas.{name}"] for name in FACTS} == FACTS
    assert found["nas.versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["nas.format"] == "1"


def test_a_changed_weight_is_noticed(exported, tmp_path):
    module, report = exported
    model = onnx.load(report.path)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(largest).copy()
    values.flat[7] += 0.5
    largest.CopyFrom(onnx.numpy_helper.from_array(values, largest.name))
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(VerificationError, match=r"changed.onnx differs from PyTorch by .* \(allowed 1e-04\)"):
        verify_onnx(tmp_path / "changed.onnx", module, images(SHAPE))


def test_another_class_is_noticed_where_the_tolerance_would_not(exported):
    module, report = exported
    turned = weighted(Tiny()).eval()
    with torch.no_grad():
        turned.head.weight.copy_(module.head.weight.roll(1, 0))
        turned.head.bias.copy_(module.head.bias.roll(1, 0))
    with pytest.raises(VerificationError, match=r"names another class than PyTorch for [1-6] of 6 samples"):
        verify_onnx(report.path, turned, images(SHAPE), tolerance=10.0)


def test_equal_scores_may_change_places(exported):
    module, report = exported
    twin = weighted(Tiny()).eval()
    with torch.no_grad():
        twin.head.bias.copy_(module.head.bias)
        twin.head.bias.add_(1e-7)
    assert verify_onnx(report.path, twin, images(SHAPE)) < 1e-5


def test_a_network_that_exports_as_another_leaves_no_file(tmp_path):
    with pytest.raises(VerificationError, match=r"differs from PyTorch by 1\.0e-02"):
        export_onnx(
            weighted(Traced()),
            tmp_path / "m.onnx",
            input_shape=(4, 3, 3),
            samples=images((4, 3, 3)),
            metadata={},
        )
    assert not list(tmp_path.iterdir())


def test_fixed_batch_same_bytes_and_the_earlier_file_stays(tmp_path):
    module, path = weighted(Traced()).eval(), tmp_path / "m.onnx"
    module.forward = lambda x: nn.functional.linear(x.mean((2, 3)), module.head.weight, module.head.bias)
    asked = {"input_shape": (4, 3, 3), "samples": images((4, 3, 3)), "dynamic_batch": False}
    reports = [
        export_onnx(module, path, metadata=dict(order), **asked)
        for order in ([("a", "1"), ("b", {"y": 1, "x": [2]})], [("b", {"x": [2], "y": 1}), ("a", "1")])
    ]
    assert reports[0] == reports[1]
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert read_metadata(path)["b"] == {"x": [2], "y": 1}
    before = path.read_bytes()
    del module.forward
    with pytest.raises(VerificationError):
        export_onnx(module, path, metadata={}, **asked)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"opset": 16}, InputError, r"opset 16 is not written \(known: 17, 18, 20\)"),
        ({"input_shape": (3, 8, 8)}, InputError, r"samples must be \[N, 3, 8, 8\] .* not \[6, 3, 12, 12\]"),
        ({"samples": images(SHAPE, 0)}, InputError, "with N at least 1"),
        ({"metadata": {"x": {1, 2}}}, InputError, "metadata must be JSON"),
        ({"path": "/nowhere/at/all/m.onnx"}, FileNotFoundError, "the folder /nowhere/at/all"),
    ],
)
def test_what_cannot_be_exported_is_refused_at_once(change, error, message, tmp_path):
    asked = {
        "path": tmp_path / "m.onnx",
        "input_shape": SHAPE,
        "samples": images(SHAPE),
        "metadata": {},
        **change,
    }
    with pytest.raises(error, match=message):
        export_onnx(Tiny(), asked.pop("path"), **asked)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04.", b"PK\x03\x04"])
def test_foreign_files_have_no_metadata(content, tmp_path):
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(InputError, match="is not an ONNX file"):
        read_metadata(tmp_path / "x.onnx")
    with pytest.raises(VerificationError, match="does not open in ONNX Runtime"):
        verify_onnx(tmp_path / "x.onnx", Tiny().eval(), images(SHAPE))


FULL_DISK = """
import errno, resource, sys, torch
from pathlib import Path
from supernets.files import atomic_write
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from nas.export import export_onnx
from torch import nn
class Net(nn.Sequential): pass
module = Net(nn.Flatten(), nn.Linear(1200, 5))
try:
    export_onnx(module, sys.argv[1], input_shape=(3, 20, 20), samples=torch.randn(2, 3, 20, 20), metadata={})
except OSError as error:
    print(errno.errorcode[error.errno], error.filename)
"""


def test_a_full_disk_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"earlier")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["EFBIG", str(path)], done.stderr
    assert path.read_bytes() == b"earlier"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2000


# -- opset 17 ----------------------------------------------------------------------------------------------


def one_node(op, inputs, constants=(), shape=(2, 6), outputs=("y",), **attributes):
    """A model of opset 18 with a single operator on a tensor x."""
    helper = onnx.helper
    return helper.make_model(
        helper.make_graph(
            [helper.make_node(op, inputs, list(outputs), name="node", **attributes)],
            "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
            [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )


REWRITTEN = {
    "mean": one_node("ReduceMean", ["x", "a"], [("a", np.array([1]))], keepdims=0),
    "max of all": one_node("ReduceMax", ["x"]),
    "l2 without the optional input": one_node("ReduceL2", ["x", ""], keepdims=0),
    "even split": one_node("Split", ["x"], outputs=("y", "z"), axis=1, num_outputs=2),
    "split by sizes": one_node("Split", ["x", "s"], [("s", np.array([2, 4]))], outputs=("y", "z"), axis=1),
    "pad": one_node("Pad", ["x", "p"], [("p", np.array([0, 1, 0, 1]))], mode="reflect"),
    "resize": one_node(
        "Resize", ["x", "", "s"], [("s", np.array([1, 2], np.float32))], mode="linear", antialias=0
    ),
}
REFUSED = {
    "came with opset 18": one_node("Mish", ["x"]),
    "splits axis 1 of 6 entries into 4": one_node("Split", ["x"], outputs="abcd", axis=1, num_outputs=4),
    "splits axis 0 of unknown entries into 2": one_node(
        "Split", ["x"], shape=("n", 6), outputs="ab", num_outputs=2
    ),
    "computes its axes as it runs": one_node("ReduceMean", ["x", "a"]),
    "has antialias = 1": one_node(
        "Resize", ["x", "", "s"], [("s", np.array([1, 2], np.float32))], antialias=1
    ),
    "pads chosen axes": one_node("Pad", ["x", "p", "", "a"], [("p", np.array([1, 1])), ("a", np.array([1]))]),
    "has reduction = b'max'": one_node("ScatterND", ["x", "i", "u"], reduction="max"),
    "is of the domain 'mine'": one_node("Mine", ["x"], domain="mine"),
}


@pytest.mark.parametrize("name", REWRITTEN)
def test_opset_17_computes_the_same(name):
    given = {"x": np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)}
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(REWRITTEN[name])
    to_opset_17(rewritten)
    assert rewritten.opset_import[0].version == 17
    # ONNX Runtime refuses an operator that is not what its opset says.
    want, ours = (
        onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)
        for model in (REWRITTEN[name], rewritten)
    )
    for a, b in zip(ours, want):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("reason", REFUSED)
def test_what_opset_17_cannot_hold_is_refused_by_name(reason):
    with pytest.raises(InputError) as caught:
        to_opset_17(REFUSED[reason])
    assert str(caught.value).startswith("opset 17 cannot hold this network: ")
    assert f"(node) {reason}; export with opset 18 or 20" in str(caught.value)


@pytest.mark.parametrize("free", [True, False])
def test_a_file_that_reads_tokens_takes_any_number_of_them_or_all(tmp_path, free):
    """Fewer tokens at once are what the network says of the same tokens."""
    space = gpt.space(classes=11, context=9, depths=(2,), embed_dims=(8,), head_dim=4)
    module = space.build(space.largest).eval()
    tokens = torch.randint(11, (4, 9), generator=torch.Generator().manual_seed(0))
    report = export_onnx(
        module, tmp_path / "gpt.onnx", input_shape=(9,), samples=tokens, metadata={}, dynamic_batch=free
    )
    assert verify_onnx(report.path, module, tokens) < 1e-5
    session = onnxruntime.InferenceSession(report.path, providers=["CPUExecutionProvider"])
    for batch, length in ((1, 9), (3, 1), (2, 5)):
        part = tokens[:batch, :length]
        if free or part.shape == (1, 9):
            (got,) = session.run(None, {"input": part.numpy()})
            torch.testing.assert_close(torch.from_numpy(got), module(part).detach(), atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match=r"samples must be \[N, 9\]"):
        export_onnx(module, tmp_path / "x.onnx", input_shape=(9,), samples=tokens[:, :5], metadata={})
