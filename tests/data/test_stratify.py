import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from autolora.data.stratify import allocate, draw, standard_error, validation_size

sizes_lists = st.lists(st.integers(1, 60), min_size=2, max_size=8)


@given(sizes_lists, st.floats(0, 1))
def test_shares_are_exact_but_for_rounding(sizes: list[int], fraction: float) -> None:
    total = round(fraction * sum(sizes))
    shares = allocate(sizes, total)
    assert sum(shares) == total
    for size, count in zip(sizes, shares, strict=True):
        exact = total * size / sum(sizes)
        assert math.floor(exact - 1e-9) <= count <= math.ceil(exact + 1e-9)


@given(sizes_lists, st.floats(0, 1), st.integers(0, 2**32))
def test_draws_are_disjoint_covering_stratified_and_seeded(sizes: list[int], fraction: float, seed: int) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    counts = [int(fraction * size) for size in sizes]
    before = torch.get_rng_state()
    drawn, rest = draw(labels, counts, torch.Generator().manual_seed(seed))
    assert torch.equal(before, torch.get_rng_state())
    assert sorted(drawn.tolist() + rest.tolist()) == list(range(len(labels)))
    assert torch.bincount(labels[drawn], minlength=len(sizes)).tolist() == counts
    assert torch.equal(drawn, draw(labels, counts, torch.Generator().manual_seed(seed))[0])
    fewer, _ = draw(labels, [count // 2 for count in counts], torch.Generator().manual_seed(seed))
    assert set(fewer.tolist()) <= set(drawn.tolist())


def test_validation_size() -> None:
    assert validation_size(50_000) == 2_500  # the paper's 5 %
    assert validation_size(12_500) == validation_size(5_000) == 625 == validation_size(3_125)
    assert validation_size(244) == 49  # no more than 20 %
    assert standard_error(625) == 0.02
