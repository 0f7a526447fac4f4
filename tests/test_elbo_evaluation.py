"""The KL of a run taken apart, and log p(x) of held-out images."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from bvae_jax.cli.evaluate import print_elbo
from bvae_jax.config import Config
from bvae_jax.errors import UserError
from bvae_jax.evaluation import evaluate as elbo_evaluation
from bvae_jax.evaluation import log_likelihood as held_out
from bvae_jax.evaluation.evaluate import evaluate_elbo
from bvae_jax.evaluation.log_likelihood import held_out_log_likelihood
from bvae_jax.likelihoods import LIKELIHOODS, Likelihood
from bvae_jax.runs import run as runner
from bvae_jax.runs import rundir
from bvae_jax.runs.program import calibrated
from bvae_jax.types import Posterior
from bvae_jax.vae import VAE, decode, encode, init_params

pytestmark = pytest.mark.usefixtures("tiny_network")

SMALL = {"network": "tiny", "image_source": "rendered", "batch_size": 4, "latents": 3}
SMALL |= {"eval_images": 16, "log_every": 2, "eval_every": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("elbo") / "run"
    return runner.train(Config(**SMALL, steps=2), path, figures=False, progress=False)


def evaluated(run, *args, **kwargs):
    return evaluate_elbo(run.run_dir, *args, **{"num_points": 300, "progress": False} | kwargs)


def test_both_results_are_written_printed_and_not_computed_again(run, monkeypatch, capsys):
    found = evaluated(run, 50, 40, 5)
    on_disk = rundir.read_json(run.run_dir / "elbo.json")
    assert on_disk == found
    kl = found["decomposition"]["kl_sampled"]
    terms = ("mutual_information", "total_correlation", "dimension_wise_kl")
    assert sum(found["decomposition"][n] for n in terms) == pytest.approx(kl, abs=1e-6)
    assert found["decomposition"]["points"] == 300
    assert found["log_likelihood"]["log_likelihood"] >= found["log_likelihood"]["elbo"]
    assert found["log_likelihood"]["request"]["split"] == "holdout"
    print_elbo(found)
    out = capsys.readouterr().out
    assert "± standard error over 50 draws" in out
    assert "exactly, over 300 images" in out
    assert "-0.00" not in out
    assert "5 images; 40 importance samples" in out
    of = found["log_likelihood"]
    assert 1 <= of["least_effective"] <= of["effective_samples"] <= 40
    warned = f"Warning: {of['few']} of 5 images have fewer than 10 effective samples" in out
    assert warned == (of["few"] > 0) == (of["least_effective"] < 10)

    def fail(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr(elbo_evaluation, "decompose", fail)
    monkeypatch.setattr(elbo_evaluation, "held_out_log_likelihood", fail)
    assert evaluated(run, 50, 40, 5) == found
    with pytest.raises(AssertionError, match="again"):
        evaluated(run, 60)
    monkeypatch.undo()
    earlier = rundir.read_json(run.run_dir / "elbo.json")
    for added in ("least_effective", "few"):
        del earlier["log_likelihood"][added]
    del earlier["log_likelihood"]["request"]["few"]
    rundir.write_json(run.run_dir / "elbo.json", earlier)
    assert evaluated(run, 50, 40, 5) == found
    assert "damaged" not in capsys.readouterr().err
    (run.run_dir / "elbo.json").write_text("{")
    assert evaluated(run, 50) == {"decomposition": found["decomposition"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1,), "--decomposition: got 1"), ((0, -1), "--log-like"), ((0, 5, 0), "-images: got 0")],
)
def test_bad_settings_are_one_line(run, arguments, message):
    with pytest.raises(UserError, match=message):
        evaluated(run, *arguments)


class LinearEncoder(nn.Module):
    """A posterior that is near the true one of `linear_program`, but not equal."""

    @nn.compact
    def __call__(self, images):
        h = nn.Dense(2, name="mean")(images.reshape(len(images), -1))
        return Posterior(0.3 * h, jnp.full_like(h, -0.7))


class LinearDecoder(nn.Module):
    @nn.compact
    def __call__(self, z):
        return nn.Dense(4, name="out")(z).reshape(-1, 2, 2, 1)


def unit_gaussian(decoded, images, own):
    error = jnp.square(images - decoded) + jnp.log(2 * jnp.pi)
    return -0.5 * error.sum(axis=(1, 2, 3))


def linear_program(program):
    """x = W z + b + noise of variance 1, z in two dimensions: p(x) = N(b, W W' + I)."""
    likelihood = Likelihood(log_prob=unit_gaussian, mean=lambda decoded: decoded)
    model = VAE(LinearEncoder(), LinearDecoder(), likelihood)
    images = jax.random.uniform(jax.random.key(3), (40, 2, 2, 1))
    program = program._replace(
        model=model,
        images=lambda indices: images[indices],
        dataset=dataclasses.replace(program.dataset, image_shape=(2, 2, 1)),
        eval_indices=np.arange(40, dtype=np.int32).reshape(2, 20),
    )
    return program, init_params(model, (2, 2, 1), jax.random.key(0)), images


def test_log_likelihood_of_a_linear_model(run):
    program, params, images = linear_program(run.program)
    found = held_out_log_likelihood(program, params, samples=3000, images=21)
    weight, bias = (np.asarray(params["decoder"]["out"][n], float) for n in ("kernel", "bias"))
    x, covariance = np.asarray(images[:21], float).reshape(21, 4), weight.T @ weight + np.eye(4)
    each = multivariate_normal.logpdf(x, bias, covariance)  # pyright: ignore
    assert found.log_likelihood == pytest.approx(each.mean(), abs=0.01)
    assert found.standard_error == pytest.approx(each.std(ddof=1) / np.sqrt(21), rel=0.05)
    assert found.elbo < each.mean() - 0.01
    assert 1 < found.least_effective < found.effective_samples < 3000
    few = held_out_log_likelihood(program, params, samples=held_out.FEW - 1, images=21)
    assert (found.few, few.few) == (0, 21)
    assert (found.images, found.samples) == (21, 3000)
    bits = -found.log_likelihood / 4 / np.log(2) + 8
    assert found.bits_per_dim == pytest.approx(bits, rel=1e-6)


def test_one_image_is_refused_and_many_are_all(run):
    program, params, _ = linear_program(run.program)
    with pytest.raises(UserError, match="--log-likelihood: got 1 image, wanted at least 2"):
        held_out_log_likelihood(program, params, samples=5, images=1)
    assert held_out_log_likelihood(program, params, samples=5, images=999).images == 40


def test_a_sigma_of_the_batch_is_one_sigma_for_all_samples(run):
    program, params, images = linear_program(run.program)

    def found(likelihood):
        chosen = program._replace(model=program.model.clone(likelihood=likelihood))
        return chosen, held_out_log_likelihood(chosen, params, samples=40, images=3)

    optimal, with_optimal = found(LIKELIHOODS["optimal_sigma_vae"](1.0))
    _, with_fixed = found(calibrated(optimal, params))
    assert with_optimal == with_fixed
    mean = encode(optimal.model, params, images[:20]).mean
    error = jnp.square(decode(optimal.model, params, mean) - images[:20]).mean()
    sigma = float(jnp.sqrt(calibrated(optimal, params).scale({})))
    assert sigma == pytest.approx(float(jnp.sqrt(error)), rel=0.02)
