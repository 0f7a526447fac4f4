"""Parsing of a command's flags by tyro, whose framed errors become one line."""

import contextlib
import io
import re
from collections.abc import Sequence
from typing import TypeVar

import tyro

from bvae_jax.errors import UserError

T = TypeVar("T")


def parse(kind: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """The arguments, as a dataclass.

    Args:
        default: what holds where `argv` says nothing. Each switch can then be turned on and off.

    Raises:
        UserError: the arguments do not fit.
    """
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            if default is not None:
                return tyro.cli(kind, prog=prog, args=argv, default=default)
            one_way = (tyro.conf.FlagCreatePairsOff,)
            return tyro.cli(kind, prog=prog, args=argv, config=one_way)
    except SystemExit as exit_:
        if not exit_.code:
            raise
    raise UserError(f"{summary(stderr.getvalue())} See {prog} --help.")


def summary(message: str) -> str:
    """tyro's message without its frame, title and help, in one line."""
    lines = [line.strip(" │|") for line in message.splitlines()]
    if len(lines) > 1 and _is_rule(lines[1]):  # the title has a line of its own in an ASCII frame
        del lines[0]
    lines = [line for line in lines if line and line[0] not in "╭╰" and not _is_rule(line)]
    wrong = re.split(r"Argument helptext:|For full helptext|Perhaps you meant", " ".join(lines))[0]
    _, _, similar = "\n".join(lines).partition("Perhaps you meant")
    meant = re.findall(r"^--[\w-]+", similar, re.MULTILINE)
    hint = f" Did you mean {' or '.join(meant[:2])}?" if meant else ""
    return f"{wrong.strip().rstrip('.')}.{hint}"


def _is_rule(line: str) -> bool:
    return bool(line) and not line.strip("-─")
