"""Tensors under dotted names, as a module tree."""

from __future__ import annotations

from collections.abc import Iterator, KeysView

from torch import Tensor, nn


class TensorTree(nn.Module):
    """Parameters and buffers under the dotted names of a plain network: `tree["blocks.0.weight"]`.

    A module (it moves between devices, and its parameters and state_dict have the same dotted names) that can
    be read like a mapping from names to tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        self._homes: dict[str, tuple[nn.Module, str]] = {}

    def __repr__(self) -> str:
        return f"TensorTree({len(self)} tensors)"

    def put(self, name: str, tensor: Tensor) -> None:
        """Registers a parameter (an `nn.Parameter`) or a buffer (any other tensor)."""
        *path, leaf = name.split(".")
        home: nn.Module = self
        for part in path:
            if part not in home._modules:
                home.add_module(part, nn.Module())
            home = home._modules[part]  # type: ignore[assignment]
        if isinstance(tensor, nn.Parameter):
            home.register_parameter(leaf, tensor)
        else:
            home.register_buffer(leaf, tensor)
        self._homes[name] = (home, leaf)

    def __getitem__(self, name: str) -> Tensor:
        home, leaf = self._homes[name]
        tensor = home._parameters.get(leaf)
        return tensor if tensor is not None else home._buffers[leaf]  # type: ignore[return-value]

    def __contains__(self, name: str) -> bool:
        return name in self._homes

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)

    def keys(self) -> KeysView[str]:
        """The dotted names, in the order in which they were put."""
        return self._homes.keys()
