"""Train and eval mode, module by module."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """The batch normalisations of a module that keep running statistics."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def only_batch_statistics(module: nn.Module) -> nn.Module:
    """`module` with its batch normalisations in train mode and everything else in eval mode.

    Dropout, drop-path and what attention drops inside its fused kernel are off: the latter asks its parent
    module, not a dropout layer, so switching the dropout layers off would not do.
    """
    for part in module.modules():
        part.training = isinstance(part, _BatchNorm)
    return module
