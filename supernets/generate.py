"""Text from a language model, token by token, with a cache of keys and values.

Each step reads only the tokens that are new, so n tokens cost n short passes. The cache is a value that the
loop hands on: the network remembers nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from search_spaces import InputError
from search_spaces.gpt import Cache


class Decoder(Protocol):
    """A language model that can go on where it stopped; `search_spaces.gpt.GPT` is one."""

    context: int

    def decode(self, tokens: Tensor, cache: Cache = ()) -> tuple[Tensor, Cache]:
        """Logits [B, T, classes] of `tokens`, which follow those of `cache`, and the cache of both."""
        ...


def greedy(network: Decoder, prompt: Tensor, tokens: int) -> Tensor:
    """The prompt and the `tokens` likeliest next tokens, one after the other. int64 [B, T + tokens].

    prompt: int64 [B, T], T at least 1. Draw the network in eval mode.

    Raises:
        InputError: an empty prompt, or more tokens in all than the network's context.
    """
    return _extend(network, prompt, tokens, lambda logits: logits.argmax(dim=-1))


def sample(
    network: Decoder,
    prompt: Tensor,
    tokens: int,
    generator: torch.Generator,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Tensor:
    """The prompt and `tokens` tokens drawn from the network's probabilities. int64 [B, T + tokens].

    Logits are divided by `temperature`; with `top_k` only that many of the likeliest can be drawn.
    `generator` lives on the prompt's device.

    Raises:
        InputError: as `greedy`, or a temperature or top_k that is not above 0.
    """
    if not temperature > 0 or (top_k is not None and top_k < 1):
        raise InputError(
            f"temperature {temperature} and top_k {top_k} must be above 0; greedy() takes the likeliest"
        )

    def choose(logits: Tensor) -> Tensor:
        logits = logits.float() / temperature
        if top_k is not None and top_k < logits.shape[-1]:
            least = logits.topk(top_k, dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]

    return _extend(network, prompt, tokens, choose)


def check_length(network: Decoder, prompt: Tensor, tokens: int) -> None:
    """That the network can read the prompt and `tokens` more.

    Raises:
        InputError: it cannot.
    """
    if prompt.dim() != 2 or prompt.shape[1] < 1 or tokens < 0:
        raise InputError(
            f"a prompt is [B, T] with at least one token, and tokens at least 0; "
            f"not {list(prompt.shape)} and {tokens}"
        )
    if prompt.shape[1] + tokens > network.context:
        raise InputError(
            f"a prompt of {prompt.shape[1]} tokens and {tokens} new ones exceed the network's context of "
            f"{network.context}; at most {max(network.context - prompt.shape[1], 0)} fit"
        )


@torch.no_grad()
def _extend(network: Decoder, prompt: Tensor, tokens: int, choose: Callable[[Tensor], Tensor]) -> Tensor:
    check_length(network, prompt, tokens)
    cache: Cache = ()
    said, new = [prompt], prompt
    for _ in range(tokens):
        logits, cache = network.decode(new, cache)
        new = choose(logits[:, -1])[:, None]
        said.append(new)
    return torch.cat(said, dim=1)
