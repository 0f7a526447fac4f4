"""The page decodes as JAX does, shows what the run says, and asks no one for anything."""

import dataclasses
import io
import json
import os
import re
from base64 import b64decode

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from bvae_jax import cli
from bvae_jax.config import Config
from bvae_jax.errors import UserError
from bvae_jax.explore import export, page
from bvae_jax.explore.export import Latents, explore, follows, in_order
from bvae_jax.explore.page import TEMPLATE, atlas, make_page, program_json
from bvae_jax.explore.program import MAPS, trace
from bvae_jax.likelihoods import LIKELIHOODS, make_likelihood
from bvae_jax.metrics.codes import Codes
from bvae_jax.networks import NETWORKS, make_network
from bvae_jax.networks.gates import Rates
from bvae_jax.runs import figures as run_figures
from bvae_jax.runs.encode import encoding_order
from bvae_jax.runs.run import load
from bvae_jax.runs.train import train
from bvae_jax.vae import VAE, decode, init_params

pytestmark = pytest.mark.usefixtures("tiny_network", "shared_trainers")
BASE = Config(
    network="tiny", image_source="rendered", batch_size=4, latents=3, steps=20, learning_rate=0.01,
    log_every=20, eval_every=20, eval_images=16, checkpoint_every=20,
)  # fmt: skip
SCRIPT = TEMPLATE.read_text(encoding="utf-8").partition("<script>")[2].partition("</script>")[0]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("explore") / "run"
    train(BASE, directory, figures=False, progress=False)
    return directory


@pytest.fixture(scope="module")
def page_file(run_dir):
    return explore(run_dir)


@pytest.fixture
def opened(browser, page_file):
    """A browser that shows the page of the run."""
    if browser.run("document.title") != "β-VAE on dSprites: β = 4":
        browser.open(page_file)
    return browser


def model_of(network, likelihood, shape):
    """A model, and parameters that make its pictures vary."""
    likelihood = make_likelihood(likelihood, 1.0)
    network = make_network(network, 4, shape, likelihood.parameters(shape[2]))
    return some_params(VAE(*network, likelihood), shape)


def some_params(model, shape):
    """Nothing is compiled for them."""
    like = jax.eval_shape(lambda key: init_params(model, shape, key), jax.random.key(0))
    rng = np.random.default_rng(0)

    def some(leaf):
        fan_in = max(1, np.prod(leaf.shape[:-1]))
        return (rng.normal(size=leaf.shape) * np.sqrt(2 / fan_in)).astype(np.float32)

    return model, jax.tree.map(some, like)


def program_of(model, params):
    return trace(lambda p, z: decode(model, p, z), params, jnp.zeros((1, 4)))


MEANS = {make_likelihood(name, 1.0).mean: name for name in reversed(LIKELIHOODS)}
"""What makes an image of a decoder's numbers -> a likelihood that has it: most share one."""
PAIRS = [*((network, "bernoulli", 3) for network in NETWORKS), ("small", "bernoulli", 2),
         *(("small", name, 1) for name in MEANS.values())]  # fmt: skip


@pytest.mark.once
@pytest.mark.parametrize(("network", "likelihood", "channels"), PAIRS)
def test_the_page_decodes_as_jax_does(opened, network, likelihood, channels):
    model, params = model_of(network, likelihood, (21, 34, channels))
    codes = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    wanted = np.asarray(jax.jit(lambda p, z: decode(model, p, z))(params, codes))
    assert np.ptp(wanted) > 0.1
    assert wanted.std(axis=0).max() > 0.02, "pictures that do not vary"
    sent = json.dumps(program_json(program_of(model, params)))
    opened.run(f"window.decoder = makeDecoder({sent}); 0")
    found = opened.run(f"{codes.tolist()}.map(z => [...decoder(z, 0)])")
    assert np.abs(np.reshape(found, wanted.shape) - wanted).max() < 1 / 255


