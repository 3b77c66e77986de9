"""The main job on what the package holds: where it writes, and that it says so when something lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autolora.errors import InputError
from autolora.experiments import quickstart as quickstart_module
from autolora.experiments.config import RunConfig
from autolora.experiments.evaluation_config import EvaluationConfig
from autolora.experiments.quickstart import quickstart
from autolora.experiments.result import RunResult


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The configurations that it runs; the runs themselves leave their folder and nothing else."""
    kept: list[RunConfig] = []

    def remember(config: RunConfig, *, progress: bool) -> RunResult:
        kept.append(config)
        config.folder.mkdir(parents=True, exist_ok=True)
        return RunResult(config.folder, {"scores": {"natural": {"total": 360}}, "seconds": 2.0})

    monkeypatch.setattr(quickstart_module, "run", remember)
    return kept


@pytest.fixture(autouse=True)
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[EvaluationConfig]:
    """The evaluations that it asks for; each says of itself which one it was."""
    kept: list[EvaluationConfig] = []

    def remember(config: EvaluationConfig, *, progress: bool) -> dict[str, Any]:
        kept.append(config)
        return {"scores": {"natural": {"total": 40}, "autoattack-fast": {"total": 40, "correct": len(kept)}}}

    monkeypatch.setattr(quickstart_module, "run_evaluation", remember)
    return kept


def test_robust_run_and_control_differ_in_the_method_alone(configs: list[RunConfig]) -> None:
    robust, control = quickstart("first", seed=4)
    assert (robust.folder, control.folder) == (Path("first"), Path("first/control"))
    assert (configs[0].data, configs[0].model, configs[0].seed) == ("digits", "packaged", 4)
    changed = {name for name, value in vars(configs[0]).items() if value != getattr(configs[1], name)}
    assert changed == {"method", "out"}
    assert (configs[0].method, configs[1].method) == ("autolora", "ft")


@pytest.mark.usefixtures("configs")
def test_autoattack_on_one_sample_for_both_joins_the_scores(evaluations: list[EvaluationConfig]) -> None:
    robust, control = quickstart("first", seed=4)
    assert [config.model for config in evaluations] == ["first", "first/control"]
    assert {(config.attacks, config.limit, config.seed) for config in evaluations} == {(("autoattack-fast",), 40, 4)}
    for number, run in enumerate((robust, control), start=1):
        assert run.scores["natural"]["total"] == 360, "the sample's own natural score does not replace the run's"
        assert run.scores["autoattack-fast"] == {"total": 40, "correct": number}
        assert json.loads((run.folder / "result.json").read_text()) == run.content
        assert run.content["seconds"] >= 2.0


@pytest.mark.usefixtures("configs")
def test_every_time_a_new_folder() -> None:
    folders = [quickstart()[0].folder for _ in range(3)]
    assert len(set(folders)) == 3
    assert folders[0] == Path("runs/quickstart")


def test_a_folder_that_holds_something_else() -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not empty and holds no run"):
        quickstart("mine", progress=False)
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.tex"]
