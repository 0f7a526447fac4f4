"""`python notebooks/execute.py FILE ...` runs notebooks from top to bottom, in place."""

import base64
import io
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

SECONDS = 1800
"""That a cell may take."""
WIDEST = 640
"""Pixels of a figure that is kept."""
WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(path: Path, directory: Path) -> NotebookNode:
    """The notebook with fresh outputs; what it writes goes to `directory`.

    Progress (stderr) is left out, as is what differs from one machine and day to another. Figures
    are kept with 256 colours.

    Raises:
        CellExecutionError: a cell raised an error.
    """
    notebook = nbformat.read(path, as_version=4)
    metadata = notebook.metadata.copy()
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(directory)}},
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
    )
    client.execute()
    notebook.metadata = metadata  # the kernel adds its version
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_progress(output)]
            for output in cell.outputs:
                _make_smaller(output)
    return notebook


def _is_progress(output: NotebookNode) -> bool:
    return output.get("name") == "stderr" or WIDGET in output.get("data", {})


def _make_smaller(output: NotebookNode) -> None:
    if "image/png" in output.get("data", {}):
        picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
        picture.thumbnail((WIDEST, WIDEST * picture.height))
        smaller = io.BytesIO()
        picture.convert("RGB").quantize().save(smaller, "PNG", optimize=True)
        output.data["image/png"] = base64.b64encode(smaller.getvalue()).decode()


def main(paths: list[Path]) -> None:
    for path in paths:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as directory:
            notebook = execute(path, Path(directory))
        nbformat.write(notebook, path)
        size = path.stat().st_size
        print(f"{path}: {time.monotonic() - begin:.0f} s, {size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
