"""Decoder language model with elastic depth, embedding, heads and FFN width.

Pre-norm blocks of RMSNorm, rotary positions, grouped key/value heads and a gated FFN, as in Llama (Touvron
et al. 2023, arXiv:2302.13971). Nested FFN widths are those of MatFormer (Devvrit et al. 2024,
arXiv:2310.07707); exits through the one final norm and head those of SoFT (Valipour et al. 2023,
arXiv:2309.08968).

Deviations: query, key and value are projections of their own, so that the leading rows of each are whole
heads and every subnet is made of views; query head h reads key/value head h // kv_group at every count.

T tokens, P tokens in the cache, D width of a head, H query heads, K key/value heads.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.arch import Arch
from search_spaces.choice import Choice
from search_spaces.errors import InputError, SpaceError
from search_spaces.skeleton import remembered
from search_spaces.space import SearchSpace

Cache: TypeAlias = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of each block, [B, K, P, D] each. A value: nothing changes it."""

Rotation: TypeAlias = tuple[Tensor, Tensor]
_THETA = 10_000.0
_EPS = 1e-6
_STD = 0.02


def space(
    *,
    classes: int = 256,
    context: int = 256,
    depths: Sequence[int] = (2, 4, 6),
    embed_dims: Sequence[int] = (96, 128),
    heads: Sequence[int] = (2, 4),
    kv_group: int = 2,
    head_dim: int = 32,
    ffn_ratios: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
    gated: bool = True,
    tied: bool = True,
) -> SearchSpace:
    """Language models over a vocabulary of `classes` and sequences of `context` tokens.

    The default suits bytes and two cores. MatFormer's 78M is about `depths=[16], embed_dims=[512],
    heads=[16], kv_group=1, ffn_ratios=[0.5, 1, 2, 4], gated=False, context=1024`.

    Args:
        depths, embed_dims: of the whole network.
        heads, ffn_ratios: query heads, and FFN width over embedding width, of each block.
        kv_group: query heads that share one key/value head.
        head_dim: width of one head at every count.
        gated: whether the FFN is SwiGLU with three matrices, else GELU with two.
        tied: whether the head is the embedding's matrix.

    Raises:
        SpaceError: sizes that make no network.
    """
    heads = tuple(heads)
    if not (depths and embed_dims and heads and ffn_ratios):
        raise SpaceError("gpt needs at least one of depths, embed_dims, heads and ffn_ratios each")
    if kv_group < 1 or any(h < 1 or h % kv_group for h in heads):
        raise SpaceError(
            f"gpt needs heads that groups of kv_group = {kv_group} tile, not {', '.join(map(str, heads))}"
        )
    if head_dim % 2 or min(*depths, *embed_dims, head_dim, context, classes, 1) < 1:
        raise SpaceError(
            f"gpt needs an even head_dim and depths, embed_dims, context and classes of at least 1, not "
            f"head_dim {head_dim}, depths {tuple(depths)}, embed_dims {tuple(embed_dims)}, "
            f"context {context}, classes {classes}"
        )
    if int(min(ffn_ratios) * min(embed_dims)) < 1:
        raise SpaceError(f"gpt needs FFNs of at least one unit; ffn_ratio {min(ffn_ratios)} gives none")
    choices = [Choice("depth", tuple(depths)), Choice("embed_dim", tuple(embed_dims))]
    for b in range(1, max(depths) + 1):
        deep_enough = {"depth": [d for d in depths if d >= b]} if b > min(depths) else None
        choices.append(Choice(f"block{b}.heads", heads, when=deep_enough))
        choices.append(Choice(f"block{b}.ffn_ratio", tuple(map(float, ffn_ratios)), when=deep_enough))

    def build(arch: Arch) -> nn.Module:
        return GPT(arch, classes, context, kv_group, head_dim, gated, tied)

    return SearchSpace(
        "gpt",
        choices,
        build,
        input_shape=(context,),
        input_dtype=torch.int64,
        settings={
            "classes": classes,
            "context": context,
            "depths": list(depths),
            "embed_dims": list(embed_dims),
            "heads": list(heads),
            "kv_group": kv_group,
            "head_dim": head_dim,
            "ffn_ratios": list(map(float, ffn_ratios)),
            "gated": gated,
            "tied": tied,
        },
    )


