"""The gradient of a step over all ranks: one flat all-reduce of all that they have to tell each other.

A parameter's gradient becomes the sum of the ranks' gradients, each rank having weighed its images by their
share of the whole batch. With the same plan everywhere that is the gradient of one process with the whole
batch. With a plan of its own on each rank it is the mean over all images, those whose arch does not use the
parameter counting as zero, and not the mean over its users: the gradient of the mean loss over ranks, whose
expectation does not depend on how many ranks there are. A parameter that no rank used keeps `grad = None`, so
that neither momentum nor decay moves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from supernets.distributed import Ranks


@torch.no_grad()
def exchange(
    ranks: Ranks,
    parameters: Iterable[nn.Parameter],
    buffers: Sequence[tuple[Tensor, Tensor]],
    weight: float,
    numbers: Sequence[float],
) -> list[float]:
    """Sums the gradients over the ranks in place, averages the buffers, and returns the sums of `numbers`.

    buffers: each with its value before the step. What the step changed is averaged by `weight`, this rank's
    share of the images: running statistics stay equal on all ranks, so that a checkpoint has no state per
    rank. Batch statistics themselves are those of a rank's own images. Normalisation over all ranks
    (SyncBatchNorm) is not offered: it would wait for the network in every layer of every member, and subnets
    are scored with statistics that are measured anew.
    """
    held = list(parameters)
    changes = [(now - before).flatten() * weight for now, before in buffers]
    used = [float(p.grad is not None) for p in held]
    kind = torch.float64 if any(p.dtype == torch.float64 for p in held) else torch.float32
    device = held[0].device
    pieces = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).to(kind) for p in held]
    pieces += [change.to(kind) for change in changes]
    pieces.append(torch.tensor([*used, *numbers], dtype=kind, device=device))
    flat = ranks.sum(torch.cat(pieces))
    told = flat[len(flat) - len(used) - len(numbers) :].tolist()
    place = 0
    for parameter, users in zip(held, told, strict=False):
        count = parameter.numel()
        summed = flat[place : place + count].view_as(parameter)
        parameter.grad = summed.to(parameter.dtype) if users else None
        place += count
    for now, before in buffers:
        change = flat[place : place + now.numel()].view_as(now)
        now.copy_(before + (change if now.is_floating_point() else change.round().to(now.dtype)))
        place += now.numel()
    return [float(number) for number in told[len(used) :]]
