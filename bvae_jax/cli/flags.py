"""Flags of a command, from the signatures and dataclasses of what it calls, and what was typed."""

import ast
import collections.abc
import contextlib
import dataclasses
import inspect
import io
import re
import shlex
import types
import typing
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict, Union

import tyro

from bvae_jax.errors import UserError
from bvae_jax.runtime import fatal


class Flag(NamedTuple):
    """What may be typed for one name.

    Attributes:
        kind: its type.
        default: what holds where nothing is typed; help shows it.
        positional: it is given without its name.
        required: it must be given.
        aliases: other names, as "-o".
        metavar: what help calls the value; after its type if None.
    """

    kind: Any
    help: str = ""
    default: Any = None
    positional: bool = False
    required: bool = False
    aliases: tuple[str, ...] = ()
    metavar: str | None = None


Flags = dict[str, Flag]

QUIET: Flags = {"quiet": Flag(bool, "No progress bar.")}
PLUGIN: Flags = {
    "plugin": Flag(
        Path,
        "A Python file that registers objectives, networks, likelihoods, metrics or data sets "
        "of your own: see bvae_jax.register.",
    )
}
"""Of every command, also in front of it."""


def of_dataclass(kind: type, *names: str, default: Any = None) -> Flags:
    """The fields of a dataclass, with the strings below them.

    Args:
        names: of some fields; all where there are none.
        default: an instance with other defaults than those of the class.
    """
    types_, helps = typing.get_type_hints(kind), _helps(kind)
    return {
        field.name: Flag(
            _plain(types_[field.name]),
            helps.get(field.name, ""),
            getattr(default or kind, field.name),
        )
        for field in dataclasses.fields(kind)
        if (field.name in names if names else field.default is not dataclasses.MISSING)
    }


def of_function(function: Callable[..., Any], *but: str) -> Flags:
    """The parameters of a function, with what its docstring says of them.

    Args:
        but: names of parameters that are no flags.
    """
    function = inspect.unwrap(function)
    types_, helps = typing.get_type_hints(function), _arguments(function.__doc__ or "")
    return {
        name: Flag(_plain(types_[name]), helps.get(name, ""), None if required else given.default)
        for name, given in inspect.signature(function).parameters.items()
        for required in [given.default is given.empty]
        if name not in but
    }


def group(title: str, flags: Flags) -> Flag:
    """Flags under a title of their own; what was typed of them is a dict of its own."""
    return Flag(tyro.conf.OmitArgPrefixes[_typed(title, flags)], required=True)


def _typed(title: str, flags: Flags) -> Any:
    """A TypedDict of all flags: what is not typed is not in it."""
    kinds = {}
    for name, flag in flags.items():
        kind: Any = flag.kind
        shown = flag.default is not False and flag.default not in (None, "", ())
        default = f"--{name.replace('_', '-')}" if flag.default is True else flag.default
        hint = f"(default: {default})" if shown and not flag.required else ""
        told = {"help": flag.help, "help_behavior_hint": hint, "aliases": flag.aliases or None}
        kind = Annotated[kind, tyro.conf.arg(**told, metavar=flag.metavar)]
        if flag.positional:
            kind = tyro.conf.Positional[kind]
        kinds[name] = typing.Required[kind] if flag.required else kind
    typed: Any = TypedDict(title, kinds, total=False)  # pyright: ignore
    typed.__doc__ = title
    return typed


def _plain(kind: Any) -> Any:
    """A type that can be typed: a path for what may be one, without None, which is not typed."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is collections.abc.Sequence:
        return tuple[_plain(arguments[0]), ...]
    if origin not in (Union, types.UnionType):
        return kind
    if Path in arguments:
        return Path
    kinds = tuple(_plain(one) for one in arguments if one is not types.NoneType)
    return Union[kinds]  # noqa: UP007 (of as many as there are)


def _helps(kind: type) -> dict[str, str]:
    """Name of a field -> the string below it."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    found = {}
    for field, after in zip(body.body, body.body[1:], strict=False):  # pyright: ignore
        match field, after:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(str(text))):
                found[name] = " ".join(text.split())
    return found


