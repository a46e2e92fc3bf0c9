"""ONNX opset 17 from opset 18, for TensorRT 8.4 to 8.6 (JetPack 5 and 6.0), which read nothing newer.

torch's exporter starts at 18, and onnx's own converter fails on a Reduce* whose axes are an input and then
leaves the file at 18 without an error. Opset 18 changed few operators. Those that a network here can contain
are rewritten; any other is refused by name rather than written wrongly.

Source: the operator change log of ONNX, https://onnx.ai/onnx/operators/ (versions 13 to 18).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.errors import InputError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

OPSETS = (17, 18, 20)
"""What can be written. TensorRT 8.4 to 8.6 (JetPack 5, 6.0) reads 17; TensorRT 10 (JetPack 6.1) reads all."""

IR_VERSIONS = {17: 8, 18: 8, 20: 9}
"""The file format that came with each opset, so that a runtime of that age opens the file."""

REDUCTIONS = frozenset(
    {
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSumSquare",
    }
)
"""Their axes became an input in 18. (Those of ReduceSum did in 13.)"""

NEW_IN_18 = frozenset(
    {
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "CenterCropPad",
        "Col2Im",
        "GroupNormalization",
        "Mish",
    }
)

CHANGED_ATTRIBUTES: dict[str, dict[str, tuple[object, ...]]] = {
    "Resize": {"antialias": (0,), "keep_aspect_ratio_policy": (b"stretch",), "axes": ()},
    "ScatterElements": {"reduction": (b"none", b"add", b"mul")},
    "ScatterND": {"reduction": (b"none", b"add", b"mul")},
}
"""Attributes to which 18 brought something, and the values of them that 17 has too."""


def to_opset_17(model: ModelProto) -> ModelProto:
    """`model`, of opset 18, rewritten in place to opset 17 and returned; it computes the same.

    Raises:
        InputError: an operator has no equal in opset 17.
    """
    constants = _constants(model)
    shapes = _shapes(model)
    for node in model.graph.node:
        _rewrite(node, constants, shapes)
    used = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
    for initializer in [i for i in model.graph.initializer if i.name not in used]:
        model.graph.initializer.remove(initializer)
    for node in [n for n in model.graph.node if n.op_type == "Constant" and not used & set(n.output)]:
        model.graph.node.remove(node)
    for opset in model.opset_import:
        if opset.domain == "":
            opset.version = 17
    return model


def _rewrite(node: NodeProto, constants: dict[str, Any], shapes: dict[str, tuple[int | None, ...]]) -> None:
    if node.domain not in ("", "ai.onnx"):
        raise _refusal(node, f"is of the domain {node.domain!r}")
    if any(attribute.g.node or attribute.graphs for attribute in node.attribute):
        raise _refusal(node, "contains a graph of its own")
    if node.op_type in NEW_IN_18:
        raise _refusal(node, "came with opset 18")
    if node.op_type in REDUCTIONS:
        _axes_as_attribute(node, constants)
    elif node.op_type == "Split":
        _split_evenly(node, shapes)
    elif node.op_type == "Pad" and len(node.input) > 3 and node.input[3]:
        raise _refusal(node, "pads chosen axes")
    for name, same in CHANGED_ATTRIBUTES.get(node.op_type, {}).items():
        value = _attribute(node, name)
        if value is None:
            continue
        if value not in same:
            raise _refusal(node, f"has {name} = {value!r}")
        if node.op_type == "Resize":
            _remove_attribute(node, name)


def _axes_as_attribute(node: NodeProto, constants: dict[str, Any]) -> None:
    from onnx import helper

    keep_all = bool(_attribute(node, "noop_with_empty_axes"))
    given = len(node.input) > 1 and node.input[1]
    axes = constants.get(node.input[1]) if given else np.empty(0)
    if axes is None:
        raise _refusal(node, "computes its axes as it runs")
    if not axes.size and keep_all:
        raise _refusal(node, "reduces nothing")
    _remove_attribute(node, "noop_with_empty_axes")
    del node.input[1:]
    if axes.size:
        node.attribute.append(helper.make_attribute("axes", [int(axis) for axis in axes.reshape(-1)]))


def _split_evenly(node: NodeProto, shapes: dict[str, tuple[int | None, ...]]) -> None:
    """Without sizes 17 splits evenly; 18 says `num_outputs` for that and lets the last part be smaller."""
    parts = _attribute(node, "num_outputs")
    if parts is None:
        return
    shape = shapes.get(node.input[0])
    axis = _attribute(node, "axis") or 0
    size = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
    if size is None or size % parts:
        raise _refusal(node, f"splits axis {axis} of {size or 'unknown'} entries into {parts}")
    _remove_attribute(node, "num_outputs")


def _refusal(node: NodeProto, reason: str) -> InputError:
    return InputError(
        f"opset 17 cannot hold this network: {node.op_type} ({node.name or 'unnamed'}) {reason}; "
        "export with opset 18 or 20 (TensorRT 10, JetPack 6.1 or later)"
    )


def _attribute(node: NodeProto, name: str) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)


def _remove_attribute(node: NodeProto, name: str) -> None:
    for attribute in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(attribute)


def _constants(model: ModelProto) -> dict[str, Any]:
    """Every tensor of the graph whose value is written in the file."""
    from onnx import numpy_helper

    values = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer if i.data_type == i.INT64}
    for node in model.graph.node:
        if node.op_type != "Constant":
            continue
        for attribute in node.attribute:
            if attribute.name == "value":
                values[node.output[0]] = numpy_helper.to_array(attribute.t)
            elif attribute.name in ("value_int", "value_ints"):
                values[node.output[0]] = np.asarray(attribute.ints or [attribute.i], dtype=np.int64)
    return values


def _shapes(model: ModelProto) -> dict[str, tuple[int | None, ...]]:
    """The shape of every tensor whose shape is known; None for an axis that is not fixed."""
    known: dict[str, tuple[int | None, ...]] = {i.name: tuple(i.dims) for i in model.graph.initializer}
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        if value.type.tensor_type.HasField("shape"):
            known[value.name] = tuple(
                d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim
            )
    return known
