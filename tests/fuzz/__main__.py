"""Runs one target in full: `python -m tests.fuzz TARGET --cases N`; it ends with 1 if anything escapes."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

TARGETS = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--cases", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    report = import_module(f"tests.fuzz.{chosen.target}").run(chosen.cases, chosen.seed)
    print(report)
    return 1 if report.escapes else 0


if __name__ == "__main__":
    sys.exit(main())
