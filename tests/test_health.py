"""What a run that learned nothing is told, and that a healthy one is told nothing."""

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import changed

import bvae_jax
from bvae_jax.config import Config
from bvae_jax.likelihoods import make_likelihood
from bvae_jax.runs import health
from bvae_jax.runs.health import MeanPicture, find_faults
from bvae_jax.runs.trainer import Trainer
from bvae_jax.runtime import TrainingProgress
from bvae_jax.vae import decode

PICTURE = MeanPicture(nll=560.0, error=3.0, contrast=0.4)
HEALTHY = {"nll": 95.0, "nll_error": 1.0, "kl": 10.5, "information": 4.9, "active_latents": 3}
MEAN, KL, NONE, RISES = (
    "no better than the mean picture",
    "KL without information",
    "no active latents",
    "held-out nll rises",
)


def records(trained, held, error=1.0):
    return [
        {"step": 100 * step, "split": split, "nll": nll, "nll_error": error}
        for split, curve in (("train_eval", trained), ("holdout", held), ("train", held))
        for step, nll in enumerate(curve)
    ]


@pytest.mark.parametrize(
    ("changes", "picture", "curves", "wanted"),
    [
        ({}, PICTURE, ([200, 90], [201, 95]), {}),
        ({"nll": 540.0}, PICTURE, (), {}),  # little, but more than 3 * hypot(1, 3) nats
        ({"nll": 552.0}, PICTURE, (), {MEAN: "Train for more"}),
        ({"nll": 552.0}, PICTURE, (), {MEAN: "hardly anything"}),
        ({"nll": 552.0}, PICTURE._replace(gain=lambda: (8.0, 2.0)), (), {}),
        ({"nll": 552.0}, PICTURE._replace(gain=lambda: (8.0, 3.0)), (), {MEAN: "it is 8.0 below"}),
        ({"nll": 562.0}, PICTURE._replace(gain=lambda: (8.0, 2.0)), (), {MEAN: "nothing"}),
        ({"nll": 552.0, "capacity": 0.05}, PICTURE, (), {MEAN: "held at C = 0.05 nats"}),
        ({"nll": 700.0}, PICTURE, (), {MEAN: "Lower the learning rate"}),
        ({"nll": 560.0}, PICTURE._replace(contrast=0.003), (), {MEAN: "look at the data"}),
        ({"nll": 700.0}, None, (), {}),
        ({"kl": 15.1, "information": 0.2, "active_latents": 0}, PICTURE, (),
         {KL: "log 256 = 5.5", NONE: "KL 15.10 nats): posteriors are alike"}),
        ({"kl": 15.1, "information": 0.2}, PICTURE, (), {KL: "15.1 nats"}),
        ({"kl": 15.1, "information": -0.2}, PICTURE, (), {KL: "share 0.00 nats"}),
        ({"kl": 15.1, "information": 0.6}, PICTURE, (), {}),  # a tenth of log 256 is 0.55
        ({"kl": 3.0, "information": 0.29}, PICTURE, (), {KL: "share 0.29 nats"}),
        ({"kl": 3.0, "information": 0.31}, PICTURE, (), {}),
        ({"kl": 0.5, "information": 0.4}, PICTURE, (), {}),
        ({"kl": 0.01, "information": 0.0, "active_latents": 0}, PICTURE, (), {NONE: "Weigh"}),
        ({"kl": 0.05, "information": 0.0, "active_latents": 0, "capacity": 0.048}, PICTURE, (),
         {NONE: "held at C = 0.048 nats"}),
        ({}, PICTURE, ([90, 60, 20], [95, 80, 84.1]), {RISES: "from 80.0 at step 100 to 84.1"}),
        ({}, PICTURE, ([90, 60, 20], [95, 80, 82.9]), {}),  # within 3 standard errors
        ({}, PICTURE, ([90, 60, 70], [95, 80, 91]), {}),  # beta grew, say: both rise alike
        ({}, PICTURE, ([], [95, 80, 99]), {}),
    ],
)  # fmt: skip
def test_faults_by_their_numbers(changes, picture, curves, wanted):
    found = find_faults(HEALTHY | changes, 256, picture, records(*curves) if curves else ())
    assert found.keys() == wanted.keys()
    for name, part in wanted.items():
        assert part in found[name]
        assert "\n" not in found[name]
        assert "--" not in found[name]  # it is said in Python and on cards, too


def test_an_autoencoder_has_the_mean_picture_and_the_rise():
    numbers = {"nll": 560.0, "nll_error": 1.0}
    assert [*find_faults(numbers, 256, PICTURE)] == [MEAN]
    assert "beta" not in find_faults(numbers, 256, PICTURE)[MEAN]
    assert not find_faults({"nll": 90.0}, 1, PICTURE), "of one image there is no error"
    assert [*find_faults({"nll": 90.0, "values_used": 1.05}, 256, None)] == ["unused codebook"]
    assert not find_faults({"nll": 90.0, "values_used": 1.2}, 256, None)


