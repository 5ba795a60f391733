"""Image files on disk; test_cache.py has the tests of how they get there, and of how browsers show them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from backend.errors import MediaError
from backend.media import images, png
from backend.media.images import UPRIGHT, decoding, is_plain, opened, upright_size, upright_strips


def saved(path: Path, mode: str = "RGB", orientation: int = 1) -> Path:
    """Save a picture of 3 x 2 pixels whose left column is white."""
    pixels = np.zeros((2, 3), dtype=np.uint8)
    pixels[:, 0] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).convert(mode).save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    ("name", "mode", "orientation", "plain"),
    [
        ("a.png", "RGB", 1, True),
        ("a.png", "L", 1, True),
        ("a.bmp", "RGB", 1, True),
        ("a.png", "RGBA", 1, False),
        ("a.png", "RGB", 6, False),
        ("a.png", "I;16", 1, False),
        ("a.tiff", "RGB", 1, False),
    ],
)
def test_plain_is_what_opencv_reads_as_browsers_do(
    tmp_path: Path, name: str, mode: str, orientation: int, plain: bool
) -> None:
    path = saved(tmp_path / name, mode, orientation)
    with opened(path, "") as image:
        assert is_plain(image, path) is plain
        shown = np.concatenate(list(upright_strips(image)))
        assert upright_size(image) == (shown.shape[1], shown.shape[0])
    assert shown.shape == ((3, 2, 3) if orientation == 6 else (2, 3, 3))


@pytest.mark.parametrize("orientation", [1, *UPRIGHT])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_strips_are_the_image_turned_as_a_whole(
    tmp_path: Path, orientation: int, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "STRIP_PIXELS", 9)  # rows have 5 and 7 pixels, so a strip is one row
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)).convert(mode)
    picture.save(tmp_path / "a.png", exif=exif)
    with opened(tmp_path / "a.png", "") as image:
        with (tmp_path / "b.png").open("wb") as sink:
            png.write(sink, *upright_size(image), upright_strips(image))
        turn = UPRIGHT.get(orientation)
        whole = picture.convert("RGB") if turn is None else picture.convert("RGB").transpose(turn)
    with Image.open(tmp_path / "b.png") as written:
        assert written.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(written), np.asarray(whole))


@pytest.mark.parametrize("orientation", [1, *UPRIGHT])
def test_every_orientation_becomes_upright(tmp_path: Path, orientation: int) -> None:
    """The white column is on the left, on the right, at the top or at the bottom, by the EXIF orientation."""
    with opened(saved(tmp_path / "a.png", orientation=orientation), "") as image:
        pixels = np.concatenate(list(upright_strips(image)))[:, :, 0]
    sides = {"left": pixels[:, 0], "right": pixels[:, -1], "top": pixels[0], "bottom": pixels[-1]}
    (white,) = [side for side, line in sides.items() if (line == 255).all()]
    expected = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom", 8: "bottom"}
    assert white == expected[orientation]


@pytest.mark.parametrize(
    ("called", "problem"), [("", "not an image"), ("text/html; charset=x", r"\(the server calls it text/html\)")]
)
def test_what_is_no_image(tmp_path: Path, called: str, problem: str) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(MediaError, match=problem):
        opened(tmp_path / "a.png", called)


@pytest.mark.parametrize(
    ("head", "problem", "fix"),
    [
        (
            b"\0\0\0\x24ftypheic\0\0\0\0mif1heic",
            "it is a HEIC image, which most browsers do not show",
            "magick FILE.heic",
        ),
        (b"\0\0\0\x24ftypmif1", "it is a HEIC image", "convert it"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "it is a video", "Video tag"),
        (b"\x1aE\xdf\xa3", "it is a video", "Video tag"),
        (b"%PDF-1.7\n", "it is a PDF", "pdftoppm"),
        (b'<?xml version="1.0"?>\n<!-- a b -->\n<svg xmlns="x">', "it is an SVG drawing", "PNG"),
        (b"\0" * 128 + b"DICM", "it is a DICOM image", "PNG"),
        (b"8BPS\0\1", "it is a Photoshop file", "magick FILE.psd"),
        (b"\0\0\0\x0cjP  \r\n", "it is a JPEG 2000 image", "magick FILE.jp2"),
        (b"\xff\x0a\x10", "it is a JPEG XL image", "magick FILE.jxl"),
    ],
)
def test_a_file_of_another_format_is_named_with_a_cure(tmp_path: Path, head: bytes, problem: str, fix: str) -> None:
    (tmp_path / "a.png").write_bytes(head + b"\x01" * 400)
    with pytest.raises(MediaError) as caught:
        opened(tmp_path / "a.png", "image/png")
    assert problem in caught.value.what
    assert fix in caught.value.fix


def test_the_first_page_of_a_tiff_counts(tmp_path: Path) -> None:
    pages = [Image.new("L", (12, 12), shade) for shade in (10, 200)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with opened(tmp_path / "a.tif", "") as image:
        assert next(upright_strips(image)).max() == 10


def test_a_decoder_that_stumbles_is_a_damaged_image() -> None:
    with pytest.raises(MediaError, match=r"truncated or damaged: odd"), decoding():
        raise ValueError("odd")
