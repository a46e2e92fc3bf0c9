"""Text as bytes: its three parts, the windows on them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.data import TextData, load_data
from nas.data.text_batches import TextBatches, TextPass
from search_spaces.errors import InputError

LINES = "".join(f"{i}: a line of text, and nothing else.\n" for i in range(60))


@pytest.fixture
def data(tmp_path: Path) -> TextData:
    (tmp_path / "lines.txt").write_text(LINES)
    return load_data(f"text:{tmp_path / 'lines.txt'}", context=16)


def text_of(values: torch.Tensor) -> str:
    return bytes(values.flatten().tolist()).decode()


def test_the_parts_follow_each_other_and_cover_the_text(data) -> None:
    first, second = data.bounds
    assert data.sizes == {
        "train": first,
        "validation": len(LINES) // 10,
        "test": len(LINES) // 10,
    }
    assert sum(data.sizes.values()) == len(LINES)
    validation = torch.cat([x.flatten() for x, _ in data.validation_batches(3)])
    test = torch.cat([x.flatten() for x, _ in data.test_batches(3)])
    assert LINES[first:second].startswith(text_of(validation))
    assert LINES[second:].startswith(text_of(test))
    assert data.name == "lines"
    assert data.space_settings == {"classes": 256, "context": 16}


@given(st.integers(2, 300), st.integers(1, 20), st.integers(1, 7))
def test_in_a_pass_every_token_is_predicted_once_from_those_before_it(length, context, batch) -> None:
    text = torch.arange(length, dtype=torch.int64).to(torch.uint8)
    every = TextPass(text, context, batch)
    batches = list(every)
    assert len(batches) == every.steps == len(every)
    assert sum(y.numel() for _, y in batches) == every.count == (length - 1) // context * context
    if batches:
        for part, shift in ((0, 0), (1, 1)):
            joined = torch.cat([pair[part].flatten() for pair in batches])
            assert torch.equal(joined, text[shift : shift + every.count].long())
        assert all(x.dtype == y.dtype == torch.int64 for x, y in batches)
        assert all(x.shape[1] == context and len(x) <= batch for x, _ in batches)


@given(st.binary(min_size=40, max_size=400), st.integers(0, 3), st.integers(0, 5))
def test_training_windows_are_pieces_of_the_text_and_can_be_drawn_from_any_batch_on(
    content, seed, start
) -> None:
    batches = TextBatches(torch.frombuffer(bytearray(content), dtype=torch.uint8), 4, 2, seed)
    epoch = list(batches.epoch(1))
    assert len(epoch) == batches.steps == len(content) // 8
    for x, y in epoch:
        assert x.shape == y.shape == (2, 4)
        for window, following in zip(x, y, strict=True):
            assert bytes([*window.tolist(), int(following[-1])]) in content
            assert torch.equal(window[1:], following[:-1])
    later = list(batches.epoch(1, start))
    assert len(later) == max(0, len(epoch) - start)
    for (x, y), (same_x, same_y) in zip(epoch[start:], later, strict=True):
        assert torch.equal(x, same_x)
        assert torch.equal(y, same_y)


def test_training_never_sees_the_other_parts(tmp_path) -> None:
    """Bytes that say in which part they are."""
    path = tmp_path / "parts.txt"
    path.write_bytes(b"t" * 800 + b"v" * 100 + b"e" * 100)
    data = load_data(str(path), context=8)
    seen = {part: set() for part in ("train", "validation", "test")}
    for epoch in range(5):
        for x, y in data.train_batches(4, 0).epoch(epoch):
            seen["train"] |= set(x.flatten().tolist()) | set(y.flatten().tolist())
    for part, batches in (("validation", data.validation_batches(4)), ("test", data.test_batches(4))):
        for x, y in batches:
            seen[part] |= set(x.flatten().tolist()) | set(y.flatten().tolist())
    for x, _ in data.calibration_batches():
        seen["train"] |= set(x.flatten().tolist())
    assert seen == {"train": {ord("t")}, "validation": {ord("v")}, "test": {ord("e")}}


def test_the_order_depends_on_the_seed_and_the_epoch(data) -> None:
    def first(seed: int, epoch: int) -> list[int]:
        return next(iter(data.train_batches(4, seed).epoch(epoch)))[0].flatten().tolist()

    assert first(0, 0) == first(0, 0)
    assert len({tuple(first(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_the_held_out_parts_of_a_long_text_stay_quick_to_score(tmp_path) -> None:
    path = tmp_path / "long.txt"
    path.write_bytes(bytes(11_000_000))
    sizes = load_data(str(path)).sizes
    assert sizes == {"train": 9_000_000, "validation": 1_000_000, "test": 1_000_000}


def test_the_fingerprint_follows_the_text_and_the_context(tmp_path) -> None:
    def fingerprint(text: str, context: int) -> str:
        (tmp_path / "a.txt").write_text(text)
        return load_data(f"text:{tmp_path / 'a.txt'}", context=context).fingerprint

    assert fingerprint(LINES, 16) == fingerprint(LINES, 16)
    changed = LINES[:-2] + "!\n"
    assert len({fingerprint(LINES, 16), fingerprint(changed, 16), fingerprint(LINES, 17)}) == 3


def test_a_folder_is_its_text_files_in_order(tmp_path) -> None:
    (tmp_path / "b.md").write_text(LINES)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "first.txt").write_bytes(b"\xff\xfe any bytes")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / ".hidden").write_text("no")
    data = load_data(f"text:{tmp_path}", context=16)
    assert bytes(data.content.tolist()) == b"\xff\xfe any bytes\n" + LINES.encode()
    assert (data.files, data.other_files) == (2, 2)


def test_the_record_is_json_and_says_how_the_text_was_cut(data) -> None:
    record = json.loads(json.dumps(data.describe()))
    assert record["kind"] == "text"
    assert record["splits"]["by"] == "position"
    assert [record["splits"][key] for key in ("validation_from", "test_from")] == list(data.bounds)
    assert record["scored_tokens"]["test"] == data.test_batches(7).count
    facts = data.facts((16,))["encoding"]
    assert (facts["tokens"], facts["vocabulary"], facts["context"]) == ("bytes", 256, 16)


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("text:{0}/none.txt", {}, "no file or folder"),
        ("text:", {}, "'text' needs a path: text:PATH"),
        ("text:{0}/empty.txt", {}, "has 0 bytes, too few to learn from; the least is 2,570"),
        ("text:{0}/short.txt", {}, "has 600 bytes, too few for a context of 256.*--context 59 or less"),
        ("text:{0}/pictures", {}, "has no text file, but 1 others"),
        ("text:{0}/lines.txt", {"image_size": 8}, "image_size = 8 is for images; .*--context"),
        ("text:{0}/lines.txt", {"context": 0}, "context = 0 is out of range"),
        ("digits", {"context": 8}, "context = 8 is for text; 'digits' holds images"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(tmp_path, source, options, said) -> None:
    (tmp_path / "lines.txt").write_text(LINES)
    (tmp_path / "short.txt").write_text(LINES[:600])
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"\0")
    with pytest.raises((InputError, FileNotFoundError), match=said) as caught:
        load_data(source.format(tmp_path), **options)
    assert "\n" not in str(caught.value)


def test_the_context_that_an_error_proposes_is_the_largest_that_works(tmp_path) -> None:
    (tmp_path / "short.txt").write_text(LINES[:600])
    assert load_data(str(tmp_path / "short.txt"), context=59).validation_batches(1).count == 59
    with pytest.raises(InputError):
        load_data(str(tmp_path / "short.txt"), context=60)
