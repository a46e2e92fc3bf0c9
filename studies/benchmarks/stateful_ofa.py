"""Once-for-All's network as published: one network whose layers remember the active kernel and width.

A plain reading of the elastic layers of the public code (mit-han-lab/once-for-all,
`ofa/imagenet_classification/elastic_nn/modules/dynamic_op.py`): every pass slices each weight anew and makes
the slice contiguous, images are NCHW, and batch norm works on slices of its vectors. For comparison only.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces import Arch, centre
from supernets import Supernet
from supernets.schemes import KernelTransform


class StatefulBlock(nn.Module):
    """An inverted residual block of the largest network that runs at the kernel and width set last."""

    def __init__(self, block: nn.Module, matrices: dict[str, nn.Parameter]) -> None:
        super().__init__()
        self.block = block
        self.matrices = nn.ParameterDict(matrices)
        self.kernel = 0
        self.width = 0  # channels between the two pointwise convolutions
        self.squeezed = 0  # channels of the squeeze-excite

    def forward(self, x: Tensor) -> Tensor:
        b, mid = self.block, self.width
        y = F.conv2d(x, b.conv_pw.weight[:mid, : x.shape[1]].contiguous())
        y = b.bn1.act(_norm(y, b.bn1))
        stride = b.conv_dw.stride
        y = F.conv2d(y, self._kernel(mid), None, stride, self.kernel // 2, groups=mid)
        y = b.bn2.act(_norm(y, b.bn2))
        if hasattr(b.se, "conv_reduce"):
            y = y * self._gate(y, b.se)
        y = F.conv2d(y, b.conv_pwl.weight[:, :mid].contiguous())
        y = _norm(y, b.bn3)
        return x + y if b.has_skip else y

    def _kernel(self, mid: int) -> Tensor:
        weight = self.block.conv_dw.weight[:mid]
        for large, small in ((7, 5), (5, 3)):
            if weight.shape[-1] == large and self.kernel <= small:
                crop = centre(weight, (mid, 1, small, small)).contiguous()
                flat = F.linear(
                    crop.view(mid, 1, -1).view(-1, small * small), self.matrices[f"{large}to{small}"]
                )
                weight = flat.view(mid, 1, small, small)
        return weight

    def _gate(self, y: Tensor, se: nn.Module) -> Tensor:
        mid, squeezed = self.width, self.squeezed
        z = y.mean((2, 3), keepdim=True)
        reduce, expand = se.conv_reduce, se.conv_expand
        z = se.act1(F.conv2d(z, reduce.weight[:squeezed, :mid].contiguous(), reduce.bias[:squeezed]))
        return se.gate(F.conv2d(z, expand.weight[:mid, :squeezed].contiguous(), expand.bias[:mid]))


def _norm(x: Tensor, norm: nn.Module) -> Tensor:
    n = x.shape[1]
    return F.batch_norm(
        x,
        norm.running_mean[:n],
        norm.running_var[:n],
        norm.weight[:n],
        norm.bias[:n],
        norm.training,
        norm.momentum,
        norm.eps,
    )


class StatefulMobileNetV3(nn.Module):
    """The network with weights of its own, equal to those of a supernet with the kernel-transform scheme."""

    def __init__(self, supernet: Supernet) -> None:
        super().__init__()
        self.space = supernet.space
        self.net = supernet.extract(supernet.space.largest)
        self.depths: list[int] = []
        scheme = supernet.scheme
        assert isinstance(scheme, KernelTransform)
        for s, stage in enumerate(self.net.blocks[1:], start=1):
            for b, block in enumerate(stage):
                name = f"blocks.{s}.{b}.conv_dw.weight"
                matrices = {
                    step: nn.Parameter(scheme.matrices[f"{name}.{step}"].detach().clone())
                    for step in ("7to5", "5to3")
                }
                stage[b] = StatefulBlock(block, matrices)

    def activate(self, arch: Arch) -> None:
        """Makes `arch` what the next passes compute."""
        # The widths of the arch's own network, so that rounding is the same.
        plain = self.space.skeleton(arch)
        self.depths = [len(stage) for stage in plain.blocks]
        for stage, mine in zip(plain.blocks[1:], self.net.blocks[1:], strict=True):
            for block, elastic in zip(stage, mine, strict=False):
                elastic.kernel = block.conv_dw.kernel_size[0]
                elastic.width = block.conv_dw.out_channels
                elastic.squeezed = getattr(block.se, "conv_reduce", block.conv_pw).out_channels

    def forward(self, x: Tensor) -> Tensor:
        net = self.net
        x = net.bn1(net.conv_stem(x))
        for depth, stage in zip(self.depths, net.blocks, strict=True):
            for block in stage[:depth]:
                x = block(x)
        x = net.bn2(net.conv_last(x)).mean((2, 3), keepdim=True)
        x = net.act2(net.conv_head(x)).flatten(1)
        return net.classifier(net.dropout(x))
