"""Relative positions by sums over rows and columns equal the published table of all pairs."""

import pytest
import torch
from torch import Tensor

from search_spaces import vit
from search_spaces.relative_attention import RelativeAttention, RelativePositions
from supernets import Supernet


def table(positions: RelativePositions, reach: int) -> Tensor:
    """The vectors of all pairs, as the published code gathers them. [N, N, head_dim]"""
    side = positions.side
    index = torch.arange(side * side)
    row, column = index // side, index % side
    rows = (row[None] - row[:, None]).clamp(-reach, reach) + reach + 1
    columns = (column[None] - column[:, None]).clamp(-reach, reach) + reach + 1
    pad = (1, 0, 1, 0)  # the class token's entry is 0
    return (
        positions.rows[torch.nn.functional.pad(rows, pad)]
        + positions.columns[torch.nn.functional.pad(columns, pad)]
    )


def plain(module: RelativeAttention, x: Tensor, reach: int) -> Tensor:
    batch, tokens, _ = x.shape
    qkv = module.qkv(x).reshape(batch, tokens, 3, module.num_heads, module.head_dim)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-2, -1)
    scores = scores + torch.einsum("bhid,ijd->bhij", q, table(module.key_positions, reach))
    weights = (scores * module.head_dim**-0.5).softmax(dim=-1)
    out = weights @ v + torch.einsum("bhij,ijd->bhid", weights, table(module.value_positions, reach))
    return module.proj(out.transpose(1, 2).reshape(batch, tokens, -1))


@pytest.fixture(params=[2, 9], ids=["distances clipped", "none clipped"])
def reach(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def attention(reach: int) -> RelativeAttention:
    module = RelativeAttention(12, heads=3, head_dim=4, side=5, reach=reach).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=generator)
    return module


def test_outputs_and_gradients_equal_those_of_the_table_of_all_pairs(reach: int) -> None:
    module = attention(reach)
    x = torch.randn(2, 26, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours, theirs = module(x), plain(module, x, reach)
    torch.testing.assert_close(ours, theirs)
    target = torch.randn(ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    parameters = list(module.parameters())
    for mine, reference in zip(
        torch.autograd.grad((ours * target).sum(), parameters),
        torch.autograd.grad((theirs * target).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference)


def test_positions_matter_and_without_them_it_is_plain_attention() -> None:
    module = attention(9)
    x = torch.randn(1, 26, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = module(x)
        for positions in (module.key_positions, module.value_positions):
            positions.rows.zero_()
            positions.columns.zero_()
        after = module(x)
        q, k, v = module.qkv(x).reshape(1, 26, 3, 3, 4).permute(2, 0, 3, 1, 4)
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, 26, 12)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, module.proj(out))


def test_the_tables_belong_to_all_heads_and_are_shared_whole() -> None:
    space = vit.space(image_size=16, classes=3, relative_positions=True)
    supernet = Supernet(space)
    small = dict(supernet.subnet(space.smallest).named_parameters())
    shared = supernet.shared_state()
    name = "blocks.0.attn.key_positions.rows"
    assert small[name].data_ptr() == shared[name].data_ptr()
    assert small[name].shape == shared[name].shape
