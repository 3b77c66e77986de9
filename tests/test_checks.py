"""What runs before a change lands: the longest tests first, the same examples each time, and no fault is lost."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

from longest import LONGEST, TESTS, by_length

CHECKS = TESTS.parent / ".ci" / "run"
# stands for uv: says what it was asked to run, and fails if that is to fail
PLAYED = """#!/usr/bin/env bash
echo "asked: $*"
[[ -n "$FAILING" && " $* " == *" $FAILING "* ]] || exit 0
echo "$FAILING found a fault"
exit 3
"""


def test_the_longest_files_are_begun_first(request: pytest.FixtureRequest) -> None:
    files = list(dict.fromkeys(item.path for item in request.session.items))
    begun = [path for path in files if by_length(path) < len(LONGEST)]
    assert files[: len(begun)] == begun
    assert begun == [path for name in LONGEST if (path := TESTS / name) in files]
    assert all((TESTS / name).is_file() for name in LONGEST)


def test_examples_that_are_made_up_are_the_same_each_time() -> None:
    assert settings().derandomize and settings().deadline is None


@pytest.mark.skipif(not CHECKS.is_file(), reason="not in this distribution")
@pytest.mark.parametrize("failing", ["", "ruff", "mypy", "lint-imports", "pytest"])
def test_any_check_that_fails_fails_all_and_is_shown(failing: str, tmp_path: Path) -> None:
    played = tmp_path / "uv"
    played.write_text(PLAYED)
    played.chmod(0o755)
    paths = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    environment = os.environ | {"PATH": paths, "FAILING": failing, "TMPDIR": str(tmp_path)}
    done = subprocess.run(["bash", str(CHECKS)], env=environment, capture_output=True, text=True, timeout=600)
    assert (done.returncode == 0) == (failing == "")
    assert (f"{failing} found a fault" in done.stdout) == (failing != "")
    if failing != "ruff":  # with which nothing else is begun
        assert all(name in done.stdout for name in ("ruff format", "mypy", "lint-imports", "pytest -n 2"))
    assert list(tmp_path.iterdir()) == [played]
