"""scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels that come with the package."""

from __future__ import annotations

import numpy as np
import torch

from nas.data.collection import Collection, digest


def digits() -> Collection:
    """The set as uint8 on 0-255 (its own scale is 0-16), to be shown at 16x16 unless asked otherwise.

    Source: Alpaydin and Kaynak 1998, UCI "Optical Recognition of Handwritten Digits", the test part.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    return Collection(
        name="digits",
        where="digits",
        classes=tuple(str(name) for name in bunch.target_names),
        labels=labels,
        content=torch.from_numpy(images),
        channels=1,
        size=16,
        subject="strokes",
        identity=digest(images, labels),
        notes=("values 0-16 scaled to 0-255", "8x8 pixels natively"),
    )
