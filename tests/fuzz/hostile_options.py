"""Files of options and command lines: some right, some with a word or a value that nobody meant."""

from __future__ import annotations

from typing import Any

import yaml
from hostile_cases import JUDGE, QUICKLY, Case, Material
from hostile_values import NUMBERS, TRICKS, WORDS, absurd, damaged
from hypothesis import strategies as st

FIT_OPTIONS: dict[str, Any] = {
    "data": "photos", "model": "resnet20_cifar", "weights": "none", "method": "autolora", "rank": 2, "eps": "8/255",
    "method_options": {"alpha": 2}, "norm": "Linf", "attack": "pgd-1", "schedule": "cosine", "lr": 0.05, "seed": 1,
    "schedule_options": {"warmup": 1}, "momentum": 0.9, "weight_decay": 1e-4, "val_fraction": 0.2, "adapter": None,
    "label_fraction": 1.0, "classes": "red,blue", "augmentation": "none", "precision": "fp32", "workers": 0,
    "checkpoint_minutes": 0.0, "skip_bad_images": False, "reset_momentum": False, "deterministic": False,
    "gradient_similarity": 0, "head": "zero", "step_size": "2/255", "plugin": None, "data_root": None,
}  # fmt: skip
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(8)
)
HOSTILE_YAML = st.sampled_from([
    BOMB, "model: &m [*m]\n", "[" * 3000, "{a: " * 2000, "model: !!binary 3\n", "? [a, b]\n: 3\n", "\t\n", "\x00",
    "model: !!python/object/apply:os.system ['touch ../canary']\n", "model: !!python/name:os.system\n",
    "!!python/object/new:os.system ['touch ../canary']\n", "<<: [1]\n", "model: 2020-01-01\n", "config: c.yaml\n",
    "--- a\n--- b\n", "%YAML 9\n---\n", "- 1\n- 2\n", 'model: "a\\0b"\n',
])  # fmt: skip


JUDGE_OPTIONS: dict[str, Any] = {
    "attack": ["pgd-1"], "eps": ["8/255", "2/255"], "norm": "L2", "limit": 4, "restarts": 1, "seed": 1, "split": "val",
    "batch_size": 4, "image_size": 12, "precision": "fp32", "device": "cpu", "data": "photos", "fast": False,
    "weights": "auto", "weights_format": "auto", "engine": "own", "resume": False, "corruptions": False,
}  # fmt: skip
DOCTOR_OPTIONS: dict[str, Any] = {
    "data": "photos", "eps": "8/255", "norm": "Linf", "split": "test", "seed": 1, "image_size": 12, "quiet": True,
    "weights": "auto", "weights_format": "auto", "json": False,
}  # fmt: skip
REPORT_OPTIONS: dict[str, Any] = {"runs": ["run"], "data": "photos", "no_gallery": True, "device": "cpu"}
CONFIGURED: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("fit", "photos", *QUICKLY), FIT_OPTIONS),
    (("fit", *QUICKLY), FIT_OPTIONS),
    (("evaluate", "run", *JUDGE), JUDGE_OPTIONS),
    (("doctor", "run", "--limit", "6", "--device", "cpu"), DOCTOR_OPTIONS),
    (("report", "run", "--no-gallery", "--out", "out.html"), REPORT_OPTIONS),
)


def configs(material: Material) -> st.SearchStrategy[Case]:
    @st.composite
    def config(draw: st.DrawFn) -> Case:
        argv, options = draw(st.sampled_from(CONFIGURED))
        chosen = draw(st.lists(st.sampled_from(sorted(options)), min_size=1, max_size=5, unique=True))
        content = {name: options[name] for name in chosen}
        how = draw(st.integers(0, 9))
        if how < 6:
            content = {**content, chosen[0]: draw(absurd(options[chosen[0]]))}
        data = yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "surrogatepass")
        if how == 7:
            data = draw(damaged(data))
        elif how == 8:
            data = draw(HOSTILE_YAML).encode()
        elif how == 9:
            data = draw(st.binary(max_size=60))
        return Case("config", (*argv, "--config", "c.yaml"), {"c.yaml": data}, run=True)

    return config()


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("fit", "photos", *QUICKLY),
    ("pretrain", "photos", *QUICKLY),
    ("evaluate", "run", *JUDGE),
    ("doctor", "run", "--limit", "6", "--device", "cpu"),
    ("compare", "run", "run", "--metric", "natural"),
    ("report", "run", "--no-gallery", "--out", "out.html"),
    ("export", "run", "--format", "timm", "--out", "out"),
    ("suite", "list", "--json"),
    ("suite", "show", "loft.T1", "--scale", "small"),
    ("suite", "table", "loft.T1", "--runs", "run"),
    ("params", "resnet20_cifar", "--rank", "2"),
    ("methods", "--filter", "a*"),
    ("models", "--filter", "*20*"),
    ("datasets",),
    ("presets", "--json"),
)
MORE = st.sampled_from([
    "--eps", "--norm", "--seed", "--limit", "--split", "--weights", "--weights-format", "--method", "--schedule", "--x",
    "--method-options.alpha", "--lr", "--classes", "--val-fraction", "--preset", "--plugin", "--config", "--resume",
    "--json", "--help", "--batch-size", "--image-size", "--attack", "--restarts", "--data", "--adapter", "--precision",
    "--engine", "--upsample-to", "--metric", "--private", "--habit", "--seeds", "--beside", "--targets", "--style",
    "--num-classes", "--no-gallery",
])  # fmt: skip


def arguments(material: Material) -> st.SearchStrategy[Case]:
    @st.composite
    def line(draw: st.DrawFn) -> Case:
        words = list(draw(st.sampled_from(COMMANDS)))
        for _ in range(draw(st.integers(1, 3))):
            place = draw(st.integers(0, len(words)))
            junk = draw(st.one_of(TRICKS, WORDS, MORE, NUMBERS.map(str)))
            action = draw(st.sampled_from(["replace", "insert", "remove", "option"]))
            if action == "option":
                words += [draw(MORE), junk]
            else:
                words[place : place + (action != "insert")] = [] if action == "remove" else [junk]
        for place, word in enumerate(words[1:], start=1):
            if words[place - 1] == "--out" and word not in ("out", "out.html"):
                words[place] = "out"  # wherever that is said to go, it may go
        return Case("arguments", tuple(words), {}, run=True)

    return line()
