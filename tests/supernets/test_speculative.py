"""Speculative decoding returns the verifier's greedy text, whatever the draft is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from language import CLASSES, language_supernet, sequences, uniform
from torch import Tensor

from search_spaces import InputError
from search_spaces.gpt import Cache
from supernets.generate import greedy
from supernets.speculative import shares_attention, speculative, speculative_shared_cache


class Scripted:
    """A draft that says the wrong, or the right, token at every position; it knows the whole text."""

    context = 10_000

    def __init__(self, text: Tensor, shift: int) -> None:
        self.text = text
        self.shift = shift

    def decode(self, tokens: Tensor, cache: Cache = ()) -> tuple[Tensor, Cache]:
        at = cache[0][0].shape[2] if cache else 0
        after = at + tokens.shape[1]
        logits = torch.zeros(1, tokens.shape[1], CLASSES)
        logits[0, -1, (self.text[0, after] + self.shift) % CLASSES] = 1.0
        read = torch.zeros(1, 1, after, 1)
        return logits, ((read, read),)


@settings(max_examples=20)
@given(st.integers(0, 2**16), st.integers(1, 6), st.integers(1, 6), st.integers(0, 14))
def test_the_text_is_the_verifiers_for_any_draft_of_any_supernet(seed, ahead, length, tokens):
    supernet = language_supernet(seed=seed % 5)
    space = supernet.space
    a, b = space.archs(space.sample(2, np.random.default_rng(seed)))
    verifier, draft, prompt = supernet.subnet(a), supernet.subnet(b), sequences(1, length, seed)
    found = speculative(verifier, draft, prompt, tokens, ahead=ahead)
    assert torch.equal(found.tokens, greedy(verifier, prompt, tokens))
    assert 0 <= found.accepted <= found.drafted
    # Each pass after the one over the prompt says one token more than it accepts.
    assert found.calls - bool(tokens and length > 1) == tokens - found.accepted


@settings(max_examples=20)
@given(
    st.integers(0, 2**16),
    st.sampled_from([0.5, 1.0, 2.0, 4.0]),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 6),
)
def test_the_text_is_the_verifiers_with_a_shared_cache(seed, ratio, depth, ahead, length):
    supernet = language_supernet(seed=seed % 5)
    space = supernet.space
    verifier, prompt = supernet.subnet(space.largest), sequences(1, length, seed)
    draft = supernet.subnet(uniform(space, ratio, depth=depth))
    expected = greedy(verifier, prompt, 15)
    found = speculative_shared_cache(verifier, draft, prompt, 15, ahead=ahead)
    assert torch.equal(found.tokens, expected)
    exited = speculative_shared_cache(verifier, verifier.first(depth), prompt, 15, ahead=ahead)
    assert torch.equal(exited.tokens, expected)


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("ahead", [1, 3, 20])
def test_full_acceptance(length, ahead):
    verifier, prompt = language_supernet().subnet(language_supernet().space.largest), sequences(1, length)
    text = greedy(verifier, prompt, 13)
    for found in (
        speculative(verifier, Scripted(text, 0), prompt, 13, ahead=ahead),
        speculative(verifier, verifier, prompt, 13, ahead=ahead),
        speculative_shared_cache(verifier, verifier.first(3), prompt, 13, ahead=ahead),
    ):
        assert torch.equal(found.tokens, text)
        assert found.acceptance == 1.0
        assert found.calls == -(-13 // (ahead + 1)) + (length > 1)


@pytest.mark.parametrize("ahead", [1, 3, 20])
def test_no_acceptance(ahead):
    verifier, prompt = language_supernet().subnet(language_supernet().space.largest), sequences(1, 4)
    text = greedy(verifier, prompt, 13)
    found = speculative(verifier, Scripted(text, 1), prompt, 13, ahead=ahead)
    assert torch.equal(found.tokens, text)
    assert (found.acceptance, found.accepted) == (0.0, 0)
    assert found.calls == 13 + 1


def test_a_shared_cache_changes_the_draft_and_not_the_text():
    """The draft sees the verifier's keys and values: those of an exit are its own to the bit."""
    supernet = language_supernet(seed=2)
    verifier, prompt = supernet.subnet(supernet.space.largest), sequences(1, 4)
    one = speculative(verifier, verifier.first(2), prompt, 18)
    other = speculative_shared_cache(verifier, verifier.first(2), prompt, 18)
    assert torch.equal(one.tokens, other.tokens)
    assert (one.drafted, one.accepted, one.calls) == (other.drafted, other.accepted, other.calls)


def test_whose_attention_is_shared():
    supernet = language_supernet()
    space = supernet.space
    largest = supernet.subnet(space.largest)
    for arch, shared in (
        (uniform(space, 0.5), True),
        (uniform(space, 1.0, depth=1), True),
        (uniform(space, 4.0, embed_dim=8), False),
        (uniform(space, 4.0, **{"block2.heads": 2}), False),
    ):
        for draft in (supernet.subnet(arch), supernet.extract(arch)):
            assert shares_attention(draft, largest) is shared
            if not shared:
                with pytest.raises(InputError, match="their attention weights differ"):
                    speculative_shared_cache(largest, draft, sequences(1, 2), 3)
    assert not shares_attention(largest, largest.first(1))
    assert not shares_attention(language_supernet(seed=1).subnet(space.largest), largest)


@pytest.mark.parametrize(
    ("shape", "tokens", "ahead", "message"),
    [
        ((2, 3), 4, 4, "takes one row"),
        ((1, 3), 4, 0, "ahead of at least 1"),
        ((1, 0), 4, 4, "at least one token"),
        ((1, 20), 5, 4, "at most 4 fit"),
    ],
)
def test_refusals(shape, tokens, ahead, message):
    network = language_supernet().subnet(language_supernet().space.smallest)
    with pytest.raises(InputError, match=message):
        speculative(network, network, torch.zeros(shape, dtype=torch.int64), tokens, ahead=ahead)
