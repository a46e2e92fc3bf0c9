"""Which layers run as one kernel.

An inference runtime folds a batch norm into the convolution before it and runs the activation and the
residual addition in the convolution's epilogue, so that the tensors between them never reach memory. The rule
here follows the data: a layer joins the kernel of the layer just before it when it works element by element,
keeps the shape, and is the only reader of that layer's result.

Simplification: runtimes also fuse across layers that are not neighbours, and refuse some activations; neither
is modelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search_spaces.trace import Layer

# A layer norm needs a whole row before it can give the first element, so it neither joins nor leads.
LEADS = frozenset({"conv2d", "linear", "matmul", "batch_norm", "activation", "elementwise"})
JOINS = frozenset({"batch_norm", "activation", "elementwise"})
FREE = frozenset({"parameters"})  # weights that another layer reads: bytes, but no kernel of their own


@dataclass(frozen=True, slots=True)
class Kernel:
    """Layers that run as one, in order. Bytes are for float32 and batch 1, as in `Layer`."""

    layers: tuple[Layer, ...]

    @property
    def lead(self) -> Layer:
        """The layer that does the arithmetic and gives the kernel its place in the network."""
        return self.layers[0]

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return sum(layer.macs for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Read from and written to memory: all inputs and the last output, less what stays inside."""
        inside = sum(layer.output_bytes for layer in self.layers[:-1])
        return sum(layer.input_bytes for layer in self.layers) - inside + self.layers[-1].output_bytes

    @property
    def weight_bytes(self) -> int:
        """Of parameters and buffers."""
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def launches(self) -> int:
        """1, or 0 for weights that belong to no kernel."""
        return 0 if self.lead.kind in FREE else 1


def kernels(layers: Sequence[Layer]) -> tuple[Kernel, ...]:
    """The kernels that run `layers`: every layer in exactly one, in order."""
    readers = [0] * len(layers)
    for at, layer in enumerate(layers):
        for offset in layer.sources:
            if offset:
                readers[at - offset] += 1
    groups: list[list[Layer]] = []
    for at, layer in enumerate(layers):
        if at and readers[at - 1] == 1 and _joins(groups[-1], layer):
            groups[-1].append(layer)
        else:
            groups.append([layer])
    return tuple(Kernel(tuple(group)) for group in groups)


def _joins(group: Sequence[Layer], layer: Layer) -> bool:
    return (
        layer.kind in JOINS
        and group[0].kind in LEADS
        and 1 in layer.sources
        and layer.output == group[-1].output
    )
