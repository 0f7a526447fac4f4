"""The table of commands: a file each."""

from collections.abc import Callable, Sequence

from bvae_jax.commands import evaluate, score, train, traverse

COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train.train,
    "traverse": traverse.traverse,
    "evaluate": evaluate.evaluate,
    "score": score.score,
}
USAGE = """usage: bvae COMMAND ...

The laboratory for beta-VAEs in JAX.

  bvae train --run-dir DIR [--beta 4 ...]   train a beta-VAE
  bvae traverse DIR [--range 3 ...]         draw latent traversals of a run again
  bvae evaluate DIR [--metrics fast ...]    score a run by disentanglement metrics
  bvae score FILE.npz [--json OUT ...]      score anybody's codes and factors

bvae COMMAND --help lists a command's flags."""
