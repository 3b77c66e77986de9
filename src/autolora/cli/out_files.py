"""Files that a command writes where the user says: checked before anything slow begins."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from autolora.errors import InputError
from autolora.experiments.result import CONFIG, EVALUATION, METRICS, RESULT, SPLIT, VERDICTS
from autolora.paths import expanded

# what runs, evaluations, models and adapters consist of
OWN = {RESULT, SPLIT, METRICS, CONFIG, EVALUATION, VERDICTS, "config.json", "adapter_config.json", "manifest.json"}
DEEPEST = 3  # RUN/evaluation/ATTACK


def checked_out(out: str, suffixes: Collection[str], what: str) -> Path:
    """Return the file to write.

    Args:
        out: As the user named it.
        suffixes: Of files that can be written.
        what: Is written, such as "a comparison".

    Raises:
        InputError: If its suffix stands for nothing, it is a folder, or it is a file of a run.
    """
    file = expanded(out)
    if file.suffix.lower() not in suffixes:
        given = repr(file.suffix) if file.suffix else "no suffix"
        raise InputError(f"--out {out} has {given}; {what} is written as {', '.join(suffixes)}")
    if file.is_dir():
        raise InputError(f"--out {out} is a folder; name a file")
    refuse_own(file)
    return file


def refuse_own(file: Path) -> None:
    """Refuse to write over what a run found.

    Raises:
        InputError: If the file is called as one of a run's, and lies in a run folder.
    """
    above = file.absolute().parents[:DEEPEST]
    if file.name.lower() in OWN and any((folder / name).is_file() for folder in above for name in (RESULT, CONFIG)):
        raise InputError(f"--out {file} is a file of the run in this folder; name another")
