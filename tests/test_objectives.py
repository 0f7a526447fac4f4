"""Every objective against NumPy in float64, and the laws that all of them obey."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_close, float64
from jax.test_util import check_grads

from bvae_jax.config import Config
from bvae_jax.elbo import gaussian_kl
from bvae_jax.errors import UserError
from bvae_jax.likelihoods import make_likelihood
from bvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from bvae_jax.objectives import (
    OBJECTIVES,
    ada,
    beta_tcvae,
    factor_vae,
    get_objective,
    hfs_vae,
    info_vae,
    qlae,
)
from bvae_jax.objectives.base import NOTHING, Inputs, Loss
from bvae_jax.runs.hyper import hyperparameters, parse_hyper, resolved
from bvae_jax.step import (
    Recipe,
    init_state,
    make_loss,
    make_optimizer,
)
from bvae_jax.types import Posterior, Snapped, VAEOutput
from bvae_jax.vae import CODEBOOK, VAE, encode, log_likelihood

SHAPE, LATENTS, BATCH, SIZE = (16, 16, 1), 3, 6, 1000
UNITS = factor_vae.UNITS  # before tests make it narrow
NUMBERS = {"adam_b1": 0.9, "adam_b2": 0.999, "adam_eps": 1e-8, "momentum": 0.0, "weight_decay": 0.0}


@functools.cache
def recipe(name, samples=1):
    encoder, decoder = MLPEncoder(LATENTS, (16,)), MLPDecoder(SHAPE[:2], 1, (16,))
    codebook = (LATENTS, 4) if OBJECTIVES[name].codebook else None
    return Recipe(
        model=VAE(encoder, decoder, make_likelihood("bernoulli", 1.0), codebook=codebook),
        objective=OBJECTIVES[name],
        optimizer=make_optimizer("adam", NUMBERS),
        samples=samples,
        dataset_size=SIZE,
    )


def fresh(name, hyper=None):
    values = {"learning_rate": 1e-3, **OBJECTIVES[name].hyper, **(hyper or {})}
    values = {k: jnp.float32(v) for k, v in values.items()}
    return init_state(
        jax.random.key(0), values, recipe=recipe(name), image_shape=SHAPE, latents=LATENTS
    )


def images():
    return (jax.random.uniform(jax.random.key(5), (BATCH, *SHAPE)) > 0.5).astype(jnp.float32)


def gradient(name, *, training=False):
    """(state) -> ((loss, (metrics, memory)), gradients)."""
    loss = jax.value_and_grad(make_loss(recipe(name), training=training), has_aux=True)

    def function(state):
        noise_key, loss_key = jax.random.split(jax.random.key(1))
        return loss(state.params, state, images(), noise_key, loss_key)

    return function


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_reports_finite_gradients_and_jit_changes_nothing(name):
    state, function = fresh(name), gradient(name, training=True)
    (loss, (metrics, memory)), gradients = jax.jit(function)(state)
    of_posterior = {"kl", "elbo", "bits_per_dim", "kl_per_latent"}
    assert {"loss", "nll"} <= set(metrics)
    assert set(metrics) & of_posterior == (of_posterior if OBJECTIVES[name].noise else set())
    if OBJECTIVES[name].noise:
        assert metrics["kl_per_latent"].shape == (LATENTS,)
        assert metrics["elbo"] == pytest.approx(-float(metrics["nll"] + metrics["kl"]), rel=1e-5)
        assert metrics["bits_per_dim"] == pytest.approx(
            -float(metrics["elbo"]) / 256 / np.log(2), rel=1e-5
        )
    assert metrics["loss"] == loss
    assert set(memory) == set(OBJECTIVES[name].memory)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((metrics, gradients)))
    eager = make_loss(recipe(name), training=True)(
        state.params, state, images(), *jax.random.split(jax.random.key(1))
    )
    assert_close((loss, (metrics, memory)), eager, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", [n for n, o in OBJECTIVES.items() if o.neutral is not None])
def test_neutral_setting_is_the_elbo(name):
    state = fresh(name, OBJECTIVES[name].neutral)
    (loss, (metrics, _)), _ = jax.jit(gradient(name))(state)
    assert float(loss) == pytest.approx(-float(metrics["elbo"]), rel=1e-5)


def test_only_autoencoders_have_no_neutral_setting():
    assert [name for name, o in OBJECTIVES.items() if o.neutral is None] == ["ae", "qlae"]


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_hyperparameter_is_traced_and_does_something(name):
    traces = []
    with float64():
        given = inputs(name, aux=discriminator_params(), memory={"integral": jnp.float64(2.0)})

        @jax.jit
        def value(hyper):
            traces.append(1)
            return OBJECTIVES[name].loss(given._replace(hyper=hyper, key=jax.random.key(3))).value

        before = value(given.hyper)
        for number in sorted(set(given.hyper) - {"aux_learning_rate"}):
            # Larger moves any of them, but for the largest beta, which bounds.
            changed = 1.5 if number == "beta_max" else 3 * given.hyper[number] + 2
            assert value(given.hyper | {number: jnp.float64(changed)}) != before, number
    assert len(traces) == 1


def test_formulas_and_references_are_there():
    for name, objective in OBJECTIVES.items():
        assert objective.formula, name
        assert objective.reference[-4:].isdigit(), name
    assert len({o.formula for o in OBJECTIVES.values()}) == len(OBJECTIVES)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_hyperparameter_is_a_field_of_the_config(name):
    config = resolved(Config(objective=name))
    assert {n: getattr(config, n) for n in OBJECTIVES[name].hyper} == dict(OBJECTIVES[name].hyper)
    assert resolved(config) == config
    assert set(hyperparameters(config)) >= {"learning_rate", *OBJECTIVES[name].hyper}


# The loss of fixed arrays, against NumPy.


def arrays(samples=2, batch=BATCH):
    """(mean, logvar, z, log_likelihood) in float64."""
    rng = np.random.default_rng(0)
    mean, logvar = rng.normal(size=(batch, LATENTS)), rng.normal(size=(batch, LATENTS)) - 1
    z = mean + np.exp(logvar / 2) * rng.normal(size=(samples, batch, LATENTS))
    return mean, logvar, z, -50 + rng.normal(size=(samples, batch))


def pictures(samples, batch):
    """Images and reconstructions in float64."""
    rng = np.random.default_rng(1)
    return rng.random((batch, 2, 3, 1)), rng.random((samples, batch, 2, 3, 1))


def output(posterior, z, log_likelihood):
    x, reconstruction = map(jnp.asarray, pictures(*z.shape[:2]))
    return VAEOutput(posterior, z, log_likelihood, x, reconstruction)


def inputs(name, *, aux=None, memory=None, changes=NOTHING):
    """The same arrays as an objective gets them."""
    mean, logvar, z, log_likelihood = map(jnp.asarray, arrays())
    snapped = Snapped(mean, jnp.round(mean)) if OBJECTIVES[name].codebook else None
    out = output(Posterior(mean, logvar), z, log_likelihood)._replace(snapped=snapped)
    values = {**OBJECTIVES[name].hyper, **changes}
    return Inputs(
        out=out,
        kl=gaussian_kl(out.posterior),
        hyper={k: jnp.asarray(v, jnp.float64) for k, v in values.items()},
        aux=aux or {},
        memory=memory or {},
        key=jax.random.key(3),
        dataset_size=SIZE,
    )


def nll_and_kl():
    mean, logvar, _, log_likelihood = arrays()
    kl = 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar)
    return -log_likelihood.mean(), kl.sum(1).mean()


def log_normal(z, mean, logvar):
    return -0.5 * ((z - mean) ** 2 / np.exp(logvar) + logvar + np.log(2 * np.pi))


def numpy_terms(weight):
    """(MI, TC, dimension-wise KL) by loops over images; `weight(i, j)` of the posterior of image j
    in the density of z_i."""
    mean, logvar, z, _ = arrays()
    terms = np.zeros(3)
    for zs in z:
        for i, zi in enumerate(zs):
            joint, single = 0.0, np.zeros(LATENTS)
            for j in range(BATCH):
                density = np.exp(log_normal(zi, mean[j], logvar[j]))
                joint += weight(i, j) * density.prod()
                single += weight(i, j) * density
            own = log_normal(zi, mean[i], logvar[i]).sum()
            prior = log_normal(zi, 0.0, 0.0).sum()
            log_q, log_product = np.log(joint), np.log(single).sum()
            terms += [own - log_q, log_q - log_product, log_product - prior]
    return terms / z[..., 0].size


def numpy_tcvae(hyper, weight):
    nll, kl = nll_and_kl()
    mi, tc, dimension_wise = numpy_terms(weight)
    a, b, g = hyper["alpha"], hyper["beta"], hyper["gamma"]
    return nll + kl + (a - 1) * mi + (b - 1) * tc + (g - 1) * dimension_wise


def numpy_dip(hyper, second):
    mean, logvar, _, _ = arrays()
    cov = np.cov(mean.T, bias=True)
    if second:
        cov = cov + np.diag(np.exp(logvar).mean(0))
    off = sum(cov[i, j] ** 2 for i in range(LATENTS) for j in range(LATENTS) if i != j)
    on = sum((cov[i, i] - 1) ** 2 for i in range(LATENTS))
    od = hyper["lambda_od"]
    return sum(nll_and_kl()) + od * off + od * hyper["lambda_d_factor"] * on


def numpy_info(hyper):
    mean, _, z, _ = arrays()
    draws = np.asarray(jax.random.normal(jax.random.key(3), mean.shape, jnp.float64))

    def kernel(x, y):
        return np.mean([[np.exp(-((a - b) ** 2).sum() / LATENTS**2) for b in y] for a in x])

    mmd = kernel(z[0], z[0]) + kernel(draws, draws) - 2 * kernel(z[0], draws)
    nll, kl = nll_and_kl()
    a, weight = hyper["alpha"], hyper["lambda_mmd"]
    return nll + (1 - a) * kl + (a + weight - 1) * mmd


def numpy_control(hyper):
    nll, kl = nll_and_kl()
    error = hyper["capacity"] - kl
    integral = max(2.0 - hyper["ki"] * error, 0)
    beta = hyper["beta_min"] + hyper["kp"] / (1 + np.exp(error)) + integral
    return nll + beta * kl


def numpy_l2(hyper):
    images, reconstruction = pictures(2, BATCH)
    error = np.mean([((x - images[i]) ** 2).sum() for of in reconstruction
                     for i, x in enumerate(of)])  # fmt: skip
    return plain(hyper["beta"]) + hyper["lambda_l2"] * error


def numpy_hfs(hyper):
    """Every combination of two values of two latents, and the code that is nearest."""
    mean = arrays()[0]
    total = 0.0
    for i, j in itertools.combinations(range(LATENTS), 2):
        combined = itertools.product(mean[:, i], mean[:, j])
        total += max(min((a - c[i]) ** 2 + (b - c[j]) ** 2 for c in mean) for a, b in combined)
    return plain(hyper["beta"]) + hyper["gamma"] * total


def numpy_qlae(hyper):
    mean = arrays()[0]
    distance = np.square(mean - np.rint(mean)).sum(axis=1).mean()
    return plain(0) + (hyper["lambda_quantize"] + hyper["lambda_commit"]) * distance


def plain(weight):
    nll, kl = nll_and_kl()
    return nll + weight * kl


def mss(i, j):
    return 1 / SIZE if i == j else (SIZE - 1) / SIZE / (BATCH - 1)


REFERENCES = {
    "vae": lambda h: plain(1),
    "ae": lambda h: plain(0),
    "beta_vae": lambda h: plain(h["beta"]),
    "annealed_vae": lambda h: nll_and_kl()[0] + h["gamma"] * abs(nll_and_kl()[1] - h["capacity"]),
    "beta_tcvae": lambda h: numpy_tcvae(h, lambda i, j: 1 / BATCH),
    "beta_tcvae_mss": lambda h: numpy_tcvae(h, mss),
    "dip_vae_i": lambda h: numpy_dip(h, second=False),
    "dip_vae_ii": lambda h: numpy_dip(h, second=True),
    "info_vae": numpy_info,
    "control_vae": numpy_control,
    "lambda_beta_vae": numpy_l2,
    "hfs_vae": numpy_hfs,
    "qlae": numpy_qlae,
    "ada_gvae": lambda h: plain(h["beta"]),
    "ada_mlvae": lambda h: plain(h["beta"]),
}
CHANGES = {
    "beta_vae": {"beta": 2.5},
    "beta_tcvae": {"alpha": 0.3, "beta": 2.5, "gamma": 1.7},
    "beta_tcvae_mss": {"alpha": 0.3, "beta": 2.5, "gamma": 1.7},
    "info_vae": {"alpha": -0.5, "lambda_mmd": 7.0},
    "control_vae": {"kp": 0.3, "ki": 0.05},
    "lambda_beta_vae": {"beta": 2.5, "lambda_l2": 0.7},
    "hfs_vae": {"beta": 2.5, "gamma": 0.7},
    "qlae": {"lambda_quantize": 0.7, "lambda_commit": 2.5},
}
"""Hyperparameters for the comparison, where the defaults would hide a term."""


def test_every_objective_has_a_reference():
    assert set(REFERENCES) | {"factor_vae"} == set(OBJECTIVES)  # that one stands below


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_loss_against_numpy(name):
    changes = CHANGES.get(name, {})
    with float64():
        memory = {"integral": jnp.float64(2.0)} if name == "control_vae" else {}
        got = OBJECTIVES[name].loss(inputs(name, memory=memory, changes=changes)).value
        wanted = REFERENCES[name]({**OBJECTIVES[name].hyper, **changes})
    assert float(got) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    "name", ["ae", "beta_vae", "hfs_vae", "info_vae", "lambda_beta_vae", "vae"]
)
def test_the_reported_beta_is_what_a_nat_of_kl_costs(name):
    def found(nats):
        given = inputs(name, changes=CHANGES.get(name, {}))
        return OBJECTIVES[name].loss(given._replace(kl=given.kl + nats / LATENTS))

    with float64():
        before, after = found(0), found(1)
    assert float(after.value - before.value) == pytest.approx(float(before.metrics["beta"]))


@pytest.mark.parametrize("name", ["vae", "beta_vae"])
def test_importance_weighted_loss_against_numpy(name):
    iwae = OBJECTIVES[name].iwae
    assert iwae
    with float64():
        changes = {"beta": 2.5} if name == "beta_vae" else {}
        got = iwae(inputs(name, changes=changes)).value
    mean, logvar, z, log_likelihood = arrays()
    ratio = (log_normal(z, 0, 0) - log_normal(z, mean, logvar)).sum(-1)
    weights = np.exp(log_likelihood + changes.get("beta", 1.0) * ratio)
    assert float(got) == pytest.approx(-np.log(weights.mean(0)).mean(), rel=1e-9)


# FactorVAE.


def discriminator_params():
    return factor_vae.init_aux(jax.random.key(7), LATENTS)


def numpy_discriminator(params, z):
    for layer in range(factor_vae.LAYERS + 1):
        kernel, bias = (np.asarray(params[f"Dense_{layer}"][n], float) for n in ("kernel", "bias"))
        z = z @ kernel + bias
        if layer < factor_vae.LAYERS:
            z = np.where(z > 0, z, factor_vae.SLOPE * z)
    return z


def test_the_discriminator_is_the_papers(monkeypatch):
    monkeypatch.setattr(factor_vae, "UNITS", UNITS)
    shapes = jax.eval_shape(discriminator_params)
    kernels = [shapes[f"Dense_{i}"]["kernel"].shape for i in range(len(shapes))]
    assert kernels == [(LATENTS, 1000), *[(1000, 1000)] * 5, (1000, 2)]


def test_factor_vae_against_numpy():
    params = jax.tree.map(np.asarray, discriminator_params())
    with float64():
        aux = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
        found = OBJECTIVES["factor_vae"].loss(inputs("factor_vae", aux=aux))
        z = arrays()[2][0]
        permuted = np.asarray(factor_vae.permute(jnp.asarray(z[3:]), jax.random.key(3)))
    logits = numpy_discriminator(params, z[:3])
    tc = (logits[:, 0] - logits[:, 1]).mean()
    cross_entropy = np.log1p(np.exp(logits[:, 1] - logits[:, 0])).mean()
    logits = numpy_discriminator(params, permuted)
    cross_entropy += np.log1p(np.exp(logits[:, 0] - logits[:, 1])).mean()
    assert float(found.value) == pytest.approx(sum(nll_and_kl()) + 35 * tc, rel=1e-9)
    assert float(found.metrics["tc"]) == pytest.approx(tc, rel=1e-6)
    assert float(found.metrics["discriminator_loss"]) == pytest.approx(cross_entropy / 2, rel=1e-9)


def test_permutation_keeps_columns_and_breaks_rows():
    z = np.arange(200.0).reshape(100, 2)
    permuted = np.asarray(factor_vae.permute(jnp.asarray(z), jax.random.key(0)))
    np.testing.assert_array_equal(np.sort(permuted, axis=0), z)
    assert np.mean(permuted[:, 1] - permuted[:, 0] == 1) < 0.1


def test_the_discriminator_and_the_encoder_do_not_see_each_others_loss(monkeypatch):
    state = fresh("factor_vae")

    def gradients(of):
        objective = OBJECTIVES["factor_vae"]._replace(loss=of)
        loss = make_loss(recipe("factor_vae")._replace(objective=objective), training=True)
        keys = jax.random.split(jax.random.key(1))
        found = jax.jit(jax.grad(loss, has_aux=True))(state.params, state, images(), *keys)[0]
        return jax.tree.map(np.asarray, found)

    def norm(tree):
        return sum(np.linalg.norm(leaf) for leaf in jax.tree.leaves(tree))

    of_discriminator = gradients(lambda i: Loss(factor_vae.loss(i).metrics["discriminator_loss"]))
    assert norm(of_discriminator["vae"]) == 0
    assert norm(of_discriminator["aux"]) > 0
    of_tc = gradients(lambda i: Loss(factor_vae.loss(i).metrics["tc"]))
    assert norm(of_tc["aux"]) == 0
    assert norm(of_tc["vae"]) > 0
    # Together they are the sum: nothing else reaches either.
    whole, elbo = gradients(factor_vae.loss), gradients(OBJECTIVES["vae"].loss)
    jax.tree.map(np.testing.assert_array_equal, whole["aux"], of_discriminator["aux"])
    jax.tree.map(
        lambda w, e, t: np.testing.assert_allclose(w, e + 35 * t, rtol=1e-3, atol=1e-4),
        whole["vae"], elbo["vae"], of_tc["vae"],
    )  # fmt: skip


def test_the_estimate_approaches_the_total_correlation_of_a_gaussian(monkeypatch):
    monkeypatch.setattr(factor_vae, "UNITS", 64)  # the estimator is the same, the test is quick
    rho, batch = 0.8, 1024
    root = jnp.linalg.cholesky(jnp.array([[1.0, rho], [rho, 1.0]]))
    optimizer = optax.adam(2e-3)

    def found(aux, key):
        draw_key, loss_key = jax.random.split(key)
        z = jax.random.normal(draw_key, (batch, 2)) @ root.T
        zero = jnp.zeros((batch, 2))
        out = output(Posterior(zero, zero), z[None], jnp.zeros((1, batch)))
        hyper = {"gamma": jnp.float32(1)}
        found = factor_vae.loss(Inputs(out, zero, hyper, aux, {}, loss_key, batch))
        return found.value, found.metrics["tc"]

    @jax.jit
    def step(carry, key):
        aux, opt_state = carry
        grads, tc = jax.grad(found, has_aux=True)(aux, key)
        updates, opt_state = optimizer.update(grads, opt_state, aux)
        return (optax.apply_updates(aux, updates), opt_state), tc

    aux = factor_vae.init_aux(jax.random.key(0), 2)
    (aux, _), tc = jax.lax.scan(
        step, (aux, optimizer.init(aux)), jax.random.split(jax.random.key(1), 600)
    )
    wanted = -0.5 * np.log(1 - rho**2)
    assert abs(float(tc[:5].mean())) < 0.2
    assert float(tc[-200:].mean()) == pytest.approx(wanted, rel=0.15)


# beta-TCVAE.


def gaussian_batch(n, rho, latents=2):
    """Posteriors whose aggregate is N(0, S), S with correlations rho; and its TC."""
    rng = np.random.default_rng(0)
    covariance = np.full((latents, latents), rho) + (1 - rho) * np.eye(latents)
    width = 0.1
    mean = rng.multivariate_normal(np.zeros(latents), covariance - width * np.eye(latents), n)
    z = mean + np.sqrt(width) * rng.normal(size=mean.shape)
    posterior = Posterior(jnp.asarray(mean), jnp.full((n, latents), np.log(width)))
    return posterior, jnp.asarray(z), -0.5 * np.log(np.linalg.det(covariance))


@pytest.mark.parametrize("weights", [beta_tcvae.weighted, beta_tcvae.stratified])
def test_total_correlation_against_a_closed_form(weights):
    n = 2000
    with float64():
        posterior, z, wanted = gaussian_batch(n, 0.8)
        found = beta_tcvae.decompose(posterior, z, weights(n, n))[1].mean()
    assert float(found) == pytest.approx(wanted, abs=0.03)


@pytest.mark.parametrize("name", ["beta_tcvae", "beta_tcvae_mss"])
def test_what_batches_report_is_what_its_name_says(name):
    """Without the constants that weights of 1 / (N B) leave in, log N for each density."""
    n, batch = 4000, 200
    with float64():
        posterior, z, total_correlation = gaussian_batch(n, 0.8)
        given, found = inputs(name), []
        for i in range(0, n, batch):
            part = Posterior(posterior.mean[i : i + batch], posterior.logvar[i : i + batch])
            out = output(part, z[None, i : i + batch], jnp.zeros((1, batch)))
            some = given._replace(out=out, kl=gaussian_kl(part), dataset_size=n)
            found.append(OBJECTIVES[name].loss(some).metrics)
        average = {key: np.mean([float(f[key]) for f in found]) for key in found[0]}
    # S has unit variances, so that each q(z_j) is the prior; log det S = -2 TC.
    entropies = -0.5 * 2 * np.log(0.1)
    assert average["mi"] == pytest.approx(entropies - total_correlation, abs=0.1)
    assert average["tc"] == pytest.approx(total_correlation, abs=0.1)
    assert average["dimension_wise_kl"] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("name", ["beta_tcvae", "beta_tcvae_mss"])
def test_terms_are_reported_by_stratified_sampling(name):
    with float64():
        metrics = OBJECTIVES[name].loss(inputs(name)).metrics
    found = [float(metrics[term]) for term in ("mi", "tc", "dimension_wise_kl")]
    np.testing.assert_allclose(found, numpy_terms(mss), rtol=1e-9)


def test_reported_mmd_is_0_on_average_between_equal_distributions():
    pairs = jax.random.normal(jax.random.key(8), (200, 2, 8, 10))
    found = jax.vmap(lambda pair: info_vae.unbiased_mmd(pair[0], pair[1]))(pairs)
    assert abs(found.mean()) < 3 * found.std() / np.sqrt(200)


def test_stratified_weights_are_the_papers_averaged_over_its_choice():
    """Of the others, the paper gives one the weight (N - M) / (N M), and the rest 1 / M."""
    n, others = 50, BATCH - 1
    special, common = (n - others) / (n * others), 1 / others
    weights = np.exp(np.asarray(beta_tcvae.stratified(BATCH, n)))
    np.testing.assert_allclose(np.diag(weights), 1 / n, rtol=1e-6)
    average = (special + (others - 1) * common) / others
    np.testing.assert_allclose(weights[~np.eye(BATCH, dtype=bool)], average, rtol=1e-5)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)


# Pairs.


def numpy_merge(mean, logvar, product):
    half = len(mean) // 2
    mean, logvar = mean.copy(), logvar.copy()
    for i in range(half):
        m1, m2, v1, v2 = mean[i], mean[i + half], np.exp(logvar[i]), np.exp(logvar[i + half])
        kl = 0.5 * (v1 / v2 + (m1 - m2) ** 2 / v2 - 1 + np.log(v2 / v1))
        for k in range(mean.shape[1]):
            if kl[k] < (kl.min() + kl.max()) / 2:
                m, v = (m1[k] + m2[k]) / 2, (v1[k] + v2[k]) / 2
                if product:
                    v = 2 / (1 / v1[k] + 1 / v2[k])
                    m = v / 2 * (m1[k] / v1[k] + m2[k] / v2[k])
                mean[[i, i + half], k], logvar[[i, i + half], k] = m, np.log(v)
    return mean, logvar


@pytest.mark.parametrize("name", ["ada_gvae", "ada_mlvae"])
def test_merging_against_numpy(name):
    mean, logvar, _, _ = arrays(batch=40)
    with float64():
        posterior = Posterior(jnp.asarray(mean), jnp.asarray(logvar))
        adapt = OBJECTIVES[name].adapt
        assert adapt
        merged = adapt(posterior)
    wanted = numpy_merge(mean, logvar, name == "ada_mlvae")
    np.testing.assert_allclose(merged.mean, wanted[0], rtol=1e-10)
    np.testing.assert_allclose(merged.logvar, wanted[1], rtol=1e-9, atol=1e-12)
    assert 0 < np.mean(np.asarray(merged.mean) == mean) < 1


def test_pairs_are_merged_in_training_only():
    def spread(state):
        """Posteriors that differ: larger weights."""
        return state._replace(params=jax.tree.map(lambda x: 4 * x, state.params))

    state = spread(fresh("ada_gvae"))
    outcomes = [jax.jit(gradient("ada_gvae", training=t))(state)[0][0] for t in (True, False)]
    wanted = jax.jit(gradient("vae"))(spread(fresh("vae")))[0][0]
    assert outcomes[1] == wanted
    assert outcomes[0] != wanted


@pytest.mark.parametrize("merge", [ada.mean_of_moments, ada.product])
def test_equal_posteriors_stay_as_they_are(merge):
    q = Posterior(jnp.array([[0.3, -2.0]]), jnp.array([[-1.0, 0.5]]))
    merged = merge(q, q)
    np.testing.assert_allclose(merged.mean, q.mean, rtol=1e-6)
    np.testing.assert_allclose(merged.logvar, q.logvar, rtol=1e-6)


# The others.


@jax.jit
def control(hyper, kl, memory):
    """(beta, memory) of ControlVAE after a step in which the KL was this."""
    zero = jnp.zeros((1, 1))
    out = output(Posterior(zero, zero), zero[None], zero)
    given = Inputs(out, kl[None, None], hyper, {}, memory, jax.random.key(0), 1)
    found = OBJECTIVES["control_vae"].loss(given)
    return found.metrics["beta"], found.memory


def controlled(hyper, kl_of, steps):
    """Each step's beta and integral, of a KL that answers to beta."""
    values = {k: jnp.float32(v) for k, v in hyper.items()}
    beta, memory, found = 1.0, {"integral": jnp.float32(0)}, []
    for _ in range(steps):
        beta, memory = control(values, jnp.float32(kl_of(beta)), memory)
        found.append((float(beta), float(memory["integral"])))
    return np.array(found).T


