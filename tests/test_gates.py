"""One network for every β of a range."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, assert_equal

import bvae_jax
from bvae_jax import cli
from bvae_jax.comparison.rates import TITLE, Difference, cells, differences, more_varied, sweep_of
from bvae_jax.config import Config, ScoreConfig
from bvae_jax.errors import UserError
from bvae_jax.files import write_json
from bvae_jax.likelihoods import make_likelihood
from bvae_jax.networks import NETWORKS
from bvae_jax.networks.gates import Rates, rates_of, root, slopes
from bvae_jax.objectives import OBJECTIVES
from bvae_jax.runs.checkpoint import fingerprint
from bvae_jax.runs.hyper import resolved
from bvae_jax.runs.sweep import sweep
from bvae_jax.runs.trainer import Trainer
from bvae_jax.step import Recipe, init_state, make_loss, make_optimizer, make_train_step, step_keys
from bvae_jax.vae import VAE, decode_raw, encode, forward, init_params

pytestmark = pytest.mark.usefixtures("tiny_network", "shared_trainers")

SHAPE, LATENTS = (16, 16, 1), 3
RATES = Rates(0.5, 16.0)
GATED = ("burgess", "conv", "conv128", "locatello", "mlp", "small")
LIKELIHOOD = make_likelihood("bernoulli", 1.0)
SMALL: dict[str, Any] = {
    "network": "tiny", "latents": LATENTS, "batch_size": 8, "multi_rate": "0.5:16", "steps": 6,
    "log_every": 3, "eval_every": 6, "checkpoint_every": 3, "eval_images": 32,
    "image_source": "rendered",
}  # fmt: skip

PLAIN: dict[str, Any] = SMALL | {"multi_rate": ""}


def model_of(network, shape=SHAPE, rates=RATES):
    encoder, decoder = network(LATENTS, shape, 1, jnp.float32)
    return VAE(encoder, decoder, LIKELIHOOD, rates=rates)


def shaken(params):
    """With other gates than the first ones, of which those of the decoder are not all open; and
    with biases that are not 0."""
    keys = map(jax.random.key, itertools.count())

    def shake(path, leaf):
        if path[-1].key == "bias":
            return leaf + 0.1 * jax.random.normal(next(keys), leaf.shape)
        if not path[-1].key.startswith("gate"):
            return leaf
        return leaf + jax.random.uniform(next(keys), leaf.shape, minval=-1, maxval=2.5)

    return jax.tree.map_with_path(shake, params)


@pytest.mark.parametrize("rates", [RATES, Rates(1.0, 4.0, "sigmoid")])
def test_levels_have_mean_0_and_variance_1(rates):
    betas = np.asarray(rates.draw(jax.random.key(0), 20_000))
    assert rates.low <= betas.min() < 1.01 * rates.low
    assert 0.99 * rates.high < betas.max() <= rates.high * (1 + 1e-6)
    levels = np.asarray(rates.level(betas))
    ends = np.asarray(rates.level(np.array([rates.low, rates.high])))
    np.testing.assert_allclose(ends, [-np.sqrt(3), np.sqrt(3)], rtol=1e-6)
    np.testing.assert_allclose([levels.mean(), levels.std()], [0, 1], atol=0.02)
    # uniform, not only with these moments
    np.testing.assert_allclose(np.quantile(levels, 0.25), -np.sqrt(3) / 2, atol=0.03)


def test_the_first_gates_open_and_shut_with_beta():
    first = slopes(jax.random.key(0), (1000,))
    assert -1 <= first.min() < -0.98
    assert 0.98 < first.max() <= 1
    assert abs(first.mean()) < 0.1


def test_the_decoders_gate_against_numpy_and_its_gradient_is_finite():
    x = np.array([-9, -2, -0.1, 0, 0.5, 200], np.float32)
    wanted = np.sqrt(np.maximum(0, 1 - np.exp(np.minimum(x, 1).astype(np.float64))))
    np.testing.assert_allclose(root(jnp.asarray(x)), wanted, rtol=1e-5)
    found = jax.vmap(jax.grad(root))(jnp.asarray(x))
    np.testing.assert_allclose(found[:3], -np.exp(x[:3]) / (2 * wanted[:3]), rtol=1e-3)
    np.testing.assert_array_equal(found[3:], 0)


@pytest.mark.parametrize("name", ["locatello", "mlp", "small"])
def test_an_image_sees_the_network_of_its_own_beta(name):
    """Gates for each image of a batch, and gates folded into weights, are two ways to one thing."""
    model = model_of(NETWORKS[name])
    plain = model.clone(rates=None)
    params = shaken(jax.jit(lambda: init_params(model, SHAPE, jax.random.key(0)))())
    betas = np.array([0.5, 3.0, 16.0], np.float32)
    mine = jnp.tile(betas, 11)[:32]  # a CPU computes 32 in parts
    images = jax.random.uniform(jax.random.key(1), (32, *SHAPE))
    z = jax.random.normal(jax.random.key(2), (32, LATENTS))

    @jax.jit
    def seen(params):
        posterior = model.apply({"params": params}, images, mine, method="encode")
        return *posterior, model.apply({"params": params}, z, mine, method="decode")

    @jax.jit
    def alone(params, beta):
        own = RATES.at(params, beta)
        return *encode(plain, own, images), decode_raw(plain, own, z)

    found, apart = jax.tree.map(np.asarray, seen(params)), []
    for number, beta in enumerate(betas):
        apart.append(jax.tree.map(np.asarray, alone(params, beta)))
        for got, wanted in zip(found, apart[-1], strict=True):
            assert_close(got[number::3], wanted[number::3], 1e-4, 1e-5)
    for first, last in zip(apart[0], apart[2], strict=True):
        assert np.abs(first - last).max() > 1e-4
    shapes = jax.eval_shape(lambda: init_params(plain, SHAPE, jax.random.key(0)))
    own = jax.eval_shape(RATES.at, params, 3.0)
    assert jax.tree.structure(own) == jax.tree.structure(shapes)


def count(network, rates, shape=(64, 64, 1)):
    model = model_of(network, shape, rates)
    fresh = jax.eval_shape(lambda: init_params(model, shape, jax.random.key(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(fresh))


@pytest.mark.parametrize("name", GATED)
def test_gates_are_few(name):
    assert 1 < count(NETWORKS[name], RATES) / count(NETWORKS[name], None) < 1.03


@pytest.mark.parametrize(
    ("name", "without"), [("conv", {"ConvUp_3"}), ("conv128", {"Dense_0", "ConvUp_4"})]
)
def test_what_no_activation_follows_has_no_gate(name, without):
    model = model_of(NETWORKS[name], (64, 64, 1), RATES)
    fresh = jax.eval_shape(lambda: init_params(model, (64, 64, 1), jax.random.key(0)))
    found = {layer for layer, of in fresh["decoder"].items() if "gate_slope" not in of}
    assert found == without


def recipe_of(rates, optimizer="sgd"):
    numbers = {
        "adam_b1": 0.9,
        "adam_b2": 0.999,
        "adam_eps": 1e-8,
        "momentum": 0.0,
        "weight_decay": 0.0,
    }
    objective = OBJECTIVES["beta_vae"]
    if rates:
        objective = objective._replace(loss=objective.multi_rate)
    return Recipe(
        model_of(NETWORKS["tiny"], rates=rates), objective, make_optimizer(optimizer, numbers)
    )


def state_of(recipe, beta=3.0):
    hyper = {"beta": jnp.float32(beta), "learning_rate": jnp.float32(1e-3)}
    options = {"recipe": recipe, "image_shape": SHAPE, "latents": LATENTS}
    return init_state(jax.random.key(0), hyper, **options)


IMAGES = (jax.random.uniform(jax.random.key(9), (8, *SHAPE)) > 0.7).astype(jnp.float32)


def test_a_range_of_one_beta_trains_the_plain_network_with_constant_gates():
    """Steps of gradient descent against the plain loss of weights that are multiplied by hand."""
    rates, plain = Rates(3.0, 3.0), recipe_of(None)
    recipe = recipe_of(rates)
    state, step = state_of(recipe), jax.jit(make_train_step(recipe))
    state = state._replace(params=state.params | {"vae": shaken(state.params["vae"])})
    loss, plain_state = make_loss(plain, training=True), state_of(plain)

    def by_hand(params, keys):
        def multiplied(layer, gate):
            shut = gate(layer["gate_offset"])
            return {"kernel": layer["kernel"] * shut[None], "bias": layer["bias"] * shut}

        def shut(x):
            return jnp.sqrt(jnp.maximum(1 - jnp.exp(x), 1e-12))

        own = {
            "encoder": params["encoder"]
            | {"Dense_0": multiplied(params["encoder"]["Dense_0"], jax.nn.sigmoid)},
            "decoder": params["decoder"]
            | {"Dense_0": multiplied(params["decoder"]["Dense_0"], shut)},
        }
        return loss({"vae": own, "aux": {}}, plain_state, IMAGES, keys.noise, keys.objective)[0]

    wanted = state.params["vae"]
    for _ in range(3):
        keys = step_keys(state.key, state.step)
        state, metrics = step(state, IMAGES)
        value, gradient = jax.jit(jax.value_and_grad(by_hand))(wanted, keys)
        np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
        wanted = jax.tree.map(lambda p, g: p - 1e-3 * g, wanted, gradient)
    assert_close(state.params["vae"], wanted, 1e-4, 1e-6)


@pytest.mark.parametrize("decoder", ["sqrt", "sigmoid"])
def test_gradients_by_finite_differences(decoder):
    recipe = recipe_of(RATES._replace(decoder=decoder))
    state = state_of(recipe)
    params = state.params["vae"]  # all gates are open, so that no step shuts one
    loss, (noise, drawn) = make_loss(recipe, training=True), jax.random.split(jax.random.key(3))
    value = jax.jit(lambda vae: loss({"vae": vae, "aux": {}}, state, IMAGES, noise, drawn)[0])
    with jax.debug_key_reuse(False):  # the same draws again and again
        check_slopes(value, params)


def check_slopes(value, params):
    """The gradient by each array, against differences along it."""
    gradient = jax.grad(value)(params)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        along = jax.tree.map_with_path(
            lambda p, x, path=path, leaf=leaf: leaf / (jnp.linalg.norm(leaf) + 1e-9) if p == path
            else jnp.zeros_like(x), params,
        )  # fmt: skip
        up, down = (
            value(jax.tree.map(lambda p, a, h=h: p + h * a, params, along)) for h in (1e-2, -1e-2)
        )
        slope = float(jnp.linalg.norm(leaf))
        np.testing.assert_allclose(
            (up - down) / 2e-2, slope, rtol=0.03, atol=0.05, err_msg=str(path)
        )


def test_the_loss_weighs_each_image_by_its_own_beta():
    """Against the definition, from the gated network's own numbers."""
    recipe = recipe_of(RATES)
    state, (noise, drawn) = state_of(recipe), jax.random.split(jax.random.key(3))
    with jax.debug_key_reuse(False):  # what the loss drew is drawn again
        value, _ = make_loss(recipe, training=True)(state.params, state, IMAGES, noise, drawn)
        beta = RATES.draw(drawn, len(IMAGES))
        out = forward(recipe.model, state.params["vae"], IMAGES, noise, beta=beta)
    mean, logvar = np.asarray(out.posterior.mean, float), np.asarray(out.posterior.logvar, float)
    kl = 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).sum(axis=1)
    wanted = np.mean(-np.asarray(out.log_likelihood[0], float) + np.asarray(beta, float) * kl)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    assert len(set(np.asarray(beta).tolist())) == len(IMAGES)


