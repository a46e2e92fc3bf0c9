"""timm's trained networks, by name or from a file: `timm:NAME`, `timm:NAME@FILE`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.errors import InputError

PREFIX = "timm:"


@dataclass(frozen=True)
class TimmModel:
    """`timm:NAME` or `timm:NAME@FILE`, taken apart."""

    name: str
    file: Path | None

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}" + (f"@{self.file}" if self.file else "")


def parse_timm(reference: str) -> TimmModel:
    """What the reference names, checked as far as this is possible without reading or loading anything.

    Raises:
        InputError: a name that timm does not know.
        FileNotFoundError: the file is not there.
    """
    import timm

    name, at, file = reference.removeprefix(PREFIX).partition("@")
    if not timm.is_model(name.partition(".")[0]):
        near = get_close_matches(name, timm.list_models(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"timm has no network {name!r}{hint}")
    path = Path(file).expanduser() if at else None
    if path is not None and not path.is_file():
        raise FileNotFoundError(2, f"no such file of weights for timm:{name}", str(path))
    return TimmModel(name, path)


def timm_state(model: TimmModel) -> dict[str, Tensor]:
    """The trained weights of the network, on the CPU: from its file, or as timm downloads and keeps them.

    Raises:
        InputError, ConnectionError: as `weights_in_file` and `fetched` do.
    """
    import timm

    if model.file is None:
        return {name: tensor.detach() for name, tensor in fetched(model).state_dict().items()}
    with torch.device("meta"):
        names = timm.create_model(model.name).state_dict().keys()
    return weights_in_file(model.name, model.file, names)


def fetched(model: TimmModel, **keywords: Any) -> nn.Module:
    """The network with the weights that timm downloads and keeps.

    keywords: of timm.create_model.

    Raises:
        InputError: timm has no weights for it.
        ConnectionError: they could not be fetched.
    """
    import timm

    hint = f"with the file at hand: {PREFIX}{model.name}@FILE"
    try:
        with torch.random.fork_rng(devices=[]):
            made: nn.Module = timm.create_model(model.name, pretrained=True, **keywords)
            return made
    except (OSError, ValueError) as error:  # what urllib, requests, httpx and the hub raise derive from these
        reason = str(error).strip().partition("\n")[0][:120] or type(error).__name__
        raise ConnectionError(f"timm:{model.name} could not be fetched ({reason}); {hint}") from error
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0][:160]
        raise InputError(f"timm:{model.name} cannot be had ({reason}); {hint}") from error


def weights_in_file(name: str, file: Path, names: Collection[str]) -> dict[str, Tensor]:
    """The weights of timm's network `name` in a file, .safetensors or a checkpoint of torch, on the CPU.

    A checkpoint's averaged weights are preferred. Nothing but tensors is ever unpickled.

    names: of the network's weights; only its classifier may have others.

    Raises:
        InputError: a file that is damaged, holds more than tensors, or is of another network.
    """
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from timm.models import load_state_dict

    try:
        state = load_state_dict(str(file), device="cpu", weights_only=True)
        found = {n for n, tensor in state.items() if isinstance(tensor, Tensor)}
    except (
        UnpicklingError,
        SafetensorError,
        RuntimeError,
        ValueError,
        EOFError,
        KeyError,
        AttributeError,
    ) as error:
        reason = str(error).strip().partition("\n")[0][:100] or type(error).__name__
        raise InputError(f"{file} holds no weights that can be read safely ({reason})") from None
    classifier = _classifier(name)
    wrong = sorted(n for n in found ^ set(names) if not n.startswith(classifier))
    if wrong or found != set(state):
        where = "the file" if wrong and wrong[0] in found else "the network"
        shown = f"{wrong[0]} is only in {where}" if wrong else "it holds other things than tensors"
        raise InputError(f"{file} is not a {name} of timm: {shown}")
    return dict(state)


def labels_of(model: TimmModel, state: Mapping[str, Tensor]) -> tuple[str, ...] | None:
    """The classes of the head where they are known: those of ImageNet, of timm's own weights; else None."""
    from timm.data import ImageNetInfo

    heads = [t for name, t in state.items() if name.endswith(".bias") and len(t) == 1000]
    return tuple(ImageNetInfo("imagenet-1k").label_names()) if model.file is None and heads else None


def _classifier(name: str) -> tuple[str, ...]:
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(name)
    names = (cfg.classifier if cfg is not None else None) or "head"
    return tuple(f"{n}." for n in ([names] if isinstance(names, str) else names))
