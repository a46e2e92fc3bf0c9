"""Elastic speculative decoding: a small network drafts, a large one checks several tokens in one pass.

The result is the greedy text of the large one (the verifier), whatever the draft says; a draft that is often
right saves passes of the verifier. Nested subnets serve well: they agree often, and where they share their
attention weights the draft reads the verifier's keys and values of all that was said, so that it keeps no
cache of its own. An exit of the verifier, `verifier.first(depth)`, is such a draft (self-speculation).

Source: Leviathan et al. 2023, arXiv:2211.17192, greedy case; nested drafts and the shared cache, MatFormer,
Devvrit et al. 2024, arXiv:2310.07707, section 4; exits as drafts, SoFT, arXiv:2309.08968.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from search_spaces import InputError
from search_spaces.gpt import GPT, Cache, cut, length
from supernets.generate import Decoder, check_length


@dataclass(frozen=True)
class Speculation:
    """What speculative decoding gave, and how often the draft was right."""

    tokens: Tensor  # int64 [1, T + n], the prompt first
    drafted: int  # tokens that the draft proposed
    accepted: int  # of them, those that the verifier would have said
    calls: int  # passes of the verifier, one over the prompt among them

    @property
    def acceptance(self) -> float:
        """Accepted over drafted; 0 where nothing was drafted."""
        return self.accepted / self.drafted if self.drafted else 0.0


def speculative(
    verifier: Decoder, draft: Decoder, prompt: Tensor, tokens: int, *, ahead: int = 4
) -> Speculation:
    """`greedy(verifier, prompt, tokens)`, found with drafts of `ahead` tokens; a draft of any kind serves.

    prompt: int64 [1, T]. Exact as far as the verifier's argmax is: a pass over several tokens rounds
    otherwise than passes over one, which matters only where two tokens tie to rounding.

    Raises:
        InputError: more than one row, an empty prompt, `ahead` below 1, or more tokens than either context.
    """
    return _speculate(verifier, draft, prompt, tokens, ahead, blocks=None)


def speculative_shared_cache(
    verifier: GPT, draft: GPT, prompt: Tensor, tokens: int, *, ahead: int = 4
) -> Speculation:
    """`speculative`, with a draft that reads the verifier's cache for all tokens that are certain.

    The draft's blocks have the attention weights of the verifier's first ones: the FFN alone is smaller, or
    the depth, or both. It keeps nothing of its own between drafts, and never reads the prompt.

    Raises:
        InputError: as `speculative`, or a draft with other attention weights.
    """
    if not shares_attention(draft, verifier):
        raise InputError(
            "the draft cannot read the verifier's cache: their attention weights differ; take a draft that "
            "differs in FFN widths or depth only, or speculative(), which keeps two caches"
        )
    return _speculate(verifier, draft, prompt, tokens, ahead, blocks=len(draft.blocks))


def shares_attention(draft: GPT, verifier: GPT) -> bool:
    """Whether each block of the draft has the attention of that block of the verifier, value by value."""
    if len(draft.blocks) > len(verifier.blocks):
        return False
    for small, large in zip(draft.blocks, verifier.blocks):
        for part in ("norm1", "attn"):
            mine, others = small.get_submodule(part).state_dict(), large.get_submodule(part).state_dict()
            for name, tensor in mine.items():
                other = others[name]
                if tensor.shape != other.shape:
                    return False
                if tensor.data_ptr() != other.data_ptr() and not torch.equal(tensor, other):
                    return False
    return True


@torch.no_grad()
def _speculate(
    verifier: Decoder, draft: Decoder, prompt: Tensor, tokens: int, ahead: int, blocks: int | None
) -> Speculation:
    """`blocks`: how many of the verifier's caches are the draft's too; None if it keeps its own."""
    if prompt.shape[0] != 1 or ahead < 1:
        raise InputError(
            f"speculative decoding takes one row and ahead of at least 1, not {prompt.shape[0]} and {ahead}"
        )
    check_length(verifier, prompt, tokens)
    check_length(draft, prompt, tokens)
    said, wanted = prompt, prompt.shape[1] + tokens
    cache: Cache = ()  # the verifier's, of all that was said but the last token
    own: Cache = ()  # the draft's, of what it read so far
    drafted = accepted = calls = 0
    if tokens and prompt.shape[1] > 1:
        _, cache = verifier.decode(prompt[:, :-1])
        calls += 1
    while said.shape[1] < wanted:
        known = said.shape[1]
        room = min(ahead, wanted - known - 1)  # the verifier adds one token of its own
        own = own if blocks is None else cache[:blocks]
        guess, own = _draft(draft, said, own, room)
        logits, cache = verifier.decode(torch.cat((said[:, -1:], guess), dim=1), cache)
        calls += 1
        right = logits.argmax(dim=-1)  # [1, room + 1]
        agreed = int((guess == right[:, :-1])[0].long().cumprod(dim=0).sum())
        said = torch.cat((said, right[:, : agreed + 1]), dim=1)
        cache, own = cut(cache, known + agreed), cut(own, known + agreed)
        drafted, accepted = drafted + room, accepted + agreed
    return Speculation(said, drafted, accepted, calls)


def _draft(draft: Decoder, said: Tensor, cache: Cache, count: int) -> tuple[Tensor, Cache]:
    """The draft's `count` likeliest next tokens [1, count], and its cache of all that it read."""
    guess = said[:, :0]
    new = said[:, length(cache) :]
    for _ in range(count):
        logits, cache = draft.decode(new, cache)
        new = logits[:, -1:].argmax(dim=-1)
        guess = torch.cat((guess, new), dim=1)
    return guess, cache
