"""What tests start in processes of their own finds everything imported, and nothing started."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from socket import socket

import pytest

from forked import IMPORTED, PORTS, context, end_together, free_port


def look(folder: Path) -> None:
    (folder / "missing").write_text(" ".join(set(IMPORTED) - set(sys.modules)))
    threads = Path(f"/proc/{os.getppid()}/task")
    (folder / "threads").write_text(str(len(list(threads.iterdir())) if threads.is_dir() else 1))


def test_the_server_has_imported_everything_and_started_no_thread(tmp_path: Path) -> None:
    process = context().Process(target=look, args=(tmp_path,))
    process.start()
    end_together([process])
    assert (tmp_path / "missing").read_text() == ""
    assert (tmp_path / "threads").read_text() == "1"


def test_a_port_is_free_and_another_one_each_time() -> None:
    first, second = free_port(), free_port()
    assert first != second and {first, second} <= set(PORTS)
    with socket() as tried:
        tried.bind(("127.0.0.1", first))


def leave(code: int, seconds: float) -> None:
    time.sleep(seconds)
    os._exit(code)


def test_one_that_fails_ends_the_others() -> None:
    processes = [context().Process(target=leave, args=how) for how in ((0, 0.0), (3, 0.1), (0, 300.0))]
    for process in processes:
        process.start()
    started = time.monotonic()
    with pytest.raises(AssertionError, match=r"exit codes \[(0|None), 3, None\]"):
        end_together(processes)
    assert time.monotonic() - started < 200 and not any(process.is_alive() for process in processes)


def test_all_may_be_expected_to_fail_alike() -> None:
    processes = [context().Process(target=leave, args=(3, 0.0)) for _ in range(2)]
    for process in processes:
        process.start()
    end_together(processes, expected=3)
