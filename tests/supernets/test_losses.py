from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from supernets.losses import (
    adaptive_alpha,
    alpha_divergence,
    distillation,
    soft_cross_entropy,
    soft_targets,
)
from supernets.mixup import mixup


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 0.9))
def test_label_smoothing_agrees_with_torch(seed: int, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 5, generator=generator)
    y = torch.randint(0, 5, (6,), generator=generator)
    targets = soft_targets(y, 5, smoothing)
    torch.testing.assert_close(targets.sum(1), torch.ones(6))
    expected = F.cross_entropy(logits, y, label_smoothing=smoothing)
    torch.testing.assert_close(soft_cross_entropy(logits, targets), expected)


def test_distillation_is_kl_plus_entropy_and_sends_nothing_to_the_teacher() -> None:
    student, teacher = torch.randn(4, 7, requires_grad=True), torch.randn(4, 7, requires_grad=True)
    loss = distillation(student, teacher)
    p = teacher.softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    kl = F.kl_div(student.log_softmax(1), p, reduction="batchmean")
    assert kl >= 0
    torch.testing.assert_close(loss, kl + entropy)
    loss.backward()
    assert teacher.grad is None
    torch.testing.assert_close(student.grad, (student.softmax(1) - p).detach() / 4)


@pytest.mark.parametrize("divergence", ["kl", "alpha"])
def test_losses_of_sequences_are_means_over_all_positions(divergence) -> None:
    student, teacher = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    y = torch.randint(0, 5, (2, 3))
    flat = student.flatten(0, 1), teacher.flatten(0, 1)
    torch.testing.assert_close(distillation(student, teacher, divergence), distillation(*flat, divergence))
    loss = soft_cross_entropy(student, soft_targets(y, 5, 0.1))
    torch.testing.assert_close(loss, F.cross_entropy(flat[0], y.flatten(), label_smoothing=0.1))


def pair(seed: int, scale: float = 1.5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(6, 5, generator=generator) for _ in range(2))
    return student.requires_grad_(), teacher


def exact(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """The definition, differentiable in the student, in float64."""
    q, p = student.double().softmax(-1), teacher.double().softmax(-1)
    if alpha == 1.0:
        return (p * (p / q).log()).sum(-1)
    if alpha == 0.0:
        return (q * (q / p).log()).sum(-1)
    return ((q * (p / q) ** alpha).sum(-1) - 1.0) / (alpha * (alpha - 1.0))


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 1.0, 2.0])
@given(st.integers(0, 2**31))
@settings(max_examples=10)
def test_alpha_divergence_and_its_gradient_are_exact_without_clipping(alpha: float, seed: int) -> None:
    student, teacher = pair(seed)
    ours, expected = alpha_divergence(student, teacher, alpha, clip=math.inf), exact(student, teacher, alpha)
    torch.testing.assert_close(ours, expected.float(), rtol=1e-3, atol=1e-5)
    (gradient,) = torch.autograd.grad(ours.sum(), student)
    (reference,) = torch.autograd.grad(expected.sum(), student)
    torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_alpha_divergence_is_zero_between_equals_only(alpha: float) -> None:
    student, teacher = pair(0)
    assert (alpha_divergence(student, teacher, alpha, clip=math.inf) > 1e-3).all()
    same = alpha_divergence(student, student + 3.0, alpha)
    torch.testing.assert_close(same, torch.zeros(6), atol=1e-6, rtol=0)


def test_alpha_one_is_the_forward_kl_and_zero_the_reverse_not_a_default() -> None:
    student, teacher = pair(1, scale=0.3)  # ratios below the clip, which the reverse one has
    log_q, log_p = student.log_softmax(1), teacher.log_softmax(1)
    forward = F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1)
    reverse = F.kl_div(log_p, log_q, log_target=True, reduction="none").sum(1)
    torch.testing.assert_close(alpha_divergence(student, teacher, 1.0), forward)
    torch.testing.assert_close(alpha_divergence(student, teacher, 0.0), reverse)
    both = adaptive_alpha(student, teacher, alphas=(0.0, 0.0))
    torch.testing.assert_close(both, reverse)


def test_the_adaptive_divergence_is_the_larger_of_the_two_for_each_sample() -> None:
    sides = set()
    for seed in range(10):
        student, teacher = pair(seed)
        two = torch.stack([alpha_divergence(student, teacher, alpha) for alpha in (-1.0, 1.0)])
        ours = adaptive_alpha(student, teacher)
        assert torch.equal(ours, two.amax(0))
        (gradient,) = torch.autograd.grad(ours.sum(), student)
        chosen = two.argmax(0)
        (expected,) = torch.autograd.grad(two.gather(0, chosen[None]).sum(), student)
        torch.testing.assert_close(gradient, expected)
        sides |= set(chosen.tolist())
    assert sides == {0, 1}


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_clipped_weights_bound_the_gradient(alpha: float) -> None:
    """Certain of opposite classes, the ratios reach e^80; the gradient stays that of weights of at most 5."""
    student = torch.tensor([[40.0, -40.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-40.0, 40.0, 0.0]])
    value = alpha_divergence(student, teacher, alpha)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert torch.isfinite(value).all()
    most = 1.0 if alpha == 1.0 else 5.0 / abs(alpha) if alpha else 80.0  # at 1 it is q - p
    assert gradient.abs().max() <= most
    q, p = student.detach().softmax(1), teacher.softmax(1)
    if alpha not in (0.0, 1.0):
        clipped = ((q * (p / q).pow(alpha).clamp(max=5.0)).sum(1) - 1.0) / (alpha * (alpha - 1.0))
        torch.testing.assert_close(value, clipped)


def test_a_class_that_the_student_misses_is_not_clipped_out_of_sight() -> None:
    """With p / q cut at 5 the forward KL became negative here, and nothing pulled the missed class up."""
    student = torch.tensor([[10.0, 0.0, -5.0]], requires_grad=True)
    teacher = torch.tensor([[10.0, 10.0, -5.0]])
    forward = F.kl_div(student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="sum")
    ours = adaptive_alpha(student, teacher)
    torch.testing.assert_close(ours, forward[None])
    (gradient,) = torch.autograd.grad(ours.sum(), student)
    torch.testing.assert_close(gradient, student.detach().softmax(1) - teacher.softmax(1))


def test_the_divergence_of_bfloat16_logits_is_float32_and_sends_nothing_to_the_teacher() -> None:
    student, teacher = torch.randn(4, 7, requires_grad=True), torch.randn(4, 7, requires_grad=True)
    loss = distillation(student.bfloat16(), teacher.bfloat16(), "alpha")
    assert loss.dtype == torch.float32
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_losses_are_float32_whatever_the_logits() -> None:
    logits = torch.randn(4, 3).bfloat16()
    assert soft_cross_entropy(logits, soft_targets(torch.tensor([0, 1, 2, 0]), 3)).dtype == torch.float32
    assert distillation(logits, logits).dtype == torch.float32


def test_mixup_blends_images_and_targets_alike_and_repeats_with_its_generator() -> None:
    x = torch.arange(4.0)[:, None, None, None].expand(4, 3, 2, 2)
    targets = torch.eye(4)
    state = torch.get_rng_state()
    mixed, blended = mixup(x, targets, 0.4, np.random.default_rng(5))
    again, _ = mixup(x, targets, 0.4, np.random.default_rng(5))
    assert torch.equal(mixed, again)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(blended @ torch.arange(4.0), mixed[:, 0, 0, 0])
    torch.testing.assert_close(blended.sum(1), torch.ones(4))
