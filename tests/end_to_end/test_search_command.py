"""`nas search` from the command to the file that is handed over."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from command_line import TINY, record_of, refused

import nas as package
from nas.data import load_data
from nas.export import read_metadata
from nas.front import nondominated
from nas.objectives import counted
from nas.searchers.searcher import everything
from nas.train_settings import TrainSettings
from nas.trained import calibration, load_supernet
from predictors import targets
from supernets.evaluate import evaluate

QUICK = ("--target", "jetson", "--population", "4", "--no-export")


def trials_of(run: Path) -> list[tuple]:
    """Number, arch, values, violations of every trial, in order."""
    return [(t.number, t.arch.to_json(), t.values, t.constraints) for t in package.load_study(run).trials]


def opened(run: Path):
    """Data and supernet of a training, by the library."""
    settings = TrainSettings(**record_of(run)["settings"])
    data = load_data(settings.data, image_size=settings.image_size)
    return data, load_supernet(run, settings, data)


def test_a_search_leaves_what_its_folder_says(searched) -> None:
    names = {path.name for path in searched.iterdir()}
    assert {"run.json", "study.db", "front.csv", "front.png", "front.html", "README.txt"} < names
    (exported,) = searched.glob("*.onnx")
    assert exported.name in (searched / "README.txt").read_text()
    assert (searched / "front.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (searched / "front.html").read_text()[:1000]
    readme = (searched / "README.txt").read_text()
    for said in ("mobilenet_v3 on digits for NVIDIA Jetson Orin Nano", "measured", "estimated", "knee"):
        assert said in readme
    assert record_of(searched)["result"]["files"]["file"] == str(exported)
    assert not [name for name in names if "tmp" in name or "pending" in name]


def test_the_record_is_enough_to_do_it_again(nas, searched, supernet) -> None:
    record = record_of(searched)
    again = Path("again.yaml")
    kept = {k: v for k, v in record["settings"].items() if v is not None and k not in ("runs", "name")}
    again.write_text(json.dumps(kept))
    result = json.loads(nas("search", again, "--no-export", "--json", "-q").out)
    assert result["front"] == record["result"]["front"]
    assert trials_of(Path(result["run"])) == trials_of(searched)
    for key in (
        "supernet",
        "space",
        "target",
        "data",
        "versions",
        "supernet_sha256",
        "provenance",
        "command",
    ):
        assert record[key], key
    assert record["supernet_sha256"] == record_of(supernet)["result"]["weights"]["sha256"]


def test_every_number_on_the_front_is_true(searched, supernet) -> None:
    """Each computed again from the weights, without the search."""
    data, loaded = opened(supernet)
    space = loaded.space
    rows = record_of(searched)["result"]["front"]
    population = space.index([row["arch"] for row in rows])
    validation, test = (
        evaluate(loaded, space.archs(population), batches, calibration(data)).tolist()
        for batches in (data.validation_batches(359), data.test_batches(100))
    )
    assert [row["accuracy"] for row in rows] == validation
    assert [row["test_accuracy"] for row in rows] == test
    assert [row["latency"] for row in rows] == targets.find("jetson").latency(space, population).tolist()
    for name in ("params", "macs", "memory"):
        assert [row[name] for row in rows] == counted(space, name).evaluate(population).tolist()
    assert rows == sorted(rows, key=lambda row: row["latency"])
    assert all(a["accuracy"] < b["accuracy"] for a, b in pairwise(rows))


def test_the_front_is_that_of_the_trials_and_the_table_is_that_of_the_record(searched) -> None:
    trials = trials_of(searched)
    assert len({arch for _, arch, _, _ in trials}) == len(trials) == 24
    values = np.array([(-v["accuracy"], v["latency"]) for _, _, v, _ in trials])
    rows = record_of(searched)["result"]["front"]
    assert {row["id"] for row in rows} == {trials[i][0] for i in np.flatnonzero(nondominated(values))}
    with (searched / "front.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(line["latency_ms"]) for line in table] == [row["latency"] for row in rows]
    assert [float(line["test_accuracy"]) for line in table] == [row["test_accuracy"] for row in rows]
    assert [json.loads(line["arch"]) for line in table] == [row["arch"] for row in rows]


def test_the_handed_over_file_says_what_it_is(searched) -> None:
    record = record_of(searched)
    metadata = read_metadata(record["result"]["files"]["file"])
    chosen = next(r for r in record["result"]["front"] if r["id"] == record["result"]["chosen"])
    assert metadata["nas.arch"] == chosen["arch"]
    assert metadata["nas.numbers"]["test_accuracy"] == chosen["test_accuracy"]
    assert metadata["nas.classes"] == [str(i) for i in range(10)]
    assert metadata["nas.provenance"]["latency"]["kind"] == "estimated"
    assert metadata["nas.target"]["name"] == "jetson-orin-nano"
    assert metadata["nas.supernet_sha256"] == record["supernet_sha256"]


def test_the_supernet_is_trained_once_and_used_again(nas) -> None:
    first = nas("search", *TINY, *QUICK, "--evaluations", "4")
    assert first.code == 0, first
    (trained,) = Path("runs").glob("supernet-*")
    stamp = (trained / "supernet.safetensors").stat().st_mtime_ns
    second = nas("search", *TINY, *QUICK, "--evaluations", "5", "--seed", "0")
    assert f"{trained}, trained before" in second.out
    assert (trained / "supernet.safetensors").stat().st_mtime_ns == stamp
    assert len(list(Path("runs").glob("supernet-*"))) == 1
    assert {run.name for run in Path("runs").glob("search-*")} == {
        "search-digits-jetson-orin-nano",
        "search-digits-jetson-orin-nano-2",
    }
    assert "next: nas show runs/search-digits-jetson-orin-nano" in first.out


def test_what_is_printed_says_where_the_numbers_come_from(nas, supernet) -> None:
    ran = nas("search", "--supernet", supernet, *QUICK, "--evaluations", "6", "--name", "x")
    assert (ran.code, ran.err) == (0, "")
    for said in (
        "accuracy (measured)",
        "latency, ms (estimated)",
        "params (computed)",
        "test accuracy",
        "jetson-orin-nano ('jetson' is its alias)",
        "expect errors of a factor of 2",
        "networks are on the front",
        "\n*",
    ):
        assert said in ran.out, said
    assert not list(Path("runs/x").glob("*.onnx"))


def test_json_is_all_there_is_on_stdout(nas, supernet) -> None:
    ran = nas("search", "--supernet", supernet, *QUICK, "--evaluations", "6", "--json")
    document = json.loads(ran.out)
    assert document["evaluated"] == 6
    assert document["front"][0].keys() >= {"id", "accuracy", "latency", "params", "test_accuracy", "arch"}
    assert document["chosen"] in [row["id"] for row in document["front"]]
    assert "target" in ran.err


def test_settings_from_a_file(nas, supernet) -> None:
    Path("study.yaml").write_text(
        f"supernet: {supernet}\ntarget: jetson\nobjectives: [accuracy, params]\nmax_params: 40k\n"
        "evaluations: 5\npopulation: 4\nexport: false\nname: filed\n"
    )
    assert nas("search", "study.yaml", "--evaluations", "6", "-q").code == 0
    record = record_of(Path("runs/filed"))
    assert record["settings"]["max_params"] == 40_000
    assert record["result"]["evaluated"] == 6
    assert all(row["params"] <= 40_000 for row in record["result"]["front"])


def test_a_dry_run_writes_nothing(nas, supernet) -> None:
    ran = nas("search", *TINY, "--target", "jetson", "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    for said in ("16 steps of 128 images", "nsga2: 300 networks", "latency is estimated"):
        assert said in ran.out, said
    assert json.loads(nas("search", "--supernet", supernet, "--dry-run", "--json").out)["evaluations"] == 300
    assert list(Path().iterdir()) == []


def test_another_seed_makes_other_trials(nas, supernet, searched) -> None:
    settings = ("--supernet", supernet, *QUICK, "--evaluations", "8", "--seed", "1", "--name", "other", "-q")
    assert nas("search", *settings).code == 0
    ends = trials_of(searched)[:2]
    assert trials_of(Path("runs/other"))[:2] == ends  # the largest and the smallest network
    assert trials_of(Path("runs/other"))[2:] != trials_of(searched)[2:8]


@pytest.mark.parametrize("objectives", ["accuracy", "params", "accuracy,params,macs", "latency,macs,memory"])
def test_any_objectives(nas, supernet, objectives) -> None:
    ran = nas("search", "--supernet", supernet, *QUICK, "--evaluations", "6", "--objectives", objectives)
    assert (ran.code, ran.err) == (0, "")
    run = Path("runs/search-digits-jetson-orin-nano")
    record = record_of(run)
    names = objectives.split(",")
    assert [m.name for m in package.load_study(run).metrics] == names
    signs = [-1 if name == "accuracy" else 1 for name in names]
    values = np.array([[t.values[n] for n in names] for t in package.load_study(run).trials]) * signs
    assert {row["id"] for row in record["result"]["front"]} == set(np.flatnonzero(nondominated(values)))
    assert nas("show", run, "--plot", "plot.svg").code == 0


def test_within_limits_everything_is_found_and_nothing_beyond_them_is_evaluated(nas, supernet) -> None:
    """With a budget above their number: against brute force over the whole space."""
    data, loaded = opened(supernet)
    space = loaded.space
    every = everything(space)
    costs, target = space.costs(every), targets.find("jetson")
    numbers = {
        "latency-ms": target.latency(space, every),
        "params": costs.params,
        "macs": costs.macs,
        "memory": costs.weight_bytes + costs.activation_bytes,
    }
    most = {name: float(np.quantile(values, 0.3, method="lower")) for name, values in numbers.items()}
    limits = [part for name, value in most.items() for part in (f"--max-{name}", repr(value))]
    ran = nas("search", "--supernet", supernet, *QUICK, *limits, "--evaluations", "300", "--name", "x")
    assert ran.code == 0, ran
    assert "no further network was found" in ran.out
    within = every[np.logical_and.reduce([numbers[name] <= value for name, value in most.items()])]
    run = Path("runs/x")
    assert {arch for _, arch, _, _ in trials_of(run)} == {arch.to_json() for arch in space.archs(within)}
    assert 5 < len(within) < 70
    assert all(v <= 0 for *_, violations in trials_of(run) for v in violations.values())
    scores = evaluate(loaded, space.archs(within), data.validation_batches(500), calibration(data))
    best = nondominated(np.column_stack([-scores, target.latency(space, within)]))
    front = {json.dumps(row["arch"], separators=(",", ":")) for row in record_of(run)["result"]["front"]}
    assert front == {arch.to_json() for arch in space.archs(within[best])}


def test_wishes_for_a_training_that_is_done_are_not_silently_dropped(nas, supernet) -> None:
    ran = nas("search", "--supernet", supernet, "--dry-run", "--image-size", "32", "--lr", "0.3")
    assert ran.code == 0
    assert f"warning: image_size = 32 is not used: {supernet} was trained with 8\n" in ran.err
    assert f"warning: lr = 0.3 is not used: {supernet} was trained with nothing\n" in ran.err
    assert nas("search", "--supernet", supernet, "--dry-run", "--image-size", "8", "--seed", "4").err == ""


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (("--max-params", "1k"), "params <= 1,000 in 10,000 draws; the least seen: params "),
        (("--max-latency-ms", "0.001"), "latency <= 0.001 ms in 10,000 draws; the least seen: latency 0."),
        (
            ("--max-memory", "1k", "--max-macs", "1k"),
            "macs <= 1,000 and memory <= 1,000 B in 10,000 draws; the least seen: macs ",
        ),
    ],
)
def test_a_limit_that_nothing_meets_is_told_before_training_starts(nas, limit, said) -> None:
    for more in ((), ("--dry-run",)):
        ran = nas("search", *TINY, "--target", "jetson", *limit, *more, "--json", "-q")
        refused(ran, 2, said)
        assert ran.out == ""
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", ["latency_ms", "params", "accuracy"])
def test_the_picked_one_is_the_most_accurate_that_keeps_the_rule(nas, searched, name) -> None:
    run = Path(shutil.copytree(searched, "run"))
    rows = record_of(run)["result"]["front"]
    column = name.removesuffix("_ms")
    bound = rows[len(rows) // 2][column]
    rule = f"accuracy>={bound}" if name == "accuracy" else f"{name}<{bound}, accuracy>0.01"
    result = json.loads(nas("search", "--resume", run, "--pick", rule, "--no-export", "--json", "-q").out)
    assert result["front"] == rows
    chosen = next(row for row in rows if row["id"] == result["chosen"])
    kept = rows if name == "accuracy" else [row for row in rows if row[column] < bound]
    assert chosen["accuracy"] == max(row["accuracy"] for row in kept)
    assert record_of(run)["settings"]["pick"] == rule


def test_a_rule_that_nothing_meets_says_what_was_seen_and_how_to_pick_again(nas, searched) -> None:
    run = Path(shutil.copytree(searched, "run"))
    refused(
        nas("search", "--resume", run, "--pick", "accuracy>0.99", "--json", "-q"),
        2,
        "the highest accuracy seen is 0.",
        f"nas search --resume {run} --pick RULE",
    )
    assert record_of(run) == record_of(searched)


def test_a_rule_on_an_unknown_number_is_told_before_the_work(nas, supernet) -> None:
    common = ("search", "--supernet", supernet, "--target", "jetson", "--json", "-q")
    refused(nas(*common, "--pick", "latencey<2"), 2, "latencey", "did you mean 'latency'?")
    refused(nas(*common, "--pick", "accuracy>0.9", "--objectives", "latency,params"), 2, "'accuracy'")
    refused(nas(*common, "--pick", "fast"), 2, "cannot read 'fast'")
    assert not Path("runs").exists()


def test_more_evaluations_continue_a_search(nas, searched, supernet) -> None:
    run = Path(shutil.copytree(searched, "run"))
    result = json.loads(
        nas("search", "--resume", run, "--evaluations", "30", "--no-export", "--json", "-q").out
    )
    assert result["evaluated"] == 30
    assert trials_of(run)[:24] == trials_of(searched)
    assert record_of(run)["settings"]["evaluations"] == 30
    settings = ("--supernet", supernet, "--target", "jetson", "--population", "6", "--no-export", "-q")
    nas("search", *settings, "--evaluations", "30", "--name", "whole")
    assert trials_of(run) == trials_of(Path("runs/whole"))
    # Resumed without a number it keeps the last one.
    assert json.loads(nas("search", "--resume", run, "--json", "-q").out)["evaluated"] == 30


def test_latency_measured_on_this_machine(nas, supernet) -> None:
    ran = nas(
        "search",
        "--supernet",
        supernet,
        "--evaluations",
        "3",
        "--population",
        "4",
        "--name",
        "here",
        "--no-export",
    )
    assert ran.code == 0, ran
    assert "latency, ms (measured)" in ran.out
    record = record_of(Path("runs/here"))
    assert record["result"]["evaluated"] == 3
    assert record["provenance"]["latency"]["kind"] == "measured"
    assert "pytorch" in record["provenance"]["latency"]["detail"]
    assert all(0 < row["latency"] < 1000 for row in record["result"]["front"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--target", "jetsn"), "did you mean 'jetson'?"),
        (("--target", "jetson", "--target-precision", "fp8"), "known: fp16, fp32, int8"),
        (("--searcher", "nsga"), "did you mean 'nsga2'?"),
        (("--objectives", "acuracy"), "did you mean 'accuracy'?"),
        (("--objectives", "accuracy,accuracy"), "names one twice"),
        (("--max-params", "-5"), "must be above 0"),
        (("--name", "../out"), "is not a folder name"),
        (("--storage", "mysql://host/x"), "storage mysql:// is not supported"),
    ],
)
def test_a_mistake_costs_one_line_and_leaves_nothing(nas, supernet, arguments, said) -> None:
    ran = nas("search", "--supernet", supernet, "--evaluations", "4", *arguments, "-q", "--json")
    refused(ran, 2, said)
    assert ran.out == ""
    assert list(Path().iterdir()) == []


def test_a_supernet_that_is_none(nas, searched) -> None:
    refused(nas("search", "--supernet", "runs/absent"), 4, "no such run folder: runs/absent")
    refused(nas("search", "--supernet", searched), 2, "is a run of 'nas search'")
    Path("runs").mkdir()
    refused(nas("search", "--supernet", "runs"), 4, "has no run.json")