SMALL = (
    lambda z: jax.lax.slice(z, (0, 1), (1, 6), (1, 2)),
    lambda z: z[:, ::-1],
    lambda z: jax.lax.pad(z, 0.5, ((0, 0, 0), (1, 2, 1))),
    lambda z: jnp.concatenate([z[:, 2:], -z], axis=1),
    lambda z: jnp.stack([z, 2 * z], axis=2),
    lambda z: jnp.stack(jnp.unstack(z, axis=1)[1:4], axis=1) ** 3,
    lambda z: jnp.split(z, [2, 3], axis=1)[2] ** -2,
    lambda z: z.reshape(2, 3).T,
    lambda z: z.reshape(2, 3).max(axis=1),
    lambda z: z.reshape(2, 3).min(axis=0),
    lambda z: jnp.abs(z).reshape(3, 2).sum(axis=1),
)


@pytest.mark.once
def test_the_page_moves_and_reduces_numbers_as_jax_does(opened):
    z = [-1.5, -0.25, -2.0, -0.75, -0.5, -3.0]
    for function in SMALL:
        program = trace(lambda _, z, f=function: f(z), {}, jnp.zeros((1, 6)))
        sent = json.dumps(program_json(program, float32=True))
        found = opened.run(f"[...makeDecoder({sent})({z}, 0)]")
        wanted = np.ravel(function(jnp.array([z])))
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.once
def test_the_page_decodes_every_beta_of_a_run_for_many(opened, tmp_path, monkeypatch):
    """Gates of convolutions; then the whole page, on which β is a slider."""
    shape, rates = (16, 12, 1), Rates(0.5, 8.0)
    likelihood = make_likelihood("bernoulli", 1.0)
    network = make_network("conv", 4, shape, 1)
    model, params = some_params(VAE(*network, likelihood, rates=rates), shape)
    z, plain = [0.3, 0.8, -1.3, 0.5], model.clone(rates=None)

    def at(params, z, beta):
        return decode(plain, rates.at(params, beta), z)

    program = trace(at, {"decoder": params["decoder"]}, jnp.zeros((1, 4)), jnp.ones(()))
    opened.run(f"window.decoder = makeDecoder({json.dumps(program_json(program))}); 0")
    betas = [0.5, 8.0, 2.0, 2.0]
    found = [opened.run(f"[...decoder({z}, {beta})]") for beta in betas]
    wanted = [np.asarray(jax.jit(at)(params, jnp.array([z]), beta)).ravel() for beta in betas]
    assert np.abs(wanted[0] - wanted[1]).max() > 0.02
    assert np.abs(np.array(found) - wanted).max() < 1 / 255

    monkeypatch.setattr(export, "POINTS", 100)
    monkeypatch.setattr(run_figures, "POINTS", 3)
    config = BASE.replace(multi_rate="0.5:8", steps=4)
    run = train(config, tmp_path / "many", figures=False, progress=False)
    with pytest.raises(UserError, match="is a directory, wanted the name of a file"):
        run.explore().write(tmp_path)
    opened.open(run.explore().write(tmp_path / "many.html"))
    opened.run(FRAMES)
    assert opened.run("document.querySelectorAll('#gallery button').length") == 2
    assert run.summary
    known = [point["kl"] for point in run.summary["rates"]]
    np.testing.assert_allclose(opened.run("data.models.map(one => one.rate)"), known, atol=1e-3)
    ends = opened.run("[...document.querySelectorAll('#curve .middle')].map(x => +x.textContent)")
    np.testing.assert_allclose(ends[:2], [min(known), max(known)], atol=0.05)
    opened.run("$('beta').value = 1.5; $('beta').dispatchEvent(new Event('input'))")
    opened.run(FRAMES)
    beta = float(opened.run("model.beta"))
    assert beta == pytest.approx(0.5 * 16 ** (1.5 / 2))
    decoded = np.asarray(run.at(beta).decode([opened.run("[...state.z]")]))[0, ..., 0]
    assert np.abs(shown(opened, "decoded") - 255 * decoded).max() <= 1.5
    html = run.at(2.0).explore().html
    assert '"continuous":false' in html
    assert "β = 2</title>" in html
    assert "β = 4</title>" in run.at(4.0).explore().html  # also the β of its config
    file = explore(run.run_dir / "beta=4", out=tmp_path / "four.html")
    assert "β = 4</title>" in file.read_text()
    codes = opened.run("data.models[2].codes")
    image = run.trainer.images(encoding_order(run.trainer)[:1])
    np.testing.assert_allclose(codes[0], run.at(8.0).encode(image).mean[0], atol=0.002)


