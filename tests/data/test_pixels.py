import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from autolora.data.decoding import decode
from autolora.data.pixels import PhotoPixels, SmallPixels, mirrored, pixels_for, shifted
from autolora.data.sources import BytesSource

from .trees import picture


def photos(count: int, width: int = 150, height: int = 120) -> tuple[list[BytesSource], list[Image.Image]]:
    sources = [BytesSource(f"{i}.png", picture(i, width, height)) for i in range(count)]
    return sources, [decode(source.data) for source in sources]


@given(st.integers(0, 2**32))
def test_every_shifted_image_is_a_window_of_the_padded_one(seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        x = torch.randint(1, 256, (5, 3, 8, 8), dtype=torch.uint8)
        moved = shifted(x, 1)
    padded = F.pad(x, [1] * 4)
    for image, result in zip(padded, moved, strict=True):
        windows = [image[:, top : top + 8, left : left + 8] for top in range(3) for left in range(3)]
        assert any(torch.equal(result, window) for window in windows)


def test_shifts_and_flips_differ_within_a_batch_and_take_all_values() -> None:
    torch.manual_seed(0)
    x = torch.arange(1, 65, dtype=torch.uint8).reshape(1, 1, 8, 8).expand(400, 3, 8, 8)
    assert len({tuple(image.flatten().tolist()) for image in shifted(x, 2)}) == 25
    flipped = mirrored(x)
    same = (flipped == x).flatten(1).all(1)
    assert torch.equal(flipped[~same], x[~same].flip(-1)) and 150 < same.sum() < 250


def test_small_images_are_resized_and_cropped_as_torchvision_does() -> None:
    image = decode(picture(0, 50, 40))
    kept = SmallPixels(1, 32).prepare(image)
    expected = v2.Compose([v2.Resize(32, antialias=True), v2.CenterCrop(32)])(image)
    assert kept.shape == (32, 32, 3) and np.array_equal(kept, np.array(expected))


def test_the_size_chooses_the_pipeline() -> None:
    assert isinstance(pixels_for([], 95), SmallPixels)
    assert isinstance(pixels_for([], 96), PhotoPixels)


def test_photos_are_the_same_from_memory_and_from_file() -> None:
    sources, images = photos(3)
    cached, partly, lazy = (PhotoPixels(sources, 96, room) for room in (10**9, 60_000, 0))
    for pixels in (cached, partly, lazy):
        for row, image in enumerate(images):
            pixels.put(row, pixels.prepare(image))
    assert [len(pixels.kept) for pixels in (cached, partly, lazy)] == [3, 1, 0]
    assert len(cached.sources) == 0  # an archive behind them may be closed
    for pixels in (partly, lazy):
        assert torch.equal(pixels.centre_crops([2, 0, 1]), cached.centre_crops([2, 0, 1]))
    torch.manual_seed(0)
    crops = cached.random_crops([0, 1, 2])
    torch.manual_seed(0)
    assert torch.equal(crops, lazy.random_crops([0, 1, 2]))


def test_photos_are_cut_as_torchvision_does() -> None:
    sources, images = photos(1)
    pixels = PhotoPixels(sources, 96)
    pixels.put(0, pixels.prepare(images[0]))
    evaluation = v2.Compose([v2.Resize(110, antialias=True), v2.CenterCrop(96), v2.PILToTensor()])
    assert torch.equal(pixels.centre_crops([0])[0], evaluation(images[0]))
    training = v2.Compose([v2.PILToTensor(), v2.RandomResizedCrop(96, antialias=True)])
    torch.manual_seed(3)
    ours = pixels.random_crops([0])[0]
    torch.manual_seed(3)
    assert torch.equal(ours, training(Image.fromarray(pixels.kept[0])))


def test_an_absurdly_elongated_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(ValueError, match="more than 10000 pixels"):
        SmallPixels(1, 32).prepare(Image.new("RGB", (1000, 1)))
