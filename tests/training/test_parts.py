"""The parts in which a batch is taken."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from autolora.training.update import in_parts


@given(images=st.integers(1, 40), parts=st.integers(1, 12))
def test_parts_are_as_many_as_asked_for_and_none_is_of_one_image(images: int, parts: int) -> None:
    """Of one image batch norm knows no variance, and TWINS' frozen net no loss."""
    x, y = torch.rand(images, 1, 1, 1), torch.arange(images)
    found = in_parts(x, y, parts)
    sizes = [len(part) for _, part in found]
    assert len(found) == (parts if images >= 2 * parts else max(1, images // 2))
    assert max(sizes) - min(sizes) <= 1 and (min(sizes) > 1 or images == 1)
    assert torch.equal(torch.cat([part for part, _ in found]), x)
    assert torch.equal(torch.cat([part for _, part in found]), y)
