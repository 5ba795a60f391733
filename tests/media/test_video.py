"""Videos on disk: real files, written by OpenCV."""

from __future__ import annotations

import itertools
import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from backend.errors import MediaError
from backend.media import video
from backend.media.video import Video
from backend.media.video_frames import Pixels
from tests import clips
from tests.clips import Mover

pytestmark = pytest.mark.processes

RED = Mover("red", start=(0, 20), speed=(2, 0), size=(20, 30))


def left_edge(pixels: Pixels) -> int:
    return int(np.flatnonzero(pixels[35, :, 2] > 130)[0])


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".webm"])
def test_a_header_is_read(tmp_path: Path, suffix: str) -> None:
    path = clips.write(tmp_path / f"clip{suffix}", [RED], count=12, fps=12.5)
    assert video.probe(path) == Video(path, 160, 120, 12.5, 12)


def test_frames_come_in_order_and_are_those_of_the_file(tmp_path: Path) -> None:
    clip = video.probe(clips.write(tmp_path / "clip.avi", [RED], count=30))
    decoded = list(video.frames(clip, clip.numbers(25), 25))
    assert [left_edge(pixels) for pixels in decoded] == pytest.approx([2 * frame for frame in range(30)], abs=1)


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
    edges = [left_edge(pixels) for pixels in video.frames(clip, numbers, rate)]
    assert edges == pytest.approx([2 * frame for frame in shown], abs=1)


def test_two_numbers_of_one_frame_show_it_twice(tmp_path: Path) -> None:
    clip = video.probe(clips.write(tmp_path / "clip.avi", [RED], count=10))
    edges = [left_edge(pixels) for pixels in video.frames(clip, [3, 4, 5], 50)]
    assert edges == pytest.approx([2, 2, 4], abs=1)


def test_no_frames_wanted(tmp_path: Path) -> None:
    clip = video.probe(clips.write(tmp_path / "clip.avi", [RED], count=3))
    assert list(video.frames(clip, [], 25)) == []


def test_frames_are_lazy(tmp_path: Path) -> None:
    clip = video.probe(clips.write(tmp_path / "clip.avi", [RED], count=30))
    requested: list[int] = []
    source = (requested.append(number) or number for number in itertools.count(1))  # type: ignore[func-returns-value]
    assert len(list(itertools.islice(video.frames(clip, source, 25), 4))) == 4
    assert requested == [1, 2, 3, 4]


def uneven(path: Path) -> Video:
    """Return a video of ten frames 40 ms apart, ten frames 140 ms apart, and a last frame 400 ms later."""
    clips.write(path, [RED], count=21)
    times = [*range(0, 400, 40), *range(400, 1800, 140), 2040]
    return video.probe(clips.retime(path, times))


def test_uneven_frames_are_those_that_label_studio_shows(tmp_path: Path) -> None:
    clip = uneven(tmp_path / "clip.webm")
    assert (clip.frames, clip.length(25)) == (21, 52)
    numbers = [1, 2, 11, 14, 15, 18, 46, 52]
    assert [clip.shown(number, 25) for number in numbers] == [0, 1, 10, 10, 11, 12, 19, 20]
    edges = [left_edge(pixels) for pixels in video.frames(clip, numbers, 25)]
    assert edges == pytest.approx([2 * clip.shown(number, 25) for number in numbers], abs=1)
    assert clip.shown(99, 25) == clip.frames  # past the end
    assert list(video.frames(clip, [52, 99], 25))[1:] == []


def test_frames_that_are_never_shown_are_not_counted(tmp_path: Path) -> None:
    """VP8 has frames that are never shown, from which other frames are decoded."""
    path = clips.write(tmp_path / "clip.webm", [RED], count=30)
    content = bytearray(path.read_bytes())
    for number in (7, 8, 19):
        at = content.index(b"\x81" + (40 * number).to_bytes(2, "big")) + 4
        content[at] &= ~0x10  # show_frame
    path.write_bytes(content)
    clip = video.probe(clips.retime(path, [*range(0, 800, 40), *range(800, 1600, 80)]))
    edges = [left_edge(pixels) for pixels in video.frames(clip, [1, 7, 12, 18, 23, 31, 39], 25)]
    assert edges == pytest.approx([0, 12, 22, 34, 42, 50, 58], abs=1)


