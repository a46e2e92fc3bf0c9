"""One subnet's forward pass, compiled once; its weights stay the supernet's and may change between calls.

Only a fixed subnet is worth it: every arch is a graph of its own in any design, so the stream of random ones
is never compiled. The largest is most of a sandwich's arithmetic.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.func import functional_call

from search_spaces.arch import Arch
from search_spaces.errors import InputError
from search_spaces.space import SearchSpace

_CURE = "leave compile out, or mend that"


def check_compiler(device: torch.device) -> None:
    """Nothing, where torch can compile for the device.

    Raises:
        InputError: there is no C++ compiler, or no Triton for a GPU.
    """
    named = os.environ.get("CXX")
    if not any(map(shutil.which, [named] if named else ["g++", "clang++", "c++"])):
        where = f"CXX = {named!r} is not found" if named else "no g++, clang++ or c++ on the PATH"
        raise InputError(f"compile needs a C++ compiler: {where}; install one or leave compile out")
    if device.type == "cuda" and find_spec("triton") is None:
        raise InputError("compile needs the package triton on a GPU; install it or leave compile out")


class CompiledSubnet:
    """The forward pass of one arch as a compiled function of its tensors.

    The tensors are inputs of the graph and not baked into it, so a module drawn after an optimizer step runs
    by the same code, gradients reach what its tensors are views of, and batch-norm statistics are written
    where they lie. Equal to the plain pass up to rounding; where there is dropout its draws are the same.
    """

    def __init__(self, space: SearchSpace, arch: Arch) -> None:
        self.arch = arch
        self._space = space
        self._passes: dict[tuple[bool, ...], Callable[[dict[str, Tensor], Tensor], Tensor]] = {}

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        """What `module(x)` gives, where `module` is a subnet of this arch.

        Raises:
            InputError: the compiler fails.
        """
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        modes = tuple(part.training for part in module.modules())
        try:
            return self._pass(modes)(tensors, x)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"the largest subnet does not compile ({reason}); {_CURE}") from error

    def _pass(self, modes: tuple[bool, ...]) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
        if modes not in self._passes:
            skeleton = self._space.skeleton(self.arch)
            for part, mode in zip(skeleton.modules(), modes, strict=True):
                part.training = mode

            def run(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
                return functional_call(skeleton, tensors, (x,))

            self._passes[modes] = torch.compile(run, dynamic=False, options={"fallback_random": True})
        return self._passes[modes]
