"""AutoFormer's supernet as published: one network whose layers remember the sizes set last.

A plain reading of the public code (microsoft/Cream, `AutoFormer/model/module`): weights are sliced when sizes
are set, the rows of query, key and value are interleaved and gathered by threes, and relative positions are
gathered from their tables into [N, N, head_dim] in every pass, for keys and for values. For comparison only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces import Arch
from supernets import Supernet


class StatefulAttention(nn.Module):
    """Attention of the largest network at the width and head count set last."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.head_dim, self.side = attention.head_dim, attention.side
        parts = attention.qkv.weight.detach().unflatten(0, (3, -1))  # [3, heads * head_dim, dim]
        self.qkv = nn.Parameter(parts.transpose(0, 1).flatten(0, 1).clone())  # rows q0, k0, v0, q1, ...
        self.qkv_bias = nn.Parameter(torch.zeros(len(self.qkv)))
        del attention.qkv
        self.weight: Tensor | None = None
        self.dim = self.heads = 0

    def activate(self, dim: int, heads: int) -> None:
        self.dim, self.heads = dim, heads
        rows = 3 * heads * self.head_dim
        self.weight = torch.cat([self.qkv[:, :dim][i:rows:3] for i in range(3)])

    def _pairs(self, table: nn.Module, tokens: int) -> Tensor:
        """The table of all pairs. [N, N, head_dim]"""
        reach = len(table.rows) // 2 - 1
        index = torch.arange(tokens - 1)
        row, column = index // self.side, index % self.side
        rows = (row[None] - row[:, None]).clamp(-reach, reach) + reach + 1
        columns = (column[None] - column[:, None]).clamp(-reach, reach) + reach + 1
        return table.rows[F.pad(rows, (1, 0, 1, 0))] + table.columns[F.pad(columns, (1, 0, 1, 0))]

    def forward(self, x: Tensor) -> Tensor:
        batch, n, _ = x.shape
        h, d = self.heads, self.head_dim
        q, k, v = (
            F.linear(x, self.weight, self.qkv_bias[: 3 * h * d])
            .reshape(batch, n, 3, h, d)
            .permute(2, 0, 3, 1, 4)
        )
        scores = (q @ k.transpose(-2, -1)) * d**-0.5
        r = self._pairs(self.attention.key_positions, n)
        by_query = q.permute(2, 0, 1, 3).reshape(n, h * batch, -1) @ r.transpose(2, 1)
        scores = scores + by_query.transpose(1, 0).reshape(batch, h, n, n) * d**-0.5
        weights = scores.softmax(dim=-1)
        out = (weights @ v).transpose(1, 2).reshape(batch, n, -1)
        r = self._pairs(self.attention.value_positions, n)
        by_query = weights.permute(2, 0, 1, 3).reshape(n, batch * h, -1) @ r
        out = out + by_query.transpose(1, 0).reshape(batch, h, n, -1).transpose(2, 1).reshape(batch, n, -1)
        proj = self.attention.proj
        return F.linear(out, proj.weight[:, : h * d][: self.dim], proj.bias[: self.dim])


class StatefulBlock(nn.Module):
    """A transformer block of the largest network at the sizes set last."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.attention = StatefulAttention(block.attn)
        self.dim = self.hidden = 0

    def activate(self, dim: int, heads: int, hidden: int) -> None:
        self.dim, self.hidden = dim, hidden
        self.attention.activate(dim, heads)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(_norm(x, self.block.norm1))
        mlp = self.block.mlp
        y = _norm(x, self.block.norm2)
        y = F.gelu(F.linear(y, mlp.fc1.weight[:, : self.dim][: self.hidden], mlp.fc1.bias[: self.hidden]))
        return x + F.linear(y, mlp.fc2.weight[:, : self.hidden][: self.dim], mlp.fc2.bias[: self.dim])


def _norm(x: Tensor, norm: nn.Module) -> Tensor:
    dim = x.shape[-1]
    return F.layer_norm(x, (dim,), norm.weight[:dim], norm.bias[:dim], norm.eps)


class StatefulAutoFormer(nn.Module):
    """The network with weights of its own, equal to those of a supernet of `vit` with relative positions."""

    def __init__(self, supernet: Supernet) -> None:
        super().__init__()
        self.net = supernet.extract(supernet.space.largest)
        self.blocks = nn.ModuleList(StatefulBlock(block) for block in self.net.blocks)
        self.depth = self.dim = 0

    def activate(self, arch: Arch) -> None:
        """Makes `arch` what the next passes compute."""
        self.depth, self.dim = arch.integer("depth"), arch.integer("embed_dim")
        for b, block in enumerate(self.blocks[: self.depth], start=1):
            hidden = int(self.dim * float(arch[f"block{b}.mlp_ratio"]))
            block.activate(self.dim, arch.integer(f"block{b}.heads"), hidden)

    def forward(self, x: Tensor) -> Tensor:
        net, dim = self.net, self.dim
        embed = net.patch_embed.proj
        x = F.conv2d(x, embed.weight[:dim], embed.bias[:dim], embed.stride).flatten(2).transpose(1, 2)
        x = torch.cat([net.cls_token[..., :dim].expand(len(x), -1, -1), x], dim=1)
        x = x + net.pos_embed[..., :dim]
        for block in self.blocks[: self.depth]:
            x = block(x)
        x = _norm(x, net.norm)[:, 0]
        return F.linear(x, net.head.weight[:, :dim], net.head.bias)
