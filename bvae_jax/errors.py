"""The one exception that the command line turns into a single line and exit code 2."""

import contextlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator


def printable(text: str) -> str:
    """Line breaks, terminal codes and the like as Python writes them: names and metadata that
    somebody else made may hold any."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


_flags = False
_COMMAND = r"\b(?:bvae|sbatch) .*?(?=[.;:,)](?:\s|$)|$)"
_FLAG = re.compile(rf"{_COMMAND}|(?<![\w./-])--(?!plugin)([a-z][a-z-]*[a-z])")
_SWITCHES = ("overwrite", "resume")


@contextlib.contextmanager
def naming_flags(flags: bool = True) -> Iterator[None]:
    """Inside the block messages name settings as the command line does, else as Python does."""
    global _flags
    before, _flags = _flags, flags
    try:
        yield
    finally:
        _flags = before


def worded(text: str) -> str:
    """A message that names flags, in the words of who reads it: to a caller of Python --num-points
    is num_points and --resume is resume=True. Commands stay as they are."""

    def argument(found: re.Match[str]) -> str:
        name = (found[1] or "").replace("-", "_")
        return f"{name}=True" if name in _SWITCHES else name or found[0]

    return text if _flags else _FLAG.sub(argument, text)


_said: set[str] | None = None


def say(line: str) -> None:
    """A line on stderr; see `worded`."""
    line = worded(line)
    if _said is not None:
        if line in _said:
            return
        _said.add(line)
    print(printable(f"bvae: {line}"), file=sys.stderr)


@contextlib.contextmanager
def said_once() -> Iterator[None]:
    """Inside the block no line is said twice: what holds for every member of a sweep."""
    global _said
    before, _said = _said, set() if _said is None else _said
    try:
        yield
    finally:
        _said = before


class UserError(Exception):
    """Something that the user can mend.

    The message is one line: what was got, what was wanted, what to do; see `worded`.
    """

    def __init__(self, message: str = ""):
        super().__init__(printable(worded(message)))


class MissingPackage(UserError):
    """An optional package is not installed."""


def needs(package: str, extra: str, what: str) -> None:
    """To be called before an optional package is imported.

    Args:
        package: as it is imported.
        extra: of this package, which installs it.
        what: needs it: a flag, a metric, a file format.

    Raises:
        MissingPackage: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingPackage(f"{what} needs {package}: pip install 'bvae_jax[{extra}]'.")


REGISTERED = (
    "objective",
    "hyperparameter",
    "field to vary",
    "network",
    "likelihood",
    "metric",
    "dataset",
)
"""Kinds of things of which a user can register more: see `bvae_jax.register`."""
HOW_TO_REGISTER = "--plugin FILE.py, or bvae_jax.register"


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a registry."""
    own = f" One of your own: {HOW_TO_REGISTER}." if kind in REGISTERED else ""
    return UserError(f"Unknown {kind} {name!r}. Known: {', '.join(sorted(known))}.{own}")
