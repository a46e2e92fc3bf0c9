"""Augmentation moves what it says, no further, and only with the generator it is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nas.data.augment import BatchAugmentation, PictureAugmentation


def images(count: int, channels: int, size: int, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng(seed).integers(1, 256, (count, channels, size, size), np.uint8)
    return torch.from_numpy(values)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 3),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(["zero", "reflect"]),
    st.integers(0, 99),
)
def test_every_result_is_a_shift_of_its_image(
    shift: int, channels: int, flip: bool, padding: str, seed: int
) -> None:
    x = images(6, channels, 8, seed)
    y = BatchAugmentation(shift, padding, flip)(x, torch.Generator().manual_seed(seed))
    assert y.dtype == torch.uint8
    assert y.shape == x.shape
    mode = {"zero": "constant", "reflect": "reflect"}[padding]
    for before, after in zip(x.numpy(), y.numpy()):
        padded = np.pad(before, ((0, 0), (shift, shift), (shift, shift)), mode)
        windows = [
            padded[:, r : r + 8, c : c + 8] for r in range(2 * shift + 1) for c in range(2 * shift + 1)
        ]
        windows += [w[:, :, ::-1] for w in windows] if flip else []
        assert any(np.array_equal(after, w) for w in windows)


def test_half_of_the_images_are_mirrored() -> None:
    x = images(400, 1, 4)
    y = BatchAugmentation(0, "zero", True)(x, torch.Generator().manual_seed(0))
    mirrored = sum(bool(torch.equal(b, a.flip(-1))) for a, b in zip(x, y))
    assert 150 < mirrored < 250
    assert torch.equal(BatchAugmentation(0, "zero", False)(x, torch.Generator()), x)


def test_no_turn_and_no_zoom_is_the_identity() -> None:
    x = images(5, 2, 9)
    y = BatchAugmentation(0, "zero", False, rotation_deg=1e-7)(x, torch.Generator().manual_seed(1))
    assert (y - x).abs().max() < 0.01


def test_a_turn_keeps_the_centre_and_stays_in_range() -> None:
    x = torch.zeros(50, 1, 17, 17, dtype=torch.uint8)
    x[:, :, 7:10, 7:10] = 255
    y = BatchAugmentation(1, "zero", False, rotation_deg=10, zoom=0.1)(x, torch.Generator().manual_seed(2))
    assert y.min() >= 0
    assert y.max() <= 255 * (1 + 1e-6)  # interpolation weights add up to one within rounding
    assert (y[:, 0, 6:11, 6:11].amax((1, 2)) > 200).all()
    assert (y[:, 0, :4].abs().amax((1, 2)) == 0).all()
    assert len({tuple(row.flatten().tolist()) for row in y}) == 50


@pytest.mark.parametrize(
    "augmentation",
    [BatchAugmentation(2, "zero", True), BatchAugmentation(2, "reflect", True, rotation_deg=10, zoom=0.1)],
)
def test_the_same_generator_state_gives_the_same_images(augmentation: BatchAugmentation) -> None:
    x = images(16, 3, 12)
    a, b, c = (augmentation(x, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_picture_augmentation_gives_uint8_of_the_asked_size(mode: str) -> None:
    pytest.importorskip("timm")
    picture = Image.fromarray(images(1, 3, 70)[0].permute(1, 2, 0).numpy()).convert(mode)
    y = PictureAugmentation(96, (0.35, 1.0), True)(picture)
    assert y.dtype == torch.uint8
    assert y.shape == (3 if mode == "RGB" else 1, 96, 96)