def shown(browser, name):
    """The numbers of a canvas in grey, 0 to 255."""
    return np.array(
        browser.run(f"""(() => {{
      const from = document.getElementById("{name}"), copy = document.createElement("canvas");
      [copy.width, copy.height] = [from.width, from.height];
      const pen = copy.getContext("2d", {{ willReadFrequently: true }});
      pen.drawImage(from, 0, 0);
      return [...pen.getImageData(0, 0, copy.width, copy.height).data].filter((_, i) => i % 4 == 0);
    }})()""")
    ).reshape(64, 64)


FRAMES = "new Promise(done => setTimeout(done, 500))"


@pytest.mark.once
def test_the_page_shows_an_image_its_reconstruction_and_where_latents_are_moved(
    opened, run_dir, page_file
):
    run = load(run_dir)
    opened.run(FRAMES)
    number = int(re.findall(r"\d+", opened.run("$('image-name').textContent"))[0])
    image = np.asarray(run.trainer.images(np.array([number])))
    np.testing.assert_array_equal(shown(opened, "image"), np.round(255 * image[0, ..., 0]))
    reconstruction = np.asarray(run.reconstruct(image))[0, ..., 0]
    assert np.abs(shown(opened, "decoded") - 255 * reconstruction).max() <= 1.5

    notes = opened.run("[...document.querySelectorAll('.row small')].map(n => n.textContent)")
    sizes = [float(found) for found in re.findall(r"KL ([\d.]+)", " ".join(notes))]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) + " ".join(notes).count("unused") == run.config.latents
    opened.run("(() => { const slider = sliders[0].input; slider.value = slider.max;"
                "slider.dispatchEvent(new Event('input')); })()")  # fmt: skip
    opened.run(FRAMES)
    z = opened.run("[...state.z]")
    assert z[opened.run("partner(0)[0]")] == opened.run("+sliders[0].input.max")
    decoded = np.asarray(run.decode([z]))[0, ..., 0]
    assert np.abs(shown(opened, "decoded") - 255 * decoded).max() <= 1.5
    assert opened.run("$('status').textContent").startswith("Outside of the data: ")

    address = opened.run("location.hash")
    assert f"z={','.join(f'{x:.3f}'.rstrip('0').rstrip('.') for x in z)}" in address
    opened.run("$('reset').click()")
    opened.run(FRAMES)
    assert np.abs(shown(opened, "decoded") - 255 * reconstruction).max() <= 1.5
    opened.open(page_file, address)
    opened.run(FRAMES)
    np.testing.assert_allclose(opened.run("[...state.z]"), z, atol=0.0006)


@pytest.mark.once
def test_no_error_no_request_and_no_foreign_script(opened, page_file):
    opened.open(page_file)
    opened.run("['random', 'another', 'reset'].forEach(name => $(name).click()); 0")
    opened.run(FRAMES)
    assert opened.said == opened.requested == []
    opened.run("window.other = document.createElement('script'); 0")
    opened.run("other.textContent = 'window.foreign = 1'; document.body.append(other)")
    assert opened.run("typeof foreign") == "undefined"
    assert len(opened.said) == 1, "the browser says that it refused it"


def test_the_script_is_short_calls_no_eval_and_knows_every_map():
    assert SCRIPT.count("\n") <= 600
    assert not re.search(r"\beval\b|new Function|https?://(?!www.w3.org)|fetch\(|import\(", SCRIPT)
    table = SCRIPT.partition("MAPS = {")[2].partition("\n};")[0]
    assert set(re.findall(r"(?<![?.] )\b(\w+): ", table)) == MAPS


