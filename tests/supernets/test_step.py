from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from supernets.losses import soft_targets
from supernets.modes import only_batch_statistics
from supernets.plan import Member, StepPlan
from supernets.policies.sandwich import Sandwich
from supernets.policies.uniform import Uniform
from supernets.step import backward, step_rng
from supernets.supernet import Supernet


def gradients(supernet: Supernet, plan: StepPlan, images, **kwargs) -> dict[str, Tensor]:
    x, y = images.one(0, 0)
    supernet.zero_grad(set_to_none=True)
    backward(supernet, plan, x, soft_targets(y, supernet.space.classes), **kwargs)
    return {n: p.grad.clone() for n, p in supernet.named_parameters() if p.grad is not None}


def assert_sum(whole: dict[str, Tensor], parts: list[dict[str, Tensor]]) -> None:
    assert whole.keys() == set().union(*parts)
    for name, grad in whole.items():
        total = sum(part[name] for part in parts if name in part)
        torch.testing.assert_close(grad, total, rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


def test_n_subnets_in_one_step_give_the_sum_of_their_gradients(make_space, images) -> None:
    supernet = Supernet(make_space(dropout=0.0))
    plan = Uniform(4).plan(supernet.space, step_rng(0, 5))
    parts = [gradients(supernet, StepPlan((member,)), images) for member in plan.members]
    assert_sum(gradients(supernet, plan, images), parts)


def test_a_sandwich_gradient_is_the_sum_of_its_four(make_space, images) -> None:
    supernet = Supernet(make_space(dropout=0.0))
    plan = Sandwich(4).plan(supernet.space, step_rng(0, 3))
    x, _ = images.one(0, 0)
    teacher_logits = supernet.subnet(supernet.space.largest).train()(x).detach()
    parts = [gradients(supernet, StepPlan(plan.members[:1]), images)]
    for member in plan.members[1:]:
        # The soft loss alone: cross-entropy to the teacher's logits, which send nothing back.
        x, _ = images.one(0, 0)
        supernet.zero_grad(set_to_none=True)
        backward(supernet, StepPlan((Member(member.arch, regularise=False),)), x, teacher_logits.softmax(1))
        parts.append({n: p.grad.clone() for n, p in supernet.named_parameters() if p.grad is not None})
    assert_sum(gradients(supernet, plan, images), parts)


def test_weights_and_shares_scale_the_gradient(make_space, images) -> None:
    supernet = Supernet(make_space(dropout=0.0))
    one = gradients(supernet, StepPlan((Member(supernet.space.largest),)), images)
    half = gradients(supernet, StepPlan((Member(supernet.space.largest, weight=2.0),)), images, share=0.25)
    for name, grad in one.items():
        torch.testing.assert_close(half[name], grad * 0.5)


def test_the_teacher_loss_adds_the_teacher_to_the_labels(make_space, images) -> None:
    supernet = Supernet(make_space(dropout=0.0))
    weight = torch.randn(3, supernet.space.classes, generator=torch.Generator().manual_seed(0))

    def teacher(x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return x.mean((2, 3)) @ weight

    x, _ = images.one(0, 0)
    member = Member(supernet.space.smallest, "teacher")
    whole = gradients(supernet, StepPlan((member,)), images, teacher=teacher)
    labels = gradients(supernet, StepPlan((Member(member.arch),)), images)
    supernet.zero_grad(set_to_none=True)
    with torch.no_grad():
        soft = teacher(x).softmax(1)
    backward(supernet, StepPlan((Member(member.arch),)), x, soft)
    soft_part = {n: p.grad.clone() for n, p in supernet.named_parameters() if p.grad is not None}
    assert_sum(whole, [labels, soft_part])


def test_dropout_acts_in_the_largest_only(space, images) -> None:
    supernet = Supernet(space)
    seen = []
    draw = supernet.subnet

    def spying(arch):
        module = draw(arch)
        module.register_forward_pre_hook(
            lambda m, _: seen.append((arch, m.drop.training, m.bn.training, m.training))
        )
        return module

    supernet.subnet = spying
    plan = Sandwich(4).plan(space, step_rng(0, 0))
    gradients(supernet, plan, images)
    assert [s[0] for s in seen] == list(plan.archs)
    assert [s[1] for s in seen] == [True, False, False, False]
    assert [s[2] for s in seen] == [True] * 4
    assert [s[3] for s in seen] == [True, False, False, False]


def test_attention_drops_nothing_when_not_regularised() -> None:
    attention = nn.MultiheadAttention(8, 2, dropout=0.9, batch_first=True)
    only_batch_statistics(attention)
    x = torch.randn(2, 5, 8)
    assert torch.equal(attention(x, x, x)[0], attention(x, x, x)[0])


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_each_member_sees_its_own_resolution(space, images, dtype) -> None:
    supernet = Supernet(space)
    sizes = []
    draw = supernet.subnet

    def spying(arch):
        module = draw(arch)
        module.register_forward_pre_hook(lambda m, args: sizes.append(tuple(args[0].shape[1:])))
        return module

    supernet.subnet = spying
    plan = Sandwich(4).plan(space, step_rng(0, 1))
    gradients(supernet, plan, images, dtype=dtype)
    assert sizes == [space.input_shape(arch) for arch in plan.archs]


def peak_bytes(run: Callable[[], object]) -> int:
    """The largest number of bytes that tensors made by `run` held at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        run()
    events = [e for e in watched.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def test_a_sandwich_needs_no_more_memory_than_its_largest(make_space, make_images) -> None:
    space, images = make_space(), make_images(batch=64)
    supernet = Supernet(space)
    plan = Sandwich(6).plan(space, step_rng(0, 0))
    gradients(supernet, plan, images)  # skeletons are remembered
    alone, together = (
        peak_bytes(lambda members=members: gradients(supernet, StepPlan(members), images))
        for members in (plan.members[:1], plan.members)
    )
    assert alone > 1_000_000
    assert together <= 1.15 * alone, f"{together / alone:.2f} times"
