"""`nas show`, `nas spaces` and `nas targets`: what is there, for people, for pipes and for programs."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from command_line import record_of, refused


def test_a_search_is_shown_with_its_front(nas, searched) -> None:
    ran = nas("show", searched)
    assert (ran.code, ran.err) == (0, "")
    record = record_of(searched)
    for said in ("24 networks", "accuracy (measured)", "latency, ms (estimated)", "picked by knee", ".onnx"):
        assert said in ran.out
    marked = [line for line in ran.out.splitlines() if line.startswith("*")]
    assert [int(line.split()[1]) for line in marked] == [record["result"]["chosen"]]
    assert f"next: nas export {searched} --arch ID" in ran.out
    assert "estimated, roofline" in nas("show", searched, "-v").out


def test_json_holds_the_front(nas, searched) -> None:
    document = json.loads(nas("show", searched, "--json").out)
    assert document["front"] == record_of(searched)["result"]["front"]
    assert document["evaluated"] == 24


def test_csv_is_nothing_but_csv(nas, searched, supernet) -> None:
    """So that `nas show RUN --csv > file` gives a file."""
    ran = nas("show", searched, "--csv")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert len(rows) == 24
    assert [int(row["number"]) for row in rows] == list(range(24))
    assert float(rows[0]["latency (ms)"]) > 0
    rows = list(csv.DictReader(io.StringIO(nas("show", supernet, "--csv").out)))
    assert [row["epoch"] for row in rows] == ["1", "2"]


def test_a_line_that_a_kill_tore_is_passed_over(nas, supernet) -> None:
    torn = Path(shutil.copytree(supernet, "torn"))
    with (torn / "log.jsonl").open("a") as log:
        log.write('{"epo')
    ran = nas("show", torn, "--json")
    assert ran.code == 0, ran.err
    assert [epoch["epoch"] for epoch in json.loads(ran.out)["epochs"]] == [1, 2]


@pytest.mark.parametrize("ending", ["html", "png", "svg"])
def test_the_plot_goes_where_it_is_asked(nas, searched, ending) -> None:
    assert nas("show", searched, "--plot", f"front.{ending}").code == 0
    content = Path(f"front.{ending}").read_bytes()
    assert {"html": b"<html", "png": b"\x89PNG", "svg": b"<svg"}[ending] in content


def test_a_training_is_shown_with_its_epochs(nas, supernet) -> None:
    ran = nas("show", supernet)
    assert (ran.code, ran.err) == (0, "")
    assert "mobilenet_v3 on digits by sandwich" in ran.out
    assert "loss" in ran.out
    document = json.loads(nas("show", supernet, "--json").out)
    assert [epoch["epoch"] for epoch in document["epochs"]] == [1, 2]
    assert document["result"]["weights"]["sha256"]


def test_what_is_not_finished_is_said_to_be(nas, searched, supernet) -> None:
    for run, verb in ((searched, "search"), (supernet, "train")):
        copy = Path(shutil.copytree(run, f"half-{verb}"))
        record = record_of(copy)
        for late in ("result", "provenance", "units"):
            record.pop(late, None)
        (copy / "run.json").write_text(json.dumps(record))
        ran = nas("show", copy)
        assert ran.code == 0, ran
        assert f"is not finished; nas {verb} --resume {copy}" in ran.err
    assert nas("show", "half-search", "--plot", "half.png").code == 0
    # Before there is a study, and before the first epoch, there is a record and nothing to show.
    record = record_of(Path("half-search"))
    del record["study"]
    Path("half-search/run.json").write_text(json.dumps(record))
    Path("half-search/study.db").unlink()
    Path("half-train/log.jsonl").unlink()
    for verb in ("train", "search"):
        ran = nas("show", f"half-{verb}")
        assert (ran.code, ran.err.count("\n")) == (0, 1), ran
    assert json.loads(nas("show", "half-search", "--json").out)["evaluated"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("absent",), 4, "no such run folder: absent"),
        ((".",), 4, "has no run.json"),
        (("found", "--plot", "front.pdf"), 2, "the ending is .html, .png or .svg"),
        (("tiny", "--plot", "front.png"), 2, "is a training"),
        (("found", "--plot", "no/such/front.png"), 4, "no/such"),
        (("foreign",), 2, "of no kind that can be shown"),
        (("damaged",), 2, "is damaged"),
    ],
)
def test_a_mistake_costs_one_line(nas, searched, supernet, arguments, code, said) -> None:
    run, *options = arguments
    Path("foreign").mkdir()
    Path("foreign/run.json").write_text('{"what": "cooking"}')
    Path("damaged").mkdir()
    Path("damaged/run.json").write_text('{"what": "search", ')
    run = {"found": searched, "tiny": supernet}.get(run, run)
    ran = nas("show", run, *options, "--json", "-q")
    refused(ran, code, said)
    assert ran.out == ""


def test_spaces_and_targets_by_the_real_names(nas) -> None:
    one = json.loads(nas("spaces", "mobilenet_v3", "--space-set", "image_size=8", "--json").out)
    assert one["spaces"][0]["params"][0] < one["spaces"][0]["params"][1]
    targets = {row["name"]: row for row in json.loads(nas("targets", "--json").out)["targets"]}
    assert targets["cpu"]["available"]
    assert "jetson" in targets["jetson-orin-nano"]["aliases"]
    refused(nas("spaces", "mobilenet_v3", "--space-set", "widht=1"), 2, "did you mean 'width'?")