def test_what_a_page_cannot_compute_is_refused(run_dir, monkeypatch):
    with pytest.raises(UserError, match="cannot compute sort"):
        trace(lambda p, z: jnp.sort(z), {}, jnp.zeros((1, 4)))
    with pytest.raises(UserError, match="two matrices"):
        trace(lambda p, z: jnp.einsum("ij,kj->ik", z, z), {}, jnp.zeros((1, 4)))
    monkeypatch.setattr(page, "MOST_BYTES", 30_000)
    with pytest.raises(UserError, match=r"would have 0 MB, wanted at most 0: .* Draw pictures by"):
        load(run_dir).explore()


def test_a_page_that_is_made_on_a_gpu_has_none_of_its_kernels(monkeypatch):
    kernels = pytest.importorskip("bvae_jax.conv_triton")
    model, params = model_of("conv", "bernoulli", (16, 16, 1))
    wanted = json.dumps(program_json(program_of(model, params)))
    monkeypatch.setattr(kernels, "here", lambda: True)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert json.dumps(program_json(program_of(model, params))) == wanted


def test_float32_is_twice_as_large_and_exact():
    model, params = model_of("small", "bernoulli", (16, 16, 1))
    program = program_of(model, params)
    small, exact = (program_json(program, float32=digits) for digits in (False, True))
    assert len(exact["weights"]) == pytest.approx(2 * len(small["weights"]), abs=4)
    held = [array.ravel() for array in program.constants.values() if array.size > page.FEW]
    numbers = np.frombuffer(b64decode(exact["weights"]), "<f4")
    np.testing.assert_array_equal(numbers, np.concatenate(held))


def test_pictures_of_any_number_of_channels():
    """Twenty beside each other; channels that are no colours, too, each as a picture."""
    for channels, wide in ((1, 5), (2, 10), (3, 5), (4, 20)):
        images = np.random.default_rng(0).random((30, 4, 5, channels), np.float32)
        picture = Image.open(io.BytesIO(b64decode(atlas(images).split(",")[1])))
        assert picture.size == (20 * wide, 8)
        assert picture.mode == ("RGB" if channels == 3 else "L")
        levels = np.asarray(picture).reshape(8, 20 * wide, -1)
        for number in (0, 19, 20, 29):
            row, column = divmod(number, 20)
            shown = levels[4 * row : 4 * row + 4, wide * column : wide * (column + 1)]
            parts = [images[number]]
            if channels != 3:
                parts = [images[number, ..., c : c + 1] for c in range(channels)]
            np.testing.assert_array_equal(shown, np.round(255 * np.concatenate(parts, axis=1)))


def test_texts_are_escaped():
    page = make_page("<b>", "$data & $title", {"x": "</script>"})
    assert len(repr(page)) < 100
    html = page.html
    assert "<b>" not in html.partition("</head>")[0]
    assert "$data &amp; $title" in html
    assert html.count("</script>") == 2


def latents(codes, used):
    nowhere = np.zeros(codes.shape[1])
    return Latents(codes, codes.var(axis=0), np.array(used), [""] * len(used), nowhere)


def test_latents_of_other_runs_follow_in_their_own_direction():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(500, 3)) * [1, 2, 0.01]
    b = np.stack([rng.normal(size=500) * 0.01, -a[:, 1], rng.normal(size=500) * 0.01], axis=1)
    reference, other = latents(a, [True, True, False]), latents(b, [False, True, False])
    order = in_order(reference)
    assert order.tolist() == [1, 0, 2]
    assert follows(reference, reference, order) == [(1, 1), (0, 1), (2, 1)]
    found = follows(reference, other, order)
    assert found[0] == (1, -1)
    assert sorted(found[1:]) == [(0, 0), (2, 0)]