class GPT(nn.Module):
    """One network of the space. Tokens int64 [B, T] -> logits of the next tokens [B, T, classes].

    A tied head has no tensor of its own: it is the embedding's, under that one name.
    """

    def __init__(
        self, arch: Arch, classes: int, context: int, kv_group: int, head_dim: int, gated: bool, tied: bool
    ) -> None:
        super().__init__()
        dim = arch.integer("embed_dim")
        self.context = context  # tokens that it is trained on, and the most that it is asked to read
        self.head_dim = head_dim
        self.embed = nn.Embedding(classes, dim)
        self.blocks = nn.ModuleList(
            _block(
                dim,
                arch.integer(f"block{b}.heads"),
                kv_group,
                head_dim,
                int(dim * float(arch[f"block{b}.ffn_ratio"])),
                gated,
            )
            for b in range(1, arch.integer("depth") + 1)
        )
        self.norm = nn.RMSNorm(dim, eps=_EPS)
        self.head = None if tied else nn.Linear(dim, classes, bias=False)
        if not self.embed.weight.is_meta:
            _initialise(self)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decode(tokens)[0]

    def decode(self, tokens: Tensor, cache: Cache = ()) -> tuple[Tensor, Cache]:
        """Logits [B, T, classes] of `tokens`, which follow those of `cache`, and the cache of both.

        The cache that is given stays as it is; `cut(cache, n)` forgets all but its first n tokens.
        """
        hidden, cache = self._run(tokens, cache, len(self.blocks))
        return self._logits(hidden[-1]), cache

    def exits(self, tokens: Tensor, depths: Sequence[int]) -> list[Tensor]:
        """Logits [B, T, classes] after each of `depths` blocks, in one pass, through the one norm and head.

        Raises:
            InputError: a depth that the network does not have.
        """
        for depth in depths:
            self._check_depth(depth)
        hidden, _ = self._run(tokens, (), max(depths, default=0))
        return [self._logits(hidden[depth - 1]) for depth in depths]

    def first(self, depth: int) -> GPT:
        """The network that ends after `depth` blocks: the exit there, over the same tensors.

        Raises:
            InputError: a depth that the network does not have.
        """
        self._check_depth(depth)
        shallow = copy.copy(self)
        shallow._modules = {**self._modules, "blocks": self.blocks[:depth]}
        return shallow

    def _check_depth(self, depth: int) -> None:
        if not 1 <= depth <= len(self.blocks):
            raise InputError(f"exit {depth} is not between 1 and the network's {len(self.blocks)} blocks")

    def _run(self, tokens: Tensor, cache: Cache, depth: int) -> tuple[list[Tensor], Cache]:
        """What each of the first `depth` blocks puts out, and their new cache."""
        x = self.embed(tokens)  # [B, T, dim]
        turn = rotation(length(cache), tokens.shape[1], self.head_dim, x)
        hidden: list[Tensor] = []
        kept: list[tuple[Tensor, Tensor]] = []
        for block, past in zip(self.blocks[:depth], cache or (None,) * depth):
            x, present = block(x, turn, past)
            hidden.append(x)
            kept.append(present)
        return hidden, tuple(kept)

    def _logits(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return F.linear(x, self.embed.weight) if self.head is None else self.head(x)


class Block(nn.Module):
    """Pre-norm block. x [B, T, dim] -> the same shape, with the keys and values of all tokens so far."""

    def __init__(self, dim: int, heads: int, kv_group: int, head_dim: int, hidden: int, gated: bool) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(dim, eps=_EPS)
        self.attn = Attention(dim, heads, kv_group, head_dim)
        self.norm2 = nn.RMSNorm(dim, eps=_EPS)
        self.ffn = GatedFFN(dim, hidden) if gated else FFN(dim, hidden)

    def forward(
        self, x: Tensor, turn: Rotation, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, present = self.attn(self.norm1(x), turn, past)
        x = x + y
        return x + self.ffn(self.norm2(x)), present


class Attention(nn.Module):
    """Causal attention of H query heads over H / kv_group key/value heads, heads * head_dim wide."""

    def __init__(self, dim: int, heads: int, kv_group: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.grouped = kv_group > 1
        self.query = nn.Linear(dim, heads * head_dim, bias=False)
        self.key = nn.Linear(dim, heads // kv_group * head_dim, bias=False)
        self.value = nn.Linear(dim, heads // kv_group * head_dim, bias=False)
        self.proj = nn.Linear(heads * head_dim, dim, bias=False)

    def forward(
        self, x: Tensor, turn: Rotation, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        split = (-1, self.head_dim)
        query = rotate(self.query(x).unflatten(-1, split), turn).transpose(1, 2)  # [B, H, T, D]
        key = rotate(self.key(x).unflatten(-1, split), turn).transpose(1, 2)  # [B, K, T, D]
        value = self.value(x).unflatten(-1, split).transpose(1, 2)
        if past is not None:
            key, value = torch.cat((past[0], key), dim=2), torch.cat((past[1], value), dim=2)
        new, known = query.shape[2], key.shape[2]
        mask = None
        if past is not None and new > 1:
            mask = torch.ones(new, known, dtype=torch.bool, device=x.device).tril(known - new)
        y = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=past is None, enable_gqa=self.grouped
        )
        return self.proj(y.transpose(1, 2).flatten(2)), (key, value)


class FFN(nn.Module):
    """`down(gelu(up(x)))` without biases. A narrower one is the leading hidden units: gelu(0) = 0."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class GatedFFN(nn.Module):
    """SwiGLU, `down(silu(gate(x)) * up(x))`, without biases. Source: Shazeer 2020, arXiv:2002.05202."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


_block = remembered(Block)


def rotation(start: int, tokens: int, head_dim: int, like: Tensor) -> Rotation:
    """Cosines and sines [T, 1, D/2] for the positions from `start`, with the type and device of `like`.

    Computed anew in each pass: a buffer would have to be made for every subnet that is drawn.
    Source: Su et al. 2021, arXiv:2104.09864.
    """
    precise = torch.promote_types(like.dtype, torch.float32)
    steps = torch.arange(0, head_dim, 2, device=like.device, dtype=precise)
    positions = torch.arange(start, start + tokens, device=like.device, dtype=precise)
    angles = positions[:, None, None] * _THETA ** (steps / -head_dim)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotate(x: Tensor, turn: Rotation) -> Tensor:
    """Turns the pairs (i, i + D/2) of each head by the angle of its position. x [B, T, heads, D].

    The result has the type of `x`: under autocast the angles are float32, the projections are not.
    """
    cos, sin = turn
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def length(cache: Cache) -> int:
    """Tokens in a cache."""
    return cache[0][0].shape[2] if cache else 0


def cut(cache: Cache, tokens: int) -> Cache:
    """The cache of the first `tokens` tokens only; views."""
    if length(cache) <= tokens:
        return cache
    return tuple((key[:, :, :tokens], value[:, :, :tokens]) for key, value in cache) if tokens else ()


def _initialise(network: GPT) -> None:
    """Normal of 0.02, less for what is added to the residual stream, from torch's default generator.

    Source: GPT-2, Radford et al. 2019, section 2.3.
    """
    nn.init.normal_(network.embed.weight, std=_STD)
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            last = name.endswith((".proj", ".down"))
            nn.init.normal_(module.weight, std=_STD / (2 * len(network.blocks)) ** 0.5 if last else _STD)
