from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from supernets.losses import distillation, soft_cross_entropy, soft_targets
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
