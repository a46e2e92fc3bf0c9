"""Vision transformer with elastic depth, embedding, heads and MLP ratio: the space of AutoFormer.

Source: Chen et al. 2021, arXiv:2107.00651 (AutoFormer-tiny: embedding 192-240, heads 3-4, MLP ratio 3.5-4,
depth 12-14); layers and names from timm.

Deviations: query, key and value keep a [3, heads, head_dim] layout, so head h is the same head at every
count (the published code interleaves rows); relative positions, which AutoFormer adds to the absolute ones,
are on request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, cast, get_args

import torch
from timm.layers import Attention, DropPath, LayerNorm, Mlp, PatchEmbed, trunc_normal_
from torch import Tensor, nn

from search_spaces.arch import Arch
from search_spaces.channel_group import ChannelGroup
from search_spaces.choice import Choice
from search_spaces.errors import SpaceError, did_you_mean
from search_spaces.relative_attention import RelativeAttention
from search_spaces.rules import heads as fused_heads
from search_spaces.rules import leading
from search_spaces.skeleton import remembered
from search_spaces.space import SearchSpace

Pool: TypeAlias = Literal["token", "mean"]
EPS = 1e-6  # of every layer norm, so that a network does not depend on how its layers came about


def space(
    *,
    classes: int = 1000,
    channels: int = 3,
    image_size: int = 224,
    patch: int | None = None,
    depths: Sequence[int] | None = None,
    embed_dims: Sequence[int] | None = None,
    heads: Sequence[int] = (3, 4),
    head_dim: int | None = None,
    mlp_ratios: Sequence[float] | None = None,
    pool: str = "token",
    drop_path: float | Sequence[float] = 0.0,
    relative_positions: bool = False,
) -> SearchSpace:
    """Vision transformers for `classes` classes and images of `channels` x `image_size` x `image_size`.

    Args:
        patch: side of a patch; default 16, and about an eighth of the image below 96 pixels.
        depths, embed_dims: of the whole network; defaults 12-14 and 192-240, below 96 pixels 3-6 and 64-128.
        heads, mlp_ratios: of each block.
        head_dim: width of one head at every count; default 64, and 32 below 96 pixels.
        pool: what the head sees: the class "token", or the "mean" of all patches, without a token.
        drop_path: rate at which a training skips a block's branches: of the last block, growing linearly from
            0 at the first, or a list with the rate of each block by its index, whatever the depth.
        relative_positions: AutoFormer's, on keys and values (`RelativeAttention`); with the class token only.

    Raises:
        SpaceError: an image that patches do not tile, an unknown pool, or rates of drop path that do not fit.
    """
    small = image_size < 96
    patch = patch or (_small_patch(image_size) if small else 16)
    depths = tuple(depths or ((3, 4, 5, 6) if small else (12, 13, 14)))
    embed_dims = tuple(embed_dims or ((64, 96, 128) if small else (192, 216, 240)))
    mlp_ratios = tuple(mlp_ratios or ((1.0, 2.0, 4.0) if small else (3.5, 4.0)))
    head_dim = head_dim or (32 if small else 64)
    if image_size % patch or min(depths) < 1:
        raise SpaceError(
            f"vit needs an image size that patches of {patch} tile and depths of at least 1, "
            f"not image_size {image_size} and depths {depths}"
        )
    if pool not in get_args(Pool):
        raise SpaceError(f"unknown pool {pool!r}{did_you_mean(pool, get_args(Pool))}")
    if relative_positions and pool != "token":
        raise SpaceError("relative positions of vit need the class token: leave pool at 'token'")
    rates = _drop_rates(drop_path, max(depths))
    choices = [Choice("depth", depths), Choice("embed_dim", embed_dims)]
    for b in range(1, max(depths) + 1):
        deep_enough = {"depth": [d for d in depths if d >= b]} if b > min(depths) else None
        choices.append(Choice(f"block{b}.heads", tuple(heads), when=deep_enough))
        choices.append(Choice(f"block{b}.mlp_ratio", mlp_ratios, when=deep_enough))

    def build(arch: Arch) -> nn.Module:
        return VisionTransformer(
            arch,
            image_size,
            patch,
            channels,
            classes,
            head_dim,
            cast(Pool, pool),
            rates[arch.integer("depth")],
            relative_positions,
        )

    return SearchSpace(
        "vit",
        choices,
        build,
        input_shape=(channels, image_size, image_size),
        rules={"blocks.*.attn.qkv.*": fused_heads(3), "cls_token": leading, "pos_embed": leading},
        channel_groups=[_hidden(b) for b in range(max(depths))],
        settings={
            "classes": classes,
            "channels": channels,
            "image_size": image_size,
            "patch": patch,
            "depths": list(depths),
            "embed_dims": list(embed_dims),
            "heads": list(heads),
            "head_dim": head_dim,
            "mlp_ratios": list(mlp_ratios),
            "pool": pool,
            "drop_path": drop_path if isinstance(drop_path, int | float) else list(drop_path),
            "relative_positions": relative_positions,
        },
    )


def _small_patch(image_size: int) -> int:
    """The largest patch that tiles the image at least seven times each way."""
    return max(
        p for p in range(1, image_size + 1) if image_size % p == 0 and (image_size // p >= 7 or p == 1)
    )


def _drop_rates(drop_path: float | Sequence[float], deepest: int) -> dict[int, tuple[float, ...]]:
    """The rate of each block, by depth."""
    if isinstance(drop_path, int | float):
        last = float(drop_path)
        rates = {
            depth: tuple(last * b / max(depth - 1, 1) for b in range(depth))
            for depth in range(1, deepest + 1)
        }
    else:
        rates = {depth: tuple(map(float, drop_path[:depth])) for depth in range(1, deepest + 1)}
    if len(rates[deepest]) < deepest or not all(0 <= rate < 1 for rate in rates[deepest]):
        raise SpaceError(
            f"drop_path = {drop_path} of vit is a rate from 0 to below 1, or a list with one for each of its "
            f"{deepest} blocks"
        )
    return rates


def _hidden(block: int) -> ChannelGroup:
    mlp = f"blocks.{block}.mlp"
    tensors = {f"{mlp}.fc1.weight": 0, f"{mlp}.fc1.bias": 0, f"{mlp}.fc2.weight": 1}
    return ChannelGroup(f"{mlp}.fc2.weight", tensors, ("embed_dim", f"block{block + 1}.mlp_ratio"))


class VisionTransformer(nn.Module):
    """One network of the space. Input [B, channels, H, W], output [B, classes]. Names follow timm."""

    cls_token: nn.Parameter | None

    def __init__(
        self,
        arch: Arch,
        image_size: int,
        patch: int,
        channels: int,
        classes: int,
        head_dim: int,
        pool: Pool,
        drop_path: Sequence[float],
        relative_positions: bool,
    ) -> None:
        super().__init__()
        dim = arch.integer("embed_dim")
        side = image_size // patch if relative_positions else None
        tokens = 1 if pool == "token" else 0
        self.patch_embed = PatchEmbed(image_size, patch, channels, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if tokens else None
        self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.num_patches + tokens, dim))
        self.blocks = nn.Sequential(
            *(
                _block(
                    dim,
                    arch.integer(f"block{b}.heads"),
                    head_dim,
                    float(arch[f"block{b}.mlp_ratio"]),
                    rate,
                    side,
                )
                for b, rate in enumerate(drop_path, start=1)
            )
        )
        self.norm = LayerNorm(dim, eps=EPS)
        self.head = nn.Linear(dim, classes)
        if not self.pos_embed.is_meta:
            _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)  # [B, patches, dim]
        if self.cls_token is None:
            x = self.norm(self.blocks(x + self.pos_embed)).mean(dim=1)
        else:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
            x = self.norm(self.blocks(x))[:, 0]
        return self.head(x)


class Block(nn.Module):
    """Pre-norm transformer block whose attention is heads * head_dim wide, whatever `dim` is. [B, N, dim].

    With `side`, attention has relative positions on a class token and side x side patches.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        mlp_ratio: float,
        drop_path: float = 0.0,
        side: int | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, eps=EPS)
        self.attn = (
            Attention(dim, heads, attn_head_dim=head_dim, qkv_bias=True)
            if side is None
            else RelativeAttention(dim, heads, head_dim, side)
        )
        self.norm2 = LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


_block = remembered(Block)


def _initialise(network: VisionTransformer) -> None:
    """Truncated normal of 0.02 for matrices and embeddings, from torch's default generator."""
    trunc_normal_(network.pos_embed, std=0.02)
    if network.cls_token is not None:
        trunc_normal_(network.cls_token, std=0.02)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
