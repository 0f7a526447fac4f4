"""Each code's loss, written out from its formula, is a multiple of ours at the converted beta."""

import re
import subprocess
import sys

import numpy as np
import pytest

from bvae_jax.beta_units import CONVENTIONS, convert_beta
from bvae_jax.cli.lists import beta
from bvae_jax.errors import UserError

SIZES = {"height": 8, "width": 6, "channels": 3, "latents": 5}
N, M = 8 * 6 * 3, 5
KLD_WEIGHT = 0.003
DSPRITES = {"height": 64, "width": 64, "channels": 1, "latents": 10}


def gaussian_nll(d, sigma):
    """-log N(x; x - d, sigma^2) of each pixel, nats."""
    return 0.5 * np.log(2 * np.pi * sigma**2) + d**2 / (2 * sigma**2)


# Losses of one image: (pixel differences d [N], KL of each latent [M], value) -> number.
LOSSES = {
    "bvae_jax": lambda d, kl, value: gaussian_nll(d, 1).sum() + value * kl.sum(),
    "beta_norm": lambda d, kl, value: gaussian_nll(d, 1).sum() + value * N / M * kl.sum(),
    "disent": lambda d, kl, value: gaussian_nll(d, 1).mean() + value * kl.mean(),
    "disent_mse": lambda d, kl, value: (d**2).mean() + value * kl.mean(),
    "yanndubs_gaussian": lambda d, kl, value: ((255 * d) ** 2).sum() / 255 + value * kl.sum(),
    "sum_squares": lambda d, kl, value: (d**2).sum() + value * kl.sum(),
    "pytorch_vae": lambda d, kl, value: (d**2).mean() + value * KLD_WEIGHT * kl.sum(),
    "sigma": lambda d, kl, value: gaussian_nll(d, value).sum() + kl.sum(),
}


def convert(value, source, target):
    return convert_beta(value, source, target, **SIZES, kld_weight=KLD_WEIGHT)


def kl_against_reconstruction(loss, value):
    """How much the loss rises with the KL term, for each unit that it rises with the error."""
    rng = np.random.default_rng(0)
    d, other_d = rng.uniform(-1, 1, (2, N))
    kl, other_kl = rng.exponential(size=(2, M))
    base = loss(d, kl, value)
    return (loss(d, other_kl, value) - base) / (loss(other_d, kl, value) - base)


@pytest.mark.parametrize("value", [0.003, 1.0, 4.0, 250.0])
@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_loss_is_a_multiple_of_ours(name, value):
    ours = convert(value, name, "bvae_jax")
    got = kl_against_reconstruction(LOSSES[name], value)
    assert got == pytest.approx(kl_against_reconstruction(LOSSES["bvae_jax"], ours), rel=1e-6)


@pytest.mark.parametrize("source", CONVENTIONS)
@pytest.mark.parametrize("target", CONVENTIONS)
def test_round_trips(source, target):
    for value in (0.0, 0.0316, 4.0):
        there = convert(value, source, target)
        assert convert(there, target, source) == pytest.approx(value, rel=1e-12)


# (value, source, target, wanted)
KNOWN = [
    (0.0316, "disent", "bvae_jax", 12.94336),
    (0.0316, "disent_mse", "bvae_jax", 6.47168),
    (4.0, "bvae_jax", "beta_norm", 4 * 10 / 4096),
    (510.0, "yanndubs_gaussian", "bvae_jax", 1.0),
    (8.0, "sum_squares", "bvae_jax", 4.0),
    (10.0, "pytorch_vae", "bvae_jax", 10 * 0.00025 * 4096 / 2),
    (0.1, "sigma", "bvae_jax", 0.01),
    (4.0, "bvae_jax", "sigma", 2.0),
    (0.5, "disent", "beta_norm", 0.5),
]


@pytest.mark.parametrize(("value", "source", "target", "wanted"), KNOWN)
def test_known_numbers(value, source, target, wanted):
    assert convert_beta(value, source, target, **DSPRITES) == pytest.approx(wanted, rel=1e-12)


def test_disents_own_conversion():
    """Its comment: beta 4 for sums is about 0.003 for means, at 64 x 64 x 3 and 9 latents."""
    rgb = {"height": 64, "width": 64, "channels": 3, "latents": 9}
    assert convert_beta(4.0, "bvae_jax", "disent", **rgb) == pytest.approx(4 * 0.0007324, rel=1e-4)


FLAGS = "--from disent --value 0.0316 --height 64 --width 64 --channels 1 --latents 10"


def test_a_table_of_all_conventions(capsys):
    assert beta(FLAGS.split()) == 0
    header, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert [row.split()[0] for row in rows] == list(CONVENTIONS)
    values = {row.split()[0]: float(row.split()[1]) for row in rows}
    for name, value in values.items():
        wanted = convert_beta(0.0316, "disent", name, **DSPRITES)
        assert value == pytest.approx(wanted, rel=1e-5)
    for column in (header.index("loss"), header.index("used by")):
        assert all(row[column - 2 : column].isspace() and row[column] != " " for row in rows)
    assert all(CONVENTIONS[row.split()[0]].loss in row for row in rows)
    assert max(map(len, rows)) <= 120


def test_one_value(capsys):
    assert beta([*FLAGS.split(), "--to", "bvae_jax"]) == 0
    assert capsys.readouterr().out == "12.94336\n"
    flags = "--from pytorch_vae --value 2 --kld-weight 0.5 --height 4 --width 4 --to sum_squares"
    assert beta(flags.split()) == 0
    assert capsys.readouterr().out == "16\n"


def test_help_names_every_convention(capsys):
    with pytest.raises(SystemExit):
        beta(["--help"])
    words = re.findall(r"\w+", capsys.readouterr().out)
    assert set(CONVENTIONS) <= set(words)


KNOWN_NAMES = "Known: beta_norm, bvae_jax, disent, disent_mse, pytorch_vae, sigma, sum_squares,"
# (flags, the line)
MISTAKES = [
    ("", "--from"),
    ("--from disent", "--value"),
    ("--from dis --value 1", f"Unknown convention 'dis'. {KNOWN_NAMES}"),
    ("--from disent --value 1 --to x", f"Unknown convention 'x'. {KNOWN_NAMES}"),
    ("--from disent --value one", "'one'"),
    ("--from disent --value -1", "--value: got -1.0, wanted a number from 0 to 1e+30."),
    ("--from disent --value nan", "--value: got nan, wanted a number from 0"),
    ("--from disent --value inf", "--value: got inf, wanted a number from 0"),
    ("--from disent --value 1 --height 0", "--height: got 0, wanted a whole number from 1"),
    ("--from disent --value 1 --width -3", "--width: got -3, wanted a whole number from 1"),
    ("--from disent --value 1 --channels 0", "--channels: got 0, wanted"),
    ("--from disent --value 1 --latents 0", "--latents: got 0, wanted"),
    ("--from disent --value 1 --latents 10000000", "--latents: got 10000000, wanted"),
    ("--from disent --value 1 --latents 2.5", "'2.5'"),
    ("--from disent --value 1 --kld-weight 0", "--kld-weight: got 0.0, wanted a number from"),
    ("--from disent --value 1 --kld-weight nan", "--kld-weight: got nan, wanted a number from"),
]


@pytest.mark.parametrize(("flags", "line"), MISTAKES)
def test_a_mistake_is_one_clear_line(flags, line, capsys):
    with pytest.raises(UserError) as error:
        beta(flags.split())
    assert line in str(error.value)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_needs_no_jax():
    code = "import sys, bvae_jax.beta_units; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
