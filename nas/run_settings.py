"""The settings of the commands that read a run: export, audit, generate, show and dashboard."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from typing import Any

from nas.config import Settings, setting
from nas.option import one_of
from nas.setting_groups import DATA, RESULT, RUN, SEARCH, SERVER, TEXT, TRAINING
from search_spaces.errors import InputError


def _batch(value: Any) -> str:
    text = str(value)
    if text not in ("dynamic", "1"):
        raise InputError("expected 'dynamic' or 1; the runtime fixes other sizes of a dynamic file")
    return text


@dataclass(frozen=True)
class ExportSettings(Settings):
    """`nas export`: one network out of a run, as a file."""

    run: str = setting(MISSING, "run folder of a search or a training", metavar="RUN", argument=True)
    arch: str = setting(
        "best",
        "which network: best, an ID of 'nas show', largest, smallest, or a JSON file",
        group=RESULT,
        metavar="ID",
    )
    format: str = setting(
        "onnx", "file format", group=RESULT, metavar="NAME", names=one_of("onnx", "safetensors")
    )
    output: str | None = setting(
        None, "file to write; in the run folder if left out", group=RESULT, metavar="FILE", short="-o"
    )
    opset: int | None = setting(
        None, "ONNX opset; what the target's runtime reads if left out", group=RESULT, metavar="N", least=17
    )
    batch: str = setting(
        "dynamic", "inputs per call: dynamic, or 1 and no other", group=RESULT, metavar="N", read=_batch
    )


@dataclass(frozen=True)
class AuditSettings(Settings):
    """`nas audit`: whether a supernet's ranking can be trusted."""

    run: str = setting(MISSING, "run folder of a training", metavar="RUN", argument=True)
    networks: int = setting(
        12, "networks to train alone, spread over the cost", group=SEARCH, metavar="N", least=3, most=10_000
    )
    only_trained: bool = setting(
        False,
        "only networks that the training itself drew, where those are a list (matformer, sortednet)",
        group=SEARCH,
    )
    epochs: int | None = setting(
        None, "epochs of each alone; those of the supernet if left out", group=TRAINING, metavar="N", least=1
    )
    seed: int = setting(
        0,
        "of the networks drawn and of their trainings",
        group=TRAINING,
        metavar="N",
        least=0,
        most=2**32 - 1,
    )
    data_dir: str | None = setting(
        None, "where the files of named data sets lie, if not where they were", group=DATA, metavar="DIR"
    )
    device: str = setting("auto", "auto, cpu, cuda or cuda:N", group=TRAINING, metavar="DEVICE")
    dry_run: bool = setting(False, "show the plan and its cost, and do nothing", group=RUN, short="-n")


@dataclass(frozen=True)
class GenerateSettings(Settings):
    """`nas generate`: text from a language model of a run."""

    run: str = setting(MISSING, "run folder of a search or a training", metavar="RUN", argument=True)
    arch: str = setting(
        "largest",
        "which network: largest, smallest, best, an ID of 'nas show', or a JSON file",
        group=TEXT,
        metavar="ID",
    )
    prompt: str | None = setting(
        None, "what the text begins with; a line end if left out", group=TEXT, metavar="TEXT"
    )
    tokens: int | None = setting(
        None, "how many bytes to add; 200, or what the context holds", group=TEXT, metavar="N", least=1
    )
    temperature: float | None = setting(
        None, "draw bytes by chance; below 1 likelier ones more often", group=TEXT, metavar="T", least=1e-3
    )
    top_k: int | None = setting(
        None, "with --temperature, draw of so many likeliest only", group=TEXT, metavar="N", least=1
    )
    seed: int = setting(0, "seed of the draws", group=TEXT, metavar="N", least=0)
    draft: str | None = setting(
        None,
        "a network that proposes bytes for the other to check: as --arch, or exit:N after N blocks",
        group=TEXT,
        metavar="ID",
    )
    ahead: int = setting(4, "bytes that the draft proposes at a time", group=TEXT, metavar="N", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt == "":
            raise InputError("--prompt is empty; give at least one letter, or leave it out")
        if self.draft is not None and self.temperature is not None:
            raise InputError("--draft gives the likeliest text; leave --temperature out")
        if self.top_k is not None and self.temperature is None:
            raise InputError("--top-k needs --temperature: without it the likeliest byte is taken")


@dataclass(frozen=True)
class ShowSettings(Settings):
    """`nas show`: what a run found."""

    run: str = setting(MISSING, "run folder", metavar="RUN", argument=True)
    top: int = setting(20, "rows of the table", group=RESULT, metavar="N", least=1)
    plot: str | None = setting(
        None, "also write the plot to this file: .html, .png or .svg", group=RESULT, metavar="FILE"
    )
    csv: bool = setting(False, "print the whole table as CSV", group=RESULT)


@dataclass(frozen=True)
class DashboardSettings(Settings):
    """`nas dashboard`: the study in the browser."""

    run: str | None = setting(None, "run folder of a search", metavar="RUN", argument=True)
    storage: str | None = setting(
        None, "database URL of the studies, instead of a run folder", group=DATA, metavar="URL"
    )
    port: int = setting(8080, "port; 0 takes a free one", group=SERVER, metavar="N", least=0, most=65535)
    host: str = setting(
        "127.0.0.1",
        "address to listen on; others than this one need --allow-hosts",
        group=SERVER,
        metavar="HOST",
    )
    allow_hosts: tuple[str, ...] = setting(
        (), "names under which other machines may reach it", group=SERVER, metavar="NAME,NAME"
    )
    allow_writes: bool = setting(False, "let the page change the study", group=SERVER)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.run is None) == (self.storage is None):
            raise InputError("give either the run folder of a search or --storage URL")
