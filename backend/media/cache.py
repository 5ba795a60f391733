"""A task's image or video as a local file, read by OpenCV as the browser shows it: fetched safely, checked, cached."""

from __future__ import annotations

import base64
import binascii
import logging
import os
import re
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
from urllib.parse import parse_qs, unquote_to_bytes

from PIL import Image

from backend.errors import BackendError, LabelStudioError, MachineError, MediaError, one_line
from backend.faults import is_disk_error, is_out_of_memory
from backend.media import avif, bounded, png, video, video_frames
from backend.media.cache_space import CacheSpace
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
from backend.media.video import Video
from backend.settings import Settings

log = logging.getLogger(__name__)

F = TypeVar("F")
T = TypeVar("T")
CLOUD_SCHEMES = frozenset({"s3", "s3s", "gs", "azure-blob", "azure_spi", "dbx"})  # which Label Studio resolves
WORKERS = 8
LOCKS = 256
BYTES_PER_PIXEL = 5  # of MAX_MEGAPIXELS: what decoding one file may take, 500 MB by default
BIG_BYTES = 64_000_000  # what takes more is decoded one at a time


@dataclass(frozen=True, slots=True)
class MediaFile:
    """An upright 8-bit RGB or gray image on disk; width and height in pixels, as the browser's naturalWidth."""

    path: Path
    width: int
    height: int


class MediaCache:
    """Images by URI under one folder; safe to share between threads and processes.

    `authorize(url)` gives the headers for Label Studio's own origin, and is called for no other URL;
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
        Image.init()  # plugins register at first use, which is not safe to start from eight threads
        Image.MAX_IMAGE_PIXELS = None  # our limit replaces Pillow's, which warns at 89 and refuses at 179 megapixels

    def in_use(self) -> AbstractContextManager[None]:
        """Keep the files that are fetched in this block until it ends; what nobody uses may be deleted to make room."""
        return self._space.in_use()

    def fetch(self, uri: object, task_id: int | None = None) -> MediaFile:
        """Return the checked image of a URI, from the cache if it is there.

        Raises MediaError for all that is wrong with this one file: missing, forbidden, too large, damaged. What would
        befall every task alike is MachineError (no room, no memory) or LabelStudioError (not reachable, token refused).
        """
        return self._fetch(uri, task_id, self._image, "image")

    def fetch_video(self, uri: object, task_id: int | None = None) -> Video:
        """Return the checked video of a URI, from the cache if it is there; raises as `fetch`."""
        return self._fetch(uri, task_id, self._video, "video")

    def _fetch(self, uri: object, task_id: int | None, find: Callable[[str, int | None, str], T], noun: str) -> T:
        with _of_task(uri, task_id):
            text = _checked_uri(uri, noun)
            key = sha256(f"{self.http.origin}\n{text}".encode()).hexdigest()
            with self._locks[int(key[:2], 16)]:  # one download per URI, however many ask at once
                return find(text, task_id, key)

    def fetch_many(self, requests: Iterable[tuple[object, int | None]]) -> Iterator[MediaFile | MediaError]:
        """Yield the file, or the error, of each (uri, task id) in order; eight at a time, a bounded number ahead."""
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
        """Return images of Label Studio's frames `numbers`, ascending, of a cached video; raises as `video.frames`.

        Frames past the end of the file have none.
        """
        paths = [self.root / f"{clip.path.stem}-{clip.shown(number, rate)}.png" for number in numbers]
        missing = [place for place, path in enumerate(paths) if not self._space.touch(path)]
        found = video.frames(clip, [numbers[place] for place in missing], rate)
        for place, pixels in zip(missing, found, strict=False):
            with self._temporary() as encoded:
                Image.fromarray(pixels[:, :, ::-1]).save(encoded, "PNG", compress_level=1)
                self._publish(encoded, paths[place].name, (clip.width, clip.height))
        return (path for path in paths if path.is_file())

    def _check_size(self, width: int, height: int, decoded_bytes: float, noun: str) -> None:
        """Raise MediaError for more pixels than MAX_MEGAPIXELS, or what takes BYTES_PER_PIXEL of so many to decode."""
        fix = f"shrink the {noun} or raise MAX_MEGAPIXELS"
        if width * height > self._max_pixels:
            what = f"{width}x{height} pixels are more than {self._max_pixels / 1e6:g} megapixels"
            raise MediaError(what, fix=fix)
        if decoded_bytes > self._max_decoded:
            what = f"decoding its {width}x{height} pixels takes {decoded_bytes / 1e6:.0f} MB of memory"
            allowed = (
                f"more than {self._max_decoded / 1e6:.0f} MB, which is {BYTES_PER_PIXEL} for each of MAX_MEGAPIXELS"
            )
            raise MediaError(f"{what}, {allowed}", fix=f"save it as JPEG or PNG, {fix}" if noun == "image" else fix)

    def _cached(self, key: str) -> MediaFile | None:
        for suffix in PLAIN_SUFFIX.values():
            path = self.root / f"{key}{suffix}"
            if not self._space.touch(path):
                continue
            try:
                with Image.open(path, formats=FORMATS) as image:  # reads the header only
                    return MediaFile(path, *image.size)
            except OSError:  # not there, or damaged by a full disk: fetch it (again)
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
        """Publish the bytes as they came if OpenCV reads them right, else an upright RGB PNG."""
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
        """Write what the URI names to `sink`; return its content type, empty where unknown."""
        scheme = uri.partition(":")[0].lower()
        if uri.startswith("/") or scheme in ("http", "https"):
            return self.http.download(uri, sink, self._max_bytes, task_id)
        if scheme in CLOUD_SCHEMES:
            return self.http.download(self._resolve(task_id, uri), sink, self._max_bytes, task_id)
        if scheme == "data":
            sink.write(_inline_bytes(uri, self._max_bytes))
            return ""
        raise MediaError(
            "not an address the backend can fetch",
            fix="use an http(s) URL, upload the file to Label Studio, or connect its storage to the project",
        )

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        self.root.mkdir(parents=True, exist_ok=True)  # somebody may empty MODEL_DIR while we run
        handle, name = tempfile.mkstemp(dir=self.root, prefix=".")
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _publish(self, temporary: Path, name: str, size: tuple[int, int]) -> MediaFile:
        """Make a finished file visible in one step, so that no reader ever sees half of it."""
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        bytes_written = temporary.stat().st_size
        published = MediaFile(temporary.replace(self.root / name), *size)
        self._space.added(bytes_written)
        return published


def shortened(uri: str) -> str:
    """Return a URI fit for a message: without credentials, signatures or inline data, at most 120 characters.

    >>> shortened("https://me:pw@bucket.example/a.jpg?X-Signature=secret")
    'https://bucket.example/a.jpg'
    """
    if uri[:5].lower() == "data:":
        return uri.partition(",")[0][:40] + ",…"
    base, _, query = uri.partition("#")[0].partition("?")
    if base.endswith("/data/local-files/"):
        base += "?d=" + parse_qs(query).get("d", [""])[0]
    base = re.sub(r"//[^/]*@", "//", base)
    return base if len(base) <= 120 else f"{base[:80]}…{base[-39:]}"


@contextmanager
def _of_task(uri: object, task_id: int | None) -> Iterator[None]:
    """Say whose fault it is when the media of one task cannot be had: the task's, the machine's or Label Studio's.

    An error that nobody foresaw is the task's as well: one odd file must not stop a whole project.
    """
    try:
        yield
    except (MachineError, LabelStudioError):
        raise
    except BackendError as error:
        raise placed(error, uri, task_id) from error
    except Exception as error:
        if is_out_of_memory(error):
            fix = "give the machine more memory, or lower MAX_MEGAPIXELS"
            raise MachineError("no memory is left to read an image", fix=fix) from error
        if is_disk_error(error):
            what = f"the media cache cannot be written or read: {getattr(error, 'strerror', '') or error}"
            raise MachineError(
                what, where="MODEL_DIR", fix="make room in MODEL_DIR, and let the backend's user write there"
            ) from error
        log.exception("unexpected error for %s", one_line(_place(uri, task_id)))
        what = f"the file cannot be read: {type(error).__name__}: {error}"
        fix = "open its URL in a browser; if the browser shows it, report this with the backend's log"
        raise placed(MediaError(what, fix=fix), uri, task_id) from error


def each_or_error(files: Sequence[F], ask: Callable[[Sequence[F]], Iterator[T]]) -> Iterator[T | MediaError]:
    """Yield what `ask` answers for each file, in order, or the error of a file that is damaged or gone by now."""
    done = 0
    while done < len(files):
        try:
            for answer in ask(files[done:]):
                yield answer
                done += 1
        except MediaError:  # of any file of a batch: the next one is asked alone, then the others together
            try:
                yield next(ask(files[done : done + 1]))
            except MediaError as error:
                yield error
            done += 1


def placed(error: BackendError, uri: object, task_id: int | None) -> MediaError:
    """Return an error of a cached file as one of the task whose file it is: nobody knows the cache's names."""
    return MediaError(error.what, where=_place(uri, task_id), fix=error.fix)


