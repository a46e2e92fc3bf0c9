"""Self-attention with AutoFormer's relative positions, computed without a table of all pairs."""

from __future__ import annotations

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F


class RelativeAttention(nn.Module):
    """Attention over a class token and a square grid of patches, with relative positions on keys and values.

    For query i and key j the score is q_i (k_j + r_ij) / sqrt(head_dim) and the output of head h is
    sum_j a_ij (v_j + s_ij); r_ij = row[y_j - y_i] + column[x_j - x_i], with distances clipped to +-`reach`
    and an entry of its own for pairs with the class token; s_ij likewise. Input and output
    [B, 1 + side^2, dim].

    The published code gathers r and s for all pairs, [N, N, head_dim], in every pass. Here q_i r_ij is the
    product of 2 side + 1 further features of the query (q times the vectors of its distances) with a
    constant one-hot key that says in which row and column j lies; the same one-hot features behind v give the
    attention summed along rows and columns, which is all that s needs. So one fused attention does it all.

    Source: Chen et al. 2021, arXiv:2107.00651, appendix; Shaw et al. 2018, arXiv:1803.02155. Deviation:
    query, key and value keep a [3, heads, head_dim] layout (the published code interleaves their rows).
    """

    def __init__(self, dim: int, heads: int, head_dim: int, side: int, reach: int = 14) -> None:
        super().__init__()
        self.num_heads = heads
        self.head_dim = head_dim
        self.side = side
        self.qkv = nn.Linear(dim, 3 * heads * head_dim)
        self.key_positions = RelativePositions(head_dim, side, reach)
        self.value_positions = RelativePositions(head_dim, side, reach)
        self.proj = nn.Linear(heads * head_dim, dim)
        steps = torch.arange(side)
        one_hot = torch.eye(side)
        where = torch.cat([one_hot[steps.repeat_interleave(side)], one_hot[steps.repeat(side)]], dim=1)
        # Features of a key: its row, its column, whether it is the class token, which comes first.
        self.register_buffer("where", _with_class(where), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        heads, width = self.num_heads, self.head_dim
        qkv = self.qkv(x).reshape(batch, tokens, 3, heads, width)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # [B, heads, N, head_dim]
        where: Tensor = self.where.to(x.dtype)  # type: ignore[assignment]
        where = where.expand(batch, heads, -1, -1)
        out = F.scaled_dot_product_attention(
            torch.cat([q, self.key_positions.of_queries(q)], dim=3),
            torch.cat([k, where], dim=3),
            torch.cat([v, where], dim=3),
            scale=width**-0.5,
        )
        out = out[..., :width] + self.value_positions.of_attention(out[..., width:])
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, heads * width))


class RelativePositions(nn.Module):
    """Learned vectors of the distances -reach..reach along rows and columns; entry 0 is the class token's."""

    def __init__(self, head_dim: int, side: int, reach: int) -> None:
        super().__init__()
        self.side = side
        self.rows = nn.Parameter(torch.zeros(2 * reach + 2, head_dim))
        self.columns = nn.Parameter(torch.zeros(2 * reach + 2, head_dim))
        steps = torch.arange(side)
        distance = (steps[None, :] - steps[:, None]).clamp(-reach, reach) + reach + 1
        self.register_buffer("distance", distance, persistent=False)  # [side (query), side (key)]
        if not self.rows.is_meta:
            trunc_normal_(self.rows, std=0.02)
            trunc_normal_(self.columns, std=0.02)

    def of_queries(self, q: Tensor) -> Tensor:
        """q_i times the vectors to each row, to each column and to the class token. [B, heads, N, 2 side + 1]

        A query that is the class token is equally far from all.
        """
        rows, columns = self._vectors()
        # Not a matmul: whether it folds its batch, and so rounds, depends on whether gradients are recorded.
        with_class = (q * (self.rows[0] + self.columns[0])).sum(dim=3, keepdim=True)
        grid = self._grid(q[:, :, 1:])
        to_rows = grid.permute(2, 0, 1, 3, 4).flatten(1, 3) @ rows.transpose(1, 2)
        to_columns = grid.permute(3, 0, 1, 2, 4).flatten(1, 3) @ columns.transpose(1, 2)
        from_class = F.pad(with_class[:, :, :1].expand(-1, -1, -1, self.side), (0, self.side))
        patches = self._join(to_rows, to_columns, grid.shape)
        return torch.cat([torch.cat([from_class, patches], dim=2), with_class], dim=3)

    def of_attention(self, sums: Tensor) -> Tensor:
        """The vectors weighed by attention, which is given summed over rows, columns and the class token.

        sums [B, heads, N, 2 side + 1] -> [B, heads, N, head_dim]
        """
        rows, columns = self._vectors()
        class_vector = self.rows[0] + self.columns[0]
        grid = self._grid(sums[:, :, 1:])
        by_row = grid[..., : self.side].permute(2, 0, 1, 3, 4).flatten(1, 3) @ rows
        by_column = grid[..., self.side : -1].permute(3, 0, 1, 2, 4).flatten(1, 3) @ columns
        shape = (self.side, *sums.shape[:2], self.side, rows.shape[2])
        patches = by_row.view(shape).permute(1, 2, 0, 3, 4) + by_column.view(shape).permute(1, 2, 3, 0, 4)
        patches = patches.flatten(2, 3) + sums[:, :, 1:, -1:] * class_vector
        of_class = class_vector.expand(*sums.shape[:2], 1, -1)  # its attention sums to one
        return torch.cat([of_class, patches], dim=2)

    def _vectors(self) -> tuple[Tensor, Tensor]:
        """Of each pair of rows, and of columns. Both [side (query), side (key), head_dim]"""
        return self.rows[self.distance], self.columns[self.distance]  # type: ignore[index]

    def _grid(self, patches: Tensor) -> Tensor:
        """[B, heads, side^2, features] -> [B, heads, side, side, features]"""
        return patches.unflatten(2, (self.side, self.side))

    def _join(self, to_rows: Tensor, to_columns: Tensor, grid: torch.Size) -> Tensor:
        """Both as features of each patch. [B, heads, side^2, 2 side]"""
        shape = (self.side, *grid[:2], self.side, self.side)
        along = (to_rows.view(shape).permute(1, 2, 0, 3, 4), to_columns.view(shape).permute(1, 2, 3, 0, 4))
        return torch.cat(along, dim=4).flatten(2, 3)


def _with_class(where: Tensor) -> Tensor:
    """[side^2, features] -> [1 + side^2, features + 1]: the class token first, with its own feature."""
    out = F.pad(where, (0, 1, 1, 0))
    out[0, -1] = 1.0
    return out