def test_the_controller_brings_a_simulated_kl_to_its_target():
    """A KL that answers to beta as 40 / (1 + beta), nats; wanted: 8, so beta = 4."""
    hyper = {"capacity": 8.0, "kp": 0.01, "ki": 0.005, "beta_min": 0.0, "beta_max": 100.0}
    betas, integrals = controlled(hyper, lambda beta: 40 / (1 + beta), 400)
    assert betas[-1] == pytest.approx(4, rel=0.02)
    assert max(betas) < 8
    assert integrals[-1] == pytest.approx(4, rel=0.02)


def test_the_controller_stays_in_its_range():
    """However long the KL is too large, beta is never above its most; so it comes down at once."""
    hyper = {"capacity": 0.0, "kp": 0.01, "ki": 0.01, "beta_min": 1.0, "beta_max": 3.0}
    betas, integrals = controlled(hyper, lambda beta: 50.0, 10)
    assert (max(betas), max(integrals)) == (3, 2)
    betas, _ = controlled(hyper | {"capacity": 99.0}, lambda beta: 50.0, 10)
    assert min(betas) == 1


def test_a_factorised_support_has_no_distance():
    """Correlated as it may be; a missing corner is as far away as its nearest neighbour."""
    grid = jnp.array([[a, b, 0.0] for a, b in itertools.product((0.0, 1, 2), (0.0, 3))])
    assert hfs_vae.factorised_support_distance(jnp.concatenate([grid, grid[:2]])) == 0
    assert hfs_vae.factorised_support_distance(grid[1:]) == 1
    assert hfs_vae.factorised_support_distance(grid[:, :1]) == 0
    slope = jax.grad(hfs_vae.factorised_support_distance)(grid[1:] * jnp.array([[2.0, 1, 1]]))
    assert slope[:, 0].sum() == pytest.approx(0)
    assert abs(slope).max() > 1
    codes = jax.random.normal(jax.random.key(0), (7, 4))
    check_grads(
        jax.jit(hfs_vae.factorised_support_distance), (codes,), 1, ("rev",), eps=1e-3, rtol=0.02
    )


