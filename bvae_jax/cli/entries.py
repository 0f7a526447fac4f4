"""How data sets are listed."""

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bvae_jax.data.catalogue import Entry

WIDTH = 100


def print_header(width: int) -> None:
    """What the columns are of the lines below; `width` is that of names."""
    print(f"{'name':{width}}  {'images':>9}  {'shape':>10}  {'on disk':>8}  here")


def print_entry(entry: "Entry", width: int) -> None:
    """One line of numbers, and one or more of what is known besides."""
    shape, here = "x".join(map(str, entry.shape)), "yes" if entry.present else "no"
    name = entry.name
    if len(name) > width:  # a path, perhaps: on a line of its own
        print(name)
        name = ""
    print(f"{name:{width}}  {entry.images:9,}  {shape:>10}  {_size(entry.size):>8}  {here}")
    below = {
        "factors": ", ".join(entry.factors),
        "source": entry.source if entry.source not in entry.name else "",
        "licence": entry.licence,
    }
    for title, text in below.items():
        lines = textwrap.wrap(
            f"{title}: {text}", WIDTH - 4, subsequent_indent="  ", break_on_hyphens=False
        )
        if text:
            print(textwrap.indent("\n".join(lines), "    "))


def _size(count: int) -> str:
    """Bytes for people."""
    if not count:
        return "-"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 0.1):.1f} MB"
