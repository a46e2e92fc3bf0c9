"""The language-model space: sizes, causality, the cache, exits, and an attention written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from search_spaces import InputError, SpaceError, gpt


def small(**keywords):
    sizes = {"classes": 11, "context": 12, "depths": (1, 2, 3), "embed_dims": (8, 12), "head_dim": 4}
    return gpt.space(**{**sizes, **keywords})


def network(seed: int = 0, **keywords) -> gpt.GPT:
    """The largest, in float64 and with weights far from their small first values."""
    space = small(**keywords)
    torch.manual_seed(seed)
    net = space.build(space.largest).double().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return net


def tokens(batch: int = 2, count: int = 12, seed: int = 0) -> Tensor:
    return torch.randint(11, (batch, count), generator=torch.Generator().manual_seed(seed))


def largest_difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_of_the_formula(rng, gated, tied):
    space = small(gated=gated, tied=tied)
    for arch in space.archs(space.sample(6, rng)):
        dim, depth = arch["embed_dim"], arch["depth"]
        expected = 11 * dim * (1 if tied else 2) + dim
        for b in range(1, depth + 1):
            wide = 4 * arch[f"block{b}.heads"]
            expected += dim * (2 * wide + 2 * (wide // 2)) + 2 * dim
            expected += (3 if gated else 2) * dim * int(dim * arch[f"block{b}.ffn_ratio"])
        assert space.costs(space.index([arch])).params[0] == expected
        net = space.build(arch)
        assert sum(p.numel() for p in net.parameters()) == expected
        assert net(tokens()).shape == (2, 12, 11)


def test_what_the_space_says_of_itself():
    space = gpt.space()
    assert space.example(space.largest, batch=3).shape == (3, 256)
    assert space.example(space.largest).dtype == torch.int64
    assert space.input_shape(space.smallest) == (256,)
    assert space.classes == 256
    assert space.channels is None
    assert space.image_size is None
    assert space.restrict({"depth": (2,)}).input_dtype == torch.int64


def test_a_token_sees_no_later_one():
    net, x = network(), tokens()
    changed = x.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 11
    before, after = net(x), net(changed)
    assert largest_difference(before[:, :7], after[:, :7]) < 1e-12
    assert largest_difference(before[:, 7:], after[:, 7:]) > 1e-3


@pytest.mark.parametrize("kv_group", [1, 2, 4])
def test_attention_is_the_one_written_out(kv_group):
    """Every query head with loops over positions, rotation as multiplication of complex numbers."""
    torch.manual_seed(0)
    attention = gpt.Attention(6, 4, kv_group, 4).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    y, _ = attention(x, gpt.rotation(0, 5, 4, x), None)

    def turned(part: Tensor) -> Tensor:
        pairs = torch.complex(part[..., :2], part[..., 2:])
        frequency = 10_000.0 ** (-torch.arange(0, 4, 2, dtype=torch.float64) / 4)
        angle = torch.arange(5, dtype=torch.float64)[:, None] * frequency
        pairs = pairs * torch.polar(torch.ones_like(angle), angle)
        return torch.cat((pairs.real, pairs.imag), dim=-1)

    heads = []
    for h in range(4):
        k = h // kv_group
        query = turned(F.linear(x, attention.query.weight[4 * h : 4 * h + 4]))
        key = turned(F.linear(x, attention.key.weight[4 * k : 4 * k + 4]))
        value = F.linear(x, attention.value.weight[4 * k : 4 * k + 4])
        out = torch.zeros(2, 5, 4, dtype=torch.float64)
        for t in range(5):
            scores = torch.einsum("bd,bsd->bs", query[:, t], key[:, : t + 1]) / 4**0.5
            out[:, t] = torch.einsum("bs,bsd->bd", scores.softmax(-1), value[:, : t + 1])
        heads.append(out)
    assert largest_difference(y, attention.proj(torch.cat(heads, dim=-1))) < 1e-12


def test_scores_depend_on_distances_only():
    """Rotary positions: moving query and key together by any amount changes no product of theirs."""
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)
    products = []
    for start in (0, 3, 100):
        a = gpt.rotate(q, gpt.rotation(start + 5, 1, 8, q))
        b = gpt.rotate(k, gpt.rotation(start, 1, 8, k))
        products.append((a * b).sum())
    assert largest_difference(torch.stack(products), products[0].expand(3)) < 1e-12


@pytest.mark.parametrize("kv_group", [1, 2])
@pytest.mark.parametrize("parts", [(12,), (1,) * 12, (5, 1, 4, 2), (3, 9)])
def test_decoding_in_parts_is_the_whole(kv_group, parts):
    net, x = network(kv_group=kv_group), tokens()
    cache: gpt.Cache = ()
    found, at = [], 0
    for part in parts:
        before = [(k.clone(), v.clone()) for k, v in cache]
        logits, longer = net.decode(x[:, at : at + part], cache)
        assert all(torch.equal(a, b) for old, now in zip(before, cache) for a, b in zip(old, now))
        found.append(logits)
        cache, at = longer, at + part
        assert gpt.length(cache) == at
    assert largest_difference(torch.cat(found, dim=1), net(x)) < 1e-12


def test_a_cut_cache_is_that_of_fewer_tokens():
    net, x = network(), tokens()
    _, whole = net.decode(x)
    for n in (0, 1, 7, 12, 20):
        _, part = net.decode(x[:, :n]) if n else (None, ())
        kept = gpt.cut(whole, n)
        assert gpt.length(kept) == min(n, 12)
        for (a, b), (c, d) in zip(kept, part):
            assert max(largest_difference(a, c), largest_difference(b, d)) < 1e-12


def test_the_last_exit_is_the_plain_network_and_others_are_shallower_ones():
    net, x = network(), tokens()
    first, second, last = net.exits(x, (1, 2, 3))
    assert torch.equal(last, net(x))
    assert torch.equal(first, net.first(1)(x))
    assert torch.equal(second, net.first(2)(x))
    assert torch.equal(net.exits(x, (2,))[0], second)
    assert [torch.equal(a, b) for a, b in zip(net.exits(x, (3, 1)), (last, first))] == [True, True]
    assert net.exits(x, ()) == []


def test_exits_add_no_parameters():
    net = network()
    mine = {id(p) for p in net.parameters()}
    for depth in (1, 2, 3):
        assert {id(p) for p in net.first(depth).parameters()} <= mine
        assert len(net.first(depth).blocks) == depth
    assert len(net.blocks) == 3


def test_the_gradient_of_the_mean_loss_of_exits_is_the_mean_of_their_gradients():
    net, x, y = network(), tokens(), tokens(seed=1)
    depths = (1, 2, 3)

    def gradient(loss: Tensor) -> list[Tensor]:
        return [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(
                net.parameters(), torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
            )
        ]

    def loss(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())

    together = gradient(torch.stack([loss(logits) for logits in net.exits(x, depths)]).mean())
    singles = [gradient(loss(net.first(depth)(x))) for depth in depths]
    for whole, *parts in zip(together, *singles):
        assert largest_difference(whole, torch.stack(parts).mean(0)) < 1e-12


def test_autocast_keeps_the_cache_small():
    """Rotated queries and keys were once float32 beside values of bfloat16."""
    space = small()
    net, x = space.build(space.largest).eval(), tokens()
    expected = net(x)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits, cache = net.decode(x)
    assert {t.dtype for pair in cache for t in pair} == {torch.bfloat16}
    assert largest_difference(logits.float(), expected) < 0.02


@pytest.mark.parametrize("depth", [0, 4, -1])
def test_exits_that_are_not_there_are_refused(depth):
    net = network()
    with pytest.raises(InputError, match=f"exit {depth} is not between 1 and the network's 3 blocks"):
        net.exits(tokens(), (1, depth))
    with pytest.raises(InputError, match=f"exit {depth}"):
        net.first(depth)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"heads": (2, 3)}, "gpt needs heads that groups of kv_group = 2 tile, not 2, 3"),
        ({"kv_group": 0}, "kv_group"),
        ({"head_dim": 5}, "even head_dim"),
        ({"depths": (0, 1)}, "of at least 1"),
        ({"context": 0}, "of at least 1"),
        ({"ffn_ratios": (0.01, 1)}, "at least one unit"),
    ],
)
def test_sizes_that_make_no_network_are_refused(keywords, message):
    with pytest.raises(SpaceError, match=message):
        small(**keywords)