def test_autoencoder_draws_nothing():
    values = set()
    for seed in (0, 1):
        state, keys = fresh("ae"), jax.random.split(jax.random.key(seed))
        loss = make_loss(recipe("ae"), training=True)
        values.add(float(jax.jit(loss)(state.params, state, images(), *keys)[0]))
    assert len(values) == 1


# QLAE.


def test_qlae_against_numbers_by_hand():
    """Codes are snapped one by one; each gradient is what its own term says, and nothing else."""
    weights = {"lambda_quantize": 3.0, "lambda_commit": 0.5}
    state, model, x = fresh("qlae", weights), recipe("qlae").model, images()
    params = state.params["vae"]
    of_encoder = {name: of for name, of in params.items() if name != CODEBOOK}
    codes = np.asarray(encode(model.clone(codebook=None), of_encoder, x).mean)
    book = np.quantile(codes, [0.9, 0.1, 0.5, 0.3], axis=0).T.astype(np.float32)
    params = params | {CODEBOOK: jnp.asarray(book)}
    nearest = np.array(
        [[min(range(4), key=lambda k: abs(c - book[j, k])) for j, c in enumerate(row)]
         for row in codes]
    )  # fmt: skip
    assert all(len(np.unique(column)) > 2 for column in nearest.T)
    values = np.array([[book[j, k] for j, k in enumerate(row)] for row in nearest])
    np.testing.assert_array_equal(encode(model, params, x).mean, values)

    keys = jax.random.split(jax.random.key(1))
    grad = jax.value_and_grad(make_loss(recipe("qlae"), training=True), has_aux=True)
    (loss, (metrics, _)), found = grad({"vae": params, "aux": {}}, state, x, *keys)

    def nll(z):
        return -log_likelihood(model, params, z[None], x).mean()

    value, slope = jax.value_and_grad(nll)(jnp.asarray(values))
    distance = np.square(codes - values).sum() / BATCH
    assert float(loss) == pytest.approx(float(value) + 3.5 * distance, rel=1e-5)
    assert float(metrics["quantisation"]) == pytest.approx(distance, rel=1e-5)
    of_book = np.zeros_like(book)
    for row, places in zip(codes, nearest, strict=True):
        for j, k in enumerate(places):
            of_book[j, k] += 3.0 * 2 * (book[j, k] - row[j]) / BATCH
    np.testing.assert_allclose(found["vae"][CODEBOOK], of_book, rtol=1e-4, atol=1e-6)
    of_codes = np.asarray(slope) + 0.5 * 2 * (codes - values) / BATCH
    bias = found["vae"]["encoder"]["head"]["mean"]["bias"]
    np.testing.assert_allclose(bias, of_codes.sum(axis=0), rtol=1e-4, atol=1e-5)


