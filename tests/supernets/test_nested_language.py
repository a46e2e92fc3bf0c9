"""What MatFormer promises of a language model: nested FFNs are prefixes, in memory and in what they say."""

from __future__ import annotations

import itertools

import pytest
import torch
from language import language_space, language_supernet, sequences, uniform
from torch import Tensor, nn

from search_spaces import gpt

RATIOS = (0.5, 1.0, 2.0, 4.0)
DIM = 12


def largest_difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


class Masked(nn.Module):
    """The whole FFN with all hidden units from `kept` on at zero, before or after the activation."""

    def __init__(self, whole: nn.Module, kept: int, activation, *, after: bool) -> None:
        super().__init__()
        self.whole, self.kept, self.activation, self.after = whole, kept, activation, after

    def mask(self, x: Tensor) -> Tensor:
        return torch.cat((x[..., : self.kept], torch.zeros_like(x[..., self.kept :])), dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.whole
        before = self.mask if not self.after else lambda y: y
        y = self.activation(before(whole.gate(x) if hasattr(whole, "gate") else whole.up(x)))
        y = y * before(whole.up(x)) if hasattr(whole, "gate") else y
        return whole.down(self.mask(y) if self.after else y)


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("gated", [True, False])
def test_slices_compute_what_masks_compute(gated, after):
    supernet = language_supernet(gated=gated)
    space, x = supernet.space, sequences(2, 9)
    activation = nn.SiLU() if gated else nn.GELU()
    for ratio in RATIOS:
        masked = supernet.subnet(space.largest)
        for block in masked.blocks:
            block.ffn = Masked(block.ffn, int(ratio * DIM), activation, after=after)
        assert largest_difference(supernet.subnet(uniform(space, ratio))(x), masked(x)) < 1e-12


def test_an_activation_that_is_not_zero_at_zero_must_be_masked_after_it(monkeypatch):
    monkeypatch.setattr(gpt.F, "gelu", lambda x: x.sigmoid())
    supernet = language_supernet(gated=False)
    space, x = supernet.space, sequences(2, 9)
    difference = {}
    for after in (True, False):
        masked = supernet.subnet(space.largest)
        for block in masked.blocks:
            block.ffn = Masked(block.ffn, DIM, nn.Sigmoid(), after=after)
        difference[after] = largest_difference(supernet.subnet(uniform(space, 1.0))(x), masked(x))
    assert difference[True] < 1e-12
    assert difference[False] > 1e-3


@pytest.mark.parametrize("gated", [True, False])
def test_a_granularity_is_a_prefix_of_the_bytes_of_the_next(gated):
    supernet = language_supernet(gated=gated)
    space = supernet.space
    rows = ("up", "gate") if gated else ("up",)
    for small, large in itertools.pairwise(RATIOS):
        a, b = supernet.subnet(uniform(space, small)), supernet.subnet(uniform(space, large))
        for one, other in zip(a.blocks, b.blocks, strict=True):
            for name in rows:
                mine, theirs = getattr(one.ffn, name).weight, getattr(other.ffn, name).weight
                assert mine.is_contiguous()
                assert mine.data_ptr() == theirs.data_ptr()
                assert mine.shape[0] == int(small * DIM) < theirs.shape[0]
            mine, theirs = one.ffn.down.weight, other.ffn.down.weight
            assert mine.data_ptr() == theirs.data_ptr()
            assert torch.equal(mine, theirs[:, : int(small * DIM)])
        for name, tensor in a.state_dict(keep_vars=True).items():
            if ".ffn." not in name:
                assert tensor is b.state_dict(keep_vars=True)[name]


@pytest.mark.parametrize("tied", [True, False])
def test_the_largest_granularity_is_the_plain_network(tied):
    supernet = language_supernet(tied=tied)
    plain = supernet.space.build(uniform(supernet.space, 4.0)).double().eval()
    plain.load_state_dict(supernet.shared_state())
    x = sequences(2, 9)
    assert torch.equal(supernet.subnet(supernet.space.largest)(x), plain(x))


def test_a_narrow_ffn_sends_no_gradient_to_the_units_that_it_lacks():
    supernet = language_supernet()
    supernet(sequences(2, 9), uniform(supernet.space, 1.0)).square().sum().backward()
    for b in range(3):
        for name, kept in (("gate", 0), ("up", 0), ("down", 1)):
            grad = supernet.shared[f"blocks.{b}.ffn.{name}.weight"].grad
            inside, outside = grad.split((DIM, 3 * DIM), dim=kept)
            assert (inside != 0).any()
            assert (outside == 0).all()


def test_head_h_is_the_same_head_with_the_same_keys_at_every_count():
    """With four, then two query heads: what the first two say does not change."""
    supernet = language_supernet(heads=(2, 4), kv_group=2)
    space = supernet.space
    x = torch.randn(2, 5, DIM, dtype=torch.float64)
    turn = gpt.rotation(0, 5, 4, x)
    said = []
    for count in (2, 4):
        attention = supernet.subnet(uniform(space, 4.0, **{"block1.heads": count})).blocks[0].attn
        attention.proj = nn.Identity()
        y, (key, value) = attention(x, turn, None)
        assert key.shape[1] == value.shape[1] == count // 2
        said.append((y[..., :8], key[:, :1], value[:, :1]))
    assert max(largest_difference(a, b) for a, b in zip(*said, strict=True)) < 1e-12


def test_a_space_of_language_models_has_no_tensor_that_is_not_a_view(rng):
    supernet = language_supernet()
    shared = {t.untyped_storage().data_ptr() for t in supernet.shared_state().values()}
    for arch in language_space().archs(language_space().sample(6, rng)):
        assert {p.untyped_storage().data_ptr() for p in supernet.subnet(arch).parameters()} <= shared