def test_of_one_image_nothing_is_said_of_information():
    one = HEALTHY | {"information": 0.0, "active_latents": 0}
    assert find_faults(one, 2, None)
    assert not find_faults(one, 1, None)


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "continuous_bernoulli", "sigma_vae"])
def test_a_picture_is_drawn_by_the_likelihood(name):
    likelihood = make_likelihood(name, 0.5)
    picture = np.linspace(0.1, 0.9, 12).reshape(2, 3, 2)
    drawn = health._drawing(likelihood, picture)
    np.testing.assert_allclose(likelihood.mean(jnp.float32(drawn)[None])[0], picture, atol=1e-4)


def test_the_mean_picture_against_numpy(tmp_path, monkeypatch):
    images = np.full((128, 8, 8, 1), 100, np.uint8)
    images[:, 0, 0, 0] = 2 * np.arange(128)
    images[:, 1, 1] = 0
    images[96:120, 1, 1] = 255  # of the images to evaluate most have it
    np.savez(tmp_path / "images.npz", images=images)
    config = Config(
        dataset=f"npz:{tmp_path / 'images.npz'}", network="mlp", holdout=0.25, split_by="index",
    )  # fmt: skip
    trainer = changed(
        Trainer(config, progress=False),
        eval_indices=np.arange(96, 128, dtype=np.int32).reshape(2, 16),
    )
    params = trainer.weights(trainer.init(config))
    found = health.look_at_mean_picture(trainer, params)
    assert found
    assert found.gain
    train, rest = images[:96] / 255, images[96:] / 255
    picture = (train.sum(axis=0) + 0.5) / 97
    nll = -(rest * np.log(picture) + (1 - rest) * np.log(1 - picture)).sum(axis=(1, 2, 3))
    assert found.nll == pytest.approx(nll.mean(), rel=1e-5)
    assert found.error == pytest.approx(nll.std() / np.sqrt(32), rel=1e-4)
    assert found.contrast == pytest.approx(train[:, 0, 0].std(), rel=1e-4)
    means = trainer.encode(params, np.arange(96, 128)).mean
    drawn = np.asarray(decode(trainer.model, params, means), np.float64)
    by_run = -(rest * np.log(drawn) + (1 - rest) * np.log(1 - drawn)).sum(axis=(1, 2, 3))
    gain, error = found.gain()
    assert gain == pytest.approx((nll - by_run).mean(), rel=1e-4)
    assert error == pytest.approx((nll - by_run).std() / np.sqrt(32), rel=1e-4)
    monkeypatch.setattr(health, "IMAGES", 16)
    some = health.look_at_mean_picture(trainer, {})
    assert some
    assert some != found
    assert some.contrast == pytest.approx(found.contrast, abs=0.1), "any images, not the first"


def blobs():
    """Pictures that a small network learns in a moment: a bright half, left or right."""
    side = np.random.default_rng(0).random((300, 1, 1)) < 0.5
    return np.float32((np.arange(8) < 4) == side) * np.ones((1, 8, 1), np.float32)


def test_the_members_of_a_sweep_are_told_at_their_end(tmp_path, capsys):
    np.savez(tmp_path / "images.npz", images=blobs())
    base = Config(
        dataset=f"npz:{tmp_path / 'images.npz'}", network="mlp", latents=3, batch_size=64, steps=40,
        learning_rate=1e-3, eval_images=64, holdout=0.3, eval_every=20,
    )  # fmt: skip
    found = bvae_jax.sweep(base, tmp_path / "sweep", betas=[0.1, 1000.0])
    err = capsys.readouterr().err
    good, bad = (found[f"beta={beta},seed=0"].summary for beta in ("0.1", "1000"))
    assert good
    assert bad
    assert good["warnings"] == {}, good
    assert [*bad["warnings"]] == [MEAN, NONE], bad
    for line in bad["warnings"].values():
        assert f"bvae: warning: beta=1000,seed=0: {line}" in err


def test_the_bar_says_how_many_latents_are_active_and_what_is_wrong(capsys):
    with TrainingProgress(20, 0, visible=True) as shown:
        shown.update(10, {"nll": 560.0, "kl": 0.01}, 100.0)
        shown.evaluated({})
        shown.evaluated({"step": 10, "active_latents": 0, "kl_per_latent": [0.0] * 3}, [MEAN, NONE])
        shown.update(10, {"nll": 561.0, "kl": 0.01}, 100.0)
    *_, last = capsys.readouterr().err.strip().splitlines()
    last = last.split("\r")[-1]
    assert "nll=561.0" in last
    assert f"active=0/3 at 10, warning={MEAN}, {NONE}" in last
