import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autolora.data.decoding import decode, read_rgb
from autolora.data.sources import BytesSource, UnreadableImage

from .trees import encoded, picture


def pixels(data: bytes) -> list[list[tuple[int, ...]]]:
    image = decode(data)
    assert image.mode == "RGB"
    return [[tuple(int(v) for v in pixel) for pixel in row] for row in np.array(image)]


def grey(*values: int) -> list[tuple[int, ...]]:
    return [(v, v, v) for v in values]


def test_rgb_is_unchanged() -> None:
    values = np.array([[[1, 2, 3], [250, 0, 9]]], dtype=np.uint8)
    assert pixels(encoded(Image.fromarray(values))) == [[(1, 2, 3), (250, 0, 9)]]


def test_greyscale_and_one_bit_become_three_equal_channels() -> None:
    assert pixels(encoded(Image.fromarray(np.array([[0, 7, 255]], dtype=np.uint8)))) == [grey(0, 7, 255)]
    assert pixels(encoded(Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1"))) == [grey(0, 255)]


def test_alpha_is_composited_over_white() -> None:
    values = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    assert pixels(encoded(Image.fromarray(values))) == [[(255, 0, 0), (255, 255, 255), (204, 204, 204)]]
    la = np.array([[[0, 255], [0, 0], [100, 255]]], dtype=np.uint8)
    assert pixels(encoded(Image.fromarray(la))) == [grey(0, 255, 100)]


@pytest.mark.parametrize("transparency", [None, 1, bytes([255, 0])])
def test_palette_with_and_without_transparency(transparency: int | bytes | None) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    options: dict[str, Any] = {} if transparency is None else {"transparency": transparency}
    second = (40, 50, 60) if transparency is None else (255, 255, 255)
    assert pixels(encoded(image, **options)) == [[(10, 20, 30), second]]


def test_transparent_colour_of_an_rgb_png() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    assert pixels(encoded(image, transparency=(4, 5, 6))) == [[(1, 2, 3), (255, 255, 255)]]


def test_cmyk() -> None:
    image = Image.new("CMYK", (1, 1), (255, 0, 0, 0))
    assert pixels(encoded(image, "TIFF")) == [[(0, 255, 255)]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_greyscale_is_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 128, 129, 257, 25700, 65535]], dtype=np.uint16)  # v / 257, rounded
    assert pixels(encoded(Image.fromarray(values), kind)) == [grey(0, 0, 1, 1, 100, 255)]


def test_sixteen_bit_big_endian_and_mode_i() -> None:
    big = Image.frombytes("I;16B", (2, 1), bytes([100, 100, 255, 255]))  # 25700 and 65535
    assert pixels(encoded(big, "TIFF")) == [grey(100, 255)]
    assert pixels(b"P5 2 1 65535\n" + bytes([100, 100, 255, 255])) == [grey(100, 255)]  # Pillow reads this as mode I
    whole = Image.fromarray(np.array([[25700, 65535]], dtype=np.int32))
    assert pixels(encoded(whole, "TIFF")) == [grey(100, 255)]


def test_transparent_grey_of_a_sixteen_bit_png() -> None:
    image = Image.fromarray(np.array([[0, 25700]], dtype=np.uint16))
    assert pixels(encoded(image, transparency=0)) == [grey(255, 100)]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(1, [1, 2]), (2, [2, 1]), (3, [2, 1]), (6, [[1], [2]]), (8, [[2], [1]])],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation(orientation: int, expected: list[int] | list[list[int]], kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.array([[1, 2]], dtype=np.uint8)), kind, exif=exif)
    rows = expected if isinstance(expected[0], list) else [expected]
    assert [[pixel[0] for pixel in row] for row in pixels(data)] == rows


def test_exif_orientation_of_a_sixteen_bit_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(np.array([[257, 514]], dtype=np.uint16)), exif=exif)
    assert pixels(data) == [grey(1), grey(2)]


def jpeg() -> bytes:
    return encoded(decode(picture(0, 64, 64)), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not an image", "no image"),
        (jpeg()[:-600], "truncated"),
        (jpeg()[:600], "Truncated"),
        (picture(0)[:150], "."),
        (encoded(Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "TIFF"), "floating"),
        (encoded(Image.fromarray(np.full((2, 2), 70000, dtype=np.int32)), "TIFF"), "65535"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason) as error:
        read_rgb(BytesSource("cats/tom.jpg", data))
    assert str(error.value).startswith("cats/tom.jpg") and "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [60, 40])  # Pillow warns above the limit and raises above twice the limit
def test_decompression_bomb(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UnreadableImage, match="pixels"):
        read_rgb(BytesSource("bomb.png", picture(0)))


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    assert pixels(stream.getvalue()) == [grey(10, 10)] * 2
