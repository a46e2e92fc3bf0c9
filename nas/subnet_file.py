"""One subnet as a file: its tensors in safetensors, and in the header everything needed to build it again.

    save_subnet(module, "network.safetensors", arch=arch, space=space, extra={"classes": [...]})
    module = load_subnet("network.safetensors")

The header holds one entry, `nas`, of canonical JSON (safetensors writes several in random order, and the same
subnet shall give the same bytes), with a SHA-256 over it and over every tensor's name, type, shape and bytes.
Reading one never runs code that came with it: nothing is unpickled, and the network is built by a space of
this installation or by one that the caller names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch
from torch import Tensor, nn

from nas.export import library_versions
from nas.resolve import resolve
from search_spaces.arch import Arch
from search_spaces.errors import InputError
from search_spaces.space import SearchSpace
from supernets.files import atomic_write

FORMAT = 1
KEY = "nas"


@dataclass(frozen=True, slots=True)
class SubnetFile:
    """What a subnet file says of its network. Frozen, but its tensors and dicts are not to be changed."""

    arch: Arch
    space: str  # as --space names it: "vit" or "package.module:attribute"
    space_settings: Mapping[str, Any]
    extra: Mapping[str, Any]  # classes, preprocessing, accuracy, ...: what was given to save_subnet
    versions: Mapping[str, str]
    digest: str  # SHA-256 of all this and the tensors
    tensors: Mapping[str, Tensor] = field(repr=False)


def save_subnet(
    module: nn.Module, path: str | Path, *, arch: Arch, space: SearchSpace, extra: Mapping[str, Any]
) -> str:
    """Write `module`, which is `arch` of `space`, to `path`, and return the digest of the file's content.

    Views into shared weights are saved as the values that they have. `extra` is JSON: preprocessing, classes,
    accuracy and whatever else the user of the network needs. The same content gives the same bytes.

    Raises:
        InputError: `extra` is not JSON.
        OSError: the file cannot be written; an earlier file at `path` is then as it was.
    """
    state = module.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    tied = {name: first[id(t)] for name, t in state.items() if first.setdefault(id(t), name) != name}
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in state.items()
        if name not in tied
    }
    record = {
        "format": FORMAT,
        "arch": dict(arch),
        "space": {"name": space.name, "settings": dict(space.settings)},
        "extra": dict(extra),
        "tied": tied,
        "versions": library_versions(),
    }
    try:
        record = json.loads(_canonical(record))  # as it will be read: keys are text, tuples are lists
    except (TypeError, ValueError) as error:
        raise InputError(f"what goes into {Path(path).name} must be JSON: {error}") from None
    digest = _digest(record, tensors)
    header = {KEY: _canonical({**record, "digest": digest})}
    atomic_write(path, safetensors_torch.save(tensors, metadata=header))
    return digest


def read_subnet(path: str | Path) -> SubnetFile:
    """The content of a subnet file, verified against its digest. No network is built.

    Raises:
        InputError: not a subnet file, truncated, or altered by as little as a bit.
        OSError: the file cannot be read.
    """
    content = Path(path).read_bytes()
    record, tensors = _parse(content, str(path))
    claimed = record.pop("digest", None)
    if claimed != _digest(record, tensors):
        raise InputError(f"{path} is damaged: its content does not match its digest; export it again")
    if record.get("format") != FORMAT:
        raise InputError(f"{path} is of format {record.get('format')!r}; this version reads {FORMAT}")
    try:
        tensors.update({alias: tensors[name] for alias, name in record["tied"].items()})
        return SubnetFile(
            arch=Arch(record["arch"]),
            space=str(record["space"]["name"]),
            space_settings=dict(record["space"]["settings"]),
            extra=dict(record["extra"]),
            versions=dict(record["versions"]),
            digest=claimed,
            tensors=tensors,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path} is not a subnet file: its record lacks or misstates {error}") from None


def load_subnet(path: str | Path, *, space: Callable[..., SearchSpace] | str | None = None) -> nn.Module:
    """The network of a subnet file: the plain module that its space builds, in eval mode, on the CPU.

    A space that comes with this installation is found by the name in the file. Anybody's own,
    `package.module:attribute`, is code, and a file must not choose the code that reads it: pass it as
    `space`, by that name or as the factory itself.

    Raises:
        InputError: as `read_subnet`; a space of one's own that was not passed; or a file whose tensors are
            not those of its arch.
        OSError: the file cannot be read.
    """
    file = read_subnet(path)
    if space is None and ":" in file.space:
        raise InputError(
            f"{path} was made with the space {file.space!r}, which is code of its own; "
            f"if you trust it, pass space={file.space!r}"
        )
    factory = space if callable(space) else resolve("space", space or file.space)
    try:
        made = factory(**file.space_settings)
        arch = made.arch(file.arch)
        # Structure first: a file that fits no network is refused before memory is spent on it.
        _check_shapes(made.skeleton(arch), file, path)
        with torch.random.fork_rng(devices=[]):
            module = made.build(arch)
    except TypeError as error:
        raise InputError(f"{path}: space {file.space!r} does not take its settings: {error}") from None
    module.load_state_dict(dict(file.tensors), strict=True)
    return module.eval()


def _check_shapes(skeleton: nn.Module, file: SubnetFile, path: str | Path) -> None:
    wanted = {name: (tuple(t.shape), t.dtype) for name, t in skeleton.state_dict().items()}
    found = {name: (tuple(t.shape), t.dtype) for name, t in file.tensors.items()}
    if wanted == found:
        return
    name = min(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    raise InputError(
        f"{path} does not hold the network it names: {name} is {_shape(found.get(name))} in the file, "
        f"{_shape(wanted.get(name))} in arch {file.arch.digest} of {file.space!r}"
    )


def _shape(entry: tuple[tuple[int, ...], torch.dtype] | None) -> str:
    return "absent" if entry is None else f"{str(entry[1]).removeprefix('torch.')} {list(entry[0])}"


def _parse(content: bytes, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record and the tensors of a file's bytes, not verified yet."""
    try:
        tensors = safetensors_torch.load(content)
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        record = json.loads(header["__metadata__"][KEY])
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, RecursionError) as error:
        # Only now: a safetensors file begins with a number, which may look like the start of a pickle.
        if content[:2] == b"PK" or content[:1] == b"\x80":
            raise InputError(
                f"{name} is a pickle or a zip archive, not a subnet file; pickles are never loaded"
            ) from None
        reason = str(error).partition("\n")[0][:120] or type(error).__name__
        raise InputError(f"{name} is not a whole subnet file ({reason})") from None
    if not isinstance(record, dict):
        raise InputError(f"{name} is not a subnet file (its record is no JSON object)")
    return record, tensors


def _digest(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the record and each tensor's name, type, shape and bytes, in the order of the names."""
    total = hashlib.sha256(_canonical(record).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
