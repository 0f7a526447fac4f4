"""The table of commands: a file each."""

from collections.abc import Callable, Sequence

from bvae_jax.cli import beta, compare, data, evaluate, lists, score, sweep, train, traverse

COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train.train,
    "sweep": sweep.sweep,
    "compare": compare.compare,
    "suggest": compare.suggest,
    "traverse": traverse.traverse,
    "evaluate": evaluate.evaluate,
    "score": score.score,
    "data": data.data,
    "objectives": lists.objectives,
    "presets": lists.presets,
    "beta": beta.beta,
}
USAGE = """usage: bvae COMMAND ...

The laboratory for beta-VAEs in JAX.

  bvae train --run-dir DIR [--beta 4 ...]   train a model: --objective, --preset, ...
  bvae sweep --sweep-dir DIR --betas 1 4 --seeds 5   train a grid of models
  bvae compare DIR [--statistic mig ...]    its table, figures and report, with intervals
  bvae suggest DIR [--rate 8 ...]           choose a setting of it without labels
  bvae traverse DIR [--range 3 ...]         draw latent traversals of a run again
  bvae evaluate DIR [--metrics fast ...]    score a run by disentanglement metrics
  bvae score FILE.npz [--json OUT ...]      score anybody's codes and factors
  bvae data list|show|prepare               data sets: which there are, a look, fetching
  bvae objectives                           list what can be minimised, with formulas
  bvae presets                              list settings of published experiments
  bvae beta --from disent --value 0.03      what other codes call beta, in our units

bvae COMMAND --help lists a command's flags."""
