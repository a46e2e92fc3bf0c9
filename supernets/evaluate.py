"""What a subnet scores: batch-norm statistics of its own, then accuracy and loss, many archs in one pass.

Running statistics gathered in training mix all archs and make small subnets look random (Yu and Huang 2019,
arXiv:1903.05134; Cai et al. 2020, arXiv:1908.09791), so each arch gets its own before it is scored.
Safe in threads: nothing here writes to the supernet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from search_spaces.arch import Arch
from search_spaces.errors import InputError
from supernets.modes import batch_norms, only_batch_statistics
from supernets.supernet import Supernet


def resize_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Images [B, C, H, W] at the height and width of `shape` (C, H, W); `x` itself where they are equal."""
    if x.ndim != 4 or tuple(x.shape[2:]) == tuple(shape[-2:]):
        return x
    return F.interpolate(x, size=tuple(shape[-2:]), mode="bilinear", antialias=True, align_corners=False)


def channels_last(x: Tensor) -> Tensor:
    """Images [B, C, H, W] with channels innermost in memory, which convolutions on a CPU prefer; else `x`."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def recalibrate(module: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """`module` in eval mode with batch-norm statistics measured on `batches` of images at its resolution.

    The mean over the batches of each batch's mean and (unbiased) variance, in buffers of the module's own:
    tensors that it shared before are not written. The order of the batches does not matter, a second call
    gives the same, and no learnable parameter is touched.

    Raises:
        InputError: the module has batch normalisations and there is no batch.
    """
    norms = batch_norms(module)
    if not norms:
        return module.eval()
    momenta = [norm.momentum for norm in norms]
    # Made outside inference mode: a module that is exported or fine-tuned later must be free to use them.
    running = [norm.running_mean for norm in norms if norm.running_mean is not None]
    sizes, device = [len(mean) for mean in running], running[0].device
    # All layers' statistics lie in one tensor: a batch adds them up in one operation, not in three per layer.
    of_batch = torch.zeros(2, sum(sizes), dtype=running[0].dtype, device=device)
    # Sums in float64, so that the order of the batches is lost in rounding to float32.
    total = torch.zeros_like(of_batch, dtype=torch.float64)
    for norm, statistics in zip(norms, of_batch.split(sizes, dim=1), strict=True):
        _set_statistics(norm, statistics[0], statistics[1], torch.zeros((), dtype=torch.long, device=device))
        norm.momentum = 1.0  # the running statistics become those of the batch
    only_batch_statistics(module)
    count = 0
    try:
        with torch.inference_mode():
            for x in batches:
                module(channels_last(x.to(device)))
                count += 1
                total += of_batch
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        module.eval()
    if not count:
        raise InputError("batch-norm calibration got no images; give at least one batch of training images")
    mean_of_all = (total / count).to(of_batch.dtype)
    for norm, (mean, variance) in zip(norms, mean_of_all.split(sizes, dim=1), strict=True):
        _set_statistics(norm, mean.clone(), variance.clone(), torch.tensor(count, device=device))
    return module


def _set_statistics(norm: nn.Module, mean: Tensor, variance: Tensor, batches: Tensor) -> None:
    """Past `Module.__setattr__`, which costs as much as a small layer's normalisation."""
    norm._buffers.update(running_mean=mean, running_var=variance, num_batches_tracked=batches)


def calibrated(supernet: Supernet, arch: Arch, calibration: Sequence[Tensor]) -> nn.Module:
    """The subnet `arch` in eval mode: shared weights, and its own statistics, from resized images."""
    shape = supernet.space.input_shape(arch)
    return recalibrate(supernet.subnet(arch), (resize_to(x, shape) for x in calibration))


@dataclass(frozen=True, eq=False)
class Scores:
    """What n archs score, each the mean over all labels of a pass. float64 [n]"""

    accuracy: NDArray[np.float64]  # top-1, in [0, 1]
    loss: NDArray[np.float64]  # cross-entropy, in nats per label
    labels: int  # in the pass: images, or tokens

    @property
    def perplexity(self) -> NDArray[np.float64]:
        """exp(loss): among how many equally likely answers the network hesitates. [n]"""
        return np.exp(self.loss)

    @property
    def bits(self) -> NDArray[np.float64]:
        """The loss in bits per label: bits per byte, where the labels are bytes. [n]"""
        return self.loss / np.log(2)


def scores(
    supernet: Supernet,
    archs: Sequence[Arch],
    data: Iterable[tuple[Tensor, Tensor]],
    calibration: Sequence[Tensor],
) -> Scores:
    """Top-1 accuracy and mean cross-entropy of each arch, after recalibration, in one pass over `data`.

    data: images x [B, C, H, W] with y [B], or tokens x [B, T] with y [B, T]; calibration: inputs of training
    batches. Images are resized to each arch's resolution. All n subnets are alive at once: they share their
    weights.

    Raises:
        InputError: no data, or no calibration for a network with batch normalisation.
    """
    device = next(supernet.parameters()).device
    calibration = [x.to(device) for x in calibration]
    modules = [calibrated(supernet, arch, calibration) for arch in archs]
    shapes = [supernet.space.input_shape(arch) for arch in archs]
    correct = torch.zeros(len(modules), dtype=torch.long, device=device)
    loss = torch.zeros(len(modules), dtype=torch.float64, device=device)
    labels = 0
    with torch.inference_mode():
        for x, y in data:
            x, y = x.to(device), y.to(device)
            labels += y.numel()
            sized = {shape: channels_last(resize_to(x, shape)) for shape in dict.fromkeys(shapes)}
            for i, module in enumerate(modules):
                logits = module(sized[shapes[i]])
                correct[i] += (logits.argmax(dim=-1) == y).sum()
                each = F.cross_entropy(logits.float().flatten(0, -2), y.flatten(), reduction="none")
                loss[i] += each.double().sum()  # so that the size of the batches is lost in rounding
    if not labels:
        raise InputError("there is nothing to evaluate on")
    return Scores(correct.cpu().numpy().astype(np.float64) / labels, loss.cpu().numpy() / labels, labels)


def evaluate(
    supernet: Supernet,
    archs: Sequence[Arch],
    data: Iterable[tuple[Tensor, Tensor]],
    calibration: Sequence[Tensor],
) -> NDArray[np.float64]:
    """The accuracy of `scores`: top-1 of each arch in [0, 1]. [n]"""
    return scores(supernet, archs, data, calibration).accuracy


def top1(module: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Top-1 accuracy in [0, 1] of a plain module, as it stands, in eval mode; images are not resized."""
    module.eval()
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    correct, labels = 0, 0
    with torch.inference_mode():
        for x, y in batches:
            correct += int((module(channels_last(x.to(device))).argmax(dim=-1) == y.to(device)).sum())
            labels += y.numel()
    if not labels:
        raise InputError("there is nothing to evaluate on")
    return correct / labels
