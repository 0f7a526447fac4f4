"""Notebooks say how they are opened, define nothing, keep their figures, and run."""

import ast
import functools
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

pytest.importorskip("IPython")

from IPython.core.inputtransformer2 import TransformerManager

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
OURS = re.compile(r"github(?:\.com)?/([\w.-]+/bvae_jax)\b")
NAMES = ["beta_sweep", "metrics", "quickstart", "your_images"]
ROOT = Path(__file__).parents[1]
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
"""Where the repository is: written once, and meant wherever it is named."""
COLAB = f"{ADDRESS.replace('github.com', 'colab.research.google.com/github')}/blob/main/notebooks/"
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
MACHINE = re.compile(r"/(home|root|tmp|Users|usr|opt|mnt|work)/")
LEFT_OUT = ("bent", "twice", "y missing", "random")
"""Codes of metrics.ipynb that no later cell names."""
LARGEST = 1_000_000
"""Bytes of a notebook."""


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def figures(notebook: NotebookNode) -> int:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def parse(source: str) -> ast.Module:
    return ast.parse(TransformerManager().transform_cell(source))


def test_all_are_here():
    assert [path.stem for path in NOTEBOOKS] == NAMES


def test_all_addresses_are_that_of_the_project():
    """To move it: git grep -l OWNER/bvae_jax | xargs sed -i s#OWNER/bvae_jax#NEW/bvae_jax#g"""
    pages = [*ROOT.glob("*.*"), *ROOT.glob("*/*.md"), *NOTEBOOKS]
    texts = [
        page.read_text() for page in pages if page.suffix in (".cff", ".ipynb", ".md", ".toml")
    ]
    named = [name for text in texts for name in OURS.findall(text)]
    assert {f"https://github.com/{name}" for name in named} == {ADDRESS}
    assert len(named) > 12


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestKept:
    """What stands in the files."""

    def test_opens_in_colab_and_installs(self, path: Path):
        notebook = read(path)
        nbformat.validate(notebook)
        assert f"({COLAB}{path.name})" in notebook.cells[0].source

    @pytest.mark.parametrize("place", ["alone", "in the repository", "beside a wheel"])
    def test_installs_from_what_there_is(self, path: Path, place: str, tmp_path, monkeypatch):
        directory = tmp_path / "notebooks"
        directory.mkdir()
        monkeypatch.chdir(directory)
        wanted = f"git+{ADDRESS}"
        if place != "alone":
            (tmp_path / "bvae_jax").mkdir()
            wanted = tmp_path.as_uri()
        if place == "beside a wheel":
            wheel = directory / "bvae_jax-0.1.0-py3-none-any.whl"
            wheel.touch()
            wanted = wheel.as_uri()
        first, _, _ = code_cells(read(path))[0].source.partition("import jax")
        typed = []
        magic = SimpleNamespace(run_line_magic=lambda *line: typed.append(line))
        names: dict[str, Any] = {"get_ipython": lambda: magic}
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        exec(
            compile(parse(first), path.name, "exec"), names | {"get_ipython": lambda: magic}, names
        )
        extra = "[metrics]" if path.stem == "metrics" else ""
        assert [(name, line.format(**names)) for name, line in typed] == [
            ("pip", f'install --quiet "bvae_jax{extra} @ {wanted}"')
        ]

    def test_one_cell_sets_the_size(self, path: Path):
        cells = code_cells(read(path))
        assert [i for i, cell in enumerate(cells) if "BVAE_NOTEBOOK_SIZE" in cell.source] == [1]

    def test_defines_nothing(self, path: Path):
        for cell in code_cells(read(path)):
            nodes = ast.walk(parse(cell.source))
            assert not [node for node in nodes if isinstance(node, DEFINITIONS)], cell.source

    def test_kept_outputs(self, path: Path):
        notebook = read(path)
        assert path.stat().st_size < LARGEST
        assert figures(notebook) >= 4
        cells = code_cells(notebook)
        assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
        for cell in cells:
            assert "execution" not in cell.metadata
            assert {output.output_type for output in cell.outputs} <= {
                "display_data", "execute_result", "stream"
            }  # fmt: skip

    def test_names_no_machine(self, path: Path):
        for cell in read(path).cells:
            said = [cell.source, *cell.get("outputs", [])]
            assert not MACHINE.search(str([text_of(one) for one in said]))


def text_of(said: str | NotebookNode) -> str:
    """Without the pictures, whose base64 may look like anything."""
    if isinstance(said, str):
        return said
    data = {kind: text for kind, text in said.get("data", {}).items() if "image" not in kind}
    return f"{said.get('text', '')} {data} {said.get('metadata', '')}"


@pytest.mark.once
def test_all_run(tmp_path: Path):
    """In one process, which imports but once, at the smallest size, with a small network, few
    boosted trees, no animations, and half of the codes that are scored."""
    environment = {
        "BVAE_NOTEBOOK_SIZE": "tiny",
        "BVAE_DATA_DIR": str(tmp_path / "data"),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, __file__, *map(str, NOTEBOOKS)],
        cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{len(NOTEBOOKS)} notebooks"


def run(path: Path) -> None:
    names: dict[str, Any] = {}
    for number, cell in enumerate(code_cells(read(path)), start=1):
        lines = parse(re.sub(r'(network"?[=:] ?)"\w+"', r'\1"tiny"', cell.source)).body
        last = lines.pop() if isinstance(lines[-1], ast.Expr) else None
        where = f"{path.name}, cell {number}"
        exec(compile(ast.Module(lines, []), where, "exec"), names)
        if path.stem == "metrics" and number == 3:
            for name in LEFT_OUT:
                del names["known"][name]
        if isinstance(last, ast.Expr):  # what is shown: a figure is read, a table is formatted
            shown = eval(compile(ast.Expression(last.value), where, "eval"), names)
            repr(shown)


if __name__ == "__main__":
    import tiny  # noqa: F401  the network
    from matplotlib.figure import Figure

    from bvae_jax.plots.style import STYLE
    from bvae_jax.presets import PRESETS

    # Notebooks show PNGs: reports find empty PDFs and GIFs.
    STYLE["figure.dpi"] = STYLE["savefig.dpi"] = 50
    animations: Any = importlib.import_module("bvae_jax.plots.run")
    animations.save_traversal_gif = lambda path, *_: path.touch()
    savefig: Any = Figure.savefig

    def no_pdf(self, file, **options):
        if options.get("format") != "pdf":
            savefig(self, file, **options)

    Figure.savefig = no_pdf  # pyright: ignore
    PRESETS["laptop"].settings["network"] = "tiny"
    dci: Any = sys.modules["bvae_jax.metrics.dci"]
    dci.boosted_trees = functools.partial(dci.boosted_trees, stages=3)
    for argument in sys.argv[1:]:
        run(Path(argument))
    print(f"{len(sys.argv) - 1} notebooks")
