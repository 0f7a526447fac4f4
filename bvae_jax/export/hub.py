"""The Hugging Face Hub: a run is pushed to it as an exported directory with a card, and fetched."""

import contextlib
import functools
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bvae_jax.errors import UserError, needs, say
from bvae_jax.export.card import model_card, title_of
from bvae_jax.export.formats import TEMPLATE, own_part, torch_code
from bvae_jax.export.weights import SCORES, export_run
from bvae_jax.files import read_json, replacing, write_text
from bvae_jax.runs import rundir
from bvae_jax.runs.run import Run, load

CARD = "README.md"
CLIENTS = ("httpx", "requests")
OURS = ("figures/*", "summary.json", *SCORES, TEMPLATE.name)
"""What a push removes where the run that is pushed has no such file."""


def parse(text: str) -> tuple[str, str | None]:
    """hf:USER/NAME or hf:USER/NAME@REVISION.

    Returns:
        USER/NAME; the branch, tag or commit, or None.

    Raises:
        UserError: it is neither.
    """
    found = re.fullmatch(r"hf:(\w[\w.-]*/\w[\w.-]*)(?:@(\S+))?", text)
    if not found:
        raise UserError(f"Got {text}, wanted hf:USER/NAME or hf:USER/NAME@REVISION.")
    return found[1], found[2]


def fetched(text: str) -> Path:
    """The directory of hf:USER/NAME in the Hub's cache, from the network where it is not there.

    Without a network, and with HF_HUB_OFFLINE=1, what is there is taken.

    Raises:
        UserError: there is no such model, or it cannot be reached, or is none of ours.
    """
    repository, revision = parse(text)
    needs("huggingface_hub", "hub", text)
    from huggingface_hub import snapshot_download

    none_of_ours = "it is no model of bvae_jax. bvae push makes one"
    with in_one_line(text):
        # The config alone first: a repository that is not ours may be large.
        found = snapshot_download(repository, revision=revision, allow_patterns=rundir.CONFIG)
        config = Path(found, rundir.CONFIG)
        if not config.is_file():
            raise UserError(f"{text} has no {rundir.CONFIG}: {none_of_ours}.")
        if not set(rundir.ALWAYS) <= set(read_json(config)):
            raise UserError(
                f"{text}: its {rundir.CONFIG} is that of something else: {none_of_ours}."
            )
        found = snapshot_download(repository, revision=Path(found).name)
    if not Path(found, rundir.WEIGHTS).is_file():
        raise UserError(f"{text} has no {rundir.WEIGHTS}: {none_of_ours}.")
    for link in Path(found, "figures").glob("*"):
        if link.is_symlink():  # into the cache: who draws it again would write through it
            content = link.read_bytes()
            with replacing(link) as file:
                file.write(content)
    return Path(found)


def push(
    run: Run | str | Path,
    to: str,
    *,
    private: bool = False,
    message: str | None = None,
    licence: str | None = None,
    beta: float | None = None,
    out: str | Path | None = None,
) -> str:
    """Push a finished run to the Hugging Face Hub: weights, config, summary, scores, figures, the
    networks in PyTorch, and a model card made from them. A README.md that is in the run's directory
    is taken for the card.

    Args:
        run: its directory, or what `load` returned.
        to: the repository, as hf:USER/NAME or hf:USER/NAME@BRANCH; it is made if it is not there.
        private: make a repository that only you see.
        message: of the commit.
        licence: of the model, for the card, as mit or cc-by-4.0.
        beta: of a run that was trained for many (--multi-rate), the one to push.
        out: leave what would be pushed in this directory, and push nothing.

    Returns:
        The address of the model's page, or the directory.

    Raises:
        UserError: the run is not finished, the address is none, or the Hub refuses or cannot be
            reached.
    """
    repository, branch = parse(to)
    if licence is not None and not re.fullmatch(r"[\w.+-]+", licence):
        raise UserError(f"--licence: got {licence!r}, wanted one word, as mit or cc-by-4.0.")
    needs("huggingface_hub", "hub", to)
    from huggingface_hub import HfApi, get_token

    directory = Path(out).expanduser() if out else None
    if directory and directory.exists() and any(directory.iterdir()):
        raise UserError(f"--out: {directory} is not empty: choose another directory.")
    if out is None and get_token() is None:
        raise UserError(f"{to}: pushing needs a token that may write: hf auth login, or HF_TOKEN.")
    if not isinstance(run, Run):
        run = load(run, beta=beta, data=False, progress=False).told()
    if int(run.state.step) < run.config.steps:
        raise UserError(f"{run.run_dir} is not finished: train it on with --resume, then push it.")
    if run.summary is None:  # at one of many β it is evaluated now
        run = (run if run.opened else load(run.run_dir, progress=False)).summarised()

    card = functools.partial(_write_card, run, repository, licence)
    more = [card] if own_part(run) else [torch_code, card]
    if directory:
        return str(export_run(run, directory, more=more))
    with tempfile.TemporaryDirectory() as aside:
        made = export_run(run, Path(aside, "run"), more=more)
        with in_one_line(to):
            hub = HfApi(library_name="bvae_jax")
            page = str(hub.create_repo(repository, private=private, exist_ok=True))
            if branch:
                hub.create_branch(repository, branch=branch, exist_ok=True)
            hub.upload_folder(
                repo_id=repository,
                folder_path=made,
                revision=branch,
                commit_message=message or f"{title_of(run.config)}, by bvae push",
                delete_patterns=list(OURS),
            )
    return f"{page}/tree/{branch}" if branch else page


def _write_card(run: Run, repository: str, licence: str | None, directory: Path) -> None:
    """That of the run's directory, or one that is made."""
    if (own := run.run_dir / CARD).is_file():
        shutil.copyfile(own, directory / CARD)
        say(f"note: the card is {own}, as it is.")
    else:
        write_text(directory / CARD, model_card(run, directory, repository, licence))


@contextlib.contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Say what went wrong with the Hub as a UserError.

    Args:
        what: hf:USER/NAME, as it was given.
    """
    from huggingface_hub import errors

    # That of the library which does the requests: of another one in each major version.
    foreign: Any = [c for c in errors.HfHubHTTPError.__mro__ if c.__module__.startswith(CLIENTS)]
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        why = error.__cause__
        if why is None or isinstance(why, errors.OfflineModeIsEnabled):
            why = "HF_HUB_OFFLINE is set"
        wrong = f"it is not in the cache, and the Hub cannot be reached ({why})"
    except errors.RevisionNotFoundError:
        wrong = "there is no such branch, tag or commit in it"
    except errors.GatedRepoError:
        wrong = "access to it has to be granted: ask on its page"
    except errors.RepositoryNotFoundError:
        wrong = "no such model, or a private one: check the name, or hf auth login (HF_TOKEN)"
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            wrong = "the token may not do that: hf auth login, or HF_TOKEN, with one that may write"
        else:
            wrong = f"the Hub answered {status}: {error.server_message or error}"
    except errors.HFValidationError as error:
        wrong = str(error)
    except errors.OfflineModeIsEnabled:
        wrong = "HF_HUB_OFFLINE is set: nothing can be pushed"
    except (*foreign, ConnectionError, TimeoutError) as error:
        wrong = f"the Hub cannot be reached ({error})"
    except RuntimeError as error:  # of the upload of large files
        wrong = f"the transfer failed ({error})"
    else:
        return
    raise UserError(f"{what}: {' '.join(wrong.split()).rstrip('.')}.")
