"""What is shown while something runs: of an evaluation images left, upper bound, interval and time to go; or steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from tqdm import tqdm

from autolora.attacks.autoattack.ensemble import STANDING
from autolora.evaluation import Score
from autolora.evaluation.shards import Shard, Shards


@contextmanager
def steps(count: int, *, shown: bool) -> Iterator[Callable[[str], None]]:
    """Show which of a few steps is under way, where each takes a while and cannot be counted further.

    Args:
        count: How many there are.
        shown: Whether to show anything.

    Yields:
        What is called with its name when a step begins.
    """
    with tqdm(total=count, unit="step", disable=not shown, dynamic_ncols=True, leave=False) as bar:
        begun: list[str] = []

        def begin(name: str) -> None:
            bar.update(1 if begun else 0)
            bar.set_description(name)
            begun.append(name)

        yield begin


class Progress:
    """A bar over the images of one attack.

    Args:
        title: What is going on.
        shards: Where the verdicts go; those that are there already count as done.
        shown: Whether to show anything.
    """

    def __init__(self, title: str, shards: Shards, *, shown: bool) -> None:
        self.shards, self.counted = shards, set[int]()
        self.total, self.done, self.still = shards.total, 0, 0
        self.bar = tqdm(
            total=shards.total, desc=title, unit="image", disable=not shown, dynamic_ncols=True, leave=False
        )
        self.left = ""
        self._count()
        self.bar.initial = self.bar.n = self.done  # what was there already says nothing about the speed
        self._show()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def part(self, name: str, left: int) -> None:
        """Say which part of the attack is at work, and on how many images of the shard."""
        self.left = f"{name}: {left} left in batch"
        self._show()

    def shard(self, shard: Shard) -> None:
        """Count a shard that is done, and those that other processes have done meanwhile."""
        self._count()
        self.bar.update(self.done - self.bar.n)
        self._show()

    def _count(self) -> None:
        if self.bar.disable:  # nobody looks at it
            return
        for number in set(range(len(self.shards))) - self.counted:
            shard = self.shards.read(number)
            if shard is not None:
                self.counted.add(number)
                self.done += len(shard.by)
                self.still += int((shard.by == STANDING).sum())

    def _show(self) -> None:
        bound = f"at most {(self.total - self.done + self.still) / self.total:.1%}"
        if self.done:
            so_far = Score(self.still, self.done)
            low, high = so_far.ci95
            bound += f", so far {so_far.accuracy:.1%} [{100 * low:.1f}, {100 * high:.1f}]"
        self.bar.set_postfix_str(" | ".join(filter(None, (bound, self.left))))
