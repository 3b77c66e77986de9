"""What the numbers of a run depend on beside its configuration: images, machine, versions."""

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
    """

    data: str
    fingerprint: str
    machine: Mapping[str, Any]

    def facts(self) -> dict[str, Any]:
        """Return them as plain values."""
        return {"fingerprint": self.fingerprint, "machine": dict(self.machine)}

    def compare(self, before: Mapping[str, Any]) -> None:
        """Refuse other images, and say what else has changed.

        Raises:
            InputError: If the images are not those that the run was started with.
        """
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
