"""The commands that take files out of the backend or bring them in. Heavy modules are imported inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from backend.cli.arguments import Project
from backend.cli.startup import open_context, read_settings

_NAMED = 10  # classes that are printed


def export(
    project: Project,
    out: Annotated[Path, typer.Option(help="a new folder for the files")],
    what: Annotated[str, typer.Option(help="comma list of weights, onnx, yolo, coco")] = "weights,yolo,coco",
    version: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="number of a version: its weights, and the labels that it was trained on; default: "
            "the serving version's weights, and the labels of now",
        ),
    ] = None,
) -> None:
    """Write weights and labels of a project to a folder, with a datasheet of what was left out."""
    from backend.cli.progress import progress
    from backend.loop import export as exports

    order = exports.ExportOrder(project, out, exports.kinds_of(what), version)
    with progress("export") as show:
        lines = exports.export(open_context(), order, show)
    for line in lines:
        typer.echo(line)


def import_dataset(
    project: Project,
    data: Annotated[Path, typer.Argument(help="a data.yaml, a COCO .json, or the folder of an export of Label Studio")],
    kind: Annotated[
        Literal["annotations", "predictions"],
        typer.Option("--as", help="annotations are learned; predictions are pre-annotations that people correct"),
    ] = "annotations",
    tag: Annotated[str, typer.Option(help="control tag that the labels belong to; default: the first that fits")] = "",
) -> None:
    """Upload a labeled data set into a project; a second run goes on where the first ended."""
    from backend.cli import dataset_import
    from backend.cli.progress import progress

    with progress("import") as show:
        done = dataset_import.import_dataset(open_context().label_studio, project, data, kind, tag, show)
    for note in done.notes:
        typer.echo(f"left out: {note}")
    typer.echo(f"uploaded {done.uploaded} images; {done.present} were in project {project} already")
    typer.echo(f"wrote {kind} for {done.labeled} tasks")


def import_weights(
    file: Annotated[Path, typer.Argument(help="a .pt file of ultralytics that you trust")],
) -> None:
    """Check weights in a child process, copy them into MODEL_DIR, and let projects name them."""
    from backend.cli import weights_import
    from backend.cli.progress import progress

    with progress("checking the weights"):
        weights = weights_import.import_weights(file, read_settings())
    names = ", ".join(weights.classes[:_NAMED]) + (", ..." if len(weights.classes) > _NAMED else "")
    typer.echo(f"imported {file.name}: a {weights.task} model of {len(weights.classes)} classes: {names}")
    typer.echo(f'use it with BASE_MODEL={file.name}, or with model_path="{file.name}" in a control tag')


def inspect_weights(file: Path) -> None:
    """Print the task and the classes of weights as JSON; `import-weights` runs this in a child."""
    from backend.cli import weights_import

    typer.echo(weights_import.inspected(file).model_dump_json())
