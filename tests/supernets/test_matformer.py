"""MatFormer's promises on a real ViT: prefixes, gradients, counts, and slices against masks."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from drawn import images, randomise
from torch import Tensor, nn

from search_spaces import InputError, gpt, vit
from search_spaces.minimum_slope import minimum_slope
from search_spaces.nesting import granularity
from supernets import Supernet
from supernets.plan import Member, StepPlan
from supernets.policies.granularities import Granularities
from supernets.recipes import matformer
from supernets.step import backward, step_rng
from supernets.trainer import train

DIM, RATIOS = 16, (0.5, 1.0, 2.0, 4.0)
SPACE = vit.space(
    image_size=8,
    channels=1,
    classes=4,
    patch=4,
    depths=(3,),
    embed_dims=(DIM,),
    heads=(2,),
    head_dim=8,
    mlp_ratios=RATIOS,
)
UP, DOWN = "shared.blocks.0.mlp.fc1.weight", "shared.blocks.0.mlp.fc2.weight"


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    return randomise(Supernet(SPACE)).eval()


def gradients(supernet: Supernet, plan: StepPlan) -> dict[str, Tensor]:
    x = images(SPACE, SPACE.largest, 4)
    supernet.zero_grad(set_to_none=True)
    backward(supernet, plan, x, torch.eye(4))
    return {n: p.grad.clone() for n, p in supernet.named_parameters() if p.grad is not None}


def test_a_granularity_is_a_prefix_of_the_larger_ones_in_the_same_storage(supernet) -> None:
    modules = [supernet.subnet(granularity(SPACE, level)) for level in range(4)]
    for small, large in pairwise(modules):
        for name, weight in small.named_parameters():
            whole = dict(large.named_parameters())[name]
            assert weight.data_ptr() == whole.data_ptr(), name
            assert torch.equal(weight, whole[tuple(map(slice, weight.shape))]), name


def test_the_largest_granularity_is_the_plain_transformer(supernet) -> None:
    plain = SPACE.build(SPACE.largest).eval()
    plain.load_state_dict(supernet.shared_state())
    x = images(SPACE, SPACE.largest)
    assert torch.equal(plain(x), supernet(x, granularity(SPACE, 3)))


def test_mix_n_match_with_all_layers_alike_is_the_granularity() -> None:
    for level in range(4):
        arch = granularity(SPACE, level)
        budget = int(SPACE.costs(SPACE.index([arch])).params[0])
        assert minimum_slope(SPACE, budget) == arch


def test_a_mixed_network_extracts_to_the_same_output_and_the_counted_parameters(supernet) -> None:
    rest = {n: p.numel() for n, p in supernet.extract(SPACE.largest).named_parameters() if ".mlp." not in n}
    for ratios in ((0.5, 0.5, 1.0), (0.5, 2.0, 4.0), (4.0, 1.0, 0.5)):
        arch = SPACE.arch(
            {**SPACE.largest, **{f"block{b}.mlp_ratio": r for b, r in enumerate(ratios, start=1)}}
        )
        module, x = supernet.extract(arch), images(SPACE, arch)
        assert torch.equal(module(x), supernet(x, arch))
        widths = [int(DIM * r) for r in ratios]
        counted = sum(2 * DIM * m + m + DIM for m in widths) + sum(rest.values())
        assert sum(p.numel() for p in module.parameters()) == counted


@pytest.mark.parametrize(
    ("activation", "equal"), [(nn.GELU(), True), (nn.ReLU(), True), (nn.SiLU(), True), (nn.Sigmoid(), False)]
)
def test_a_slice_equals_a_mask_before_the_activation_only_where_that_keeps_zero(
    supernet, activation, equal
) -> None:
    wide = supernet.extract(granularity(SPACE, 3)).blocks[0].mlp
    narrow = supernet.extract(granularity(SPACE, 1)).blocks[0].mlp
    wide.act = narrow.act = activation
    x = torch.randn(2, 5, DIM, generator=torch.Generator().manual_seed(0))
    kept = (torch.arange(4 * DIM) < DIM).float()
    before = wide.fc2(activation(wide.fc1(x) * kept))
    after = wide.fc2(activation(wide.fc1(x)) * kept)
    assert torch.allclose(narrow(x), before, atol=1e-5) is equal
    torch.testing.assert_close(narrow(x), after)


@pytest.mark.parametrize("level", range(4))
def test_no_gradient_reaches_units_beyond_the_granularity(supernet, level) -> None:
    units = int(DIM * RATIOS[level])
    found = gradients(supernet, StepPlan((Member(granularity(SPACE, level), regularise=False),)))
    assert not found[UP][units:].any()
    assert not found[DOWN][:, units:].any()
    assert found[UP][:units].abs().sum(1).all()


def test_the_joint_gradient_is_the_sum_of_the_single_ones(supernet) -> None:
    plan = Granularities(joint=True).plan(SPACE, step_rng(0, 0))
    assert plan.archs == tuple(granularity(SPACE, level) for level in (3, 2, 1, 0))
    assert {(m.loss, m.weight) for m in plan.members} == {("labels", 1.0)}
    whole = gradients(supernet, plan)
    parts = [gradients(supernet, StepPlan((member,))) for member in plan.members]
    for name, grad in whole.items():
        torch.testing.assert_close(grad, sum(p[name] for p in parts), rtol=1e-4, atol=1e-6)


def test_a_unit_is_trained_as_often_as_a_granularity_above_it_is_drawn(supernet) -> None:
    chances, steps = (0.4, 0.3, 0.2, 0.1), 400
    policy = Granularities(probabilities=chances)
    drawn = [policy.plan(SPACE, step_rng(0, step)).archs for step in range(steps)]
    masks = {arch: supernet.touched(arch)[UP] for arch in set(drawn)}
    trained = torch.zeros(4 * DIM)
    for archs in drawn:
        mask = masks[archs]
        trained += torch.ones(4 * DIM) if mask is None else mask[:, 0].float()
    assert (trained.diff() <= 0).all(), "a prefix is trained at least as often as what follows it"
    assert trained[0] == steps
    for h in (8, 16, 32, 63):
        p = sum(c for c, r in zip(chances, RATIOS, strict=True) if int(DIM * r) > h)
        assert abs(trained[h] / steps - p) < 4 * math.sqrt(p * (1 - p) / steps) + 1e-6


def test_all_layers_take_the_drawn_granularity_and_each_seed_repeats_its_draws() -> None:
    policy = Granularities()
    levels = [policy.plan(SPACE, step_rng(5, step)) for step in range(200)]
    assert levels == [policy.plan(SPACE, step_rng(5, step)) for step in range(200)]
    assert {plan.archs[0] for plan in levels} == set(policy.listed(SPACE))
    counts = [sum(plan.archs[0] == arch for plan in levels) for arch in policy.listed(SPACE)]
    assert min(counts) > 25


def test_settings_travel_as_json_and_wrong_ones_are_named() -> None:
    policy = Granularities(("*.heads",), (1, 3), joint=True)
    assert Granularities(**json.loads(json.dumps(dict(policy.settings)))) == policy
    for wrong in ((-1, 2), (0, 0), (math.nan, 1)):
        with pytest.raises(InputError, match="probabilities"):
            Granularities(probabilities=wrong)
    with pytest.raises(InputError, match="2 probabilities are given for the 4 granularities"):
        Granularities(probabilities=(1, 1)).plan(SPACE, step_rng(0, 0))


@pytest.mark.parametrize("joint", [False, True])
def test_the_recipe_trains_every_granularity(make_images, tmp_path, joint) -> None:
    class Grey(make_images):
        def one(self, epoch, number):
            x, y = super().one(epoch, number)
            return x.mean(1, keepdim=True) * 3, y

    supernet = Supernet(SPACE)
    before = {n: p.clone() for n, p in supernet.named_parameters()}
    recipe = matformer.recipe(epochs=2, lr=3e-3, joint=joint)
    train(supernet, recipe, Grey(steps=8, size=8), folder=tmp_path)
    assert all(not torch.equal(before[n], p) for n, p in supernet.named_parameters())
    assert recipe.steps(8) == 16
    assert np.isfinite([json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").open()]).all()


@pytest.mark.parametrize(("gated", "matrices"), [(True, 3), (False, 2)])
def test_the_feed_forward_of_a_language_model_is_nested_alike(gated, matrices) -> None:
    space = gpt.space(
        classes=16,
        context=8,
        depths=(2,),
        embed_dims=(DIM,),
        heads=(2,),
        kv_group=1,
        head_dim=8,
        ffn_ratios=RATIOS,
        gated=gated,
    )
    supernet = randomise(Supernet(space)).eval()
    rest = sum(p.numel() for n, p in supernet.named_parameters() if ".ffn." not in n)
    for level, ratio in enumerate(RATIOS):
        units = int(DIM * ratio)
        arch = granularity(space, level)
        module = supernet.extract(arch)
        tokens = torch.arange(8)[None]
        assert torch.equal(module(tokens), supernet(tokens, arch))
        assert sum(p.numel() for p in module.parameters()) == 2 * matrices * DIM * units + rest
        # The largest with the units beyond masked before the activation, which keeps zero: SiLU and GELU.
        wide = supernet.extract(space.largest).blocks[0].ffn
        with torch.no_grad():
            (wide.gate if gated else wide.up).weight[units:] = 0
        x = torch.randn(2, 5, DIM, generator=torch.Generator().manual_seed(level))
        torch.testing.assert_close(module.blocks[0].ffn(x), wide(x), rtol=1e-4, atol=1e-5)
