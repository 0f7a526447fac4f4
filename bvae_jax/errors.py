"""The one exception that the command line turns into a single line and exit code 2."""

from collections.abc import Iterable


class UserError(Exception):
    """Something that the user can mend.

    The message is one line: what was got, what was wanted, what to do.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a registry."""
    return UserError(f"Unknown {kind} {name!r}. Known: {', '.join(sorted(known))}.")