def _place(uri: object, task_id: int | None) -> str:
    task = "" if task_id is None else f"task {task_id}"
    return ": ".join(filter(None, (task, shortened(uri) if isinstance(uri, str) else "")))


def _checked_uri(uri: object, noun: str) -> str:
    if isinstance(uri, str) and uri.strip():
        if any("\ud800" <= letter <= "\udfff" for letter in uri):  # JSON can carry half a character
            raise MediaError("not a valid URL: broken characters", fix="correct the URL in the task's data")
        if noun == "video" and uri.strip()[:5].lower() == "data:":
            raise MediaError("a data: URI, and a video is read from a file", fix="upload it, or give the task its URL")
        return uri.strip()
    what = (
        f"the task has no {noun}" if uri is None or isinstance(uri, str) else f"{type(uri).__name__} is no {noun} URL"
    )
    raise MediaError(what, fix=f"put the {noun}'s URL into the task field that the label config names (value='$field')")


def _inline_bytes(uri: str, max_bytes: int) -> bytes:
    header, _, payload = uri.partition(",")
    if not re.fullmatch(r"data:image/[^,]*;base64", header, re.IGNORECASE):
        raise MediaError("a data: URI, but not of a base64 image", fix="write data:image/png;base64,…")
    if len(payload) * 3 // 4 > max_bytes:
        raise MediaError(f"larger than {max_bytes / 1e6:g} MB", fix="shrink the file or raise MAX_MEDIA_MB")
    try:
        return base64.b64decode(b"".join(unquote_to_bytes(payload).split()), validate=True)
    except binascii.Error as error:
        raise MediaError(f"not base64: {error}", fix="encode the image again") from None
