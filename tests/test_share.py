"""Codes of images into files, and pictures out of a run."""

import dataclasses
import errno
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from conftest import assert_close
from PIL import Image

import bvae_jax
from bvae_jax import cli
from bvae_jax.config import Config, ScoreConfig
from bvae_jax.data import pictures
from bvae_jax.data.pictures import decode
from bvae_jax.errors import UserError
from bvae_jax.files.archive import read_npz
from bvae_jax.plots.run import save_samples
from bvae_jax.runs import encode as encoding
from bvae_jax.runs.codes import draw_z, images_config, stream
from bvae_jax.types import key_for

pytestmark = pytest.mark.usefixtures("tiny_network", "shared_trainers")
SIDE, LATENTS = 8, 2
SHAPE = (SIDE, SIDE, 3)
SMALL = {
    "network": "tiny", "latents": LATENTS, "batch_size": 4, "steps": 2, "eval_images": 8,
    "likelihood": "gaussian",
}  # fmt: skip
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (300, *SHAPE), np.uint8)
FACTORS = np.stack([np.arange(300) % 3, np.arange(300) // 150], axis=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of an .npz file of 300 pictures with two factors."""
    directory = tmp_path_factory.mktemp("share")
    np.savez(directory / "own.npz", images=IMAGES, factors=FACTORS)
    config = Config(dataset=f"npz:{directory}/own.npz", data_dir=str(directory / "data"), **SMALL)  # pyright: ignore
    return bvae_jax.train(config, directory / "run", figures=False, progress=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """1,000 pictures of two classes, and one that is none."""
    path = tmp_path_factory.mktemp("pictures")
    for number in range(1000):
        file = path / ("cat" if number % 2 else "dog") / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        pixels = RNG.integers(0, 256, (9 + number % 3, 12, 3), np.uint8)
        Image.fromarray(pixels).save(file, compress_level=0)
    (path / "dog" / "broken.png").write_bytes(b"no picture")
    return path


def test_a_thousand_pictures_by_name_a_few_at_a_time(run, folder, monkeypatch, capsys):
    monkeypatch.setattr(pictures, "MOST_PICTURES", 64)
    made, done, most = [], 0, 0
    original = pictures.decode
    monkeypatch.setattr(pictures, "decode", lambda *a: made.append(1) or original(*a))
    parts = []
    for part in stream(run, folder):
        most = max(most, len(made) - done)
        done += len(part.codes)
        parts.append(part)
    assert (done, len(made)) == (1000, 1001)
    assert most <= 65  # and one that cannot be read
    files = [name for part in parts for name in part.files]
    names = (f"{c}/{n}.png" for n in range(1000) for c in ("cat" if n % 2 else "dog",))
    assert files == sorted(names)
    assert capsys.readouterr().err.splitlines() == [
        f"bvae: {folder}: 1 of 1001 pictures cannot be read and are left out: dog/broken.png (not "
        "PNG, JPEG or WebP).",
        f"bvae: {folder}: pictures of 9 to 12 pixels, their central squares as 8×8×3",
    ]
    codes = np.concatenate([part.codes for part in parts])
    chosen = [0, 63, 64, 999]
    wanted = run.encode(np.stack([decode(folder / files[i], SHAPE)[0] for i in chosen]))
    np.testing.assert_allclose(codes[chosen], wanted.mean, rtol=1e-5, atol=1e-6)


def test_codes_in_files(run, folder, tmp_path, capsys):
    small = tmp_path / "few"
    for name in ("cat/1.png", "cat/3.png", "dog/2.png"):
        (small / name).parent.mkdir(parents=True, exist_ok=True)
        (small / name).symlink_to(folder / name)
    for kind in ("npz", "csv"):
        argv = ["encode", str(run.run_dir), str(small), "-o", str(tmp_path / f"new/few.{kind}")]
        assert cli.main(argv) == 0
        said = capsys.readouterr()
        assert said.out == f"{argv[-1]}: 3 images, 2 latents\n"
        assert "3/3" in said.err.replace(".00", "")
        assert "images/s" in said.err
    found = read_npz(tmp_path / "new/few.npz")
    assert found["files"].tolist() == ["cat/1.png", "cat/3.png", "dog/2.png"]
    assert found["factors"].tolist() == [[0], [0], [1]]
    assert (found["factor_names"].tolist(), found["factor_sizes"].tolist()) == (["class"], [2])
    wanted = run.encode(np.stack([decode(small / name, SHAPE)[0] for name in found["files"]]))
    assert_close((found["codes"], found["logvars"]), tuple(wanted))
    table = pd.read_csv(tmp_path / "new/few.csv")
    assert [*table] == ["name", "z0", "z1", "logvar0", "logvar1", "class"]
    assert table["name"].tolist() == found["files"].tolist()
    np.testing.assert_allclose(table[["z0", "z1"]], found["codes"], rtol=1e-6)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"few.npz", "few.csv"}
    # Beside the folders: of no class. The name is no UTF-8.
    (small / "a\udce9.png").symlink_to(folder / "cat/1.png")
    run.encode_to(tmp_path / "new/few.NPZ", small)
    found = read_npz(tmp_path / "new/few.NPZ")
    assert found["files"].tolist() == [r"a\udce9.png", "cat/1.png", "cat/3.png", "dog/2.png"]
    assert "factors" not in found
    np.testing.assert_allclose(found["codes"][0], found["codes"][1], rtol=1e-5, atol=1e-6)


def test_data_sets_in_their_order_and_the_own_from_what_is_kept(run, tmp_path, capsys):
    wanted = run.encode(IMAGES)
    (tmp_path / "copy.npz").write_bytes((run.run_dir.parent / "own.npz").read_bytes())
    for images in (run.config.dataset, f"{tmp_path}/copy.npz"):
        path = tmp_path / "codes.npz"
        assert run.encode_to(path, images) == 300
        found = read_npz(path)
        np.testing.assert_array_equal(found["indices"], np.arange(300))
        np.testing.assert_array_equal(found["factors"], FACTORS)
        np.testing.assert_allclose(found["codes"], wanted.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["logvars"], wanted.logvar, rtol=1e-4, atol=1e-5)
    kept = encoding.encode_run(run.run_dir, run.trainer, run.params, 300, progress=False)
    assert run.encode_to(path, run.config.dataset) == 300
    order = encoding.encoding_order(run.trainer)
    np.testing.assert_array_equal(read_npz(path)["codes"][order], kept.means)
    capsys.readouterr()
    scores = bvae_jax.score_file(path, ScoreConfig("mig,mig_chen"), progress=False)
    assert "keys not used" not in capsys.readouterr().err
    assert np.isfinite([scores["mig"]["score"], scores["mig_chen"]["score"]]).all()


def test_of_other_images_all_are_encoded():
    """Whatever part of its own a run was trained on."""
    config = images_config(Config(only="shape=0", image_size=32), "xy_squares")
    assert (config.dataset, config.only, config.image_size) == ("xy_squares", "", Config.image_size)


def test_an_interrupted_file_is_the_old_one(run, tmp_path, monkeypatch):
    (tmp_path / "codes.csv").write_text("old")

    def parts(*args, **options):
        yield next(stream(run, run.config.dataset))
        raise KeyboardInterrupt

    monkeypatch.setattr("bvae_jax.runs.codes.stream", parts)
    with pytest.raises(KeyboardInterrupt):
        run.encode_to(tmp_path / "codes.csv", run.config.dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["codes.csv"]
    assert (tmp_path / "codes.csv").read_text() == "old"


def test_what_cannot_be_encoded_or_drawn_is_one_line(run, tmp_path, capsys):
    np.savez(tmp_path / "grey.npz", images=IMAGES[..., 0])
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.png").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    exported = tmp_path / "exported"
    run.export(exported)
    run.export(tmp_path / "weights.npz", to="npz")
    (tmp_path / "headless").mkdir()
    (exported / "config.json").rename(tmp_path / "headless" / "config.json")
    moved = dataclasses.replace(run, config=run.config.replace(dataset="npz:x.npz"))
    moved.export(tmp_path / "moved")
    (tmp_path / "notes.txt").write_text("hello")
    table = {
        "traverse {tmp}/weights.npz": "weights.npz is a file, wanted the directory of a run. b",
        "explore {tmp}/weights.npz": "weights.npz is a file, wanted the directory of a run. b",
        "sample {tmp}/weights.npz --source aggregate -o {tmp}/s": "weights.npz is a file, wanted",
        "evaluate {tmp}/weights.npz": "holds the weights of a run, wanted codes and factors",
        "evaluate {tmp}/exported/model.safetensors": "holds the weights of a run, wanted codes",
        "sample {tmp}/notes.txt -o {tmp}/s": "notes.txt is a file, wanted the directory of a r",
        "export {tmp}/headless -o {tmp}/s": "headless has no checkpoint yet and no model.saf",
        "sample RUN/beta=3 --beta 4 -o {tmp}/s": "says β = 3: leave one of the two out",
        "sample hf:../x -o {tmp}/s": "Got hf:../x, wanted hf:USER/NAME",
        "push RUN hf:a/b --licence=": "--licence: got '', wanted one word, as mit",
        "push RUN hf:a/b --licence mit:": "--licence: got 'mit:', wanted one word, as mit",
        "encode RUN EMPTY -o {tmp}/c.npz": "Got '', which is not there: wanted a folder of",
        "encode RUN folder: -o {tmp}/c.npz": "Got 'folder:', which is not there: wanted a folder",
        "encode {tmp}/moved npz:x.npz -o {tmp}/c.npz": "Give their new place, as IMAGES npz:PATH;",
        "encode RUN hf:user/../x -o {tmp}/c.npz": "hf:user/../x: wanted hf:USER/NAME, perhaps",
        "encode RUN {tmp}/grey.npz -o {tmp}/c.npz": "got images of 8×8×1, but the run's are 8×8×3",
        "encode RUN {tmp}/empty -o {tmp}/c.npz": "got no pictures, wanted files .png",
        "encode RUN {tmp}/none -o {tmp}/c.npz": "got 1 pictures that cannot be read and 0 that can",
        "encode RUN {tmp}/gone/ -o {tmp}/c.npz": "gone/', which is not there: wanted a folder",
        "encode RUN xy_squares -o {tmp}/c.npz": "got images of 64×64×3, but the run's",
        "encode RUN dsprite -o {tmp}/c.npz": "Got 'dsprite', which is not there: wanted a folder",
        "encode RUN {tmp} -o {tmp}/c.txt": "wanted the name of a file that ends in .npz or .csv",
        "sample RUN -o {tmp}": "wanted a new or empty directory",
        "sample RUN -o {tmp}/s -n 0": "got n = 0, wanted a whole number from 1 to 100,000",
        "sample RUN -o {tmp}/s -n 1000000000": "got n = 1000000000, wanted a whole",
        "sample RUN -o {tmp}/s -n 2 --seed 99999999999999999999": "wanted a whole number from 0 to",
        "sample RUN -o {tmp}/s -n 2 --seed -1": "seed: got -1, wanted a whole number from 0 to",
        "sample RUN -o {tmp}/s -n 2 --temperature 1e300": "temperature: got 1e+300, wanted a",
        "sample RUN -o {tmp}/s --temperature -1": "temperature: got -1.0, wanted a number from",
    }
    for argv, told in table.items():
        words = [w.format(tmp=tmp_path).replace("RUN", str(run.run_dir)) for w in argv.split()]
        words = ["" if word == "EMPTY" else word for word in words]
        assert cli.main([*words, *(["--quiet"] if words[0] == "encode" else [])]) == 2, argv
        said = capsys.readouterr().err
        assert told in said, argv
        assert said.count("\n") == 1, argv
    assert not [*tmp_path.glob("c.*"), *tmp_path.glob(".*")]
    with pytest.raises(UserError, match="from 0 to 255, wanted 0 to 1, or uint8: divide by 255"):
        run.encode(255 * (IMAGES[:9] > 9).astype(np.float32))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("encode RUN SET -o OUT.csv", "out.csv"),
        ("sample RUN -n 2 -o OUT", "out/samples.npz"),
        ("export RUN -o OUT", "out"),
    ],
)
def test_a_full_disk_and_a_place_to_read_only_are_named(
    run, tmp_path, monkeypatch, capsys, words, name
):
    """Not the hidden file beside it; and nothing is said of --resume."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    full_disk = "No space left on device. The disk is full: make room."
    nowhere = "No such file or directory. Check the path."
    for place, told in ((tmp_path, full_disk), (Path("/proc"), nowhere)):
        named = {"RUN": str(run.run_dir), "SET": run.config.dataset}
        argv = [named.get(word, word.replace("OUT", f"{place}/out")) for word in words.split()]
        assert cli.main(argv) == 2
        *_, line = capsys.readouterr().err.splitlines()  # below a bar
        assert (
            line == f"bvae: {place / (name if told == full_disk else Path(name).parts[0])}: {told}"
        )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_draws_of_the_prior_and_of_the_aggregate_posterior(run):
    key = key_for("samples", 3)
    z = jax.random.normal(key, (5, LATENTS))
    np.testing.assert_array_equal(run.sample(5, seed=3), run.decode(z))
    np.testing.assert_array_equal(run.sample(5, seed=3, temperature=0.5), run.decode(z / 2))
    n, known = 2000, run.encode(IMAGES[np.sort(run.trainer.split.train)])
    means = np.asarray(draw_z(run, n, source="aggregate", temperature=0.0))
    distance = np.square(means[:, None] - np.asarray(known.mean)[None]).sum(axis=2)
    which = distance.argmin(axis=1)
    assert distance.min(axis=1).max() < 1e-9
    counts = np.bincount(which, minlength=len(known.mean))
    assert counts.var() == pytest.approx(counts.mean(), rel=0.35)  # each alike: nearly Poisson
    z = np.asarray(draw_z(run, n, source="aggregate", temperature=2.0))
    noise = (z - means) / (2 * np.exp(np.asarray(known.logvar)[which] / 2))
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 1], atol=0.05)
    assert np.abs(noise.prod(axis=1).mean()) < 0.08


@pytest.mark.parametrize(("channels", "shown"), [(1, 0), (2, (0, 1)), (3, (0, 1, 2))])
def test_pictures_are_the_arrays(tmp_path, channels, shown):
    images = RNG.random((11, 5, 7, channels)).astype(np.float32)
    grid, *each = save_samples(tmp_path, images)
    assert [path.name for path in each] == [f"sample-{n:02}.png" for n in range(11)]
    levels = 255 * images if channels != 2 else 255 * images.mean(axis=-1)
    for path, wanted in zip(each, levels.reshape(11, 5, 7, -1), strict=True):
        found = np.asarray(Image.open(path)).reshape(5, 7, -1)
        np.testing.assert_allclose(found, wanted, atol=0.51)
    with Image.open(grid) as picture:  # of 4 × 3, ten times as large
        assert picture.size == (4 * 70 + 3 * 2, 3 * 50 + 2 * 2)


def test_samples_on_disk(run, tmp_path, capsys):
    out = tmp_path / "drawn"
    more = ("--source", "aggregate", "--seed", "5")
    for count, options in ((12, ()), (1, ()), (3, more)):
        argv = ["sample", str(run.run_dir), "-n", str(count), "-o", str(out), *options]
        assert cli.main(argv) == 0
        last = {12: "/sample-00.png to sample-11.png", 1: "/sample-0.png"}
        assert capsys.readouterr().out.endswith(f"{last.get(count, '-0.png to sample-2.png')}\n")
        names = {f"sample-{n:0{len(str(count - 1))}}.png" for n in range(count)}
        assert {path.name for path in out.iterdir()} == names | {"samples.npz", "samples.png"}
    found = read_npz(out / "samples.npz")
    np.testing.assert_array_equal(found["images"], run.sample(3, seed=5, source="aggregate"))
    assert_close(found["images"], np.asarray(run.decode(found["z"])))
    assert [found[name].item() for name in ("source", "temperature", "seed")] == [
        "aggregate", 1.0, 5,
    ]  # fmt: skip
