"""A task's image or video as a local file: fetched safely, checked, cached, and read by OpenCV as browsers show it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, TypeVar

from PIL import Image

from backend.errors import MediaError
from backend.media import avif, bounded, png, video, video_frames
from backend.media.cache_space import EXPIRING, CacheSpace
from backend.media.images import (
    FORMATS,
    PLAIN_SUFFIX,
    decoded_bytes,
    decoding,
    is_plain,
    opened,
    upright_size,
    upright_strips,
)
from backend.media.safe_http import SafeHttp
from backend.media.task_errors import errors_of_task
from backend.media.uris import CLOUD_SCHEMES, checked_uri, inline_bytes
from backend.media.video import Video
from backend.settings import Settings
from backend.urls.signed_urls import unsigned

T = TypeVar("T")
WORKERS = 8
LOCKS = 256
BYTES_PER_PIXEL = 5  # decoding a file may take so many bytes for each pixel of MAX_MEGAPIXELS: 500 MB by default
BIG_BYTES = 64_000_000  # images that take more are decoded one at a time


@dataclass(frozen=True, slots=True)
class MediaFile:
    """An upright 8-bit RGB or gray image on disk; width and height in pixels, like naturalWidth in a browser."""

    path: Path
    width: int
    height: int


class MediaCache:
    """Images and videos by URI under one folder; safe to share between threads and processes.

    `authorize(url)` returns the headers for Label Studio's own origin, and is called for no other URL.
    `resolve(task_id, uri)` turns a cloud storage URI into a URL of Label Studio.
    """

    def __init__(
        self,
        root: Path,
        settings: Settings,
        authorize: Callable[[str], Mapping[str, str]],
        resolve: Callable[[int | None, str], str],
    ) -> None:
        self.root = root
        self.http = SafeHttp(settings, authorize)
        self._resolve = resolve
        self._max_bytes = int(settings.max_media_mb * 1e6)
        self._max_pixels = int(settings.max_megapixels * 1e6)
        self._max_decoded = BYTES_PER_PIXEL * self._max_pixels
        self._locks = tuple(threading.Lock() for _ in range(LOCKS))
        self._big = threading.Lock()
        self._space = CacheSpace(root, int(settings.media_cache_gb * 1e9))
        root.mkdir(parents=True, exist_ok=True)
        Image.init()  # Pillow registers its plugins at first use, which is not safe in eight threads at once
        Image.MAX_IMAGE_PIXELS = None  # our limit replaces Pillow's, which warns at 89 and refuses at 179 megapixels

    def in_use(self) -> AbstractContextManager[None]:
        """Keep the files that are fetched in this block until it ends; other files may be deleted to make room."""
        return self._space.in_use()

    def fetch(self, uri: object, task_id: int | None = None) -> MediaFile:
        """Return the checked image of a URI, from the cache if it is there.

        Raises MediaError for a problem of this file: it is missing, forbidden, too large or damaged. Problems that
        would stop every task are MachineError (no room, no memory) or LabelStudioError (not reachable, token refused).
        """
        return self._checked(uri, task_id, self._image, "image")

    def fetch_video(self, uri: object, task_id: int | None = None) -> Video:
        """Return the checked video of a URI, from the cache if it is there; raises as `fetch`."""
        return self._checked(uri, task_id, self._video, "video")

    def _checked(self, uri: object, task_id: int | None, read: Callable[[str, int | None, str], T], noun: str) -> T:
        with errors_of_task(uri, task_id):
            text = checked_uri(uri, noun)
            key = self._key(text, task_id)
            with self._locks[int(key[-2:], 16)]:  # one download per URI, even if several threads ask for it
                return read(text, task_id, key)

    def _key(self, uri: str, task_id: int | None) -> str:
        """Return the name of a URI's file in the cache.

        A signed URL counts without its signature, so that the file of a task stays the same when its URL is renewed.
        Only the signature gives the right to read it, so the file is this task's alone.
        """
        named = unsigned(uri)
        if task_id is None or named == uri:
            return sha256(f"{self.http.origin}\n{uri}".encode()).hexdigest()
        return EXPIRING + sha256(f"{self.http.origin}\n{task_id}\n{named}".encode()).hexdigest()

    def fetch_many(self, requests: Iterable[tuple[object, int | None]]) -> Iterator[MediaFile | MediaError]:
        """Yield the file, or the error, of each (uri, task id), in order.

        WORKERS threads fetch, and at most 4 * WORKERS requests are under way or wait to be yielded.
        """
        ahead: deque[Future[MediaFile | MediaError]] = deque()
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="media") as pool:
            try:
                for uri, task_id in requests:
                    if len(ahead) == 4 * WORKERS:
                        yield ahead.popleft().result()
                    ahead.append(pool.submit(self._fetch_or_error, uri, task_id))
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def _fetch_or_error(self, uri: object, task_id: int | None) -> MediaFile | MediaError:
        try:
            return self.fetch(uri, task_id)
        except MediaError as error:
            return error

    def _image(self, uri: str, task_id: int | None, key: str) -> MediaFile:
        return self._cached(key) or self._store(uri, task_id, key)

    def _video(self, uri: str, task_id: int | None, key: str) -> Video:
        path = self.root / f"{key}.video"
        if not self._space.touch(path):
            with self._temporary() as raw:
                with raw.open("wb") as sink:
                    self._read(uri, task_id, sink)
                header = video.header_of(raw, self._max_decoded)
                size = header.width, header.height
                self._check_size(*size, video_frames.BYTES_PER_PIXEL * header.width * header.height, "video")
                clip = video.of_header(raw, header)
                self._publish(raw, path.name, (0, 0))
            return replace(clip, path=path)
        return video.probe(path)

    def stills(self, clip: Video, numbers: Sequence[int], rate: float) -> Iterator[Path]:
        """Return the image files of Label Studio's frames `numbers`, ascending, of a cached video.

        Frames past the end of the file have no image. Raises as `video.frames`.
        """
        paths = [self.root / f"{clip.path.stem}-{clip.shown(number, rate)}.png" for number in numbers]
        missing = [position for position, path in enumerate(paths) if not self._space.touch(path)]
        decoded_frames = video.frames(clip, [numbers[position] for position in missing], rate)
        for position, pixels in zip(missing, decoded_frames, strict=False):
            with self._temporary() as encoded:
                Image.fromarray(pixels[:, :, ::-1]).save(encoded, "PNG", compress_level=1)
                self._publish(encoded, paths[position].name, (clip.width, clip.height))
        return (path for path in paths if path.is_file())

    def _check_size(self, width: int, height: int, decoded_bytes: float, noun: str) -> None:
        """Raise MediaError for more than MAX_MEGAPIXELS, or more than BYTES_PER_PIXEL for each of them to decode."""
        fix = f"shrink the {noun} or raise MAX_MEGAPIXELS"
        if width * height > self._max_pixels:
            problem = f"{width}x{height} pixels are more than {self._max_pixels / 1e6:g} megapixels"
            raise MediaError(problem, fix=fix)
        if decoded_bytes > self._max_decoded:
            problem = f"decoding its {width}x{height} pixels takes {decoded_bytes / 1e6:.0f} MB of memory"
            allowed = (
                f"more than {self._max_decoded / 1e6:.0f} MB, which is {BYTES_PER_PIXEL} for each of MAX_MEGAPIXELS"
            )
            raise MediaError(f"{problem}, {allowed}", fix=f"save it as JPEG or PNG, {fix}" if noun == "image" else fix)

    def _cached(self, key: str) -> MediaFile | None:
        for suffix in PLAIN_SUFFIX.values():
            path = self.root / f"{key}{suffix}"
            if not self._space.touch(path):
                continue
            try:
                with Image.open(path, formats=FORMATS) as image:  # reads the header only
                    return MediaFile(path, *image.size)
            except OSError:  # deleted meanwhile, or damaged by a full disk: fetch it again
                continue
        return None

    def _store(self, uri: str, task_id: int | None, key: str) -> MediaFile:
        with self._temporary() as raw:
            with raw.open("wb") as sink:
                content_type = self._read(uri, task_id, sink)
            with opened(raw, content_type) as image:
                decoded = decoded_bytes(image)
                self._check_size(image.width, image.height, decoded, "image")
                with self._big if decoded > BIG_BYTES else nullcontext():
                    return self._keep(image, raw, key)

    def _keep(self, image: Image.Image, raw: Path, key: str) -> MediaFile:
        """Publish the downloaded bytes if OpenCV reads them as browsers do, else an upright RGB PNG."""
        if image.format == "AVIF":
            with self._temporary() as encoded:
                avif.write_png(raw, encoded, max(bounded.LEAST_BYTES, decoded_bytes(image)))
                return self._publish(encoded, f"{key}.png", upright_size(image))
        with decoding():
            image.load()
            plain = is_plain(image, raw)
        if plain:
            return self._publish(raw, f"{key}{PLAIN_SUFFIX[str(image.format)]}", image.size)
        with self._temporary() as encoded:
            with encoded.open("wb") as sink, decoding():
                png.write(sink, *upright_size(image), upright_strips(image))
            return self._publish(encoded, f"{key}.png", upright_size(image))

    def _read(self, uri: str, task_id: int | None, sink: BinaryIO) -> str:
        """Write the file that a URI names to `sink`; return its content type, "" if that is unknown."""
        scheme = uri.partition(":")[0].lower()
        if uri.startswith("/") or scheme in ("http", "https"):
            return self.http.download(uri, sink, self._max_bytes, task_id)
        if scheme in CLOUD_SCHEMES:
            return self.http.download(self._resolve(task_id, uri), sink, self._max_bytes, task_id)
        if scheme == "data":
            sink.write(inline_bytes(uri, self._max_bytes))
            return ""
        raise MediaError(
            "not an address the backend can fetch",
            fix="use an http(s) URL, upload the file to Label Studio, or connect its storage to the project",
        )

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        self.root.mkdir(parents=True, exist_ok=True)  # an admin may empty MODEL_DIR while we run
        handle, name = tempfile.mkstemp(dir=self.root, prefix=".")
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _publish(self, temporary: Path, name: str, size: tuple[int, int]) -> MediaFile:
        """Move a finished file to its name in one step, so that no reader sees an incomplete file."""
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        bytes_written = temporary.stat().st_size
        published = MediaFile(temporary.replace(self.root / name), *size)
        self._space.added(bytes_written)
        return published
