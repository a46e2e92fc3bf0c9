"""Which entries of a shared tensor a smaller one takes."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import centre, heads, index_set, leading

sizes = st.integers(1, 6)


def counting(*shape: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)


def is_view(part: torch.Tensor, whole: torch.Tensor) -> bool:
    return part.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


@given(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=4))
def test_leading_is_the_view_of_the_first_entries(pairs):
    shape = [min(pair) for pair in pairs]
    whole = counting(*(max(pair) for pair in pairs))
    part = leading(whole, shape)
    assert torch.equal(part, whole[tuple(slice(n) for n in shape)])
    assert is_view(part, whole)
    assert leading(whole, whole.shape) is whole


@given(sizes, sizes, st.integers(0, 3), st.integers(0, 3))
def test_centre_is_the_view_of_the_middle_of_the_kernel(out, channels, a, b):
    small, large = 2 * min(a, b) + 1, 2 * max(a, b) + 1
    whole = counting(6, 6, large, large)
    part = centre(whole, (out, channels, small, small))
    edge = (large - small) // 2
    inner = slice(edge, edge + small)
    assert torch.equal(part, whole[:out, :channels, inner, inner])
    assert is_view(part, whole)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), sizes)
def test_heads_keep_their_places_at_every_count(parts, a, b, head_dim, width):
    few, many = min(a, b), max(a, b)
    whole = counting(parts * many * head_dim, 6)
    part = heads(parts)(whole, (parts * few * head_dim, width))
    by_head = whole.view(parts, many, head_dim, 6)[:, :few, :, :width]
    assert torch.equal(part, by_head.reshape(parts * few * head_dim, width))
    if few == many:
        assert is_view(part, whole)
    bias = counting(parts * many * head_dim)
    assert torch.equal(
        heads(parts)(bias, (parts * few * head_dim,)), bias.view(parts, many, -1)[:, :few].flatten()
    )


def test_index_set_takes_the_entries_that_it_picks():
    whole = counting(4, 6, 3)
    every_other = index_set(1, lambda size: range(0, 2 * size, 2))
    assert torch.equal(every_other(whole, (2, 3, 3)), whole[:2, 0:6:2])
    assert every_other(whole, (4, 6, 3)) is whole
    assert is_view(every_other(whole, (2, 6, 3)), whole)


def test_gradients_reach_the_entries_taken_and_no_others():
    for rule, shape in (
        (leading, (3, 2)),
        (heads(3), (6, 2)),
        (index_set(0, lambda n: [8, 0, 4][:n]), (3, 4)),
    ):
        whole = counting(9, 4).requires_grad_()
        part = rule(whole, shape)
        part.sum().backward()
        assert torch.equal(whole.grad.bool().flatten().nonzero().flatten(), part.flatten().sort()[0].long())


def test_rules_compare_by_value():
    assert heads(3) == heads(3)
    assert heads(3) != heads(2)
