"""Everything that the documentation names exists: links, anchors, make targets, commands, settings and messages."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from backend import acquisition
from backend.cli.app import app
from backend.settings import Settings
from tests.support import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
TROUBLESHOOTING = DOCS / "troubleshooting.md"
SCREEN = 40  # lines
GAP = "…"  # stands for what a message fills in
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HARD = re.compile(r"\b(of which|such a one|what is asked|ha(s|ve) (a|no) say|accuses?|told of|voices?)\b")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def each_page(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def code_of(path: Path) -> Iterator[str]:
    """Yield the code of a page: each line of a code block, and each text between backquotes."""
    text = text_of(path)
    for block in FENCE.findall(text):
        yield from re.sub(r"\\\n\s*", "", block).splitlines()[1:-1]
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def test_the_readme_fits_two_screens() -> None:
    lines = text_of(ROOT / "README.md").splitlines()
    assert len(lines) <= 2 * SCREEN
    assert max(map(len, lines)) <= 160


@pytest.mark.parametrize("path", PAGES, ids=each_page)
def test_no_page_has_a_phrase_that_is_hard_to_read(path: Path) -> None:
    assert HARD.search(text_of(path)) is None


def test_no_help_of_a_setting_or_a_command_has_one() -> None:
    helps = [field.description or "" for field in Settings.model_fields.values()]
    for command in typer.main.get_group(app).commands.values():
        helps += [command.help or "", *(getattr(parameter, "help", "") or "" for parameter in command.params)]
    assert len(helps) > 80
    assert [text for text in helps if HARD.search(text)] == []


@pytest.mark.parametrize("path", PAGES, ids=each_page)
def test_each_relative_link_leads_somewhere(path: Path) -> None:
    for target in LINK.findall(FENCE.sub("", text_of(path))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        assert page.exists(), target
        assert path.parent != DOCS or page.is_relative_to(DOCS), f"{target} is not in the site"
        assert not anchor or anchor in anchors(page), target


def test_each_dependency_is_explained() -> None:
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))
    groups = [*project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()]
    wanted = [re.split("[>=<]", name)[0] for group in [project["project"]["dependencies"], *groups] for name in group]
    page = text_of(DOCS / "dependencies.md")
    assert len(wanted) > 30
    assert [name for name in wanted if not re.search(rf"(?<![\w-]){name}(?![\w-])", page)] == []


def test_the_strategies_on_the_page_about_sampling_exist() -> None:
    """A new strategy needs no row there: `yolo-backend strategies` lists it with all that its decorator says."""
    table = text_of(DOCS / "sampler.md").partition("| STRATEGY |")[2].partition("\n\n")[0]
    strategies = re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in table.splitlines()[2:]))
    assert len(strategies) > 20
    assert set(strategies) <= set(acquisition.names())


def test_the_example_of_a_setting_is_the_code() -> None:
    (example,) = re.findall(
        r"^```python\n( +retrain_every.*?)```", text_of(ROOT / "CONTRIBUTING.md"), re.MULTILINE | re.DOTALL
    )
    assert example in text_of(ROOT / "backend/settings.py")


def test_the_sites_menu_has_every_page() -> None:
    nav = tomllib.loads(text_of(ROOT / "zensical.toml"))["project"]["nav"]
    assert sorted(pages_in(nav)) == sorted(path.name for path in DOCS.glob("*.md"))


def pages_in(entry: object) -> Iterator[str]:
    """Yield the pages below an entry of the site's menu."""
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        for below in entry.values():
            yield from pages_in(below)
    elif isinstance(entry, list):
        for below in entry:
            yield from pages_in(below)


@pytest.mark.parametrize("path", PAGES, ids=each_page)
def test_each_make_target_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", text_of(ROOT / "Makefile"), re.MULTILINE))
    for line in code_of(path):
        for words in re.findall(r"(?:^|[\s;])make ([^|;]*)", line):
            named = [word for word in words.split("#")[0].split() if re.fullmatch(r"[a-z][a-z-]*", word)]
            assert not named or named[0] in targets, line


def options() -> dict[str, set[str]]:
    """Return the options of each command of yolo-backend."""
    commands = typer.main.get_group(app).commands
    return {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in commands.items()
    }


@pytest.mark.parametrize("path", PAGES, ids=each_page)
def test_each_command_and_its_options_exist(path: Path) -> None:
    commands = options()
    for line in code_of(path):
        for call in re.findall(r"yolo-backend ([a-z].*)", line):
            words = call.split("#")[0].replace(",", " ").split()
            assert words[0] in commands, line
            named = {word.split("=")[0] for word in words if re.match(r"--[a-z]", word)}
            assert named <= commands[words[0]] | {"--help"}, line


@pytest.mark.parametrize("path", PAGES, ids=each_page)
def test_each_option_in_a_table_of_options_exists(path: Path) -> None:
    every = set().union(*options().values())
    rows = re.findall(r"^\| (`--[^|]*)\|", text_of(path), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"--[a-z-]+", row)} <= every


@pytest.mark.parametrize("path", PAGES, ids=each_page)
def test_each_setting_that_is_given_a_value_exists(path: Path) -> None:
    """In docs/results.md experiments have names and options of their own."""
    others = {"ML_BLOCK_LOCAL_IP", "SSRF_PROTECTION_ENABLED", "SSL_CERT_FILE", "AWS_ENDPOINT_URL"}  # of other programs
    of_tests = {"NAME", "LABELING_MINUTES", "WITHOUT_DEBIAN", "REQUIRE_ALL"}
    build = text_of(ROOT / "Makefile") + text_of(ROOT / "docker-compose.yml")
    of_build = set(re.findall(r"\$[({]([A-Z_]+)", build))
    settings = {name.upper() for name in Settings.model_fields} | others | of_tests | of_build
    for line in code_of(path):
        assert set(re.findall(r"(?<![\w$-])([A-Z][A-Z_]{3,})=", line)) <= settings, line


@cache
def messages() -> str:
    """Return every text of the code, one a line, with a gap for each value that is filled in."""
    texts = []
    for path in sorted((ROOT / "backend").rglob("*.py")):
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return re.sub(r"%[ds]", GAP, "\n".join(texts))  # log lines fill in %d and %s


def quoted() -> list[str]:
    """Return the messages that the troubleshooting page explains."""
    return [message for _, message in re.findall(r"^### (`+)(.+)\1$", text_of(TROUBLESHOOTING), re.MULTILINE)]


@pytest.mark.parametrize("message", quoted())
def test_each_message_on_the_troubleshooting_page_is_one_of_ours(message: str) -> None:
    assert message.strip(GAP).strip() in messages()


def test_the_troubleshooting_page_explains_many_messages_and_none_twice() -> None:
    assert len(quoted()) >= 40
    assert len(quoted()) == len(set(quoted()))


def test_the_diagram_is_drawn_from_its_source() -> None:
    source, drawing = (text_of(DOCS / f"pictures/one-round.{kind}") for kind in ("mmd", "svg"))
    texts = re.findall(r"^ +\w.*?: (.+)$", source, re.MULTILINE)
    assert len(texts) > 10
    assert [text for text in texts if text not in drawing] == []
