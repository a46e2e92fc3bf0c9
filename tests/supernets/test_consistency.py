"""Agreement and divergence of two networks."""

from __future__ import annotations

import pytest
import torch
from language import language_supernet, sequences, uniform
from torch.nn import functional as F

from search_spaces import InputError
from supernets.consistency import consistency


def test_a_network_is_consistent_with_itself():
    supernet = language_supernet()
    for ratio in (0.5, 4.0):
        network = supernet.subnet(uniform(supernet.space, ratio))
        found = consistency(network, network, [sequences(2, 9), sequences(1, 5)])
        assert (found.agreement, found.kl, found.predictions) == (1.0, 0.0, 23)


def test_it_is_what_pytorch_says():
    supernet = language_supernet()
    small, large = supernet.subnet(supernet.space.smallest), supernet.subnet(supernet.space.largest)
    x = sequences(3, 9)
    found = consistency(small, large, [x[:2], x[2:]])
    a, b = small(x).detach().flatten(0, 1), large(x).detach().flatten(0, 1)
    kl = F.kl_div(b.log_softmax(-1), a.softmax(-1), reduction="batchmean")  # KL(a || b)
    assert found.kl == pytest.approx(float(kl), rel=1e-5)
    assert found.agreement == pytest.approx(float((a.argmax(-1) == b.argmax(-1)).double().mean()))
    assert found.kl > 0


def test_classes_of_images_are_predictions_too():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    found = consistency(lambda x: logits, lambda x: logits.flip(0)[:, :], [torch.zeros(2)])
    assert found.agreement == 0.0
    assert found.predictions == 2


def test_no_batch_is_refused():
    with pytest.raises(InputError, match="at least one batch"):
        consistency(torch.nn.Identity(), torch.nn.Identity(), [])
