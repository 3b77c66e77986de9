"""How the tests come by a browser: it is used, installed if that is asked for, or named as the reason of a skip."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import headless
from headless import ASKED, Absent, chromium

pytest.importorskip("playwright", reason="no playwright: pip install playwright")
APT = """#!/bin/sh
echo "$@" >> {log}
case "$*" in *install*) {installs};; esac
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on its path but a shell's few."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "env", "touch", "chmod"):
        (folder / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv(ASKED, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return folder


def script(file: Path, text: str = "#!/bin/sh\n") -> None:
    file.write_text(text)
    file.chmod(stat.S_IRWXU)


def test_one_on_the_path_is_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(path / "chromium")
    assert chromium() == str(path / "chromium")
    monkeypatch.setenv(ASKED, "install")
    assert chromium() == str(path / "chromium")  # there is nothing to install, and no apt-get


def test_nothing_is_installed_that_nobody_asked_for(path: Path) -> None:
    script(path / "apt-get", APT.format(log=path / "log", installs=f"touch {path}/chromium"))
    with pytest.raises(Absent, match=f"no chromium: apt-get install chromium, or .* {ASKED}=install"):
        chromium()
    assert not (path / "log").exists()


def test_it_is_installed_if_that_is_asked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ASKED, "install")
    script(path / "apt-get", APT.format(log=path / "log", installs=f"touch {path}/chromium; chmod +x {path}/chromium"))
    assert chromium() == str(path / "chromium")
    assert [line.split()[2] for line in (path / "log").read_text().splitlines()] == ["update", "install"]


@pytest.mark.parametrize(
    ("apt", "reason"),
    [
        (None, "No such file|ended with 127"),
        ("#!/bin/sh\necho 'E: mirror does not answer' >&2\nexit 100\n", "ended with 100 .E: mirror does not answer"),
        ("#!/bin/sh\nexec /bin/sleep 60\n", "timed out"),
        ("#!/bin/sh\n", "cannot be found"),
    ],
)
def test_what_keeps_it_away_is_a_reason_and_no_error(
    apt: str | None, reason: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ASKED, "install")
    if "sleep" in (apt or ""):
        monkeypatch.setattr(headless, "SECONDS", 0.5)
    if apt is not None:
        script(path / "apt-get", apt)
    with pytest.raises(Absent, match=reason) as absent:
        chromium()
    assert "\n" not in str(absent.value)
