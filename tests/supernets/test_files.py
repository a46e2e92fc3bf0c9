from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from supernets.files import Busy, atomic_write, clean_temporaries, lock, sha256_file, write_json


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    atomic_write(path, b"one")
    atomic_write(path, lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert sha256_file(path) == "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    atomic_write(path, b"old")

    def fail(file) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_full_disk_is_an_oserror_that_says_how_much_was_needed(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    atomic_write(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=r"needs 2\.0 MB") as caught:
            atomic_write(path, bytes(2_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_json_refuses_what_json_is_not(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": [1, None, "é"]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, None, "é"]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text())["a"][0] == 1


def test_a_missing_folder_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "no" / "a", b"")
    with pytest.raises(FileNotFoundError), lock(tmp_path / "no"):
        pass


def test_stray_temporaries_are_cleaned_and_those_in_the_making_stay(tmp_path: Path) -> None:
    (tmp_path / ".a.bin.x1.tmp").write_bytes(b"stray")
    (tmp_path / "kept.tmp").write_bytes(b"a user's")
    writing = tmp_path / ".b.bin.x2.tmp"
    with writing.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert clean_temporaries(tmp_path) == [".a.bin.x1.tmp"]
        assert writing.exists()
    assert clean_temporaries(tmp_path) == [".b.bin.x2.tmp"]
    assert (tmp_path / "kept.tmp").exists()


def test_a_locked_folder_is_busy_and_names_the_process(tmp_path: Path) -> None:
    with lock(tmp_path):
        with pytest.raises(Busy, match=f"{tmp_path} is in use by pid {os.getpid()}$"), lock(tmp_path):
            pass
        seen: list[str] = []

        def other() -> None:
            try:
                with lock(tmp_path):
                    pass
            except Busy as error:
                seen.append(str(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert len(seen) == 1
    with lock(tmp_path):
        pass


def test_a_killed_process_holds_nothing_even_if_its_forked_child_lives(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from supernets.files import lock\n"
        "with lock(sys.argv[1]):\n"
        "    if os.fork() == 0:\n"
        "        os.closerange(1, 3); time.sleep(20); os._exit(0)\n"
        "    print('held', flush=True); time.sleep(20)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        time.sleep(0.2)
        with pytest.raises(Busy, match=f"pid {process.pid}$"), lock(tmp_path):
            pass
        process.kill()
        process.wait()
        with lock(tmp_path):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
