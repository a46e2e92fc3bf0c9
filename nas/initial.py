"""`--init`: a supernet begins with the weights of a trained network.

    RUN                a run of 'nas train': its weights, or its largest network's
    FILE.safetensors   a file of 'nas export --format safetensors', or a plain state of tensors
    timm:NAME[@FILE]   a network of timm, fetched by name or from a file

Layers of a run that stores them for any depth (`nas expand`) are made for the deepest network of the space.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nas.data import Data
from nas.run_record import read_record
from nas.spaces import saved_space
from nas.subnet_file import KEY, read_subnet
from nas.timm_models import PREFIX, labels_of, parse_timm, timm_state
from nas.train_settings import TrainSettings
from nas.trained import load_weights, make_supernet, settings_of
from search_spaces import InputError
from supernets import Supernet
from supernets.pretrained import Initialised, initialise, same_network, take_over
from supernets.resume import WEIGHTS
from supernets.schemes.layered import LayeredScheme

DEPTHS = "depths"  # the keyword of a space that lists how many layers its networks have


@dataclass(frozen=True)
class Trained:
    """The supernet of a finished training, with what its record says."""

    supernet: Supernet
    classes: tuple[str, ...]
    settings: TrainSettings
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of its sharing scheme."""
        return str(self.settings.scheme)


def begin_with(supernet: Supernet, reference: str, data: Data) -> dict[str, Any]:
    """Gives a fresh supernet for `data` the weights that the reference names; returns a record of it.

    Raises:
        InputError: weights that do not fit, or that cannot be read.
        FileNotFoundError: there is no such run or file.
        ConnectionError: timm could not fetch its weights.
    """
    try:
        taken = _begin(supernet, reference, labels(data))
    except InputError as error:
        raise InputError(f"--init {reference}: {error}") from None
    words = [f"{taken.tensors} tensors of {reference}", *taken.changes]
    if taken.fresh:
        words.append(f"other classes, so {', '.join(taken.fresh)} are fresh")
    return {"from": reference, **asdict(taken), "summary": "; ".join(words)}


def labels(data: Data) -> tuple[str, ...]:
    """What the outputs of a network for this data mean; nothing for text, whose bytes are always the same."""
    return tuple(data.describe().get("classes", ()))


def _begin(supernet: Supernet, reference: str, classes: tuple[str, ...]) -> Initialised:
    if reference.startswith(PREFIX):
        model = parse_timm(reference)
        state = timm_state(model)
        return initialise(supernet, state, same_classes=labels_of(model, state) == classes)
    if reference.endswith(".safetensors"):
        state, theirs = _read_file(Path(reference))
        return initialise(supernet, state, same_classes=theirs == classes)
    trained = open_trained(Path(reference))
    same = trained.classes == classes
    stored = {name: tensor.detach() for name, tensor in trained.supernet.shared_state().items()}
    if type(trained.supernet.scheme) is type(supernet.scheme) and same_network(supernet, stored):
        return take_over(supernet, stored, same_classes=same)
    return initialise(supernet, plain_state(trained, supernet), same_classes=same)


def plain_state(trained: Trained, wanted: Supernet) -> dict[str, Tensor]:
    """The weights of the trained supernet's largest network, as deep as that of `wanted` where it can be."""
    supernet = trained.supernet
    theirs, mine = supernet.scheme, wanted.scheme
    if isinstance(theirs, LayeredScheme) and not isinstance(mine, LayeredScheme):
        supernet = at_depth(trained, theirs.depth_of(wanted.space.largest))
    return supernet.extract(supernet.space.largest).state_dict()


def at_depth(trained: Trained, depth: int) -> Supernet:
    """The trained supernet with one depth, whichever those were that it was trained for.

    Raises:
        InputError: its scheme stores the layers of certain depths, or its space has no keyword for depths.
    """
    if not isinstance(trained.supernet.scheme, LayeredScheme):
        raise InputError(
            f"it shares by {trained.name!r}, which has the layers that were trained and no others; "
            "networks of any depth come from a training by --recipe sws or --recipe tleg"
        )
    name, given = str(trained.record["space"]["name"]), dict(trained.record["space"]["settings"])
    if DEPTHS not in given:
        raise InputError(f"space {name!r} has no setting {DEPTHS!r}, so its depth cannot be chosen")
    space = saved_space({"name": name, "settings": {**given, DEPTHS: [depth]}})
    made = make_supernet(space, trained.settings)
    made.load_shared_state(trained.supernet.shared_state())
    return made.eval()


def open_trained(folder: Path) -> Trained:
    """The supernet of a run of 'nas train', in eval mode. Its data is not needed.

    Raises:
        InputError: a run of another command, one that is not finished, or damaged weights.
        FileNotFoundError: there is no such run.
    """
    record = read_record(folder)
    if record.get("what") != "train":
        raise InputError(f"{folder} is a run of 'nas {record.get('what')}'; give one of 'nas train'")
    if not (folder / WEIGHTS).exists():
        raise InputError(f"the training {folder} is not finished; first: nas train --resume {folder}")
    settings = settings_of(folder)
    supernet = load_weights(folder, settings, saved_space(record["space"]))
    return Trained(supernet, tuple(record["data"].get("classes", ())), settings, record)


def _read_file(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...] | None]:
    """The tensors of a file, and its classes where it says them."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = path.read_bytes()
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        if KEY in header.get("__metadata__", {}):
            file = read_subnet(path)
            classes = file.extra.get("classes")
            return dict(file.tensors), tuple(classes) if classes else None
        return load(content), None
    except (SafetensorError, ValueError, AttributeError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"no whole safetensors file ({str(error)[:80]})") from None