def test_a_latent_is_named_after_the_factor_that_it_knows(run_dir, monkeypatch):
    """By the share of the factor's entropy; its size is its KL."""
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(4, size=4000), rng.integers(2, size=4000)], axis=1)
    codes = np.stack([rng.normal(size=4000), factors[:, 1], factors[:, 0]], axis=1)
    found = Codes(codes, factors, kl=np.array([0.1, 3.0, 2.0]), factor_names=["pos_x", "side"])
    monkeypatch.setattr(export, "encode_run", lambda *_, **__: None)
    monkeypatch.setattr(export, "codes_of", lambda *_: found)
    known = export.look(export.Model("", load(run_dir)), 4000)
    assert known.factors == ["", "side", "pos x"]
    np.testing.assert_allclose(known.shares, [0, 1, 1], atol=1e-6)
    assert known.score == pytest.approx(1, abs=0.01)
    assert known.size.tolist() == [0.1, 3, 2]


def test_a_slider_reaches_as_far_as_the_codes():
    """And 3 standard deviations of the prior, or of an autoencoder's codes around their mean."""
    codes = np.stack([np.linspace(-1, 1, 1001), np.linspace(-5.1, 4.9, 1001)], axis=1)
    known = latents(codes, [True, True])
    np.testing.assert_allclose(export.range_of(known, True), [[-3, -5.25], [3, 5]])
    spread = 3 * codes.std(axis=0)
    low, high = export.range_of(known._replace(codes=codes + 100), False)
    np.testing.assert_allclose(low, [100 - spread[0], 99.9 - spread[1]])
    np.testing.assert_allclose(high, [100 + spread[0], 99.9 + spread[1]])


def test_bars_and_bands_are_where_the_codes_are(run_dir):
    codes = np.random.default_rng(0).normal([0, 1, -4], [1, 0.2, 2], (2000, 3))
    known = latents(codes, [True] * 3)
    model = export.Model("", load(run_dir))
    for one, column in zip(
        export.model_json(model, 0, known, [], 2)["latents"], codes.T, strict=True
    ):
        edges = np.linspace(one["from"], one["to"], export.BARS + 1)
        centres = (edges[1:] + edges[:-1]) / 2
        mean = np.average(centres, weights=one["bars"])
        spread = np.sqrt(np.average(np.square(centres - mean), weights=one["bars"]))
        np.testing.assert_allclose([mean, spread], [column.mean(), column.std()], atol=0.05)
        inside = (one["low"] <= column) & (column <= one["high"])
        assert inside.mean() == pytest.approx(0.99, abs=0.001)


def test_the_plane_begins_with_latents_that_know_different_things():
    codes = np.random.default_rng(0).normal(size=(500, 3)) * [3, 2, 1]
    known = latents(codes, [True] * 3)._replace(factors=["x", "x", "y"])
    assert export.plane(known, [(0, 1), (1, 1), (2, -1)]) == [0, 2]
    assert export.plane(known, [(2, 1), (0, 1), (1, 1)]) == [1, 0]
    assert export.plane(known, [(-1, 0), (1, 1), (0, 1)]) == [2, 1]
    assert export.plane(known, [(2, 1)]) == [0, 0]


def test_command(run_dir, tmp_path, capsys):
    file = tmp_path / "new" / "page.html"
    assert cli.main(["explore", str(run_dir), "-o", str(file)]) == 0
    assert capsys.readouterr().out.startswith(f"{file} (0.")
    assert load(run_dir).explore().html == file.read_text()
    assert 'srcdoc="&lt;!DOCTYPE html&gt;' in load(run_dir).explore()._repr_html_()
    run = load(run_dir)
    of_one = dataclasses.replace(run, config=run.config.replace(multi_rate="4:4"))
    assert "one network for" not in of_one.explore().html  # no range, no slider
    os.mkfifo(tmp_path / "pipe")
    assert cli.main(["explore", str(run_dir), "-o", str(tmp_path / "pipe")]) == 2
    assert "is no plain file, wanted the name of one" in capsys.readouterr().err
