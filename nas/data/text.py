"""Text as bytes: the vocabulary is 0 to 255, whatever the language and the encoding.

A file, or a folder of text files, is one long run of bytes, cut by position: the first part trains, the next
one is for the search, the last is the test. Neighbours in a text are alike, so windows dealt out at random
would put half sentences of the test into the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from nas.data.collection import digest
from nas.data.dataset import Score
from nas.data.report import Skipped, shown
from nas.data.seeds import CALIBRATION, stream
from nas.data.text_batches import TextBatches, TextPass, windows
from search_spaces.errors import InputError

VOCABULARY = 256
CONTEXT = 256  # tokens, where nothing else is asked for
HELD_OUT = 0.1  # of the bytes, for validation and for test each
MOST_HELD_OUT = 1_000_000  # bytes: more would not make a score surer, but every evaluation slower
EVALUATED_TOGETHER = 8192  # tokens per forward pass when nothing is trained
CALIBRATION_WINDOWS = 32
_SNIFFED = 8192  # bytes; a zero among the first so many says that a file is no text, as in git


@dataclass(frozen=True, eq=False)
class TextData:
    """Bytes in three consecutive parts, read through windows of `context` tokens and the byte after each."""

    source: str  # as given
    name: str
    context: int  # tokens that a network sees at once
    content: Tensor  # uint8, all of the text
    bounds: tuple[int, int]  # where validation begins, and the test
    fingerprint: str  # changes with the text, its cuts and the context
    files: int
    other_files: int  # in the folder, but no text

    kind: ClassVar[Literal["images", "text"]] = "text"
    inputs: ClassVar[str] = "windows"
    unit: ClassVar[str] = "tokens"
    score: ClassVar[Score] = "perplexity"
    skipped: ClassVar[Sequence[Skipped]] = ()

    @property
    def evaluation_batch(self) -> int:
        """Windows per forward pass when nothing is trained."""
        return max(1, EVALUATED_TOGETHER // self.context)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each split."""
        first, second = self.bounds
        return {"train": first, "validation": second - first, "test": len(self.content) - second}

    @property
    def space_settings(self) -> Mapping[str, int]:
        """Keywords that a search space takes from the data."""
        return {"classes": VOCABULARY, "context": self.context}

    @property
    def shape(self) -> str:
        """What the inputs look like."""
        return f"bytes, context {self.context}"

    def train_batches(self, batch_size: int, seed: int) -> TextBatches:
        """Windows at random places of the training split."""
        if batch_size < 1 or seed < 0:
            raise InputError(f"batch size {batch_size} or seed {seed} is too small (at least 1 and 0)")
        return TextBatches(self.content[: self.bounds[0]], self.context, batch_size, seed)

    def validation_batches(self, batch_size: int) -> TextPass:
        """The validation split, window after window."""
        return TextPass(self.content[self.bounds[0] : self.bounds[1]], self.context, batch_size)

    def test_batches(self, batch_size: int) -> TextPass:
        """The test split, window after window."""
        return TextPass(self.content[self.bounds[1] :], self.context, batch_size)

    def calibration_batches(self) -> list[tuple[Tensor, Tensor]]:
        """A batch of windows of the training split, always the same."""
        starts = stream(CALIBRATION, 0).integers(0, self.bounds[0] - self.context, CALIBRATION_WINDOWS)
        return [windows(self.content, starts, self.context)]

    def describe(self) -> dict[str, Any]:
        """How this data was made, as JSON-able values."""
        return {
            "source": self.source,
            "name": self.name,
            "kind": self.kind,
            "encoding": "bytes",
            "vocabulary": VOCABULARY,
            "context": self.context,
            "sizes": dict(self.sizes),
            "splits": {"by": "position", "validation_from": self.bounds[0], "test_from": self.bounds[1]},
            "scored_tokens": {
                "validation": self.validation_batches(1).count,
                "test": self.test_batches(1).count,
            },
            "fingerprint": self.fingerprint,
            "files": self.files,
            "other_files": self.other_files,
        }

    def facts(self, input_shape: Sequence[int]) -> dict[str, Any]:
        """What to feed a network of this data, and what comes out."""
        (context,) = input_shape
        return {
            "encoding": {
                "tokens": "bytes",
                "vocabulary": VOCABULARY,
                "context": context,
                "input": {"layout": "NT", "type": "int64", "range": [0, VOCABULARY - 1]},
                "output": "logits of the byte after each position, [N, T, vocabulary]",
            }
        }


def load_text(source: str, path: Path, context: int = CONTEXT) -> TextData:
    """The bytes of a file, or of the text files of a folder in the order of their names.

    Of each part only whole windows are scored. Files of a folder follow each other with a line end between;
    hidden ones, and those with a zero byte, are passed over.

    Raises:
        FileNotFoundError: `path` is not there.
        InputError: there is no text in it, or too little for one window in each part.
    """
    if not 1 <= context <= 1 << 20:
        raise InputError(f"context = {context} is out of range (1 to {1 << 20})")
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {shown(str(path))!r}")
    where = f"text:{shown(str(path))}"
    if path.is_dir():
        texts, others = _folder(path)
        if not texts:
            raise InputError(f"{where} has no text file" + (f", but {others} others" if others else ""))
        content = b"\n".join(texts)
    else:
        content, texts, others = path.read_bytes(), [b""], 0
    held_out = min(int(len(content) * HELD_OUT), MOST_HELD_OUT)
    if held_out < context + 1:
        least = round((context + 1) / HELD_OUT)
        if held_out < 2:
            raise InputError(
                f"{where} has {len(content)} bytes, too few to learn from; the least is {least:,}"
            )
        raise InputError(
            f"{where} has {len(content):,} bytes, too few for a context of {context}: a tenth must hold "
            f"{context + 1}; use --context {held_out - 1} or less, or at least {least:,} bytes"
        )
    bounds = (len(content) - 2 * held_out, len(content) - held_out)
    return TextData(
        source=source,
        name=path.resolve().stem,
        context=context,
        content=torch.frombuffer(bytearray(content), dtype=torch.uint8),
        bounds=bounds,
        fingerprint=digest(content, [f"{bounds} {context}"]),
        files=len(texts),
        other_files=others,
    )


def _folder(path: Path) -> tuple[list[bytes], int]:
    """(contents of the text files below `path` in the order of their names, how many others there are)."""
    texts, others = [], 0
    for file in sorted(path.rglob("*")):
        if not file.is_file() or any(part.startswith(".") for part in file.relative_to(path).parts):
            continue
        content = file.read_bytes()
        if not content or b"\0" in content[:_SNIFFED]:
            others += 1
        else:
            texts.append(content)
    return texts, others
