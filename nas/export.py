"""A plain module as one ONNX file, checked: the same numbers as PyTorch, and nothing of this machine in it.

    report = export_onnx(module, "model.onnx", input_shape=(3, 160, 160), metadata=metadata, samples=images)

The bytes are built and verified in memory and reach the disk in one atomic step, so a file at that path is
always whole and was always checked, and a failure leaves an earlier file as it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.onnx_check import compare, first_line, in_eval_mode, quiet, verify_onnx
from nas.onnx_opset import IR_VERSIONS, OPSETS, to_opset_17
from search_spaces.errors import InputError, VerificationError
from supernets.files import atomic_write

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import Tensor, nn

    from search_spaces.arch import Arch
    from search_spaces.space import SearchSpace

__all__ = ["OnnxReport", "export_onnx", "library_versions", "onnx_metadata", "read_metadata", "verify_onnx"]

FORMAT = 1
"""The version of what stands in the metadata, as `nas.format`."""

MAX_BATCH = 1024  # of a file with a dynamic batch; torch.export wants a bound


@dataclass(frozen=True, slots=True)
class OnnxReport:
    """What was written."""

    path: Path
    opset: int
    bytes: int
    sha256: str
    max_relative_error: float  # largest difference to PyTorch / largest score of PyTorch, over the samples
    nodes: int


def export_onnx(
    module: nn.Module,
    path: str | Path,
    *,
    input_shape: Sequence[int],
    samples: Tensor,
    metadata: Mapping[str, Any],
    opset: int = 18,
    dynamic_batch: bool = True,
    tolerance: float = 1e-4,
) -> OnnxReport:
    """Write `module` as one ONNX file at `path`, verified against PyTorch on `samples`.

    Input `input` [B, C, H, W] float32, output `logits` [B, classes]; `input_shape` is (C, H, W). Or tokens
    [B, T] int64 with logits [B, T, classes]; `input_shape` is (T,), the most tokens. B and the number of
    tokens are free; without `dynamic_batch` B is 1 and the tokens are T.
    `module` is exported in eval mode and left as it was; it is neither copied nor changed. `samples` [N,
    *input_shape] are real inputs, as in training. The same module, metadata
    and versions give the same bytes. `metadata` becomes the file's properties (see `onnx_metadata`): text as
    it is, anything else as canonical JSON; `nas.format` and `nas.versions` are added.

    Raises:
        InputError: an opset that is not written or cannot hold this network, samples of another shape,
            metadata that is not JSON.
        VerificationError: ONNX Runtime and PyTorch differ by more than `tolerance`, or name another class.
        OSError: the file cannot be written.
    """
    import torch

    target = Path(path)
    _check_request(target, opset, tuple(input_shape), samples)
    properties = _properties({"nas.format": FORMAT, "nas.versions": library_versions(), **metadata})
    device = next((t.device for t in module.parameters()), torch.device("cpu"))
    example = samples[:1].expand(2 if dynamic_batch else 1, *input_shape).contiguous().to(device)
    with in_eval_mode(module), quiet():
        model = _trace(module, example, opset, dynamic_batch)
        if opset == 17:
            model = to_opset_17(model)
        content = _seal(model, opset, properties)
        error = compare(content, module, samples, tolerance, target.name)
    atomic_write(target, content)
    return OnnxReport(
        path=target,
        opset=opset,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        max_relative_error=error,
        nodes=len(model.graph.node),
    )


def onnx_metadata(arch: Arch, space: SearchSpace, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The properties that say what a network is: `nas.arch`, `nas.arch_digest`, `nas.space`, and `nas.<fact>`
    for each of `facts` (classes, preprocessing, accuracy, target, ...; anything that is JSON).
    """
    return {
        "nas.arch": arch.to_json(),
        "nas.arch_digest": arch.digest,
        "nas.space": {"name": space.name, "settings": dict(space.settings)},
        **{f"nas.{name}": value for name, value in facts.items()},
    }


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The properties of an exported file: JSON objects and lists decoded, everything else as text.

    Raises:
        InputError: not an ONNX file.
        OSError: the file cannot be read.
    """
    import onnx

    content = Path(path).read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # noqa: BLE001 - protobuf's DecodeError has no stable home
        raise InputError(f"{path} is not an ONNX file ({first_line(error)})") from None
    if not model.graph.node:
        raise InputError(f"{path} is not an ONNX file (it holds no network)")
    return {p.key: _decoded(p.value) for p in model.metadata_props}


def library_versions() -> dict[str, str]:
    """The versions of what a handed-over file depends on, of those that are installed."""
    found = {}
    for package in ("elastic-nas", "torch", "timm", "onnx", "onnxruntime", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _check_request(path: Path, opset: int, input_shape: tuple[int, ...], samples: Tensor) -> None:
    if opset not in OPSETS:
        raise InputError(f"opset {opset} is not written (known: {', '.join(map(str, OPSETS))})")
    if tuple(samples.shape[1:]) != input_shape or not samples.numel():
        want = ", ".join(map(str, input_shape))
        raise InputError(f"samples must be [N, {want}] with N at least 1, not {list(samples.shape)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} for {path.name} does not exist")


def _trace(module: nn.Module, example: Tensor, opset: int, dynamic_batch: bool) -> ModelProto:
    """The network as torch's exporter writes it, without what only says where it came from."""
    import torch

    free = {0: torch.export.Dim("batch", min=1, max=MAX_BATCH)}
    if not example.is_floating_point():
        free[1] = torch.export.Dim("tokens", min=1, max=example.shape[1])
    program = torch.onnx.export(
        module,
        (example,),
        dynamo=True,
        opset_version=max(opset, 18),  # asked for 17 it warns, writes 18 and calls it done
        input_names=["input"],
        output_names=["logits"],
        external_data=False,
        optimize=True,
        verbose=False,
        dynamic_shapes=(free,) if dynamic_batch else None,
    )
    assert program is not None
    model: ModelProto = program.model_proto
    graph = model.graph
    # The exporter notes a stack trace on every node, with absolute paths of the machine it ran on.
    for thing in [
        model,
        graph,
        *graph.node,
        *graph.value_info,
        *graph.input,
        *graph.output,
        *graph.initializer,
    ]:
        thing.ClearField("metadata_props")
        thing.ClearField("doc_string")
    if model.functions:
        raise InputError(
            "the exporter left functions of its own in the file; this network cannot be handed over"
        )
    for opset_import in [o for o in model.opset_import if o.domain not in ("", "ai.onnx")]:
        if any(node.domain == opset_import.domain for node in graph.node):
            raise InputError(
                f"the network needs operators of {opset_import.domain!r}, which are not standard ONNX"
            )
        model.opset_import.remove(opset_import)
    return model


def _seal(model: ModelProto, opset: int, properties: Mapping[str, str]) -> bytes:
    """The final bytes: checked by onnx, with our properties, the same every time."""
    import onnx

    found = {o.domain: o.version for o in model.opset_import}
    assert found == {"": opset}, found
    model.ir_version = IR_VERSIONS[opset]
    model.producer_name, model.producer_version = "nas", str(FORMAT)
    onnx.helper.set_model_props(model, dict(properties))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise VerificationError(f"onnx refuses the exported network: {first_line(error)}") from error
    return model.SerializeToString(deterministic=True)


def _properties(metadata: Mapping[str, Any]) -> dict[str, str]:
    """`metadata` as text, in the order of the names."""
    try:
        return {
            name: value
            if isinstance(value, str)
            else json.dumps(value, sort_keys=True, separators=(",", ":"))
            for name, value in sorted(metadata.items())
        }
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata must be JSON: {first_line(error)}") from None


def _decoded(text: str) -> Any:
    if text[:1] not in ("{", "["):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
