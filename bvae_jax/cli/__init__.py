"""`bvae ...`: parse, call, print. A user's mistake is one line on stderr and exit code 2."""

import errno
import importlib.metadata
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from bvae_jax import runtime
from bvae_jax.cli import data, lists, run, score
from bvae_jax.cli.flags import Flags, completion
from bvae_jax.errors import UserError, naming_flags, say, unknown

COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], Callable[[], Flags] | None]] = {
    "train": (run.train, run.train_flags),
    "sweep": (run.sweep, run.sweep_flags),
    "evaluate": (score.evaluate, score.evaluate_flags),
    "compare": (score.compare, score.compare_flags),
    "suggest": (score.suggest, score.suggest_flags),
    "traverse": (run.traverse, run.traverse_flags),
    "explore": (run.explore, run.explore_flags),
    "encode": (run.encode, run.encode_flags),
    "sample": (run.sample, run.sample_flags),
    "export": (run.export, run.export_flags),
    "push": (run.push, run.push_flags),
    "data": (data.data, None),
    "beta": (lists.beta, lists.beta_flags),
    "list": (lists.list_, lists.list_flags),
}
"""What runs a command, and what makes its flags; `bvae data` has commands of its own."""
RESUMED = ("train", "sweep")
"""What goes on with --resume."""
USAGE = """usage: bvae COMMAND ...

The laboratory for beta-VAEs in JAX.

  bvae train --run-dir DIR [--beta 4 ...]   train a model: --objective, --preset, ...
  bvae sweep --sweep-dir DIR --betas 1 4 --seeds 5   train a grid of models
  bvae evaluate DIR [--metrics fast ...]    score a run, or anybody's codes in an .npz file
  bvae compare DIR [--statistic mig ...]    a sweep's table, figures and report, with intervals
  bvae suggest DIR [--rate 8 ...]           choose a setting of it without labels
  bvae traverse DIR [--range 3 ...]         draw latent traversals of a run again
  bvae explore DIR [-o FILE]                a page to move the latents of a run or a sweep
  bvae encode DIR IMAGES -o FILE            codes of pictures, into an .npz or .csv file
  bvae sample DIR -n 64 -o DIR              pictures of the prior or the aggregate posterior
  bvae export DIR --to torch [-o DIR]       weights as safetensors, PyTorch code, ONNX or .npz
  bvae push DIR hf:USER/NAME [-o DIR]       a run to the Hugging Face Hub, with a model card
  bvae data list|show|prepare               data sets: which there are, a look, fetching
  bvae beta --from disent --value 0.03      what other codes call beta, in our units
  bvae list [objectives|presets|...]        what --objective, --preset, --metrics, ... may be

bvae COMMAND --help lists a command's flags. With --plugin FILE.py a command knows objectives,
networks, likelihoods, metrics and data sets of your own (see bvae_jax.register).
bvae --print-completion bash|zsh prints a completion script for your shell."""


@naming_flags()
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, 2 after a user's mistake, or 130 where a signal ended a command before it
            had done its work or saved where it was.
    """
    command, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if command.startswith("--plugin="):  # --plugin may be in front of the command
        command, rest = "--plugin", [command.removeprefix("--plugin="), *rest]
    if command == "--plugin" and len(rest) > 1:
        command, *rest = [*rest[1:], command, rest[0]]
    try:
        if command in ("-h", "--help"):
            print(USAGE)
            return 0
        if command == "--version":
            print(f"bvae_jax {importlib.metadata.version('bvae_jax')}")
            return 0
        if command == "--print-completion":
            within = {f"data {name}": found for name, found in data.COMMANDS.items()}
            flags = {name: flags for name, (_, flags) in (COMMANDS | within).items() if flags}
            print(completion(rest, flags))
            return 0
        if command not in COMMANDS:
            raise unknown("command", command, COMMANDS)
        with runtime.Interrupt():
            return COMMANDS[command][0](rest)
    except UserError as error:
        return _fail(str(error))
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(_describe(error, command))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except Exception as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            return _fail("Out of memory. Lower --batch-size, --latents or the network's size.")
        raise


def run_main() -> None:
    """The entry point of the `bvae` command: `main` in a process of its own."""
    runtime.set_compile_cache_default()
    # A cache that cannot be written, on a full disk say, is done without.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")
    # Of processes that score, after Ctrl-C: the system takes them back.
    ignored = [os.environ.get("PYTHONWARNINGS", ""), "ignore:resource_tracker:UserWarning"]
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, ignored))
    # A failed write is reported once, by us; not again by every background task of Orbax.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if sys.stdout:
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore (names of files)
    code = main()
    if code == 130:  # at once: JAX may be compiling, and crash when Python takes itself down
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def _fail(message: str) -> int:
    say(message)
    return 2


def _describe(error: OSError, command: str) -> str:
    again = "make room, then go on with --resume." if command in RESUMED else "make room."
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    advice = {
        errno.EACCES: "Choose a place that you may read and write.",
        errno.EPERM: "Choose a place that you may read and write.",
        errno.EROFS: "Choose a place that you may read and write.",
        errno.ENOSPC: f"The disk is full: {again}",
        errno.EDQUOT: f"The disk quota is used up: {again}",
        errno.ENOTDIR: "A part of the path is a file: choose another path.",
        errno.EEXIST: "There is a file in the way: choose another path.",
    }
    return f"{what}. {advice.get(error.errno or 0, 'Check the path.')}"
