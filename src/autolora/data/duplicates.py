"""Images that show the same picture: in two splits, where a test image was learnt by heart, or under two labels.

Exact copies have the same pixels after decoding and cropping. Near-copies look alike (`outlines`): re-encoded, resized,
brightened. Every pair of images is compared, a block of rows at a time, so memory grows with N and not with N^2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor
from tqdm import tqdm

from autolora.data.imageset import ImageSet
from autolora.data.outlines import grey, outlines
from autolora.data.splits import Splits

LIKE = 0.9
"""Product of outlines from which two images are near-copies: measured on photographs, see docs/doctor.md."""

TOO_ALIKE, NEIGHBOURS = 0.7, 10
"""Where half of the images are this like their tenth nearest, likeness does not tell a copy: digits, frames of a video.
The tenth, because the nearest few of an image may be its copies."""

SAMPLE = 500
"""Images whose neighbours tell how alike the images of a data set are."""

BLANK = 2.0
"""Standard deviation, in grey levels, below which an image shows nothing."""

READ, PRODUCTS = 256, 2**24
"""Images decoded at once, and products of outlines held at once."""

ORDER = ("test", "val", "train")
"""Each pair is found from the image whose split comes first here: what is held out is compared with what is learnt."""


@dataclass(frozen=True)
class Twin:
    """Two images that show the same picture.

    Args:
        name: Readable path of the first.
        split: Which split it is in.
        label: Class index that the first has.
        other_name: Path of the second.
        other_split: Its split.
        other_label: Its class index.
        likeness: Product of their outlines, up to 1.
        exact: Whether their pixels are the same.
    """

    name: str
    split: str
    label: int
    other_name: str
    other_split: str
    other_label: int
    likeness: float
    exact: bool


@dataclass(frozen=True)
class Duplicates:
    """What was found in a data set.

    Args:
        leaks: For each test image that is in val or train too, and each val image that is in train, its likest twin.
        conflicts: Images whose twin has another label; each pair once.
        repeats: How many training images are exact copies of another one of the same class.
        blank: Paths of images that show nothing.
        alikeness: Median likeness of an image to the tenth nearest of all others.
        told_apart: Whether near-copies were looked for; False where images are too alike for that.
    """

    leaks: tuple[Twin, ...]
    conflicts: tuple[Twin, ...]
    repeats: int
    blank: tuple[str, ...]
    alikeness: float
    told_apart: bool


@dataclass(frozen=True)
class Pool:
    """All images of a data set, in the order of `ORDER`.

    Args:
        outlines: (N, 256), on the device to compute on.
        digests: SHA-256 of the pixels of each.
        splits: Index into `ORDER` of each, (N,).
        labels: Class index of each, (N,).
        names: Readable path of each.
        blank: Whether it shows nothing, (N,) bool.
    """

    outlines: Tensor
    digests: tuple[bytes, ...]
    splits: Tensor
    labels: Tensor
    names: tuple[str, ...]
    blank: Tensor


def find_duplicates(splits: Splits, *, device: torch.device | None = None, progress: bool = False) -> Duplicates:
    """Compare every image of a data set with every other.

    Args:
        splits: The data; images are compared as the network is shown them, without augmentation.
        device: Where to compare.
        progress: Show a bar.
    """
    pool = _pool([getattr(splits, name) for name in ORDER], device or torch.device("cpu"), progress)
    alikeness = _alikeness(pool.outlines)
    told_apart = alikeness < TOO_ALIKE
    kinds = (pool.splits, pool.labels)
    near = _near_copies(pool.outlines, kinds, progress) if told_apart else [{}, {}]
    leaks, conflicts = (found | _copies(pool.digests, kind.tolist()) for found, kind in zip(near, kinds, strict=True))
    return Duplicates(
        leaks=_twins(pool, leaks),
        conflicts=_twins(pool, conflicts),
        repeats=_repeats(pool),
        blank=tuple(name for name, blank in zip(pool.names, pool.blank.tolist(), strict=True) if blank),
        alikeness=alikeness,
        told_apart=told_apart,
    )


def _pool(sets: Sequence[ImageSet], device: torch.device, progress: bool) -> Pool:
    parts: list[Tensor] = []
    digests: list[bytes] = []
    blank: list[Tensor] = []
    bar = tqdm(total=sum(map(len, sets)), desc="looking at images", unit="image", disable=not progress, leave=False)
    with bar:
        for images in sets:
            for start in range(0, len(images), READ):
                pixels = images.pixels.centre_crops(images.rows[start : start + READ])
                digests += [sha256(image.numpy().tobytes()).digest() for image in pixels]
                blank.append(grey(pixels).flatten(1).std(dim=1, correction=0) < BLANK)
                parts.append(outlines(pixels).to(device))
                bar.update(len(pixels))
    return Pool(
        torch.cat(parts),
        tuple(digests),
        torch.arange(len(sets)).repeat_interleave(torch.tensor([len(images) for images in sets])),
        torch.cat([images.labels for images in sets]),
        tuple(name for images in sets for name in images.names),
        torch.cat(blank),
    )


def _alikeness(vectors: Tensor) -> float:
    """Median likeness to the tenth nearest other image, over a sample; images without edges do not count."""
    known = vectors[vectors.any(dim=1)]
    if len(known) < 2:
        return 0.0
    sample = known[torch.linspace(0, len(known) - 1, min(SAMPLE, len(known)), device=known.device).long()]
    rank = min(NEIGHBOURS + 1, len(known))  # the nearest of all is the image itself
    starts = range(0, len(sample), _rows(len(known)))
    likeness = (sample[start : start + starts.step] @ known.T for start in starts)
    tenth = [block.topk(rank, dim=1).values[:, -1] for block in likeness]
    return float(torch.cat(tenth).median())


def _rows(columns: int) -> int:
    """How many rows of products to hold at once."""
    return max(1, PRODUCTS // columns)


def _near_copies(vectors: Tensor, kinds: Sequence[Tensor], progress: bool) -> list[dict[int, int]]:
    """For each kind: the likest later image of another value, by image that has one that is like enough."""
    found: list[dict[int, int]] = [{} for _ in kinds]
    kinds = [kind.to(vectors.device) for kind in kinds]
    starts = range(0, len(vectors), _rows(len(vectors)))
    for start in tqdm(starts, desc="comparing images", disable=not progress, leave=False):
        block = vectors[start : start + starts.step]
        likeness = block @ vectors[start:].T
        likeness[:, : len(block)].triu_(diagonal=1)  # each pair once, and no image with itself
        rows = (likeness.amax(dim=1) >= LIKE).nonzero().flatten()
        for pairs, kind in zip(found, kinds, strict=True):
            other = kind[start + rows].unsqueeze(1) != kind[start:].unsqueeze(0)
            best, column = likeness[rows].where(other, -1.0).max(dim=1)
            pairs |= {
                start + i: start + j
                for i, j, like in zip(rows.tolist(), column.tolist(), best.tolist(), strict=True)
                if like >= LIKE
            }
    return found


def _copies(digests: Sequence[bytes], kind: Sequence[int]) -> dict[int, int]:
    """Find a later image with the same pixels and another value, by image that has one."""
    found: dict[int, int] = {}
    later: dict[bytes, int] = {}  # the next image with these pixels
    for i in reversed(range(len(digests))):
        j = later.get(digests[i])
        if j is not None:
            j = j if kind[j] != kind[i] else found.get(j)
        if j is not None:
            found[i] = j
        later[digests[i]] = i
    return found


def _twins(pool: Pool, pairs: dict[int, int]) -> tuple[Twin, ...]:
    """Describe pairs, exact ones first, then the likest."""

    def twin(i: int, j: int) -> Twin:
        exact = pool.digests[i] == pool.digests[j]
        likeness = 1.0 if exact else round(float(pool.outlines[i] @ pool.outlines[j]), 4)
        return Twin(*_described(pool, i), *_described(pool, j), likeness, exact)

    return tuple(sorted((twin(i, j) for i, j in sorted(pairs.items())), key=lambda t: (-t.exact, -t.likeness)))


def _described(pool: Pool, i: int) -> tuple[str, str, int]:
    return pool.names[i], ORDER[int(pool.splits[i])], int(pool.labels[i])


def _repeats(pool: Pool) -> int:
    train = [i for i, split in enumerate(pool.splits.tolist()) if ORDER[split] == "train"]
    labels = pool.labels.tolist()
    return len(train) - len({(pool.digests[i], labels[i]) for i in train})