def _arguments(docstring: str) -> dict[str, str]:
    """Name of a parameter -> what the section on arguments says of it."""
    section = re.search(r"^Args:\n((?: +.*\n|\n)+)", inspect.cleandoc(docstring) + "\n", re.M)
    parts = re.split(r"^    (\w+): ", section[1], flags=re.M)[1:] if section else []
    found = {}
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        text = " ".join(text.split()).replace("if None", "if not given")
        found[name] = text[0].upper() + text[1:]
    return found


def parse(
    argv: Sequence[str], prog: str, about: str | None, flags: Callable[[], Flags]
) -> dict[str, Any]:
    """What was typed, by name, and nothing else. A plugin is loaded.

    Args:
        about: what the command does.
        flags: makes those of the command, and imports what it calls. `PLUGIN` is among them where
            the command names the plugin again.

    Raises:
        UserError: the arguments do not fit.
    """
    with fatal():
        own = flags()
    kind = _typed("options", own | PLUGIN)
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            about = " ".join((about or "").split())
            found = dict(tyro.cli(kind, prog=prog, args=argv, description=about))
    except SystemExit as exit_:
        if not exit_.code:
            raise
        raise UserError(f"{summary(stderr.getvalue())} See {prog} --help.") from None
    if "plugin" in found or entry_points(group="bvae_jax"):
        with fatal():
            from bvae_jax.registry import load_installed, load_plugin
        load_installed()
        if "plugin" in found:
            load_plugin(found["plugin"])
    return {name: value for name, value in found.items() if name in own}


def command(words: Sequence[str | Path], given: dict[str, Any], *kept: str) -> str:
    """A command to type, with some of the flags that were given, and the plugin."""
    for name in (*kept, *PLUGIN):
        if (value := given.get(name)) not in (None, ()):
            no, more = ("no-", ()) if value is False else ("", () if value is True else (value,))
            words = [*words, f"--{no}{name.replace('_', '-')}", *more]
    return shlex.join(map(str, words))


PLAINER = {
    r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*\S)": (
        r"\1: got \2, wanted a whole number"
    ),
    r"Error parsing (\S+): could not convert string to float: (.*\S)": (
        r"\1: got \2, wanted a number"
    ),
    # tyro 1.0 writes ('--beta',) for --beta
    r"Missing value for argument '(?:\(')?([\w-]+)(?:',\))?'\. Expected .*": (
        r"\1: wanted a value after it"
    ),
    r"invalid choice ('.*') for argument '(\S+)'\. Expected one of \((.*)\)": (
        r"\2: got \1, wanted one of \3"
    ),
}
"""tyro's words -> ours."""


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
    for pattern, words in PLAINER.items():
        wrong = re.sub(pattern, words, wrong)
    return f"{wrong.strip().rstrip('.')}.{hint}"


def _is_rule(line: str) -> bool:
    return bool(line) and not line.strip("-─")


def completion(shells: Sequence[str], commands: dict[str, Callable[[], Flags]]) -> str:
    """A shell's script that completes commands and flags.

    Raises:
        UserError: the shell is not known.
    """
    known = ("bash", "zsh")
    if len(shells) != 1 or shells[0] not in known:
        raise UserError(f"--print-completion: got {shells}, wanted one of {', '.join(known)}.")
    within: dict[str, list[Any]] = {}  # "": the commands; "data": those of bvae data
    for name, flags in commands.items():
        *over, last = name.split()
        with fatal():
            own = flags()
        kind = Annotated[_typed(last, own | PLUGIN), tyro.conf.subcommand(last)]
        within.setdefault(" ".join(over), []).append(kind)
    all_ = within.pop("")
    for name, kinds in within.items():
        one: Any = TypedDict(name, {"command": Union[tuple(kinds)]})  # noqa: UP007 # pyright: ignore
        all_.append(Annotated[one, tyro.conf.subcommand(name)])
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        arguments = ["--tyro-print-completion", shells[0]]
        tyro.cli(Union[tuple(all_)], prog="bvae", args=arguments)  # noqa: UP007 # pyright: ignore
    return out.getvalue()
