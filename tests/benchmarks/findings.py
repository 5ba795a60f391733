"""What the tables of docs/results.md say, in words: written by hand after a run, beside the numbers it speaks of."""

from __future__ import annotations

FINDINGS: dict[str, str] = {}