REFUSED = [
    ({"multi_rate": "4"}, "--multi-rate: got '4', wanted LOW:HIGH"),
    ({"multi_rate": "0:4"}, "--multi-rate: got '0:4', wanted LOW:HIGH"),
    ({"multi_rate": "8:4"}, "--multi-rate: got '8:4', wanted LOW:HIGH"),
    ({"multi_rate": "1:4", "beta": 8}, "--beta: got 8, wanted a β from 1 to 4"),
    ({"multi_rate": "1:4", "objective": "factor_vae"}, "factor_vae has no loss with a β for each"),
    ({"multi_rate": "1:4", "bound": "iwae"}, "got --bound iwae as well"),
    ({"multi_rate": "1:4", "beta_schedule": "linear:steps=9"}, "got --beta-schedule linear:ste"),
    ({"multi_rate_decoder": "sigmoid"}, "nothing uses it without --multi-rate"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_does_not_go_with_a_range_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        resolved(Config(**changes))


@pytest.mark.parametrize("network", ["resnet", "spatial_broadcast"])
def test_networks_without_gates_are_refused(network):
    with pytest.raises(UserError, match=f"network {network} has layers without gates"):
        Trainer(Config(network=network, multi_rate="1:4"), progress=False)


def test_the_default_beta_lies_in_the_range():
    betas = {text: resolved(Config(multi_rate=text)).beta for text in ("1:8", "5:8", "0.1:2")}
    assert betas == {"1:8": 4, "5:8": 5, "0.1:2": 2}
    assert rates_of("") is None


@pytest.fixture(scope="module")
def found(tiny_network, tmp_path_factory):
    """A run for many β."""
    directory = tmp_path_factory.mktemp("gates") / "run"
    return bvae_jax.train(Config(**SMALL), directory, progress=False, figures=False)


def test_a_run_at_a_beta_is_a_run(found, tmp_path, capsys):
    images = found.trainer.images(np.arange(5))
    other = found.at(0.5)
    assert found.at(4.0).run_dir == found.run_dir  # the β of its config
    assert other.run_dir == found.run_dir / "beta=0.5"
    assert other.at(4.0).run_dir == found.run_dir
    own = bvae_jax.load(other.run_dir, progress=False)
    assert (own.config, own.run_dir) == (other.config, other.run_dir)
    assert bvae_jax.load(found.run_dir, beta=0.5, data=False).config.beta == 0.5
    assert_equal(own.encode(images), other.encode(images))
    gated = found.trainer._recipe.model.apply(
        {"params": found.state.params["vae"]}, images, jnp.full(5, 0.5), method="encode"
    )
    assert_close(other.encode(images), gated)
    assert not np.array_equal(other.encode(images).mean, found.encode(images).mean)
    argv = ["sample", str(found.run_dir), "--beta", "0.5", "-n", "2", "-o", str(tmp_path / "drawn")]
    assert cli.main(argv) == 0
    with np.load(tmp_path / "drawn" / "samples.npz") as drawn:
        np.testing.assert_array_equal(drawn["images"], other.sample(2))
    assert "β" not in capsys.readouterr().err
    assert cli.main(["export", str(found.run_dir), "-o", str(tmp_path / "out")]) == 0
    assert "trained for β from 0.5 to 16: this is β = 4. --beta tak" in capsys.readouterr().err


def test_what_is_kept_of_a_beta_is_kept_apart(found):
    one, two = (found.at(beta).codes(64).codes for beta in (1.0, 2.0))
    again = bvae_jax.load(found.run_dir, progress=False)
    np.testing.assert_array_equal(again.at(1.0).codes(64).codes, one)
    np.testing.assert_array_equal(again.at(2.0).codes(64).codes, two)
    assert not np.array_equal(one, two)
    scores = [found.at(beta).evaluate("mig", num_points=64, figures=False) for beta in (1.0, 2.0)]
    assert (
        scores[0]["mig"]["request"]["params_sha256"] != scores[1]["mig"]["request"]["params_sha256"]
    )
    assert (found.at(1.0).run_dir / "evaluation.json").exists()


def test_a_beta_outside_the_range_is_refused(found, tiny_network, tmp_path):
    with pytest.raises(UserError, match=r"beta: got 20, wanted a β from 0\.5 to 16"):
        found.at(20.0)
    with pytest.raises(UserError, match=r"beta: got 8, but .*/beta=2 says β = 2: leave one"):
        bvae_jax.load(found.run_dir / "beta=2", beta=8.0)
    config = Config(**PLAIN).replace(steps=1)
    plain = bvae_jax.train(config, tmp_path / "plain", progress=False, figures=False)
    with pytest.raises(UserError, match="was trained for one β"):
        plain.at(4.0)


def test_a_sweep_over_seeds_has_the_bits_of_single_runs(found, tmp_path):
    members = sweep(
        Config(**SMALL), tmp_path / "sweep", seeds=2, strategy="sequential", progress=False
    )
    assert_equal(members["seed=0"].state, found.state)
    apart = members["seed=1"].at(1.0).params
    assert not np.array_equal(
        apart["encoder"]["Dense_0"]["kernel"], found.at(1.0).params["encoder"]["Dense_0"]["kernel"]
    )


def test_a_run_is_looked_at_where_the_others_are_if_that_is_in_its_range(tmp_path):
    write_json(tmp_path / "config.json", Config(multi_rate="0.5:16").to_dict())
    assert sweep_of(tmp_path, [0.4, 16.0, 0.5, 3.0, 17.0]).values["beta"] == (0.5, 3, 16)
    own = sweep_of(tmp_path, [20.0]).values["beta"]
    assert own == sweep_of(tmp_path).values["beta"]
    assert (own[0], own[-1]) == (0.5, 16)


def test_a_loss_outside_the_interval_is_told_apart():
    found = [
        Difference(4.0, 50.0, 49.0, 52.0, more, 0.0, 0.0) for more in (-2.0, -1.0, 0.0, 2.0, 3.0)
    ]
    assert [one.told_apart for one in found] == [True, False, False, False, True]
    one_seed = Difference(4.0, 50.0, np.nan, np.nan, 30.0, 0.0, 0.0)
    assert not one_seed.told_apart
    assert cells([one_seed]) == [["4", "50.00", "-", "+30.00", "+0.00", "+0.00"]]


def test_a_run_for_many_betas_beside_a_sweep(found, tmp_path, capsys):
    config = Config(**PLAIN)
    sweep(config, tmp_path / "sweep", betas=[2.0, 8.0], seeds=2, progress=False)
    score = ScoreConfig(metrics="mig", train_points=100, test_points=10, permutations=0)
    options = {"metrics": score, "num_points": 150, "baselines": False, "decomposition": 0}
    compared = bvae_jax.compare(
        tmp_path / "sweep", found.run_dir, figures=False, progress=False, **options
    )
    rows = compared.comparison.members
    assert compared.comparison.settings == (
        "β = 2", "β = 2, multi-rate = 0.5:16", "β = 8", "β = 8, multi-rate = 0.5:16",
    )  # fmt: skip
    said = differences(compared.comparison)
    assert [one.beta for one in said] == [2.0, 8.0]
    for one in said:
        assert one.low < one.loss < one.high
        own = found.at(one.beta).summarised().summary
        of = rows[(rows["beta"] == one.beta) & (rows["multi_rate"] == "")]
        loss = (of["nll"] + one.beta * of["kl"]).mean()
        assert len(of) == 2
        np.testing.assert_allclose(one.loss, loss)
        np.testing.assert_allclose(one.more, own["nll"] + one.beta * own["kl"] - loss)
        np.testing.assert_allclose(one.rate, own["kl"] - of["kl"].mean())
        assert own["params_sha256"] == fingerprint(found.at(one.beta).params)
        assert own["kl"] != found.summary["kl"]
    assert TITLE in (tmp_path / "sweep" / "statistics.md").read_text()
    assert more_varied(compared.comparison) == []
    others = dataclasses.replace(compared.comparison, varied=("beta", "steps", "multi_rate"))
    assert (differences(others), more_varied(others)) == ([], ["steps"])
    assert "metrics of 150 images, those of" in (tmp_path / "sweep/table.md").read_text()


def test_a_beta_of_one_run_is_chosen_by_its_rate(found):
    rates = found.summary["rates"]
    assert [rates[0]["beta"], rates[-1]["beta"]] == [0.5, 16.0]
    wanted = rates[3]
    chosen = bvae_jax.suggest(found.run_dir, rate=wanted["kl"], progress=False)
    assert chosen.setting == f"β = {wanted['beta']:g}"
    with pytest.raises(UserError, match="leave them out"):
        sweep(Config(**SMALL), "nowhere", betas=[1.0, 2.0], progress=False)
