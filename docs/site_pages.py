"""The pages of the documentation: nothing of them stands twice.

How-to pages are sections of README.md, the API is made of docstrings and the command line is what
`--help` prints. `python docs/site_pages.py DIRECTORY` writes them, for mkdocs.
"""

import contextlib
import io
import os
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import bvae_jax
from bvae_jax.cli import data, main
from bvae_jax.cli.commands import COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bvae_jax"
SECTIONS = {
    "train.md": ("Train", "What a run leaves", "Several devices, several hosts"),
    "sweep.md": ("Sweep and compare",),
    "beta.md": ("Which β?",),
    "objectives.md": ("Objectives", "The ELBO, taken apart"),
    "score.md": ("Score",),
    "data.md": ("The data",),
    "model.md": ("The model",),
    "speed.md": ("Speed",),
}
"""Page -> sections of README.md that stand there; the others are at home."""
FILES = {"CONTRIBUTING.md": "contributing.md", "experiments/README.md": "experiments.md",
         "CHANGELOG.md": "changelog.md"}  # fmt: skip
"""Whole files that are pages."""
MODULES = {
    "A run": "runner program train training session rundir checkpoint summary figures loggers "
    "programs",
    "The model's parts": "types elbo vae conv schedules optimizers hyper presets beta_units "
    "traversal",
    "Sweeps": "grid sweep_plan sweep_runner sweeping stacked lanes sweepdir",
    "Evaluation": "encode points points_file representations scoring evaluation decomposition "
    "elbo_evaluation held_out",
}
"""Title of a page -> modules of the package that stand there; "The rest" has the others."""


def sections(text: str) -> dict[str, str]:
    """Title -> section of a Markdown file, with its heading; what comes first is ""."""
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    return {part.partition("\n")[0][3:] if i else "": part for i, part in enumerate(parts)}


def slug(title: str) -> str:
    """The anchor of a heading, as GitHub has it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def readme_pages(text: str) -> dict[str, str]:
    """Page -> its text, with links that hold there.

    Raises:
        KeyError: a section that `SECTIONS` names is not there.
    """
    found = sections(text)
    pages = {page: "".join(found.pop(title) for title in titles)[1:]  # its title is of level 1
             for page, titles in SECTIONS.items()}  # fmt: skip
    pages = {"index.md": "".join(found.values())} | pages
    return {page: with_links(body) for page, body in pages.items()}


def with_links(text: str) -> str:
    """Links of a file at the root as they must be in a page."""
    where = {slug(title): page for page, titles in SECTIONS.items() for title in titles}
    text = re.sub(r"\]\((?:README\.md)?#([^)]+)\)",
                  lambda m: f"]({where.get(m[1], 'index.md')}#{m[1]})", text)  # fmt: skip
    for file, page in FILES.items():
        text = text.replace(f"]({file}", f"]({page}")
    return text.replace("](docs/", "](").replace("](README.md)", "](index.md)")


def api_pages() -> dict[str, str]:
    """What `import bvae_jax` gives first, then each subpackage, then single modules."""
    pages = {"api/index.md": reference("From Python", bvae_jax.__all__)}
    for package in sorted(path.parent for path in PACKAGE.glob("*/__init__.py")):
        names = (path.stem for path in sorted(package.glob("*.py")) if path.stem != "__init__")
        modules = [package.name, *(f"{package.name}.{name}" for name in names)]
        pages[f"api/{package.name}.md"] = reference(package.name.capitalize(), modules)
    named = {name for names in MODULES.values() for name in names.split()}
    rest = sorted({path.stem for path in PACKAGE.glob("*.py")} - named - {"__init__"})
    for title, names in {**MODULES, "The rest": " ".join(rest)}.items():
        pages[f"api/{slug(title)}.md"] = reference(title, names.split())
    return pages


def reference(title: str, names: Iterable[str]) -> str:
    """A page of docstrings, for mkdocstrings."""
    return f"# {title}\n\n" + "\n".join(f"::: bvae_jax.{name}\n" for name in names)


def command_page() -> str:
    """`bvae COMMAND --help` of every command."""
    os.environ["COLUMNS"] = "100"
    names = [[name] for name in COMMANDS] + [["data", name] for name in data.COMMANDS]
    parts = [f"## bvae {' '.join(name)}\n\n```text\n{help_of(name)}\n```\n" for name in names]
    return "# Command line\n\n```text\n" + help_of([]) + "\n```\n\n" + "\n".join(parts)


def help_of(command: list[str]) -> str:
    """What a command prints with --help."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return out.getvalue().strip()


def write(directory: Path) -> None:
    """All pages, and what they show."""
    shutil.rmtree(directory, ignore_errors=True)
    pages = readme_pages((ROOT / "README.md").read_text())
    pages |= {page: with_links((ROOT / file).read_text()) for file, page in FILES.items()}
    pages |= api_pages() | {"commands.md": command_page()}
    for name, text in pages.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    shown = [path for path in (ROOT / "docs").iterdir() if path.suffix in (".png", ".css")]
    for path in (ROOT / "CITATION.cff", *shown):
        shutil.copy(path, directory)
    shutil.copytree(ROOT / "notebooks", directory / "notebooks")
    shutil.copytree(ROOT / "experiments" / "figures", directory / "figures")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