def test_a_frame_that_is_shown_for_long_is_yielded_again(tmp_path: Path) -> None:
    """Otherwise a tracker would drop objects while the next frame is late."""
    clip = uneven(tmp_path / "clip.webm")
    numbers = list(clip.numbers(25))
    assert numbers[0] == 1
    assert max(np.diff(numbers)) <= np.ceil(25 / clip.fps) + 1
    assert {clip.shown(number, 25) for number in numbers} == set(range(21))


def lasting(path: Path, seconds: float, *, cut: bool = False) -> Path:
    """Return a video of 20 even frames whose header gives this length; with `cut` its end is missing."""
    content = bytearray(clips.write(path, [RED], count=20).read_bytes())
    at = content.index(b"\x44\x89\x88") + 3
    content[at : at + 8] = struct.pack(">d", 1000 * seconds)
    path.write_bytes(content[:-100] if cut else content)
    return path


def test_the_last_frame_stays_while_there_is_sound(tmp_path: Path) -> None:
    """Label Studio counts frames to the end of the file."""
    clip = video.probe(lasting(tmp_path / "clip.webm", 4.0))
    assert (clip.fps, clip.frames, clip.length(25)) == (25.0, 20, 100)
    numbers = list(clip.numbers(25))
    assert numbers[:20] == list(range(1, 21))
    assert [left_edge(pixels) for pixels in video.frames(clip, [1, 20, 60, 100], 25)] == pytest.approx(
        [0, 38, 38, 38], abs=1
    )


def test_a_video_that_ends_before_it_should(tmp_path: Path) -> None:
    clip = video.probe(lasting(tmp_path / "clip.webm", 4.0, cut=True))
    with pytest.raises(MediaError, match=r"breaks off after frame \d+ of 100"):
        list(video.frames(clip, clip.numbers(25), 25))


def test_an_uneven_video_that_ends_before_it_should(tmp_path: Path) -> None:
    path = lasting(tmp_path / "clip.webm", 9.0)
    clips.retime(path, [*range(0, 400, 40), *range(400, 1800, 140)])
    assert video.probe(path).length(25) == 225
    path.write_bytes(path.read_bytes()[:-100])
    assert "its last frame is at" in failure(path).what


def test_a_recording_without_a_frame_rate(tmp_path: Path) -> None:
    """Browsers write such files; the decoder gives the ticks of the file's clock."""
    path = clips.write(tmp_path / "clip.webm", [RED], count=12)
    path.write_bytes(path.read_bytes().replace(b"\x23\xe3\x83", b"\x23\xe3\x84"))  # the track's DefaultDuration
    assert video.probe(path) == Video(path, 160, 120, 25.0, 12)
    assert video.probe(path).times is None


def test_a_header_that_counts_too_few_frames(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "clip.avi", [RED], count=30)
    content = bytearray(path.read_bytes())
    at = content.index(b"strh") + 40  # how many frames the stream has
    content[at : at + 4] = (3).to_bytes(4, "little")
    path.write_bytes(content)
    assert video.probe(path).frames == 30


@pytest.mark.parametrize("damaged", ["count", "rate"])
def test_a_header_that_promises_too_much_to_count(tmp_path: Path, damaged: str) -> None:
    """The values per frame must fit into memory, and must be computed before the worker counts as dead."""
    path = clips.write(tmp_path / "clip.avi", [RED], count=10)
    content = bytearray(path.read_bytes())
    at, most = content.index(b"strh") + (40 if damaged == "count" else 28), 2**30
    content[at : at + 4] = most.to_bytes(4, "little")  # the number of frames, or the seconds of each
    path.write_bytes(content)
    clip = video.probe(path)
    for look in (clip.length, lambda rate: list(clip.numbers(rate))):
        with pytest.raises(MediaError, match="the video says it lasts") as caught:
            look(25)
        assert caught.value.fix


