"""The settings of every command, each written once: its flag, its YAML key, its variable and its help."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import partial
from typing import Any

from nas.config import Settings, setting
from nas.resolve import names
from search_spaces.errors import InputError

GOAL, SEARCH, RESULT = "Target and limits", "Search", "Result"
MODEL, DATA, TRAINING, RUN = "Space and recipe", "Data", "Training", "Run"
TEXT, SERVER, OUTPUT = "Text", "Server", "Output"
GROUPS = (GOAL, SEARCH, RESULT, MODEL, DATA, TRAINING, TEXT, SERVER, RUN, OUTPUT)  # as `--help` shows them

OBJECTIVES = ("accuracy", "perplexity", "latency", "params", "macs", "memory")


def _one_of(*allowed: str) -> Callable[[], tuple[str, ...]]:
    return lambda: allowed


def amount(value: Any, unit: str = "") -> float:
    """A number of `unit` from a number, or from text such as 300k, 2M, 1.5G or 8ms.

    Raises:
        InputError: it is neither, not finite, or not above zero.
    """
    from nas.pick import parse_amount  # brings NumPy

    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InputError("expected a number, or text such as 300k, 2M or 1.5G")
    text = str(value).strip()
    if unit and text.lower().endswith(unit.lower()):
        text = text[: -len(unit)]
    number = parse_amount(text)
    if number <= 0:
        raise InputError("must be above 0")
    return number


def count(value: Any, unit: str = "") -> int:
    """`amount`, as a whole number."""
    return round(amount(value, unit))


def _pick(value: Any) -> str:
    from nas.pick import parse_pick  # brings NumPy

    if not isinstance(value, str):
        raise InputError("expected text: knee, or comparisons such as 'latency<2'")
    if value != "knee":
        parse_pick(value)
    return value


def _batch(value: Any) -> str:
    text = str(value)
    if text not in ("dynamic", "1"):
        raise InputError("expected 'dynamic' or 1; the runtime fixes other sizes of a dynamic file")
    return text


@dataclass(frozen=True)
class TrainSettings(Settings):
    """`nas train`: what a supernet is, and how it is trained."""

    space: str = setting(
        "mobilenet_v3",
        "the family of networks",
        group=MODEL,
        metavar="NAME",
        names=partial(names, "space"),
        own=True,
    )
    space_settings: Mapping[str, Any] = setting(
        {},
        "keyword of the space, such as width=1.2; may be repeated",
        group=MODEL,
        metavar="KEY=VALUE",
        flag="--space-set",
    )
    scheme: str | None = setting(
        None,
        "how subnets share the weights; as the recipe needs it if left out",
        group=MODEL,
        metavar="NAME",
        names=partial(names, "scheme"),
        own=True,
    )
    scheme_settings: Mapping[str, Any] = setting(
        {},
        "keyword of the scheme, such as stages=[2,4,2]; may be repeated",
        group=MODEL,
        metavar="KEY=VALUE",
        flag="--scheme-set",
    )
    recipe: str = setting(
        "sandwich",
        "how the supernet is trained",
        group=MODEL,
        metavar="NAME",
        names=partial(names, "recipe"),
        own=True,
    )
    teacher: str | None = setting(
        None,
        "who teaches: a run (its largest subnet), timm:NAME or timm:NAME@FILE",
        group=MODEL,
        metavar="TEACHER",
    )
    teacher_size: int | None = setting(
        None, "height and width of the images that a timm teacher sees", group=MODEL, metavar="N", least=4
    )
    recipe_settings: Mapping[str, Any] = setting(
        {},
        "keyword of the recipe, such as n=4; may be repeated",
        group=MODEL,
        metavar="KEY=VALUE",
        flag="--recipe-set",
    )
    init: str | None = setting(
        None,
        "begin with these weights: RUN, FILE.safetensors, timm:NAME or timm:NAME@FILE",
        group=MODEL,
        metavar="WEIGHTS",
    )
    data: str = setting(
        "digits",
        "digits, imagefolder:DIR, npz:FILE, text:PATH, or a set of torchvision such as cifar10",
        group=DATA,
        metavar="NAME",
    )
    data_dir: str | None = setting(
        None, "where the files of named data sets lie", group=DATA, metavar="DIR", portable=True
    )
    download: bool = setting(False, "fetch missing files of a named data set", group=DATA, portable=True)
    image_size: int | None = setting(
        None, "height and width of the largest input, in pixels", group=DATA, metavar="N", least=4, most=4096
    )
    context: int | None = setting(
        None,
        "bytes of text that a network sees at once; 256 if left out",
        group=DATA,
        metavar="N",
        least=1,
        most=65536,
    )
    epochs: int | None = setting(
        None, "passes over the training data, all phases together", group=TRAINING, metavar="N", least=1
    )
    batch_size: int = setting(
        64, "images, or windows of text, per step", group=TRAINING, metavar="N", least=1
    )
    lr: float | None = setting(
        None, "peak learning rate; the recipe's own if left out", group=TRAINING, metavar="X", least=0
    )
    seed: int = setting(
        0,
        "of weights, data order and all sampling",
        group=TRAINING,
        metavar="N",
        least=0,
        most=2**32 - 1,
    )
    device: str = setting(
        "auto", "auto, cpu, cuda or cuda:N", group=TRAINING, metavar="DEVICE", portable=True
    )
    precision: str = setting(
        "auto",
        "arithmetic of the training",
        group=TRAINING,
        metavar="NAME",
        names=_one_of("auto", "fp32", "bf16", "fp16"),
    )
    compile: str = setting(
        "none",
        "run through torch.compile: none, or the largest network of a step",
        group=TRAINING,
        metavar="NAME",
        names=_one_of("none", "largest"),
    )
    vary_archs: bool = setting(
        False, "with torchrun: other networks on each rank, not the same on all", group=TRAINING
    )
    runs: str = setting("runs", "folder that holds the run folders", group=RUN, metavar="DIR", portable=True)
    name: str | None = setting(None, "name of the run folder", group=RUN, metavar="NAME")
    resume: str | None = setting(
        None,
        "continue this run with its own settings",
        group=RUN,
        metavar="RUN",
        portable=True,
    )
    checkpoint_minutes: float = setting(
        5.0, "minutes between checkpoints", group=RUN, metavar="X", least=0, portable=True
    )
    dry_run: bool = setting(
        False, "show the plan and its cost, and do nothing", group=RUN, short="-n", portable=True
    )


@dataclass(frozen=True)
class SearchSettings(TrainSettings):
    """`nas search`: a supernet, what to search it for, and what to hand over.

    The fields of `TrainSettings` serve the supernet that is trained when `supernet` names none.
    """

    supernet: str | None = setting(
        None, "run of 'nas train' to search; trained first if left out", group=MODEL, metavar="RUN"
    )
    target: str | None = setting(
        None,
        "device: jetson, cpu, or another that 'nas targets' lists; cpu, timed here, if left out",
        group=GOAL,
        metavar="NAME",
    )
    target_precision: str | None = setting(
        None,
        "arithmetic on the target, not its usual one",
        group=GOAL,
        metavar="NAME",
        names=_one_of("fp32", "fp16", "int8"),
    )
    target_batch: int | None = setting(
        None, "inputs per inference on the target; usually 1", group=GOAL, metavar="N", least=1
    )
    objectives: tuple[str, ...] | None = setting(
        None,
        "what to trade against each other; if left out, accuracy (of text: perplexity) and latency",
        group=GOAL,
        metavar="NAME,NAME",
        names=_one_of(*OBJECTIVES),
    )
    max_latency_ms: float | None = setting(
        None, "most latency, in ms", group=GOAL, metavar="X", read=partial(amount, unit="ms")
    )
    max_params: int | None = setting(
        None, "most parameters: 300k, 2M", group=GOAL, metavar="COUNT", read=count
    )
    max_macs: int | None = setting(
        None, "most multiply-adds per input: 50M, 1.5G", group=GOAL, metavar="COUNT", read=count
    )
    max_memory: int | None = setting(
        None,
        "most bytes of weights and activations: 800k, 4M",
        group=GOAL,
        metavar="BYTES",
        read=partial(count, unit="B"),
    )
    searcher: str = setting(
        "nsga2", "how to search", group=SEARCH, metavar="NAME", names=partial(names, "searcher"), own=True
    )
    evaluations: int = setting(
        300, "networks to evaluate", group=SEARCH, metavar="N", least=1, most=1_000_000, portable=True
    )
    population: int = setting(20, "networks per generation", group=SEARCH, metavar="N", least=2)
    storage: str | None = setting(
        None,
        "database of the study, postgresql://...; study.db in the run folder if left out",
        group=SEARCH,
        metavar="URL",
    )
    pick: str = setting(
        "knee",
        "network to hand over: knee, or limits such as 'latency<2' or 'accuracy>0.97, params<2M'",
        group=RESULT,
        metavar="RULE",
        read=_pick,
        portable=True,
    )
    format: str = setting(
        "onnx",
        "file to hand over",
        group=RESULT,
        metavar="NAME",
        names=_one_of("onnx", "safetensors"),
        portable=True,
    )
    export: bool = setting(True, "write the file of the picked network", group=RESULT, portable=True)
    open: bool = setting(
        False, "open the plot in the browser when the search is done", group=RESULT, portable=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        named = self.objectives or ()
        if len(set(named)) != len(named):
            raise InputError(f"objectives names one twice: {', '.join(named)}")

    def training(self) -> TrainSettings:
        """The settings of the supernet's training, for `nas.train.run`."""
        return TrainSettings(**{f.name: getattr(self, f.name) for f in fields(TrainSettings)})


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
        "onnx", "file format", group=RESULT, metavar="NAME", names=_one_of("onnx", "safetensors")
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


@dataclass(frozen=True)
class SpacesSettings(Settings):
    """`nas spaces`: what can be searched."""

    space: str | None = setting(
        None,
        "show this space's choices",
        metavar="NAME",
        names=partial(names, "space"),
        own=True,
        argument=True,
    )
    space_settings: Mapping[str, Any] = setting(
        {},
        "keyword of the space, such as image_size=64; may be repeated",
        group=MODEL,
        metavar="KEY=VALUE",
        flag="--space-set",
    )


@dataclass(frozen=True)
class TargetsSettings(Settings):
    """`nas targets`: what can be searched for."""

    target: str | None = setting(None, "describe this target in full", metavar="NAME", argument=True)
