"""Videos on disk: real files, written by OpenCV."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from backend import video
from backend.errors import MediaError
from backend.video import Video
from tests import clips
from tests.clips import Mover

RED = Mover("red", start=(0, 20), speed=(2, 0), size=(20, 30))


def left_edge(pixels: video.Pixels) -> int:
    return int(np.flatnonzero(pixels[35, :, 2] > 130)[0])


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".webm"])
def test_a_header_is_read(tmp_path: Path, suffix: str) -> None:
    path = clips.write(tmp_path / f"clip{suffix}", [RED], count=12, fps=12.5)
    assert video.probe(path) == Video(path, 160, 120, 12.5, 12)


def test_frames_come_in_order_and_are_those_of_the_file(tmp_path: Path) -> None:
    clip = video.probe(clips.write(tmp_path / "clip.avi", [RED], count=30))
    found = list(video.frames(clip, clip.numbers(25), 25))
    assert [left_edge(pixels) for pixels in found] == pytest.approx([2 * frame for frame in range(30)], abs=1)


@pytest.mark.parametrize(
    ("rate", "length", "numbers", "shown"),
    [
        (25, 10, list(range(1, 11)), list(range(10))),
        (5, 2, [1, 2], [0, 5]),
        (10, 4, [1, 2, 3, 4], [0, 2, 5, 7]),
        (50, 20, list(range(1, 21, 2)), list(range(10))),
        (30, 12, [1, 3, 4, 5, 6, 7, 9, 10, 11, 12], list(range(10))),
        (25.025, 10, list(range(1, 11)), list(range(10))),  # as 24 for 23.976
    ],
)
def test_label_studio_counts_at_its_own_rate(
    tmp_path: Path, rate: float, length: int, numbers: list[int], shown: list[int]
) -> None:
    clip = video.probe(clips.write(tmp_path / "clip.avi", [RED], count=10))
    assert clip.length(rate) == length
    assert list(clip.numbers(rate)) == numbers
    assert [clip.shown(number, rate) for number in numbers] == shown
    found = [left_edge(pixels) for pixels in video.frames(clip, numbers, rate)]
    assert found == pytest.approx([2 * frame for frame in shown], abs=1)


def test_two_numbers_of_one_frame_show_it_twice(tmp_path: Path) -> None:
    clip = video.probe(clips.write(tmp_path / "clip.avi", [RED], count=10))
    found = [left_edge(pixels) for pixels in video.frames(clip, [3, 4, 5], 50)]
    assert found == pytest.approx([2, 2, 4], abs=1)


def test_no_frames_wanted(tmp_path: Path) -> None:
    clip = video.probe(clips.write(tmp_path / "clip.avi", [RED], count=3))
    assert list(video.frames(clip, [], 25)) == []


def test_frames_are_lazy(tmp_path: Path) -> None:
    clip = video.probe(clips.write(tmp_path / "clip.avi", [RED], count=30))
    asked: list[int] = []
    source = (asked.append(number) or number for number in itertools.count(1))  # type: ignore[func-returns-value]
    assert len(list(itertools.islice(video.frames(clip, source, 25), 4))) == 4
    assert asked == [1, 2, 3, 4]


def failure(path: Path) -> MediaError:
    with pytest.raises(MediaError) as caught:
        video.probe(path)
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "not a video"),
        (b"hello", "not a video"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n", "not a video"),  # a playlist could name other files
        (b"\x00\x00\x00\x18ftypmp42" + bytes(400), "cannot be decoded"),
        (b"\x1a\x45\xdf\xa3" + bytes(400), "cannot be decoded"),
    ],
)
def test_what_is_no_video(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert what in failure(path).what


def test_a_frame_rate_of_zero(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "clip.mp4", [RED], count=1)
    content = bytearray(path.read_bytes())
    at = content.index(b"stts") + 16
    content[at : at + 4] = bytes(4)  # how long each frame is shown
    path.write_bytes(content)
    assert "12800 frames per second" in failure(path).what  # what the decoder makes of 0: its clock's ticks


def test_no_frame_rate_at_all(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "clip.webm", [RED], count=1)
    path.write_bytes(path.read_bytes().replace(b"\x23\xe3\x83", b"\x23\xe3\x84"))  # the track's DefaultDuration
    assert "1000 frames per second" in failure(path).what


def test_no_frames(tmp_path: Path) -> None:
    assert failure(clips.write(tmp_path / "clip.avi", [RED], count=0)).what


def test_a_video_that_breaks_off(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "clip.avi", [RED], count=100)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    clip = Video(path, 160, 120, 25.0, 100)
    with pytest.raises(MediaError, match=r"breaks off after frame \d+ of 100"):
        list(video.frames(clip, clip.numbers(25), 25))


def test_a_header_that_promises_a_frame_too_many_is_forgiven(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "clip.avi", [RED], count=10)
    clip = Video(path, 160, 120, 25.0, 11)
    assert len(list(video.frames(clip, clip.numbers(25), 25))) == 10
