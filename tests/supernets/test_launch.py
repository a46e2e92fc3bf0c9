"""What torchrun's environment says, and signals that it repeats."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch

from search_spaces.errors import InputError
from supernets.distributed import ALONE, joined, launch, launched, local_device, restart_advice
from supernets.interrupt import stop_on_signal


def test_without_torchrun_there_is_one_rank_and_nothing_is_connected(monkeypatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    with joined() as ranks:
        assert ranks is ALONE
        assert not torch.distributed.is_initialized()
    assert (launched(), launch(), restart_advice(), local_device("cuda:3")) == (1, None, None, "cuda:3")


def test_each_rank_has_the_gpu_of_its_local_number(monkeypatch) -> None:
    for name, value in (("RANK", "5"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "8"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert (local_device("cuda"), local_device("cpu")) == ("cuda:1", "cpu")
    with pytest.raises(InputError, match="device 'cuda:2' is one GPU for 8 ranks; use --device cuda"):
        local_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="4 ranks on this machine need a GPU each, 2 found"):
        local_device("cuda")


def test_restarts_across_machines_are_advised_where_torchrun_shares_its_store(monkeypatch) -> None:
    given = {
        **{"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"},
        **{"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_MAX_RESTARTS": "3"},
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in str(restart_advice())
    for name, value in (
        ("TORCHELASTIC_USE_AGENT_STORE", "False"),
        ("TORCHELASTIC_MAX_RESTARTS", "0"),
        ("LOCAL_WORLD_SIZE", "4"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert restart_advice() is None
    first = launch()
    assert first == launch()
    assert first is not None
    assert str(os.getppid()) in first


def test_a_signal_that_the_launcher_repeats_at_once_is_one_wish_to_stop() -> None:
    with stop_on_signal(echo_s=0.3) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signum == signal.SIGINT
        time.sleep(0.35)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
