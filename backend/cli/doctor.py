"""`yolo-backend doctor`: checks every part of the installation, and says of each that it works or what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

from redis.exceptions import RedisError
from rich.table import Table
from rich.text import Text

from backend.cli.embedded import running_redis
from backend.errors import BackendError
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop.checks.finding import Finding, fails, works
from backend.loop.checks.machine_checks import device, disk, model_dir, text_encoders, weights, workers
from backend.loop.checks.studio_checks import studio
from backend.loop.context import local_dir
from backend.queue.run_state import connect
from backend.settings import Settings
from backend.store.store import Store

_RESULT, _SUBJECT = 4, 13  # widths of the columns before the text


def findings(settings: Settings) -> Iterator[Finding]:
    """Yield the findings of all checks, as each check ends."""
    store = Store(settings.model_dir)
    with ExitStack() as stack:
        redis = None
        try:
            url = settings.redis_url or running_redis(settings)
            redis = stack.enter_context(closing(connect(url)))
            redis.ping()
            yield works("redis", "answers")
        except BackendError as error:
            yield fails("redis", error)
        except (RedisError, ValueError) as error:
            redis = None
            yield Finding("redis", False, f"redis does not answer: {error}", "start redis, or correct REDIS_URL")
        if redis is not None:
            yield workers(redis)
        yield from (disk(local_dir(settings)), device(settings.device))
        yield (written := model_dir(settings, store))
        if not written.ok:
            yield Finding("Label Studio", False, "not checked: it needs the store", 'correct the line "store" first')
            return
        yield from weights(settings, store)
        yield from text_encoders(settings, store)
        client = LabelStudioClient.impatient(settings.label_studio_url, settings.label_studio_api_key)
        yield from studio(stack.enter_context(client), store, redis, backend_url(settings, store))


def backend_url(settings: Settings, store: Store) -> str:
    """Return the backend's address for Label Studio: BACKEND_URL, else that of a connected project, else our port."""
    records = (store.project(project_id) for project_id in store.project_ids())
    connected = next((record.backend_url for record in records if record and record.backend_url), "")
    return (settings.backend_url or connected or f"http://localhost:{settings.port}").rstrip("/")


def draw(finding: Finding) -> Table:
    """Return the line of a finding, with the cure below it."""
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_column(width=_RESULT)
    line.add_column(width=_SUBJECT)
    line.add_column()
    result = Text("ok", "green") if finding.ok else Text("FIX", "red")
    fix = f"\n{finding.fix}" if finding.fix and not finding.ok else ""
    line.add_row(result, finding.subject, Text(f"{finding.detail}{fix}"))
    return line
