"""The parts in which a batch is taken."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from autolora.training.update import in_parts


@given(images=st.integers(1, 40), parts=st.integers(1, 12), fewest=st.sampled_from([2, 4]))
def test_parts_are_as_many_as_asked_for_and_none_has_too_few_images(images: int, parts: int, fewest: int) -> None:
    """Of one image batch norm knows no variance, and TWINS has two nets."""
    x, y = torch.rand(images, 1, 1, 1), torch.arange(images)
    found = in_parts(x, y, parts, fewest)
    sizes = [len(part) for _, part in found]
    assert len(found) == (parts if images >= fewest * parts else max(1, images // fewest))
    assert max(sizes) - min(sizes) <= 1 and (min(sizes) >= fewest or images < fewest)
    assert torch.equal(torch.cat([part for part, _ in found]), x)
    assert torch.equal(torch.cat([part for _, part in found]), y)
