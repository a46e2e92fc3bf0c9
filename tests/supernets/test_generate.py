"""Generation with a cache says what generation without one says."""

from __future__ import annotations

import pytest
import torch
from language import CLASSES, CONTEXT, language_supernet, sequences
from torch import Tensor

from search_spaces import InputError
from supernets.generate import greedy, sample


def without_cache(network, prompt: Tensor, tokens: int, choose) -> Tensor:
    for _ in range(tokens):
        prompt = torch.cat((prompt, choose(network(prompt)[:, -1])[:, None]), dim=1)
    return prompt


@pytest.fixture(scope="module")
def supernet():
    return language_supernet()


def archs(supernet, n: int = 3):
    space = supernet.space
    return [space.largest, space.smallest, *space.archs(space.sample(n, torch_rng()))]


def torch_rng():
    import numpy as np

    return np.random.default_rng(3)


@pytest.mark.parametrize("length", [1, 5])
def test_greedy_equals_greedy_without_a_cache(supernet, length):
    prompt = sequences(3, length)
    for arch in archs(supernet):
        network = supernet.subnet(arch)
        expected = without_cache(network, prompt, 15, lambda logits: logits.argmax(-1))
        assert torch.equal(greedy(network, prompt, 15), expected)
        assert torch.equal(greedy(supernet.extract(arch), prompt, 15), expected)


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.7, 3), (2.0, 100)])
def test_sampling_equals_sampling_without_a_cache(supernet, temperature, top_k):
    network, prompt = supernet.subnet(supernet.space.largest), sequences(3, 4)
    other = torch.Generator().manual_seed(5)

    def choose(logits: Tensor) -> Tensor:
        probabilities = (logits.float() / temperature).softmax(-1)
        if top_k is not None:
            worst = probabilities.argsort(dim=-1)[:, : max(CLASSES - top_k, 0)]
            probabilities = probabilities.scatter(-1, worst, 0.0)
        return torch.multinomial(probabilities, 1, generator=other)[:, 0]

    generator = torch.Generator().manual_seed(5)
    found = sample(network, prompt, 12, generator, temperature=temperature, top_k=top_k)
    assert torch.equal(found, without_cache(network, prompt, 12, choose))


def test_sampling_is_repeatable_and_leaves_the_global_state_alone(supernet):
    network, prompt = supernet.subnet(supernet.space.largest), sequences(2, 4)
    state = torch.get_rng_state()
    first, again, other = (
        sample(network, prompt, 15, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_likeliest_alone_is_greedy(supernet):
    network, prompt = supernet.subnet(supernet.space.largest), sequences(2, 4)
    assert torch.equal(
        sample(network, prompt, 15, torch.Generator().manual_seed(0), top_k=1), greedy(network, prompt, 15)
    )


def test_the_prompt_is_returned_whole_and_may_fill_the_context(supernet):
    network, prompt = supernet.subnet(supernet.space.largest), sequences(2, CONTEXT)
    assert torch.equal(greedy(network, prompt, 0), prompt)
    assert greedy(network, prompt[:, :20], 4).shape == (2, CONTEXT)


@pytest.mark.parametrize(
    ("shape", "tokens", "message"),
    [
        (
            (1, 20),
            5,
            "a prompt of 20 tokens and 5 new ones exceed the network's context of 24; at most 4 fit",
        ),
        ((1, 0), 5, "at least one token"),
        ((3,), 5, r"a prompt is \[B, T\]"),
        ((1, 3), -1, "tokens at least 0"),
    ],
)
def test_what_cannot_be_extended_is_refused(supernet, shape, tokens, message):
    with pytest.raises(InputError, match=message):
        greedy(supernet.subnet(supernet.space.smallest), torch.zeros(shape, dtype=torch.int64), tokens)


@pytest.mark.parametrize("keywords", [{"temperature": 0.0}, {"temperature": -1.0}, {"top_k": 0}])
def test_sampling_without_a_temperature_is_refused(supernet, keywords):
    with pytest.raises(InputError, match="must be above 0"):
        sample(supernet.subnet(supernet.space.smallest), sequences(1, 2), 2, torch.Generator(), **keywords)
