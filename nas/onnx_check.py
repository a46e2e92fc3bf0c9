"""Whether an ONNX file computes what a PyTorch module computes, in ONNX Runtime, on real inputs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.errors import VerificationError

if TYPE_CHECKING:
    from torch import Tensor, nn

NUMERICAL_TIE = 1e-5
"""Two classes whose scores differ by less than this share of the largest score may change places: float32
rounding through some fifty layers was seen to reach 1e-6."""


def verify_onnx(path: str | Path, module: nn.Module, samples: Tensor, *, tolerance: float = 1e-4) -> float:
    """The largest relative difference between the file and `module` on `samples` [N, ...], if they agree.

    Compared at batch 1 and, where the file allows it, at several, on ONNX Runtime's CPU provider. Relative to
    the largest score of PyTorch over the samples.

    Raises:
        VerificationError: it exceeds `tolerance`, a sample gets another class and it is not a numerical tie,
            or ONNX Runtime does not open the file.
        OSError: the file cannot be read.
    """
    with in_eval_mode(module), quiet():
        return compare(Path(path).read_bytes(), module, samples, tolerance, Path(path).name)


def compare(content: bytes, module: nn.Module, samples: Tensor, tolerance: float, name: str) -> float:
    """`verify_onnx` of a file still in memory, `module` in eval mode; `name` is for the error lines."""
    run, shape = _session(content, name)
    inputs = samples.detach().cpu()
    if inputs.is_floating_point():
        inputs = inputs.float()
    if len(inputs) == 1 and shape[0] != 1:
        inputs = inputs.repeat(2, *[1] * (inputs.ndim - 1))
    worst = _compare(run, shape[0] == 1, module, inputs, tolerance, name)
    if inputs.ndim == 2 and isinstance(shape[1], str):  # a file that takes any number of tokens
        for tokens in {1, max(1, inputs.shape[1] // 3)}:
            error = _compare(run, shape[0] == 1, module, inputs[:, :tokens].contiguous(), tolerance, name)
            worst = max(worst, error)
    return worst


def _compare(
    run: Callable[[Any], Any], one: bool, module: nn.Module, inputs: Tensor, tolerance: float, name: str
) -> float:
    """The largest relative difference on `inputs` at batch 1 and, unless that is the only `one`, at more."""
    import torch

    device = next((t.device for t in module.parameters()), torch.device("cpu"))
    with torch.no_grad():
        want = torch.cat([module(part.to(device)).float().cpu() for part in inputs.split(32)]).numpy()
    scale = float(np.abs(want).max())
    if not np.isfinite(scale):
        raise VerificationError(f"{name}: PyTorch itself gives scores that are not finite on these samples")
    scale = max(scale, float(np.finfo(np.float32).tiny))
    # One at a time, a few are enough: what differs is the shape, not the input.
    few = min(8, len(inputs))
    worst = 0.0
    for size, count in [(1, len(inputs))] if one else [(1, few), (few, len(inputs))]:
        got = np.concatenate([run(part.numpy()) for part in inputs[:count].split(size)])
        if got.shape != want[:count].shape:
            raise VerificationError(f"{name} gives {got.shape} where PyTorch gives {want[:count].shape}")
        error = float(np.abs(got - want[:count]).max()) / scale
        if not error <= tolerance:  # NaN included
            raise VerificationError(
                f"{name} differs from PyTorch by {error:.1e} of the largest score at batch {size} "
                f"(allowed {tolerance:.0e})"
            )
        _check_classes(got, want[:count], scale, name)
        worst = max(worst, error)
    return worst


def _check_classes(got: Any, want: Any, scale: float, name: str) -> None:
    """Every sample, or every token of one, gets the same class, unless PyTorch scores both alike."""
    got, want = (scores.reshape(-1, scores.shape[-1]) for scores in (got, want))
    rows = np.arange(len(want))
    lost = want.max(axis=1) - want[rows, got.argmax(axis=1)]
    wrong = np.flatnonzero(lost > NUMERICAL_TIE * scale)
    if wrong.size:
        raise VerificationError(
            f"{name} names another class than PyTorch for {wrong.size} of {len(want)} samples"
        )


def _session(content: bytes, name: str) -> tuple[Callable[[Any], Any], list[int | str]]:
    """A function [B, ...] -> [B, ..., classes] that runs the file, and its input's shape: names are free."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # sums in the same order every time
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - onnxruntime has a class of its own for each status, under a private name
        raise VerificationError(f"{name} does not open in ONNX Runtime: {first_line(error)}") from None
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(session.get_outputs()) != 1:
        raise VerificationError(
            f"{name} has {len(inputs)} inputs and {len(session.get_outputs())} outputs, not one each"
        )

    def run(batch: Any) -> Any:
        try:
            return np.asarray(session.run(None, {inputs[0].name: batch})[0], dtype=np.float32)
        except Exception as error:  # noqa: BLE001 - as above
            raise VerificationError(f"{name} does not run in ONNX Runtime: {first_line(error)}") from None

    return run, inputs[0].shape


def first_line(error: BaseException) -> str:
    """The first line of what an engine says, for an error of one line."""
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode for as long as it is needed; every part of `module` gets its own mode back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's progress, warnings and hints, which are about its own insides."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "onnx")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)
