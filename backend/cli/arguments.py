"""Arguments that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

Project = Annotated[int, typer.Argument(help="id of the Label Studio project")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for programs instead of a table")]
Yes = Annotated[bool, typer.Option("--yes", help="do not ask")]
