"""The page: pictures, codes and decoders in one HTML file without a network."""

import io
import json
import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from bvae_jax.errors import UserError
from bvae_jax.explore.program import Program
from bvae_jax.files import write_text

TEMPLATE = Path(__file__).with_name("explorer.html")
INLINE = ("style", "script")
MOST_BYTES = 70_000_000
FEW = 16
"""Numbers of a constant that are written as they are."""
COLUMNS = 20
"""Images beside each other in the picture of all."""


class Explorer(NamedTuple):
    """A page; in a notebook it shows itself."""

    html: str

    def __repr__(self) -> str:
        return f"Explorer of {len(self.html) / 1e6:.1f} MB: .write(path), or shown by a notebook"

    def write(self, path: str | Path) -> Path:
        """One file, whose folder is made.

        Raises:
            UserError: it is a directory.
        """
        path = Path(path).expanduser()
        if path.is_dir():
            raise UserError(f"{path} is a directory, wanted the name of a file.")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, self.html)
        return path

    def frame(self) -> str:
        """The page within another one."""
        return (
            f'<iframe title="Explorer" width="100%" height="900" loading="lazy" '
            f'srcdoc="{escape(self.html)}"></iframe>'
        )

    def _repr_html_(self) -> str:
        return self.frame()


def make_page(title: str, about: str, data: Mapping[str, Any]) -> Explorer:
    """The template filled.

    Args:
        title: plain text.
        about: so, too.
        data: what its script reads.

    Raises:
        UserError: the page would be larger than `MOST_BYTES`.
    """
    text = TEMPLATE.read_text(encoding="utf-8")
    style, script = (text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0] for tag in INLINE)
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    said = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    filled = {"policy": policy, "title": escape(title), "about": escape(about)}
    filled["data"] = said.replace("<", "\\u003c")
    html = re.sub(r"\$(policy|title|about|data)\b", lambda found: filled[found[1]], text)
    if len(html.encode()) > MOST_BYTES:
        many = "Explore one member of the sweep, or draw" if len(data["programs"]) > 1 else "Draw"
        raise UserError(
            f"The page would have {len(html.encode()) / 1e6:.0f} MB, wanted at most "
            f"{MOST_BYTES / 1e6:.0f}: too large a decoder. {many} pictures by bvae traverse."
        )
    return Explorer(html)


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def program_json(program: Program, *, float32: bool = False) -> dict[str, Any]:
    """A program for the page's script, with its numbers as base64.

    Args:
        float32: keep all their digits. Otherwise each array is held in whole numbers of 16 bits
            times a scale: as small as float16, and several times closer.
    """
    constants, parts = [], []
    for buffer, array in program.constants.items():
        held = array.ravel()
        if held.size <= FEW:
            constants.append([buffer, 1, [_number(x) for x in held]])
            continue
        scale = 1.0 if float32 else float(np.abs(held).max()) / (2**15 - 1) or 1.0
        constants.append([buffer, scale])
        parts.append(held.astype("<f4") if float32 else np.round(held / scale).astype("<i2"))
    weights = b64encode(b"".join(part.tobytes() for part in parts)).decode()
    found = program._asdict() | {"constants": constants, "weights": weights}
    return found | {"scaled": not float32}


def _number(x: Any) -> float | str:
    """Infinities as text, for JSON has none."""
    return float(x) if np.isfinite(x) else str(float(x)).replace("inf", "Infinity")


def rounded(array: Any, digits: int = 3) -> list[Any]:
    """As JSON, short."""
    return np.round(np.asarray(array, np.float64), digits).tolist()


def atlas(images: Float[np.ndarray, "n height width channels"]) -> str:
    """All pictures in one, as a data address. Channels that are not 1 or 3 stand side by side."""
    n, height, width, channels = images.shape
    if channels not in (1, 3):
        images = images.transpose(0, 1, 3, 2).reshape(n, height, width * channels, 1)
        width, channels = width * channels, 1
    columns = min(COLUMNS, n)
    grid = np.zeros((-(-n // columns) * columns, height, width, channels), np.uint8)
    grid[:n] = np.round(255 * images)
    grid = grid.reshape(-1, columns, height, width, channels).swapaxes(1, 2)
    picture = grid.reshape(-1, columns * width, channels)
    out = io.BytesIO()
    Image.fromarray(picture[..., 0] if channels == 1 else picture).save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(out.getvalue()).decode()}"
