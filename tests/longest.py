"""The files of tests that take longest, in the order in which they are begun."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parent
LONGEST = (
    "experiments/test_main_job.py",
    "training/test_resume.py",
    "training/test_sharding.py",
    "training/test_replicas.py",
    "experiments/test_faults.py",
    "experiments/test_joint_runs.py",
    "experiments/test_processes.py",
    "training/test_architectures.py",
    "training/test_forms.py",
    "experiments/test_run.py",
)


def by_length(path: Path) -> int:
    """Return the place of a file among the longest; behind them for all others."""
    name = path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)
