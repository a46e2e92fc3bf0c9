"""`nas generate`: text from a trained run, the same with every draft, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import quietly, record_of, refused

from nas.spaces import saved_space
from nas.train_settings import TrainSettings
from nas.trained import load_weights
from search_spaces import Arch
from supernets.generate import greedy

TEXT = "to be or not to be, that is the question. " * 60
SMALL = ("--space-set", "depths=[1,2]", "--space-set", "embed_dims=[8,12]", "--space-set", "head_dim=4")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a language model of bytes, hardly trained. Not to be changed."""
    root = tmp_path_factory.mktemp("written")
    (root / "text.txt").write_text(TEXT)
    quietly(
        *("train", "--space", "gpt", "--data", f"text:{root / 'text.txt'}", "--context", "24", *SMALL),
        *("--recipe", "uniform", "--epochs", "1", "--batch-size", "16", "--lr", "0.01"),
        *("--runs", str(root), "--name", "gpt", "--device", "cpu"),
    )
    return root / "gpt"


def model(run: Path, arch: Arch):
    """The network, straight from the run's files."""
    record = record_of(run)
    return load_weights(run, TrainSettings(**record["settings"]), saved_space(record["space"])).extract(arch)


def test_the_likeliest_text(nas, written) -> None:
    ran = nas("generate", written, "--prompt", "to be", "--json")
    assert ran.code == 0, ran
    found = json.loads(ran.out)
    prompt = torch.tensor([list(b"to be")])
    expected = greedy(model(written, Arch(found["arch"])), prompt, 19)[0]  # as many as the context holds
    assert found["tokens"] == 19
    assert found["text"] == bytes(expected.tolist()).decode(errors="replace")
    assert "draft" not in found
    ran = nas("generate", written, "--prompt", "to be", "--tokens", "3", "-q")
    assert ran.out.rstrip("\n").startswith("to be")


@pytest.mark.parametrize("draft", ["smallest", "largest", "exit:1", "exit:2"])
def test_a_draft_changes_no_byte_and_its_acceptance_is_told(nas, written, draft) -> None:
    plain = json.loads(nas("generate", written, "--prompt", "not", "--json").out)
    ran = nas("generate", written, "--prompt", "not", "--draft", draft, "--ahead", "3", "--json")
    found = json.loads(ran.out)
    assert found["text"] == plain["text"]
    facts = found["draft"]
    assert facts["acceptance"] == facts["accepted"] / facts["drafted"]
    assert facts["verifier_calls"] == found["tokens"] - facts["accepted"] + 1
    assert facts["shared_cache"] == (draft != "smallest")
    assert (facts["acceptance"] == 1.0) >= (draft in ("largest", "exit:2"))
    assert "of the verifier" in ran.err
    assert "tokens/s" in ran.err


def test_draws_depend_on_the_seed_alone(nas, written) -> None:
    def text(*more: str) -> str:
        return json.loads(nas("generate", written, "--temperature", "2", *more, "--json").out)["text"]

    assert text("--seed", "1") == text("--seed", "1") != text("--seed", "2")
    likeliest = json.loads(nas("generate", written, "--json").out)["text"]
    assert text("--top-k", "1") == likeliest
    assert likeliest.startswith("\n")


def test_the_text_that_it_was_trained_on_is_not_needed(nas, written, tmp_path) -> None:
    shutil.copytree(written, tmp_path / "moved")
    record = record_of(tmp_path / "moved")
    record["settings"]["data"] = "text:gone.txt"
    (tmp_path / "moved" / "run.json").write_text(json.dumps(record))
    assert nas("generate", "moved", "-q").code == 0


def test_other_bytes_than_letters(nas, written) -> None:
    ran = nas("generate", written, "--prompt", "\u00e9\u20ac", "--tokens", "2", "--json")
    assert json.loads(ran.out)["text"].startswith("\u00e9\u20ac")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tokens", "100"], "exceed the network's context of 24; at most 23 fit"),
        (["--prompt", "x" * 30], "a prompt of 30 tokens"),
        (["--prompt", ""], "--prompt is empty"),
        (["--draft", "exit:3"], "exit 3 is not between 1 and the network's 2 blocks"),
        (["--draft", "exit:one"], "expected exit: and a number of blocks"),
        (["--draft", "17"], "is a training, which picked no network"),
        (["--draft", "smallest", "--temperature", "1"], "leave --temperature out"),
        (["--top-k", "3"], "--top-k needs --temperature"),
        (["--temperature", "0"], "--temperature = '0': must be at least 0.001"),
    ],
)
def test_what_cannot_be_said_costs_one_line(nas, written, arguments, said) -> None:
    refused(nas("generate", written, *arguments), 2, said)


def test_a_run_on_images_writes_no_text(nas, supernet) -> None:
    refused(nas("generate", supernet), 2, "holds no language model of bytes", "--data text:PATH")
    refused(nas("generate", "nowhere"), 4, "no such run folder")
