"""What a network computes, layer by layer, found by running it on the meta device.

The trace sits at the level of PyTorch's functions (`conv2d`, `linear`, `scaled_dot_product_attention`), where
an operation still has its name, and where each distinct call needs to be run once only: later calls of equal
shapes take the remembered output shape. Multiply-adds count once (MACs, half of what PyTorch's FLOP counter
says).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.operations import FREE, IDENTITIES, KINDS

Shape = tuple[int, ...]
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Layer:
    """One operation of a network on one input, with what it costs. Bytes are for float32 and batch 1."""

    name: str  # dotted path of the module that ran it, "blocks.1.0.conv_dw"
    kind: str  # conv2d, linear, attention, matmul, batch_norm, layer_norm, activation, elementwise, pool, ...
    op: str  # PyTorch's name of the function, "hardswish"
    inputs: tuple[Shape, ...]  # of the tensors that flow in, without weights
    output: Shape
    weight: Shape | None
    kernel: Shape | None  # convolutions: spatial size of the kernel
    stride: Shape | None
    groups: int
    macs: int
    params: int  # learnable, of the module that ran it; counted at the module's first layer
    input_bytes: int
    output_bytes: int
    weight_bytes: int  # parameters and buffers of the module that ran it
    sources: tuple[int, ...]  # how many layers back each input was made; 0: the network's input or a weight


class _Tracer(TorchFunctionMode):
    """Records every function that makes a new tensor, and remembers output shapes between traces."""

    # Shape, stride and type of a call's result; shared by all traces, since it is a fact about the call.
    _results: dict[Any, tuple[Shape, Shape, torch.dtype]] = {}  # noqa: RUF012

    def __init__(self, owned: dict[str, tuple[int, int]], weights: set[int]) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self.path: list[str] = [""]
        self._owned = owned
        self._weights = weights
        self._maker: dict[int, int] = {}
        self._alive: list[Any] = []  # an id names a tensor only while the tensor lives

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        kind = KINDS.get(name)
        macs: int | None = None
        if name in IDENTITIES:
            return args[0]
        in_place = kind is not None and bool(
            kwargs.get("inplace") or name.startswith("__i") or (name.endswith("_") and name[0] != "_")
        )
        key = _call_key(func, args, kwargs) if kind is not None and kind != "copy" and not in_place else None
        if in_place:
            out: Any = args[0]  # the shape is known, and there are no values to change
        elif key is not None and key in self._results:
            shape, stride, dtype = self._results[key]
            out = torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        elif kind is None and name not in FREE:
            with FlopCounterMode(display=False) as counter:
                out = func(*args, **kwargs)
            macs = counter.get_total_flops() // 2
            if macs == 0 and getattr(func, "__module__", "") != "torch.nn.functional":
                macs = None  # it may be a view
        else:
            out = func(*args, **kwargs)
            if key is not None and isinstance(out, Tensor):
                self._results[key] = (tuple(out.shape), out.stride(), out.dtype)
        self._note(name, kind, out, args, kwargs, macs)
        return out

    def _note(self, op: str, kind: str | None, out: Any, args: Any, kwargs: Any, macs: int | None) -> None:
        made = (
            [out]
            if isinstance(out, Tensor)
            else [t for t in out if isinstance(t, Tensor)]
            if (isinstance(out, (tuple, list)) and not isinstance(out, torch.Size))
            else []
        )
        if not made or made[0].is_meta is False:
            return
        given = _tensors(args) + _tensors(tuple(kwargs.values()))
        self._alive.append((given, made))
        flowing = [t for t in given if id(t) not in self._weights]
        if kind is None and macs is None and (made[0]._is_view() or not flowing):
            kind = "view"
        if kind in (None, "copy") and macs is None and any(made[0] is t for t in given):
            kind = "view"
        if kind == "copy" and made[0]._is_view():
            kind = "view"
        if kind == "view":
            from_weight = not flowing
            for tensor in made:
                if from_weight:
                    self._weights.add(id(tensor))
                elif id(flowing[0]) in self._maker:
                    self._maker[id(tensor)] = self._maker[id(flowing[0])]
            return
        self._record(op, kind or "other", made, given, flowing, kwargs, args, macs)

    def _record(
        self,
        op: str,
        kind: str,
        made: Sequence[Tensor],
        given: Sequence[Tensor],
        flowing: Sequence[Tensor],
        kwargs: Any,
        args: Any,
        macs: int | None,
    ) -> None:
        here = len(self.layers)
        out = made[0]
        path = self.path[-1]
        params, weight_bytes = self._owned.pop(path, (0, 0))
        weight = given[1] if kind in ("conv2d", "linear") and len(given) > 1 else None
        is_conv = kind == "conv2d" and weight is not None
        spatial = weight.dim() - 2 if weight is not None else 0
        stride: Any = _argument(args, kwargs, 3, "stride", 1) if is_conv else 1
        self.layers.append(
            Layer(
                name=path,
                kind=kind,
                op=op,
                inputs=tuple(tuple(t.shape) for t in flowing),
                output=tuple(out.shape),
                weight=tuple(weight.shape) if weight is not None else None,
                kernel=tuple(weight.shape[2:]) if is_conv and weight is not None else None,
                stride=(stride,) * spatial
                if is_conv and isinstance(stride, int)
                else tuple(stride)
                if is_conv
                else None,
                groups=int(_argument(args, kwargs, 6, "groups", 1)) if is_conv else 1,
                macs=_macs(kind, given, out) if macs is None else macs,
                params=params,
                input_bytes=sum(t.numel() for t in flowing) * FLOAT_BYTES,
                output_bytes=sum(t.numel() for t in made) * FLOAT_BYTES,
                weight_bytes=weight_bytes,
                sources=tuple(here - self._maker[id(t)] if id(t) in self._maker else 0 for t in flowing),
            )
        )
        for tensor in made:
            self._maker[id(tensor)] = here


def trace(module: nn.Module, example: Tensor) -> tuple[Layer, ...]:
    """The layers that `module` runs on `example`, in order. Both live on the meta device; batch 1.

    The module is put into eval mode. Views and reshapes that move no data are not layers. Parameters of
    modules that ran no function of their own appear at the end as layers of kind "parameters", so that the
    sum over layers is the whole network.
    """
    module.eval()
    seen: set[int] = set()
    owned: dict[str, tuple[int, int]] = {}
    weights: set[int] = set()
    modules = list(module.named_modules())
    own_forward = {child: child.__dict__["forward"] for _, child in modules if "forward" in child.__dict__}
    for path, child in modules:
        params = weight_bytes = 0
        for tensor in child._parameters.values():
            if tensor is not None:
                weights.add(id(tensor))
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    params += tensor.numel()
                    weight_bytes += tensor.numel() * tensor.element_size()
        for buffer in child._buffers.values():
            if buffer is not None:
                weights.add(id(buffer))
                if id(buffer) not in seen:
                    seen.add(id(buffer))
                    weight_bytes += buffer.numel() * buffer.element_size()
        if params or weight_bytes:
            owned[path] = (params, weight_bytes)
    tracer = _Tracer(owned, weights)
    for path, child in modules:
        child.__dict__["forward"] = partial(_forward, child.forward, path, tracer.path)
    try:
        with torch.no_grad(), tracer:
            module(example)
    finally:
        for _, child in modules:
            del child.__dict__["forward"]
            if child in own_forward:
                child.__dict__["forward"] = own_forward[child]
    rest = [
        Layer(path, "parameters", "", (), (), None, None, None, 1, 0, params, 0, 0, size, ())
        for path, (params, size) in owned.items()
    ]
    return (*tracer.layers, *rest)


def _forward(forward: Callable[..., Any], path: str, stack: list[str], *args: Any, **kwargs: Any) -> Any:
    stack.append(path)
    try:
        return forward(*args, **kwargs)
    finally:
        stack.pop()


def _macs(kind: str, given: Sequence[Tensor], out: Tensor) -> int:
    if kind == "conv2d":
        return out.numel() * math.prod(given[1].shape[1:])
    if kind == "linear":
        return out.numel() * given[1].shape[-1]
    if kind == "matmul":
        return out.numel() * given[0].shape[-1]
    if kind == "attention":  # query @ key.T, then scores @ value
        query, key, value = given[:3]
        scores = query.shape[:-1].numel() * key.shape[-2]
        return scores * (query.shape[-1] + value.shape[-1])
    return 0


def _argument(args: Any, kwargs: Any, position: int, name: str, default: Any) -> Any:
    return args[position] if len(args) > position else kwargs.get(name, default)


def _tensors(args: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for arg in args:
        if isinstance(arg, Tensor):
            found.append(arg)
        elif isinstance(arg, (tuple, list)):
            found.extend(a for a in arg if isinstance(a, Tensor))
    return found


def _call_key(func: Any, args: Any, kwargs: Any) -> Any:
    """A hashable description of a call, or None when it has an argument that cannot be one."""
    parts: list[Any] = [func]
    for arg in (*args, *(item for pair in sorted(kwargs.items()) for item in pair)):
        if isinstance(arg, Tensor):
            parts.append((tuple(arg.shape), arg.stride(), arg.dtype))
        elif isinstance(arg, list):
            parts.append(tuple(arg))
        else:
            parts.append(arg)
    try:
        hash(tuple(parts))
    except TypeError:
        return None
    if any(isinstance(p, tuple) and any(isinstance(q, Tensor) for q in p) for p in parts):
        return None
    return tuple(parts)
