"""The interface of a view: a page about one project, and the actions behind its buttons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from backend.errors import NotFoundError
from backend.labelstudio import label_colours, label_config
from backend.loop.context import Context
from backend.queue.rq_queue import Jobs
from backend.store.store import ProjectRecord
from backend.types import ControlTag


@dataclass(frozen=True, slots=True)
class Visit:
    """A visit to a view: the project, and the query of the address."""

    context: Context
    record: ProjectRecord
    query: Mapping[str, str]

    @property
    def project_id(self) -> int:
        """The id of the project."""
        return self.record.project_id

    @property
    def queue_url(self) -> str:
        """The address of the project in Label Studio."""
        return f"{self.context.settings.label_studio_url.rstrip('/')}/projects/{self.project_id}/data"

    @property
    def task_url(self) -> str:
        """The address of a task in Label Studio, without its id."""
        return f"{self.queue_url}?task="

    @property
    def tags(self) -> tuple[ControlTag, ...]:
        """The control tags that the backend serves, in the config's order."""
        return label_config.parse(self.record.label_config)

    @property
    def tag(self) -> ControlTag:
        """The control tag that `?tag=` chooses, else the first. Raises NotFoundError for an unknown name."""
        tags = self.tags
        wanted = self.query.get("tag", tags[0].from_name)
        for tag in tags:
            if tag.from_name == wanted:
                return tag
        names = ", ".join(tag.from_name for tag in tags)
        raise NotFoundError(f"the label config has no tag {wanted!r}", where="?tag=", fix=f"use one of: {names}")

    @property
    def tag_query(self) -> str:
        """The query that keeps the chosen tag on the way to another view: "?tag=…", "" if there is only one tag."""
        return "?" + urlencode({"tag": self.tag.from_name}) if len(self.tags) > 1 else ""

    @property
    def colours(self) -> Mapping[str, str]:
        """The CSS colour of each label of the chosen tag."""
        return label_colours.colours(self.record.label_config, self.tag)


@dataclass(frozen=True, slots=True)
class Form:
    """A posted form: its fields, and who sent it."""

    fields: Mapping[str, str]
    who: str  # the user name of Basic auth, or the address of the browser

    def whole_number(self, name: str) -> int:
        """Return a field as a whole number. Raises NotFoundError with the field's name if it is none."""
        text = self.fields.get(name, "")
        if not (text.isascii() and text.isdecimal() and len(text) < 19):
            raise NotFoundError(f"{text!r:.60} is not a whole number", where=name, fix="reload the page and try again")
        return int(text)


Run = Callable[[Visit, Jobs, Form], str]
Parts = dict[str, str]  # id of an element -> its HTML


@dataclass(frozen=True, slots=True)
class View:
    """A view: the last part of its address, its title, the question that it answers, and its actions by name.

    `read` returns a frozen dataclass, which the template `NAME.html.j2` gets as `shown`. An action does its work and
    returns a sentence for the person who pressed the button; an error of it is a BackendError. `files` are data that a
    module of the view reads, by the last part of their address. `live` returns the parts that change while one looks;
    its visit has the query of the page's `data-events`.
    """

    name: str
    title: str
    question: str
    read: Callable[[Visit], Any]
    actions: Mapping[str, Run]
    files: Mapping[str, Callable[[Visit], bytes]] = field(default_factory=dict)
    live: Callable[[Visit], Parts] | None = None
