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
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.data import Data, ImageData
from nas.run_record import read_record
from nas.trained import calibration, load_supernet, open_data, settings_of, weights_digest
from search_spaces.errors import InputError, did_you_mean
from supernets.evaluate import channels_last, recalibrate, resize_to
from supernets.files import sha256_file
from supernets.resume import WEIGHTS

_TIMM = "timm:"
_WRAPPERS = ("state_dict", "model", "state_dict_ema", "model_ema")  # where training scripts keep the weights


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
        InputError: a name that is none, weights that do not fit or cannot be read or fetched, other classes.
        FileNotFoundError: no such run.
    """
    if name.startswith(_TIMM):
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
    model, _, file = name.removeprefix(_TIMM).partition("@")
    known = timm.list_models()
    if model.partition(".")[0] not in known:
        raise InputError(f"timm has no network {model!r}{_near(model, known)}")
    config = timm.get_pretrained_cfg(model)
    fixed = bool(config and config.fixed_input_size)
    if not file and config is not None and config.num_classes != len(data.classes):
        raise InputError(
            f"teacher {name!r} gives {config.num_classes} classes, {data.name!r} has {len(data.classes)}; "
            f"fine-tune it and give the file: {_TIMM}{model}@FILE"
        )
    keywords: dict[str, Any] = {"in_chans": data.channels}
    if size is not None and fixed:
        keywords["img_size"] = size
    if file:
        keywords["num_classes"] = len(data.classes)
    try:
        module = timm.create_model(model, pretrained=not file, **keywords)
    except (OSError, RuntimeError, ValueError, TypeError) as error:  # no network, no such weights, a bad size
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        cure = "" if file else f"; give a file with its weights: {_TIMM}{model}@FILE"
        raise InputError(f"teacher {name!r} cannot be made: {reason}{cure}") from None
    made: dict[str, Any] = {"name": name, "timm": timm.__version__}
    renormalise = None
    if file:
        _load(module, Path(file), name)
        made["sha256"] = sha256_file(Path(file))
        side = size or (_native(module) if fixed else data.image_size)
    else:
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


def _near(model: str, known: list[str]) -> str:
    """timm has a thousand names: the nearest one, without the list."""
    return did_you_mean(model, known).partition(" (known")[0].partition("; known")[0]


def _load(module: nn.Module, path: Path, name: str) -> None:
    """Puts the weights of a file into the network. Nothing but tensors is ever unpickled."""
    state = _read(path)
    for key in _WRAPPERS:
        if isinstance(state.get(key), Mapping):
            state = state[key]
            break
    state = {str(key).removeprefix("module."): value for key, value in state.items()}
    mine = module.state_dict()
    missing, unknown = [n for n in mine if n not in state], [n for n in state if n not in mine]
    if missing or unknown:
        raise InputError(
            f"{path} does not hold the weights of {name.partition('@')[0]!r}: {len(missing)} missing "
            f"({', '.join(missing[:3])}), {len(unknown)} unknown ({', '.join(unknown[:3])})"
        )
    for key, value in mine.items():
        if not isinstance(state[key], Tensor) or state[key].shape != value.shape:
            found = list(getattr(state[key], "shape", ()))
            raise InputError(
                f"{path}: {key} is {found}, not {list(value.shape)} as for these classes and channels"
            )
    module.load_state_dict(state)


def _read(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"there is no file {path} with a teacher's weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{path} holds no weights that can be loaded safely ({reason[0][:120]}); save a state_dict"
        ) from None
    if not isinstance(state, Mapping):
        raise InputError(f"{path} holds a {type(state).__name__}, not a state_dict")
    return state


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
