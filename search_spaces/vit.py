"""Vision transformer with elastic depth, embedding, heads and MLP ratio: the space of AutoFormer.

Source: Chen et al. 2021, arXiv:2107.00651 (AutoFormer-tiny: embedding 192-240, heads 3-4, MLP ratio 3.5-4,
depth 12-14); layers and names from timm.

Deviations: query, key and value keep a [3, heads, head_dim] layout, so head h is the same head at every
count (the published code interleaves rows); learned absolute positions instead of relative ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import Attention, LayerNorm, Mlp, PatchEmbed, trunc_normal_
from torch import Tensor, nn

from search_spaces.arch import Arch
from search_spaces.choice import Choice
from search_spaces.errors import SpaceError
from search_spaces.rules import heads as fused_heads
from search_spaces.skeleton import remembered
from search_spaces.space import SearchSpace


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
) -> SearchSpace:
    """Vision transformers for `classes` classes and images of `channels` x `image_size` x `image_size`.

    Args:
        patch: side of a patch; default 16, and about an eighth of the image below 96 pixels.
        depths, embed_dims: of the whole network; defaults 12-14 and 192-240, below 96 pixels 3-6 and 64-128.
        heads, mlp_ratios: of each block.
        head_dim: width of one head at every count; default 64, and 32 below 96 pixels.

    Raises:
        SpaceError: an image that patches do not tile.
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
    choices = [Choice("depth", depths), Choice("embed_dim", embed_dims)]
    for b in range(1, max(depths) + 1):
        deep_enough = {"depth": [d for d in depths if d >= b]} if b > min(depths) else None
        choices.append(Choice(f"block{b}.heads", tuple(heads), when=deep_enough))
        choices.append(Choice(f"block{b}.mlp_ratio", mlp_ratios, when=deep_enough))

    def build(arch: Arch) -> nn.Module:
        return VisionTransformer(arch, image_size, patch, channels, classes, head_dim)

    return SearchSpace(
        "vit",
        choices,
        build,
        input_shape=(channels, image_size, image_size),
        rules={"blocks.*.attn.qkv.*": fused_heads(3)},
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
        },
    )


def _small_patch(image_size: int) -> int:
    """The largest patch that tiles the image at least seven times each way."""
    return max(
        p for p in range(1, image_size + 1) if image_size % p == 0 and (image_size // p >= 7 or p == 1)
    )


class VisionTransformer(nn.Module):
    """One network of the space. Input [B, channels, H, W], output [B, classes]. Names follow timm."""

    def __init__(
        self, arch: Arch, image_size: int, patch: int, channels: int, classes: int, head_dim: int
    ) -> None:
        super().__init__()
        dim = arch.integer("embed_dim")
        self.patch_embed = PatchEmbed(image_size, patch, channels, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.num_patches + 1, dim))
        self.blocks = nn.Sequential(
            *(
                _block(dim, arch.integer(f"block{b}.heads"), head_dim, float(arch[f"block{b}.mlp_ratio"]))
                for b in range(1, arch.integer("depth") + 1)
            )
        )
        self.norm = LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)
        if not self.pos_embed.is_meta:
            _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)  # [B, patches, dim]
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        x = self.blocks(x)
        return self.head(self.norm(x)[:, 0])


class Block(nn.Module):
    """Pre-norm transformer block whose attention is heads * head_dim wide, whatever `dim` is. [B, N, dim]."""

    def __init__(self, dim: int, heads: int, head_dim: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads, attn_head_dim=head_dim, qkv_bias=True)
        self.norm2 = LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


_block = remembered(Block)


def _initialise(network: VisionTransformer) -> None:
    """Truncated normal of 0.02 for matrices and embeddings, from torch's default generator."""
    trunc_normal_(network.pos_embed, std=0.02)
    trunc_normal_(network.cls_token, std=0.02)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
