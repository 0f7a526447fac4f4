"""No two numbers that should be independent come from the same key."""

import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Literal

from bvae_jax import step as train
from bvae_jax import (
    types as keys,
)
from bvae_jax.config import Config
from bvae_jax.runs import trainer

CALLS = {"pjit", "jit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint"}
COMMON = {"network": "tiny", "latents": 3, "batch_size": 8, "eval_images": 600, "seed": 0}
RUNS = {
    "augmented": {"augment": "shift=2,flip,crop=0.8", "objective": "info_vae", "samples": 2},
    "pairs": {"dataset": "noisy_dsprites", "objective": "ada_gvae", "correlate": "shape,scale=0.2"},
    "shared": {"dataset": "color_dsprites", "objective": "factor_vae", "batch_seed": 0},
}


def keys_of(function, *arguments):
    """(keys that a function draws from, keys that it splits or folds into), as their data."""

    def interpret(closed, values, drawn, divided):
        known = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
        known |= zip(closed.jaxpr.invars, values, strict=True)

        def read(x):
            return x.val if isinstance(x, Literal) else known[x]

        for equation in closed.jaxpr.eqns:
            primitive, inputs = equation.primitive, [read(x) for x in equation.invars]
            if primitive.name == "random_bits":
                drawn.append(jax.random.key_data(inputs[0]).reshape(-1, 2))
            if primitive.name in ("random_split", "random_fold_in"):
                divided.append(jax.random.key_data(inputs[0]).reshape(-1, 2))
            inner = [p for p in equation.params.values() if isinstance(p, ClosedJaxpr)]
            if primitive.name in CALLS:
                outputs = interpret(inner[0], inputs, drawn, divided)
            else:
                assert not any("random_" in str(one) for one in inner), primitive
                outputs = primitive.bind(*inputs, **equation.params)
            several = primitive.multiple_results
            known |= zip(equation.outvars, outputs if several else [outputs], strict=True)
        return [read(x) for x in closed.jaxpr.outvars]

    @jax.jit  # so that all but the keys is left out
    def recorded(*leaves):
        drawn, divided = [], []
        interpret(traced, leaves, drawn, divided)
        return jnp.concatenate(drawn), jnp.concatenate(divided)

    traced = jax.make_jaxpr(function)(*arguments)
    return tuple(map(np.asarray, recorded(*jax.tree.leaves(arguments))))


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize("name", RUNS)
def test_no_key_of_steps_and_evaluations_is_used_twice(name, monkeypatch):
    made = []

    def kept(*arguments, **options):
        made.append(train.make_eval_body(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(trainer, "make_eval_body", kept)
    built = trainer.Trainer(Config(**COMMON | RUNS[name]), progress=False)
    step, evaluation = built.make_body(), made[0]

    def run(train_data, eval_data):
        state = built.init()
        steps = jax.vmap(lambda t: step(state._replace(step=t), train_data))(jnp.arange(3))
        batches = [
            jax.vmap(lambda i, data=data: evaluation(i, (state, *data)))(jnp.arange(2))
            for data in eval_data.values()
        ]
        return state, steps, batches

    with jax.debug_key_reuse(False):  # which does not know that a run is traced anew
        drawn, divided = keys_of(run, built.train_data, built.eval_data)
    assert len(drawn) > 20
    assert len(np.unique(drawn, axis=0)) == len(drawn)
    assert not set(map(tuple, drawn)) & set(map(tuple, divided))


def test_seeds_become_keys_in_one_place():
    package = Path(keys.__file__).parent
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py")
             if "random.key(" in path.read_text()}  # fmt: skip
    assert found == {
        "types.py",
        "data/sources.py",
    }


def test_purposes_and_seeds_have_keys_of_their_own():
    roots = [keys.key_for(p, seed) for p in typing.get_args(keys.Purpose) for seed in range(3)]
    children = [jax.random.fold_in(root, i) for root in roots for i in range(3)]
    looks = [jax.random.fold_in(jax.random.key(0), i) for i in range(20)]
    data = [tuple(jax.random.key_data(key).tolist()) for key in roots + children + looks]
    assert len(set(data)) == len(data)
