"""Teachers from outside a training: the largest subnet of another run, or a network of timm.

    RUN             a run folder of `nas train`: its largest subnet
    timm:NAME       timm's network with the weights that timm fetches
    timm:NAME@FILE  timm's network with the weights in FILE, .safetensors or a checkpoint of torch

A teacher is frozen, in eval mode, and sees images at its own size and as they were normalised when it was
trained. Of a file nothing says how that was: its images are taken to have been those of the data given here,
at `--teacher-size` if that is given, at the network's size where that is fixed, else at the data's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.data import Data, ImageData, TextData
from nas.run_record import read_record
from nas.timm_models import PREFIX, fetched, parse_timm, weights_in_file
from nas.trained import calibration, load_supernet, open_data, settings_of, weights_digest
from search_spaces.errors import InputError
from supernets.evaluate import channels_last, recalibrate, resize_to
from supernets.files import sha256_file
from supernets.resume import WEIGHTS


class ExternalTeacher:
    """A frozen network that answers the data's images; `record` names it, and its weights by their digest."""

    def __init__(
        self,
        module: nn.Module,
        size: tuple[int, ...],
        record: Mapping[str, Any],
        renormalise: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        self.size = size  # of one input, (C, H, W)
        self.record = dict(record)
        self.renormalise = renormalise  # factor and summand per channel, [C, 1, 1]

    def __call__(self, x: Tensor) -> Tensor:
        """Inputs as the data gives them -> logits [..., K]."""
        if self.renormalise is not None:
            factor, summand = self.renormalise
            x = x * factor + summand
        return self.module(channels_last(resize_to(x, self.size)))

    def to(self, device: str) -> ExternalTeacher:
        """This teacher, moved to the device."""
        self.module.to(device)
        if self.renormalise is not None:
            factor, summand = self.renormalise
            self.renormalise = factor.to(device), summand.to(device)
        return self


@dataclass(frozen=True)
class _Scale:
    """(value / divisor - mean) / std."""

    divisor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @staticmethod
    def of(record: Mapping[str, Any]) -> _Scale:
        return _Scale(float(record["divisor"]), tuple(record["mean"]), tuple(record["std"]))


def open_teacher(name: str, data: Data, size: int | None = None) -> ExternalTeacher:
    """The teacher that `name` means, for the classes and channels of `data`.

    size: height and width of the images that it sees; None as the file's docstring says.

    Raises:
        InputError: a name that is none, weights that do not fit or cannot be read, other classes.
        FileNotFoundError: no such file of weights.
        ConnectionError: timm could not fetch its weights.
    """
    if name.startswith(PREFIX):
        return _of_timm(name, data, size)
    if not (Path(name) / "run.json").exists() and not Path(name).is_dir():
        raise InputError(
            f"teacher {name!r} is no run folder; give a run of nas train, timm:NAME or timm:NAME@FILE"
        )
    if size is not None:
        raise InputError(f"teacher {name!r} is a run, which knows its image size; leave --teacher-size out")
    return _of_run(Path(name), data)


def _of_run(folder: Path, data: Data) -> ExternalTeacher:
    settings = settings_of(folder)
    record = read_record(folder)
    its = record["data"]
    mine = data.describe()
    for what in ("kind", "classes", "channels"):
        if its.get(what) != mine.get(what):
            raise InputError(
                f"teacher {folder} was trained on {its['name']!r}: other {what} than {data.name!r}"
            )
    if isinstance(data, TextData) and its["context"] < data.context:
        raise InputError(
            f"teacher {folder} reads {its['context']} tokens at once, not {data.context}; "
            f"use --context {its['context']} or less"
        )
    if not (folder / WEIGHTS).exists():
        raise InputError(f"teacher {folder} is not trained to its end; nas train --resume {folder}")
    same = all(its.get(size) == mine.get(size) for size in ("image_size", "context"))
    supernet = load_supernet(folder, settings, data if same else open_data(settings))
    largest, space = supernet.space.largest, supernet.space
    renormalise = None
    if isinstance(data, ImageData):
        renormalise = _between(_scale_of(data), _Scale.of(its["normalisation"]), data.channels)
    factor, summand = renormalise or (1, 0)
    inputs = [x if renormalise is None else x * factor + summand for x in calibration(data)]
    shape = space.input_shape(largest)
    module = recalibrate(supernet.extract(largest), (resize_to(x, shape) for x in inputs))
    made = {"name": str(folder), "sha256": weights_digest(folder), "arch": largest.to_json()}
    return ExternalTeacher(module, shape, made, renormalise)


def _of_timm(name: str, data: Data, size: int | None) -> ExternalTeacher:
    import timm

    if not isinstance(data, ImageData):
        raise InputError(f"teacher {name!r} is a network for images; {data.name!r} holds {data.inputs}")
    model = parse_timm(name)
    config = timm.get_pretrained_cfg(model.name)
    fixed = bool(config and config.fixed_input_size)
    if model.file is None and config is not None and config.num_classes != len(data.classes):
        raise InputError(
            f"teacher {name!r} gives {config.num_classes} classes, {data.name!r} has {len(data.classes)}; "
            f"fine-tune it and give the file: {PREFIX}{model.name}@FILE"
        )
    keywords: dict[str, Any] = {"in_chans": data.channels}
    if size is not None and fixed:
        keywords["img_size"] = size
    if model.file is not None:
        keywords["num_classes"] = len(data.classes)
    try:
        module: nn.Module = timm.create_model(model.name, **keywords)
    except (RuntimeError, ValueError, TypeError) as error:  # a size that the network cannot have
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise InputError(f"teacher {name!r} cannot be made: {reason}") from None
    made: dict[str, Any] = {"name": name, "timm": timm.__version__}
    renormalise = None
    if model.file is not None:
        _load(module, model.name, model.file)
        made["sha256"] = sha256_file(model.file)
        side = size or (_native(module) if fixed else data.image_size)
    else:
        module = fetched(model, **keywords)
        made["sha256"] = _digest(module)
        side = size or _native(module)
        mine, its = _scale_of(data), _config(module)
        renormalise = _between(mine, _Scale(mine.divisor, its["mean"], its["std"]), data.channels)
    return ExternalTeacher(module, (data.channels, side, side), {**made, "image_size": side}, renormalise)


def _native(module: nn.Module) -> int:
    """Height of the images that timm says the network takes."""
    return int(_config(module)["input_size"][-1])


def _config(module: Any) -> Mapping[str, Any]:
    """What timm says of the images that the network was trained on."""
    return module.pretrained_cfg


def _load(module: nn.Module, name: str, file: Path) -> None:
    """Puts the weights of a file into timm's network `name`."""
    mine = module.state_dict()
    state = weights_in_file(name, file, mine.keys())
    for key in {**mine, **state}:
        wanted, found = (list(s[key].shape) if key in s else "absent" for s in (mine, state))
        if found != wanted:
            raise InputError(f"{file}: {key} is {found}, not {wanted} as for these classes and channels")
    module.load_state_dict(state)


def _scale_of(data: ImageData) -> _Scale:
    return _Scale(float(data.normalisation.divisor), data.mean, data.std)


def _between(given: _Scale, wanted: _Scale, channels: int) -> tuple[Tensor, Tensor] | None:
    """What turns values on one scale into the other's: a factor and a summand; None where they are equal."""
    if given == wanted:
        return None

    def spread(values: tuple[float, ...]) -> Tensor:
        tensor = torch.tensor(values, dtype=torch.float64)
        return (tensor if len(values) == channels else tensor.mean().expand(channels)).view(-1, 1, 1)

    ratio = given.divisor / wanted.divisor
    factor = ratio * spread(given.std) / spread(wanted.std)
    summand = (ratio * spread(given.mean) - spread(wanted.mean)) / spread(wanted.std)
    return factor.float(), summand.float()


def _digest(module: nn.Module) -> str:
    """Of the weights that timm fetched, which a later version may replace."""
    total = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
