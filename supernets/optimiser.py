"""timm's optimisers and schedules, behind our phases. The only file here that imports timm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.errors import InputError, did_you_mean
from supernets.recipe import Phase


def check_optimizer(phase: Phase) -> None:
    """Returns when timm knows the phase's optimiser.

    Raises:
        InputError: it does not.
    """
    from timm.optim import list_optimizers

    known = [str(name) for name in list_optimizers()]
    if phase.optimizer not in known:
        hint = did_you_mean(phase.optimizer, known)
        raise InputError(f"unknown optimizer {phase.optimizer!r} in phase {phase.name!r}{hint}")


def make_optimizer(model: nn.Module, phase: Phase) -> torch.optim.Optimizer:
    """The phase's optimiser over `model.parameters()`, without weight decay on biases and other vectors.

    Raises:
        InputError: a name that timm does not know, or one that "masked" cannot serve.
    """
    from timm.optim import create_optimizer_v2

    check_optimizer(phase)
    # timm's "sgd" is Nesterov's, which torch refuses without momentum; "momentum" is the plain one.
    name = "momentum" if phase.optimizer == "sgd" and phase.momentum == 0 else phase.optimizer

    def create(what: nn.Module) -> torch.optim.Optimizer:
        return create_optimizer_v2(
            what, name, lr=phase.lr, weight_decay=phase.weight_decay, momentum=phase.momentum
        )

    if phase.untouched == "masked" and not _begins_at_zero(create):
        raise InputError(
            f"untouched = 'masked' does not work with {phase.optimizer!r}: its state begins above zero"
        )
    return create(model)


def make_schedule(optimizer: torch.optim.Optimizer, phase: Phase, steps: int) -> Callable[[int], float]:
    """A function that sets the learning rate of a step (0, 1, ... of the phase) and returns it.

    Linear warm-up, then half a cosine to zero over the phase's `steps` per epoch. It keeps no state: the rate
    is a function of the step, so a resume needs nothing of it.
    """
    from timm.scheduler import create_scheduler_v2

    scheduler, _ = create_scheduler_v2(
        optimizer,
        "cosine",
        num_epochs=phase.epochs,
        warmup_epochs=phase.warmup_epochs,  # type: ignore[arg-type]  # a fraction serves as well
        warmup_lr=phase.lr / 100,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )

    def set_rate(step: int) -> float:
        assert scheduler is not None
        scheduler.step_update(step)
        return float(optimizer.param_groups[0]["lr"])

    return set_rate


def optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimiser's state by parameter name: tensors as "parameter/key", and plain values likewise."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            (tensors if isinstance(value, Tensor) else values)[f"{name}/{key}"] = value
    return tensors, values


def load_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], values: dict[str, Any]
) -> None:
    """Restores what `optimizer_state` gave; rates and decays stay those that the optimiser has."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    order = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    number = {name: i for i, name in enumerate(order)}
    for path, value in {**tensors, **values}.items():
        name, key = path.rsplit("/", 1)
        state.setdefault(number[name], {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _begins_at_zero(create: Callable[[nn.Module], torch.optim.Optimizer]) -> bool:
    """Whether a zero weight with a zero gradient leaves the optimiser's state at zero."""
    probe = nn.Linear(2, 2, bias=False)
    probe.weight.data.zero_()
    probe.weight.grad = torch.zeros_like(probe.weight)
    optimizer = create(probe)
    optimizer.step()
    state = optimizer.state.get(probe.weight, {}).values()
    return not any(v.any() for v in state if isinstance(v, Tensor) and v.shape == probe.weight.shape)
