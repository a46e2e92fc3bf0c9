"""`nas generate`: text from a language model of a run, alone or with a smaller one that drafts for it."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.console import Console, printable
from nas.data.text import VOCABULARY
from nas.deliver import find_arch
from nas.run_record import read_record, supernet_of
from nas.run_settings import GenerateSettings
from nas.spaces import saved_space
from nas.threads import suitable_threads
from nas.trained import load_weights, settings_of
from search_spaces import InputError
from search_spaces.gpt import GPT
from supernets import Supernet
from supernets.generate import check_length, greedy, sample
from supernets.speculative import Speculation, shares_attention, speculative, speculative_shared_cache

TOKENS = 200  # where nothing else is asked for and the context has room
EXIT = "exit:"  # a draft that is the network itself, cut after so many blocks


def run(settings: GenerateSettings, console: Console) -> Mapping[str, Any]:
    """The command. Returns what `--json` prints."""
    folder = Path(settings.run)
    record = read_record(folder)
    supernet = _supernet(folder, record)
    arch, _ = find_arch(settings.arch, folder, record, supernet)
    network = _network(supernet.extract(arch), folder)
    draft = None if settings.draft is None else _draft(settings.draft, folder, record, supernet, network)
    begin = "\n" if settings.prompt is None else settings.prompt
    prompt = torch.tensor([list(begin.encode(errors="surrogateescape"))], dtype=torch.int64)
    room = network.context - prompt.shape[1]
    count = max(1, min(TOKENS, room)) if settings.tokens is None else settings.tokens
    check_length(network, prompt, count)
    with suitable_threads(supernet.space, 1):
        start = time.perf_counter()
        said = _say(network, prompt, count, settings)
        seconds = time.perf_counter() - start
        drafted = None if draft is None else _speculate(network, draft, prompt, count, settings.ahead)
    text = bytes(said[0].tolist()).decode(errors="replace")
    console.result("\n".join(map(printable, text.split("\n"))))  # it may write what a terminal obeys
    result = {
        "arch": dict(arch),
        "digest": arch.digest,
        "prompt": begin,
        "text": text,
        "tokens": count,
        "tokens_per_s": count / seconds,
    }
    console.say(f"[bold]generate[/bold]  {count} tokens by {settings.arch}, {count / seconds:,.0f} tokens/s")
    if drafted is None:
        return result
    found, facts = drafted
    if not torch.equal(found.tokens, said):
        console.warn("two tokens tied to rounding: the text with drafts is another of equal likelihood")
    console.say(
        f"[bold]draft[/bold]     {settings.draft}: {found.acceptance:.1%} of {found.drafted} drafted tokens "
        f"accepted, {found.calls} passes of the verifier, {facts['tokens_per_s']:,.0f} tokens/s"
        + (", one attention cache for both" if facts["shared_cache"] else "")
    )
    return {**result, "draft": {"draft": settings.draft, **facts}}


def _supernet(folder: Path, record: Mapping[str, Any]) -> Supernet:
    """The trained supernet of a run of either kind. The text that it was trained on need not be there."""
    home = folder if record["what"] == "train" else supernet_of(folder, record)
    if not home.exists():
        raise FileNotFoundError(errno.ENOENT, f"the supernet of {folder} is not there any more", str(home))
    return load_weights(home, settings_of(home), saved_space(read_record(home)["space"]))


def _network(module: torch.nn.Module, folder: Path) -> GPT:
    if not isinstance(module, GPT) or module.embed.num_embeddings != VOCABULARY:
        raise InputError(
            f"{folder} holds no language model of bytes; train one: nas train --space gpt --data text:PATH"
        )
    return module


def _draft(wanted: str, folder: Path, record: Mapping[str, Any], supernet: Supernet, network: GPT) -> GPT:
    """The network that `--draft` means."""
    if not wanted.startswith(EXIT):
        arch, _ = find_arch(wanted, folder, record, supernet)
        return _network(supernet.extract(arch), folder)
    depth = wanted.removeprefix(EXIT)
    if not depth.isdecimal():
        raise InputError(f"--draft {wanted!r}: expected {EXIT} and a number of blocks, such as {EXIT}2")
    return network.first(int(depth))


def _say(network: GPT, prompt: Tensor, count: int, settings: GenerateSettings) -> Tensor:
    if settings.temperature is None:
        return greedy(network, prompt, count)
    generator = torch.Generator().manual_seed(settings.seed)
    return sample(network, prompt, count, generator, temperature=settings.temperature, top_k=settings.top_k)


def _speculate(
    verifier: GPT, draft: GPT, prompt: Tensor, count: int, ahead: int
) -> tuple[Speculation, dict[str, Any]]:
    """The text with drafts, and what `--json` says of it."""
    shared = shares_attention(draft, verifier)
    decode = speculative_shared_cache if shared else speculative
    start = time.perf_counter()
    found = decode(verifier, draft, prompt, count, ahead=ahead)
    seconds = time.perf_counter() - start
    return found, {
        "ahead": ahead,
        "shared_cache": shared,
        "drafted": found.drafted,
        "accepted": found.accepted,
        "acceptance": found.acceptance,
        "verifier_calls": found.calls,
        "tokens_per_s": count / seconds,
    }
