"""What the numbers of a run depend on beside its configuration: images, a plugin's code, machine, versions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autolora.errors import InputError

logger = logging.getLogger(__name__)

WORDS = {
    "version": "autolora",
    "torch": "torch",
    "device": "the device",
    "cpu": "the processor's instructions",
    "threads": "the number of threads",
    "precision": "the precision",
    "workers": "the number of workers",
}


@dataclass(frozen=True)
class RunCircumstances:
    """Kept with every checkpoint, and compared before a run is continued.

    Args:
        data: What the user calls the images.
        fingerprint: SHA-256 of them.
        machine: What results may depend on, by the names in ``WORDS``.
        plugin: SHA-256 of the file that ``--plugin`` names; None without one.
    """

    data: str
    fingerprint: str
    machine: Mapping[str, Any]
    plugin: str | None = None

    def facts(self) -> dict[str, Any]:
        """Return them as plain values."""
        return {"fingerprint": self.fingerprint, "machine": dict(self.machine), "plugin": self.plugin}

    def compare(self, before: Mapping[str, Any]) -> None:
        """Refuse other images and another plugin, and say what else has changed.

        Raises:
            InputError: If the images or the plugin's file are not those that the run was started with.
        """
        if before.get("plugin", self.plugin) != self.plugin:  # absent in checkpoints of before it was kept
            raise InputError(
                "--resume: the plugin's file is not as it was when the run was started (SHA-256 "
                f"{_short(before['plugin'])} then, {_short(self.plugin)} now); put it back, or start a new run with "
                "another --out"
            )
        if before["fingerprint"] != self.fingerprint:
            raise InputError(
                f"--resume: the images of {self.data} are not those that the run was started with (fingerprint "
                f"{before['fingerprint'][:12]} then, {self.fingerprint[:12]} now); put them back, or start a new run "
                "with another --out"
            )
        changed = [
            f"{WORDS[name]} ({before['machine'].get(name)}, now {value})"
            for name, value in self.machine.items()
            if before["machine"].get(name) != value
        ]
        if changed:
            logger.warning(
                f"--resume: {', '.join(changed)} changed since the run was started: it will end near, but not exactly "
                "at, the numbers of an uninterrupted one"
            )


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]
