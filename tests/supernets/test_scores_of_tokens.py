"""Networks that read tokens: what they score, and how they are trained beside those that read images."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from search_spaces import InputError, SearchSpace
from search_spaces.gpt import space as gpt
from supernets import Supernet
from supernets.evaluate import channels_last, evaluate, resize_to, scores, top1
from supernets.plan import Member, StepPlan
from supernets.policies.sandwich import Sandwich
from supernets.recipe import Phase, Recipe
from supernets.step import backward
from supernets.trainer import train

CONTEXT, CLASSES = 12, 11


class Tokens:
    """Two batches of windows on a text of few letters, the same in every epoch."""

    steps = 2

    def epoch(self, epoch: int, start: int = 0):
        text = torch.randint(CLASSES, (2, 5, CONTEXT + 1), generator=torch.Generator().manual_seed(epoch))
        for window in text[start:]:
            yield window[:, :-1], window[:, 1:]

    def __iter__(self):
        return self.epoch(0)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return gpt(
        classes=CLASSES, context=CONTEXT, depths=(1, 2), embed_dims=(8, 16), head_dim=4, ffn_ratios=(1.0, 2.0)
    )


@pytest.fixture(scope="module")
def supernet(space) -> Supernet:
    made = Supernet(space, seed=2)
    with torch.no_grad():
        for tensor in made.parameters():  # no network should be as good as another
            tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    return made


def test_scores_are_means_over_all_tokens_of_the_extracted_network(space, supernet) -> None:
    archs = [space.smallest, *space.archs(space.sample(3, np.random.default_rng(0))), space.largest]
    found = scores(supernet, archs, Tokens(), [])
    x, y = (torch.cat(parts) for parts in zip(*Tokens()))
    assert found.labels == y.numel() == 2 * 5 * CONTEXT
    for i, arch in enumerate(archs):
        with torch.no_grad():
            logits = supernet.extract(arch).eval()(x)
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten()).item()
        assert found.loss[i] == pytest.approx(loss, rel=1e-6)
        assert found.accuracy[i] == (logits.argmax(-1) == y).double().mean().item()
        assert top1(supernet.extract(arch), Tokens()) == found.accuracy[i]
    assert found.perplexity.tolist() == np.exp(found.loss).tolist()
    assert found.bits == pytest.approx(found.loss / np.log(2))
    assert len(set(found.loss.tolist())) == len(set(archs))
    assert evaluate(supernet, archs, Tokens(), []).tolist() == found.accuracy.tolist()


def test_scores_do_not_depend_on_the_batches_or_the_company(space, supernet) -> None:
    x, y = (torch.cat(parts) for parts in zip(*Tokens()))
    one_by_one = scores(supernet, [space.largest], list(zip(x.split(1), y.split(1))), [])
    together = scores(supernet, [space.smallest, space.largest], Tokens(), [])
    assert one_by_one.loss[0] == pytest.approx(together.loss[1], rel=1e-6)
    assert one_by_one.accuracy[0] == together.accuracy[1]


def test_a_network_that_knows_nothing_is_as_perplexed_as_there_are_tokens(space) -> None:
    blank = Supernet(space)
    with torch.no_grad():
        for tensor in blank.parameters():
            tensor.zero_()
    assert scores(blank, [space.largest], Tokens(), []).perplexity == pytest.approx([CLASSES])


def test_tokens_are_neither_resized_nor_laid_out_anew() -> None:
    x = torch.arange(12).view(3, 4)
    assert resize_to(x, (7,)) is x
    assert channels_last(x) is x


def test_the_loss_of_a_step_is_the_mean_over_tokens(space, supernet) -> None:
    x, y = next(iter(Tokens()))
    targets = F.one_hot(y, CLASSES).float()
    plan = StepPlan((Member(space.largest, "labels"), Member(space.smallest, "inplace")))
    losses, logits = backward(supernet, plan, x, targets)
    assert logits.shape == (5, CONTEXT, CLASSES)
    want = F.cross_entropy(logits.flatten(0, 1), y.flatten()).item()
    assert losses[0].item() == pytest.approx(want, rel=1e-6)
    supernet.zero_grad()


def test_a_training_counts_tokens_and_gets_better(space, tmp_path) -> None:
    phase = Phase(
        name="all",
        epochs=6,
        policy=Sandwich(3),
        optimizer="adamw",
        lr=1e-2,
        label_smoothing=0.1,
        accumulate=2,
    )
    train(Supernet(space), Recipe("test", (phase,)), Tokens(), folder=tmp_path)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all("tokens_per_s" in line and "images_per_s" not in line for line in log)
    assert log[-1]["loss"] < log[0]["loss"] < np.log(CLASSES) * 1.2


def test_mixup_of_tokens_is_refused_before_anything_is_written(space, tmp_path) -> None:
    phase = Phase(name="mixed", epochs=1, policy=Sandwich(3), mixup=0.2)
    with pytest.raises(InputError, match=r"mixup = 0.2 in phase 'mixed' blends images, .* set mixup to 0"):
        train(Supernet(space), Recipe("test", (phase,)), Tokens(), folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()