def failure(path: Path) -> MediaError:
    with pytest.raises(MediaError) as caught:
        video.probe(path)
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not a video"),
        (b"hello", "not a video"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n", "not a video"),  # a playlist could name other files
        (b"\x00\x00\x00\x18ftypmp42" + bytes(400), "cannot be decoded"),
        (b"\x1a\x45\xdf\xa3" + bytes(400), "cannot be decoded"),
    ],
)
def test_a_file_that_is_no_video(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert problem in failure(path).what


def test_a_playlist_that_begins_like_a_video_opens_no_other_file(tmp_path: Path) -> None:
    other = clips.write(tmp_path / "other.avi", [RED], count=3)
    path = tmp_path / "clip.m3u8"
    path.write_text(f"#EXTM3U\nAVI \n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n")
    assert video.is_video(path)
    assert "cannot be decoded" in failure(path).what


def test_a_frame_rate_of_zero(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "clip.mp4", [RED], count=1)
    content = bytearray(path.read_bytes())
    at = content.index(b"stts") + 16
    content[at : at + 4] = bytes(4)  # how long each frame is shown
    path.write_bytes(content)
    assert "0 frames per second" in failure(path).what


def test_no_frame_rate_at_all(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "clip.webm", [RED], count=1)
    path.write_bytes(path.read_bytes().replace(b"\x23\xe3\x83", b"\x23\xe3\x84"))  # the track's DefaultDuration
    assert "1000 frames per second" in failure(path).what


def test_no_frames(tmp_path: Path) -> None:
    assert failure(clips.write(tmp_path / "clip.avi", [RED], count=0)).what


@pytest.mark.parametrize("count", [100, 20])  # four seconds, and less than one
def test_a_video_that_breaks_off(tmp_path: Path, count: int) -> None:
    path = clips.write(tmp_path / "clip.avi", [RED], count=count)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    clip = video.probe(path)
    assert clip == Video(path, 160, 120, 25.0, count)
    with pytest.raises(MediaError, match=rf"breaks off after frame \d+ of {count}"):
        list(video.frames(clip, clip.numbers(25), 25))


def test_a_header_that_promises_a_frame_too_many_is_forgiven(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "clip.avi", [RED], count=10)
    clip = Video(path, 160, 120, 25.0, 11)
    assert len(list(video.frames(clip, clip.numbers(25), 25))) == 10


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9", "libx264", "libx265", "libsvtav1", "mjpeg"])
@pytest.mark.parametrize("size", [(160, 120), (128, 96)])
def test_a_video_that_changes_its_size_is_refused(tmp_path: Path, codec: str, size: tuple[int, int]) -> None:
    """Recordings of a browser window do that."""
    packets = [packet for place in ((160, 120), size) for packet in encoded(codec, place)]
    path = tmp_path / "clip.avi"
    path.write_bytes(clips.avi(packets, 160, FOURCC[codec]))
    clip = video.probe(path)
    if size == (160, 120):
        assert len(list(video.frames(clip, clip.numbers(25), 25))) == 10
        return
    with pytest.raises(MediaError, match="change their size, from 160x120 to 128x96") as caught:
        list(video.frames(clip, clip.numbers(25), 25))
    assert caught.value.fix


FOURCC = {
    "libvpx": b"VP80",
    "libvpx-vp9": b"VP90",
    "libx264": b"H264",
    "libx265": b"HEVC",
    "libsvtav1": b"AV01",
    "mjpeg": b"MJPG",
}


def encoded(codec: str, size: tuple[int, int]) -> list[bytes]:
    """Return five frames, encoded by a codec."""
    options = {"libx264": {"bf": "0"}, "libx265": {"x265-params": "bframes=0:log-level=none"}}.get(codec, {})
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height = size
    encoder.pix_fmt, encoder.time_base, encoder.options = "yuv420p", Fraction(1, 25), options
    encoder.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    packets = []
    for number in range(5):
        frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 40 * number, np.uint8), format="bgr24")
        frame.pts = number
        packets += encoder.encode(frame)
    return [bytes(packet) for packet in packets + encoder.encode()]


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_turned_video_is_shown_upright(tmp_path: Path, turn: int) -> None:
    """Phones write frames as the sensor lies, and how players must turn them. OpenCV turns them as browsers do."""
    path = clips.write(tmp_path / "clip.mp4", [RED], count=3)
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turn]
    matrix = struct.pack(">9i", *(n << 16 for n in (cosine, sine, 0, -sine, cosine, 0, 0, 0)), 1 << 30)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # after version, times, number, length, layer, volume
    content[at : at + 36] = matrix
    path.write_bytes(content)

    clip = video.probe(path)
    assert (clip.width, clip.height) == ((160, 120) if turn == 180 else (120, 160))
    [pixels] = video.frames(clip, [1], 25)
    shown, expected = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG).read()
    assert shown
    assert np.abs(pixels.astype(int) - expected).mean() < 2
