"""The pages of the documentation site, for mkdocs.

`python docs/site_pages.py DIRECTORY` copies docs/, README.md and its neighbours there, with links
that work on the site, and generates the rest: what `--help` prints, the API from docstrings, and
the explorer's page of the pretrained runs.
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
from bvae_jax.cli import COMMANDS, data, main

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bvae_jax"
FILES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "experiments/README.md": "experiments.md",
    "experiments/pretrained/README.md": "pretrained.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Pages that lie outside docs/ -> where they are on the site."""
COPIED = ("CITATION.cff", "LICENSE", "notebooks", "experiments/figures", "experiments/pretrained")
"""What pages link to or show."""
LIVE = "latents.html"
"""The explorer's page, in the menu."""
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def slug(title: str) -> str:
    """The anchor of a heading, as GitHub has it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def texts() -> dict[str, str]:
    """Path in the repository -> the text of each page that is written by hand."""
    guide = (path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("docs/*.md")))
    return {path: (ROOT / path).read_text() for path in (*FILES, *guide)}


def page_of(path: str) -> str:
    """Where a file of the repository is on the site."""
    return FILES.get(path, path.removeprefix("docs/"))


def with_links(text: str, path: str) -> str:
    """A page at `path` in the repository, with links that work on the site."""
    folder = os.path.dirname(path)
    return LINK.sub(lambda m: f"]({page_of(os.path.normpath(os.path.join(folder, m[1])))}", text)


def api_pages() -> dict[str, str]:
    """What `import bvae_jax` offers, the modules of the root, and a page for each folder."""
    root = (path.stem for path in sorted(PACKAGE.glob("*.py")) if not path.stem.startswith("__"))
    names = (name for name in bvae_jax.__all__ if not (PACKAGE / name).is_dir())
    pages = {
        "api/index.md": reference("Public names", names),
        "api/root.md": reference("Mathematics and settings", root),
    }
    for folder in sorted({path.parent for path in PACKAGE.glob("*/*.py")}):
        names = (path.stem for path in sorted(folder.glob("*.py")))
        modules = [f"{folder.name}.{name}".removesuffix(".__init__") for name in names]
        pages[f"api/{folder.name}.md"] = reference(folder.name.capitalize(), modules)
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


def pages() -> dict[str, str]:
    """Path on the site -> text."""
    written = {page_of(path): with_links(text, path) for path, text in texts().items()}
    return written | api_pages() | {"commands.md": command_page()}


def _elsewhere(folder: str, names: list[str]) -> set[str]:
    """What is not copied: weights, and pages that are written."""
    there = Path(folder).relative_to(ROOT)
    return {n for n in names if n.endswith(".safetensors") or (there / n).as_posix() in FILES}


def write(directory: Path) -> None:
    """All pages, and what they show."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(ROOT / "docs", directory, ignore=shutil.ignore_patterns("*.py", "*.md"))
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, directory / name, ignore=_elsewhere)
        else:
            shutil.copy(ROOT / name, directory / name)
    for name, text in pages().items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    bvae_jax.Sweep(ROOT / "experiments" / "pretrained").explore().write(directory / LIVE)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
