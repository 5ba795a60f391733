"""`python -m tests.reliability`: write docs/reliability.md from the rows beside this file."""

from __future__ import annotations

from tests.reliability import PAGE, page

PAGE.write_text(page())