def test_how_many_values_are_used():
    values = jnp.array([[0.1, 5.0, 1.0], [0.1, 6.0, 1.0], [0.1, 7.0, 2.0], [0.1, 8.0, 2.0]])
    assert float(qlae.values_used(values)) == pytest.approx((1 + 4 + 2) / 3)


@pytest.mark.parametrize("name", ["beta_vae", "beta_tcvae", "factor_vae"])
def test_many_samples_are_averaged(name):
    state = fresh(name, OBJECTIVES[name].neutral)
    loss = make_loss(recipe(name, samples=20), training=True)
    value, (metrics, _) = jax.jit(loss)(
        state.params, state, images(), *jax.random.split(jax.random.key(1))
    )
    assert float(value) == pytest.approx(-float(metrics["elbo"]), rel=1e-5)
    assert metrics["iwae"] >= metrics["elbo"]


def test_unknown_objective_is_named():
    with pytest.raises(UserError, match=r"Unknown objective 'btcvae'\. Known: ada_gvae, "):
        get_objective("btcvae")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 3.0}, "--gamma: objective beta_vae has no such hyperparameter; it has: --beta"),
        ({"objective": "vae", "beta": 3.0}, "--beta: objective vae has no such .*it has: none"),
        ({"objective": "vae", "beta_schedule": "constant"}, "objective vae has no --beta to sch"),
        ({"levels": 5}, "--levels: got 5, but --objective beta_vae does not use it"),
        ({"objective": "control_vae", "beta_max": 0.5}, "--beta-min: got 1, wanted no more than"),
        ({"likelihood": "sigma_vae", "sigma": 0.5}, "--sigma: got 0.5, but --likelihood sigma_vae"),
        (
            {"weight_decay": 0.125},
            "--weight-decay: got 0.125, but --optimizer adam does n",
        ),
        ({"optimizer": "adamw", "momentum": 0.125}, "--momentum: got 0.125, but --optimizer adamw"),
        ({"optimizer": "adagrad", "adam_b1": 0.125}, "--adam-b1: got 0.125, but --optimizer adagr"),
    ],
)
def test_hyperparameters_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        resolved(Config(**changes))


def test_hyperparameters_by_name_are_given_once():
    assert parse_hyper(["lambda-od=3", "beta=2.5"]) == {"lambda_od": 3, "beta": 2.5}
    with pytest.raises(UserError, match="--hyper: got 'beta=2', wanted NAME=VALUE, each name once"):
        parse_hyper(["beta=1", "beta=2"])
