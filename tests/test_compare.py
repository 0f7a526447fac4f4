"""A small sweep compared: what is evaluated, what is written, what is left out by name."""

import csv
import dataclasses
import datetime
import json
import os
import re
import shutil
from types import SimpleNamespace
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest

import bvae_jax
from bvae_jax import cli
from bvae_jax.comparison import matching, reading
from bvae_jax.comparison.base import known_scores
from bvae_jax.comparison.compare import compare, cross, one_run_each, reconstructions
from bvae_jax.comparison.findings import kept, kept_in_words
from bvae_jax.comparison.matching import cross_traversals, representatives, typical_seed
from bvae_jax.comparison.reading import read_comparison, read_members
from bvae_jax.comparison.report import make_report, title, varied_values
from bvae_jax.comparison.suggest import suggest
from bvae_jax.comparison.tables import make_table, to_latex, to_markdown
from bvae_jax.config import Config, ScoreConfig
from bvae_jax.errors import UserError
from bvae_jax.evaluation import baselines, generalisation
from bvae_jax.evaluation.evaluate import evaluate
from bvae_jax.evaluation.processes import in_processes, processes_for
from bvae_jax.explore.export import of_comparison
from bvae_jax.files import read_json, write_json
from bvae_jax.metrics import METRICS, Metric, scoring
from bvae_jax.metrics.codes import Codes
from bvae_jax.runs.sweep import sweep
from bvae_jax.runs.sweepdir import SweepConfig, member_dir, open_sweep, read_sweep
from bvae_jax.runs.trainer import Trainers

pytestmark = pytest.mark.usefixtures("tiny_network", "shared_trainers")

BASE = Config(
    network="tiny", image_source="rendered", batch_size=4, latents=3, steps=4, log_every=2,
    eval_every=4, eval_images=16, checkpoint_every=4, exclude="recombination_to_range",
)  # fmt: skip
SCORE = ScoreConfig(metrics="mig,sap_r2", train_points=200, test_points=50, permutations=0)
FAST: dict[str, Any] = {"metrics": SCORE, "num_points": 300, "decomposition": 20, "progress": False}


@pytest.fixture(scope="module", autouse=True)
def few_images():
    """Of excluded combinations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generalisation, "IMAGES", 16)
        patch.setattr(generalisation, "POINTS", 100)
        yield


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two rates with two seeds, one whose loss is not finite, and one that is not trained yet."""
    directory = tmp_path_factory.mktemp("sweeps") / "sweep"
    grid = {"learning_rate": (1e-4, 1e-3), "beta": (1.0, 4.0)}
    common: dict[str, Any] = {"seeds": 2, "strategy": "sequential", "progress": False}
    sweep(BASE, directory, grid=grid, **common)
    larger = grid | {"learning_rate": (1e-4, 1e-3, 1e25)}
    sweep(BASE, directory, grid=larger, shard="9/12", **common)
    return directory


@pytest.fixture(scope="module")
def compared(swept, tmp_path_factory):
    return compare(swept, out=tmp_path_factory.mktemp("out"), commands=["bvae compare"], **FAST)


def test_members_are_evaluated_and_the_others_named(swept, compared):
    found = compared.comparison
    assert found.varied == ("beta", "learning_rate")
    assert found.settings[0] == "β = 1, learning rate = 0.0001"
    assert len(found.settings) == 6
    assert len(found.members) == 8
    assert list(found.failed) == ["learning_rate=1e+25,beta=1,seed=0"]
    assert set(found.missing) == {
        f"learning_rate=1e+25,beta={beta},seed={seed}" for beta, seed in ((1, 1), (4, 0), (4, 1))
    }
    for name, row in found.members.iterrows():
        run_dir = swept / "members" / str(name)
        scores = read_json(run_dir / "evaluation.json")
        assert row["mig"] == scores["mig"]["score"]
        summary = read_json(run_dir / "summary.json")
        assert row["nll"] == summary["nll"]
        parts = read_json(run_dir / "elbo.json")["decomposition"]
        assert row["total_correlation"] == parts["total_correlation"]
        gap = read_json(run_dir / "elbo-excluded.json")["generalisation"]
        assert (gap["request"]["split"], gap["images"]) == ("excluded", 16)
        assert (row["nll_gap"], row["mse_excluded"]) == (gap["nll_gap"], gap["mse"])
        shares = np.max(scores["mig"]["mutual_information"], axis=0) / scores["mig"]["entropy"]
        np.testing.assert_allclose(found.factor_scores.loc[name], shares)
    assert {"nll_gap", "mse_gap"} <= set(found.scores)
    assert not found.better["nll_gap"]


@pytest.mark.once
def test_explorer_moves_a_run_of_each_setting_together(compared, tmp_path, browser):
    comparison = compared.comparison
    report = next(path for path in compared.files if path.name == "report.html")
    assert "Move the latents" in report.read_text()
    page = of_comparison(comparison, Trainers()).write(tmp_path / "page.html")
    browser.open(page)
    wait = "new Promise(done => setTimeout(done, 400))"
    browser.run(wait)
    labels = browser.run("[...document.querySelectorAll('#gallery span')].map(s => s.textContent)")
    shown = [s for s in comparison.settings if (comparison.members["setting"] == s).any()]
    assert labels == shown
    assert browser.run("document.querySelectorAll('#curve g').length") == len(shown)
    chosen = comparison.members.loc[list(representatives(comparison).values())]
    for number, name in (("rate", "kl"), ("distortion", "nll")):
        found = browser.run(f"data.models.map(one => one.{number})")
        np.testing.assert_allclose(found, chosen[name], atol=0.001)
    browser.run("document.querySelectorAll('#curve g')[1].dispatchEvent(new Event('click'))")
    assert browser.run("state.beta") == 1
    # A row moves as many standard deviations in every run, in the run's own direction.
    found = browser.run("""(() => {
      const row = rows.findIndex((_, row) => data.models.every(one => one.follows[row][1]));
      if (row < 0) return null;
      const [j, sign] = partner(row), z = Float32Array.from(codeOf());
      z[j] += model.latents[j].spread;
      return data.models.map(one => {
        const [k, turned] = one.follows[row];
        return (follow(z, one)[k] - codeOf(one)[k]) / one.latents[k].spread * turned * sign;
      });
    })()""")
    assert found is None or np.allclose(found, 1, atol=0.02)
    assert browser.said == browser.requested == []
    browser.open(report)
    browser.run("document.querySelector('iframe').scrollIntoView(), " + wait)
    assert browser.run("frames[0].document.querySelectorAll('#gallery canvas').length") == len(
        shown
    )
    assert browser.said == browser.requested == []


def test_explorer_takes_the_run_nearest_to_the_mean_of_its_setting(compared, tmp_path):
    rows = {"setting": list("aaabb"), "seed": [0, 1, 2, 0, 1], "nll": [1.0, 5, 2, 7, 8]}
    members = pd.DataFrame(rows, index=[f"m{i}" for i in range(5)])
    run_dirs = dict.fromkeys(members.index, tmp_path)
    changes = {"members": members, "run_dirs": run_dirs, "settings": ("a", "c", "b")}
    comparison = dataclasses.replace(compared.comparison, **changes)
    assert representatives(comparison) == {"a": "m2", "b": "m3"}
    assert representatives(comparison, 1) == {"a": "m1", "b": "m4"}
    members["mig"] = [0.1, 0.2, 0.6, 0.1, 0.2]
    assert representatives(comparison)["a"] == "m2", "m1 is nearer by the MIG, and far by the nll"
    members["nll"] = 1.0
    assert representatives(comparison)["a"] == "m1"
    assert typical_seed(dataclasses.replace(comparison, members=members[:3])) == 1
    assert typical_seed(comparison) == 1
    members["mig"] = [0.3, 0.2, 0.4, 0.1, 0.2]
    assert typical_seed(comparison) == 0  # as near to b's mean as seed 1, nearer to a's
    members.loc["m4", "mig"] = np.nan
    members["nll"] = rows["nll"]
    assert representatives(comparison) == {"a": "m2", "b": "m3"}, "one has no MIG: by the nll"
    members["seed"] = [0, 1, 2, 3, 4]
    assert typical_seed(comparison) is None
    four = members[:4].assign(setting="a", nll=1.0, mig=[0, 0.1, 0.22, 1])  # median 0.16, mean 0.33
    assert representatives(dataclasses.replace(comparison, members=four)) == {"a": "m2"}
    with pytest.raises(bvae_jax.UserError, match="--seed: got 5, wanted one of 0, 1, 2"):
        representatives(comparison, 5)


def test_which_factor_is_lost_where(compared):
    """Half of the most, from a setting on: a dip is no loss, and what nobody knows is not lost."""
    betas, seeds = (1.0, 4.0, 16.0), range(6)
    means = {"x": (0.6, 0.8, 0.7), "shape": (0.5, 0.2, 0.1), "size": (0.4, 0.1, 0.39),
             "y": (0.02, 0.01, 0.0), "hue": (0.2, 0.3, 0.145)}  # fmt: skip
    rows = [
        {"setting": f"β = {beta:g}", "beta": beta, "seed": seed,
         **{name: of[place] + 0.02 * (seed % 3 - 1) for name, of in means.items()}}
        for place, beta in enumerate(betas) for seed in seeds
    ]  # fmt: skip
    frame: Any = pd.DataFrame(rows, index=[f"m{i}" for i in range(18)])
    frame.loc["m17", "hue"] += 0.06
    changes = {"members": frame, "varied": ("beta",), "factor_scores": frame[list(means)].copy(),
               "settings": tuple(f"β = {beta:g}" for beta in betas)}  # fmt: skip
    comparison = dataclasses.replace(compared.comparison, **changes)
    found = {each.factor: each for each in kept(comparison)}
    assert {name: each.lost for name, each in found.items()} == {
        "x": "", "shape": "β = 4", "size": "", "y": "", "hue": "",
    }  # fmt: skip
    comparison.factor_scores.loc["m17", "hue"] -= 0.06
    [*_, hue] = kept(comparison)
    assert (hue.lost, hue.best, hue.sure) == ("β = 16", "β = 4", False)
    assert found["shape"].sure
    words = kept_in_words(kept(comparison), "beta")
    assert "As β grows" in words
    assert "shape at β = 4 (0.20 [0.18, 0.22] of its entropy, 0.50 [0.48, 0.52] at β = 1)" in words
    assert (
        "hue at β = 16 (0.14 [0.13, 0.16] of its entropy, 0.30 [0.28, 0.32] at β = 4; not sure"
        in words
    )
    assert words.endswith("Not lost: x, size. No latent of any setting knows y.")
    assert kept(compared.comparison) == []  # β and learning rate: no order


def test_baselines_are_scored_alike(compared):
    rows = compared.comparison.baselines
    counts = rows["baseline"].value_counts()
    assert counts["untrained"] == 2  # of both seeds
    assert counts["pca"] == counts["random codes"] == counts["true factors"] == 1
    assert rows["mig"].notna().all()
    assert rows["nll"].isna().all()
    assert rows[rows["baseline"] == "raw pixels"]["sap_r2"].notna().all()


def test_baselines_see_the_images_that_members_are_scored_on(compared, tmp_path):
    """The same split of them, and as many."""
    score = dataclasses.replace(SCORE, metrics="mig,rmig", split="excluded")
    run = bvae_jax.load(next(iter(compared.comparison.run_dirs.values())), progress=False)
    rows = baselines.baseline_scores(
        tmp_path, [0], Trainers(), run.config, score, ["mig", "rmig"], num_points=90
    ).set_index("baseline")
    spread = list(rows["rmig"].dropna().index)
    assert spread == ["untrained"], "points have another number by that name"
    found = []
    for count, split in ((90, "excluded"), (250, "all")):
        factors = run.codes(count, split=split).factors
        codes = factors.astype(float)
        found.append(bvae_jax.score(codes, factors, metrics=score)["mig"]["score"])
    assert rows.loc["true factors", "mig"] == pytest.approx(found[0], abs=1e-6)
    assert rows.loc["true factors", "mig"] != pytest.approx(found[1], abs=0.01)


def test_a_baseline_whose_codes_are_all_pruned_has_no_factor_vae_score(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    factors, noise = rng.integers(0, 4, (600, 2)), rng.normal(size=(600, 2))
    found = {
        "untrained": Codes(1e-3 * factors.astype(float), factors),
        "random codes": Codes(noise, factors),
    }
    monkeypatch.setattr(baselines, "run_baselines", lambda *_, **__: found)
    monkeypatch.setattr(baselines, "MOST_SEEDS", 1)
    names = ["factor_vae_score", "mig"]
    scored = baselines.baseline_scores(
        tmp_path, [0, 1], Trainers(), Config(image_source="rendered"),
        ScoreConfig(metrics=",".join(names)), names, num_points=600,
    )  # fmt: skip
    assert list(scored["baseline"]) == list(found), "the second seed is one too many"
    assert list(scored["factor_vae_score"].isna()) == [True, False]
    assert scored["mig"].iloc[0] > 0.9


def test_all_files_are_there(compared):
    directory = compared.files[0].parent
    names = {str(path.relative_to(directory)) for path in compared.files}
    figures = {
        "rate_distortion", "scores", "all_scores", "generalisation", "kl_spectrum", "factors",
        "metric_agreement", "variance", "profiles", "learning_curves", "matched_traversals",
        "reconstructions",
    }  # fmt: skip
    assert names == {
        "table.csv", "table.md", "table.tex", "statistics.md", "statistics.json", "report.html",
        *(f"figures/{name}.{kind}" for name in figures for kind in ("png", "pdf")),
    }  # fmt: skip
    assert all(path.stat().st_size > 100 for path in compared.files)
    with (directory / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    means = compared.comparison.members.groupby("setting")["mig"].mean()
    by_setting = {row["setting"]: row for row in rows}
    for setting, mean in means.items():
        assert float(by_setting[setting]["mig"]) == pytest.approx(mean)
    assert tuple(compared.table.index) == compared.comparison.settings
    trained = compared.table.loc[list(means.index)]
    np.testing.assert_allclose(trained["mig"], means)
    assert (trained["mig_low"] <= trained["mig"]).all()
    assert (trained["mig"] <= trained["mig_high"]).all()
    assert (trained["mig_n"] == 2).all()


def test_the_report_is_for_somebody_who_was_not_there(compared):
    page = (compared.files[0].parent / "report.html").read_text()
    assert "<h1>β-VAE on dSprites: β = 1, 4; learning rate = 0.0001, 0.001" in page
    for fact in (
        f"{datetime.date.today():%B %Y}", "737,280 images of 64×64×1", "8 of 12 finished",
        "β-VAE: −E[log p(x|z)] + β KL", "β = 1, 4 are 0.00073, 0.0029 in units of latents over",
    ):  # fmt: skip
        assert fact in page
    sections, folded = page.split("<details>")[0], page.split("<details>")[1:]
    assert re.findall("<h2>(.*)</h2>", sections) == [
        "The same latents in every setting", "Rate and distortion", "Scores",
        "Which factors are lost", "Reconstructions",
        "Move the latents", "Which setting to choose without labels", "Left out and missing",
    ]  # fmt: skip
    first = page.split("</thead>")[0]
    assert re.findall('<th scope="col">(.*?)</th>', first) == [
        "NLL\xa0↓", "KL", "NLL gap", "squared error gap", "MIG\xa0↑", "SAP (R²)\xa0↑",
    ]  # fmt: skip
    assert len(sections.split("<img ")) == 6
    assert "has a median UDR" in sections
    assert "learning_rate=1e+25,beta=1,seed=0" in sections
    assert "Not finite" in sections
    assert "bvae compare" in folded[-1]
    members = next(part for part in folded if "<h2>Members" in part)
    betas = re.findall(r"seed=\d</span></th><td>(\d)</td><td>0\.", members)
    assert betas == ["1"] * 4 + ["4"] * 4, "numbers, which are sorted as such"


def test_what_is_evaluated_is_not_evaluated_again(swept, compared, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("evaluated again")

    monkeypatch.setattr(reading, "ask", refuse)
    monkeypatch.setattr(reading, "evaluate_elbo", refuse)
    again = compare(swept, out=compared.files[0].parent, figures=False, **FAST)
    assert again.comparison.members.equals(compared.comparison.members)
    larger: dict[str, Any] = FAST | {"num_points": 301}
    with pytest.raises(AssertionError, match="evaluated again"):
        compare(swept, out=compared.files[0].parent, figures=False, **larger)


@pytest.mark.once
def test_slow_metrics_are_scored_in_processes(swept, compared, tmp_path, monkeypatch):
    copied = shutil.copytree(swept, tmp_path / "sweep")
    quiet: dict[str, Any] = {"figures": False, "progress": False}
    slow = FAST | {"metrics": dataclasses.replace(SCORE, metrics="sap"), "decomposition": 0}
    with monkeypatch.context() as patch:
        patch.setattr(joblib, "cpu_count", lambda: 2)
        patch.setattr(scoring, "_entry", None)  # in this process
        found = compare(copied, figures=False, **slow).comparison
    assert len(found.members) == 8
    for name in found.members.index[[0, -1]]:
        file = copied / "members" / str(name) / "evaluation.json"
        kept = read_json(file)["sap"]
        file.unlink()
        again = evaluate(file.parent, slow["metrics"], num_points=300, **quiet)
        assert again["sap"]["accuracy"] == kept["accuracy"]
        assert found.members.loc[name, "sap"] == kept["score"]
    rows = dict(zip(found.baselines["baseline"], found.baselines["sap"], strict=True))
    assert rows["true factors"] > rows["random codes"]


def test_who_scores_in_processes(monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    assert processes_for(["mig", "dci"]) == min(2, os.cpu_count() or 1)
    assert processes_for(["mig", "sap_r2"]) == 1
    own = Metric(lambda codes: {"score": 1.0}, "", "this test")
    monkeypatch.setitem(METRICS, "own", own)
    assert processes_for(["dci", "own"]) == 1, "other processes do not know it"


@pytest.mark.once
def test_a_process_that_is_killed_is_told():
    with pytest.raises(UserError, match=r"^One of 2 processes that scored was killed, .*COUNT=1"):
        list(in_processes(lambda number: os.kill(os.getpid(), number), [9, 9], 2))


@pytest.mark.parametrize("continuous", ["4, orientation=40", "none"])
def test_scores_of_numbers_are_not_computed_again(swept, tmp_path, monkeypatch, continuous):
    """However the declaration is written."""
    score = ScoreConfig("irs", train_points=90, test_points=10, continuous=continuous)
    options: dict[str, Any] = FAST | {"metrics": score, "num_points": 100, "decomposition": 0}
    options |= {"out": tmp_path, "figures": False, "baselines": False}
    first = compare(swept, **options).comparison
    monkeypatch.setattr(reading, "load_shared", None)
    assert compare(swept, **options).comparison.members.equals(first.members)


def test_two_sweeps_side_by_side(swept, tmp_path):
    """The later one counts where both have a member; names say which sweep."""
    grid = {"learning_rate": (1e-4,), "beta": (1.0, 9.0)}
    sweep(BASE, tmp_path / "more", grid=grid, strategy="sequential", progress=False)
    places = read_members([swept, tmp_path / "more"])
    assert len(places) == 12 + 1
    assert "more/learning_rate=0.0001,beta=1,seed=0" in places
    assert "sweep/learning_rate=0.0001,beta=1,seed=0" not in places
    found = read_comparison([swept, tmp_path / "more"], None, Trainers(), progress=False)
    assert "β = 9, learning rate = 0.0001" in found.settings
    other = dataclasses.replace(BASE, latents=2)
    sweep(other, tmp_path / "latents", seeds=1, strategy="sequential", progress=False)
    found = read_comparison(
        [tmp_path / "more", tmp_path / "latents"], None, Trainers(), progress=False
    )
    assert found.varied == ("latents", "beta", "learning_rate")


def pretend(sweep_dir, base, values, done=()):
    """A sweep without a checkpoint, of which members with these numbers are done."""
    found = open_sweep(sweep_dir, SweepConfig(base, values))
    for number, one in enumerate(found.members()):
        directory = member_dir(sweep_dir, one)
        directory.mkdir(parents=True)
        write_json(directory / "config.json", one.config.to_dict())
        if number in done:
            summary = {"step": base.steps, "params_sha256": "", "nll": 1.0, "kl": 1.0, "elbo": -2.0}
            kl = {"kl_per_latent": [1.0, 0.0, 0.0], "active_latents": 1}
            write_json(directory / "summary.json", summary | kl)
            (directory / "metrics.jsonl").touch()
    return sweep_dir


def test_what_is_wrong_with_runs_marks_their_setting(tmp_path):
    """And a run of before, which counted active latents by their KL, is not asked for them."""
    done = pretend(tmp_path / "s", BASE, {"beta": (1.0, 16.0), "seed": (0, 1)}, done=range(4))
    before = read_comparison([done], None, Trainers(), progress=False)
    assert "active_latents" not in before.scores
    assert "†" not in to_markdown(make_table(before))
    for path in done.glob("members/beta=16*/summary.json"):
        summary = json.loads(path.read_text()) | {"variance_per_latent": [0.2, 0.0, 0.0]}
        wrong = {"seed=0": {}, "seed=1": {"no active latents": "a line"}}[path.parent.name[-6:]]
        write_json(path, summary | {"warnings": wrong})
    found = read_comparison([done], None, Trainers(), progress=False)
    assert found.members["active_latents"].dropna().tolist() == [1, 1]
    table = make_table(found)
    text = to_markdown(table)
    assert "| β = 16 † |" in text
    assert "| β = 1 |" in text
    assert "†: β = 16: no active latents (1 of 2 runs)." in text
    assert r"$\beta$ = 16 $\dagger$" in to_latex(table, caption="", label="")


def test_what_is_done_is_not_displaced_by_what_is_not(tmp_path):
    """Nor does another directory of the data, or a default that is written out, make a setting."""
    values = {"beta": (1.0, 4.0)}
    done = pretend(tmp_path / "done", BASE, values, done=(0,))
    moved = dataclasses.replace(BASE, data_dir="/elsewhere", log_every=1, beta_schedule="constant")
    new = pretend(tmp_path / "new", moved, values)
    places = read_members([done, new])
    assert {name: place.status for name, place in places.items()} == {
        "done/beta=1": "done",
        "new/beta=4": "begun",
    }
    found = read_comparison([done, new], None, Trainers(), progress=False)
    assert found.varied == ("beta",)
    assert (found.settings, found.missing) == (("β = 1", "β = 4"), ("new/beta=4",))
    both = pretend(tmp_path / "both", moved, values, done=(0, 1))
    assert set(read_members([done, both])) == {"both/beta=1", "both/beta=4"}


def test_sweeps_of_the_same_name_keep_apart(tmp_path):
    one = pretend(tmp_path / "a" / "s", BASE, {"beta": (1.0,)})
    two = pretend(tmp_path / "b" / "s", BASE, {"beta": (1.0, 2.0), "latents": (2,)})
    assert set(read_members([one, two, one])) == {
        f"{one}/beta=1", f"{two}/latents=2,beta=1", f"{two}/latents=2,beta=2",
    }  # fmt: skip
    assert set(read_members([one, one])) == {"beta=1"}


def test_what_an_objective_has_alike_is_not_in_names_of_settings(tmp_path):
    points = BASE.replace(objective="ae", beta=None, optimizer="adamw")
    one = pretend(tmp_path / "a", points, {"weight_decay": (0.0, 0.1)}, done=(0, 1))
    two = pretend(tmp_path / "b", BASE, {"beta": (1.0, 4.0)}, done=(0, 1))
    found = read_comparison([one, two], None, Trainers(), progress=False)
    assert set(found.varied) == {"objective", "beta", "optimizer", "weight_decay"}
    assert set(found.settings) == {
        "autoencoder, weight decay = 0", "autoencoder, weight decay = 0.1",
        "β-VAE, β = 1", "β-VAE, β = 4",
    }  # fmt: skip


def test_settings_are_ordered_by_one_field_after_the_other(tmp_path):
    values = {"objective": ("beta_vae", "beta_tcvae"), "beta": (16.0, 4.0, 0.5), "seed": (10, 9)}
    values |= {"latents": (10, 9)}
    directory = pretend(tmp_path / "s", BASE, values, done=range(24))
    found = read_comparison([directory], None, Trainers(), progress=False)
    assert found.settings == tuple(
        f"latents = {latents}, {objective}, β = {beta}"
        for latents in (9, 10) for objective in ("β-VAE", "β-TCVAE") for beta in (0.5, 4, 16)
    )  # fmt: skip
    assert [*zip(found.members.setting, found.members.seed, strict=True)] == [
        (setting, seed) for setting in found.settings for seed in (9, 10)
    ]
    sweeps = [read_sweep(directory)]
    assert varied_values(sweeps)["latents"] == [9, 10]
    wanted = "β-VAE, β-TCVAE on dSprites: latents = 9, 10; β = 0.5, 4, 16"
    table = make_table(found)
    assert make_report(found, {}, table, table, [], None, []).title == title(sweeps) == wanted


def test_no_setting_wins_by_what_objectives_optimise():
    known = known_scores(METRICS)
    winners = {score for score, better in known.items() if better}
    assert "mig" in winners
    assert not winners & {"nll", "kl", "elbo", "active_latents", "total_correlation"}
    assert not {score for score in winners if "total_correlation" in score}


def test_shards_are_compared_as_one_sweep(swept, compared, tmp_path):
    """A sweep that two shards trained gives the same numbers as one that nobody divided."""
    grid = {"learning_rate": (1e-4, 1e-3), "beta": (1.0, 4.0)}
    for shard in ("2/2", "1/2"):
        sweep(
            BASE, tmp_path / "sweep", grid=grid, seeds=2, shard=shard, strategy="sequential",
            progress=False,
        )  # fmt: skip
    ours = compare(tmp_path / "sweep", figures=False, baselines=False, **FAST).comparison.members
    theirs = compared.comparison.members
    timeless = [name for name in ours if name not in ("wall_seconds", "images_per_second")]
    assert ours[timeless].equals(theirs[timeless])


def test_matched_traversals_follow_planted_latents(swept, monkeypatch):
    """A run against itself: each latent finds itself, unflipped; those that are not active do not.

    Codes are planted: after four steps no latent is active.
    """
    codes = np.random.default_rng(0).standard_normal((50, 3))
    planted = iter([codes, codes, *2 * (codes, codes * [1e-3, 1, 1e-3])])
    monkeypatch.setattr(
        matching, "encode_run", lambda *_, **__: SimpleNamespace(means=next(planted))
    )
    run = bvae_jax.load(swept / "members" / "learning_rate=0.0001,beta=1,seed=0", progress=False)
    kl = np.array([0.02, 0.3, 0.1])
    crossed = cross_traversals([run, run], [kl, kl], columns=3)
    assert crossed.images.shape == (3, 2, 3, 64, 64, 1)
    np.testing.assert_array_equal(crossed.images[:, 0], crossed.images[:, 1])
    assert crossed.notes == [
        [f"reference\nKL {nats}", f"r 1.00\nKL {nats}"] for nats in (".30", ".10", ".02")
    ]
    assert not crossed.weak.any()
    dead = cross_traversals([run, run], [kl, kl], columns=3)
    missing = np.isnan(dead.images[:, 1]).all(axis=(1, 2, 3, 4))
    assert missing.sum() == 2
    assert not dead.weak.any(), "what is not there is not weak"
    assert not np.isnan(dead.images[:, 0]).any()
    chosen = cross_traversals([run, run], [kl, kl], columns=3, reference=1)
    assert chosen.notes == [["r 1.00\nKL .30", "reference\nKL .30"]]  # its only one


def test_a_latent_that_points_the_other_way_is_turned_round(swept, monkeypatch):
    """One latent of the second run is planted as the negative of the first's."""
    run = bvae_jax.load(swept / "members" / "learning_rate=0.0001,beta=1,seed=0", progress=False)
    codes = np.random.default_rng(0).standard_normal((50, 3))
    planted = iter([codes, codes * [1.0, -1.0, 1.0]])
    monkeypatch.setattr(
        matching, "encode_run", lambda *_, **__: SimpleNamespace(means=next(planted))
    )
    kl = np.array([0.2, 0.3, 0.1])
    crossed = cross_traversals([run, run], [kl, kl], columns=3)
    assert crossed.notes[0] == ["reference\nKL .30", "r −1.00\nKL .30"]
    ours, theirs = crossed.images[:, 0], crossed.images[:, 1]
    np.testing.assert_array_equal(theirs[0], ours[0, ::-1])
    assert (theirs[0] != ours[0]).any()
    np.testing.assert_array_equal(theirs[1:], ours[1:])


def test_an_autoencoder_is_moved_by_standard_deviations_of_its_codes(swept, monkeypatch):
    run = bvae_jax.load(swept / "members" / "learning_rate=0.0001,beta=1,seed=0", progress=False)
    codes = [5, 0, -2] + np.random.default_rng(0).standard_normal((50, 3)) * [1, 3, 0.5]
    monkeypatch.setattr(matching, "encode_run", lambda *_, **__: SimpleNamespace(means=codes))
    monkeypatch.setattr(type(run), "variational", False)
    moved = []

    def no_pictures(run, start, latents, values):
        moved.append((latents.tolist(), values))
        return np.zeros((*values.shape, 1, 1, 1))

    monkeypatch.setattr(matching, "_pictures", no_pictures)
    cross_traversals([run, run], [None, None], columns=3)
    for latents, values in moved:
        assert latents == [1, 0, 2]
        for latent, of in zip(latents, values, strict=True):
            z = codes[:, latent]
            np.testing.assert_allclose(of, z.mean() + np.array([-2, 0, 2]) * z.std())
    assert len(moved) == 2


def test_autoencoders_are_compared_without_a_posterior(tmp_path, capsys, wandb):
    """And what was logged to W&B is a group there, with the comparison's files."""
    grid = {"objective": ("ae", "beta_vae")}
    options: dict[str, Any] = {"strategy": "sequential", "progress": False, "wandb": "project"}
    base = BASE.replace(exclude="", correlate="shape,scale=0.2")
    sweep(base, tmp_path, grid=grid, seeds=1, **options)
    score = dataclasses.replace(SCORE, metrics="mig,mig_chen")
    settings: dict[str, Any] = FAST | {"baselines": False, "metrics": score}
    found = compare(tmp_path, **settings).comparison
    said = [line for line in capsys.readouterr().err.splitlines() if "note:" in line]
    assert any("mig_chen: skipped for 1 of 2 members: it needs logvars" in line for line in said)
    assert any("points" in line for line in said), "what is said of each member"
    assert len(said) == len(set(said))
    points = found.members["objective"] == "ae"
    for name in ("kl", "elbo", "active_latents", "total_correlation"):
        assert found.members[name].isna().tolist() == points.tolist()
    assert set(found.kl_per_latent) == set(found.members.index[(~points).to_numpy()])
    for name, row in found.members.iterrows():
        gap = read_json(found.run_dirs[str(name)] / "elbo-correlated.json")["generalisation"]
        assert gap["request"]["split"] == "correlated"
        wanted = gap["nll"], gap["nll_train"], gap["nll"] - gap["nll_train"], gap["mig_train"]
        assert tuple(row[["nll_all", "nll_correlated", "nll_gap", "mig_correlated"]]) == wanted
        entry = read_json(found.run_dirs[str(name)] / "evaluation.json")["mig"]
        assert row["entanglement"] == entry["mixing"]["pairs"][0]["entanglement"]
    assert {"mig_correlated", "entanglement", "entanglement_others"} <= set(found.scores)
    assert (tmp_path / "figures" / "correlation.png").exists()
    evidence = {e.setting: e for e in suggest(tmp_path, progress=False).evidence}
    assert np.isnan(evidence["autoencoder"].rate).all()
    assert (evidence["autoencoder"].active == 3).all()
    *members, comparison = wandb.runs
    assert [run.options["name"] for run in members] == [*found.members.index]
    assert {(run.options["project"], run.options["group"]) for run in wandb.runs} == {
        ("project", tmp_path.name)
    }
    assert comparison.options["id"] not in {run.options["id"] for run in members}
    ((name, files),) = comparison.files.items()
    assert name == f"{tmp_path.name}-comparison"
    assert {"table.csv", "table.md", "report.html"} <= {path.name for path in files}
    assert all(path.is_file() for path in files)


def test_members_that_cannot_be_read_are_left_out_by_name(swept, tmp_path, capsys):
    """The others are compared: a damaged config, no checkpoint, no records."""
    sweep_dir = tmp_path / "sweep"
    shutil.copytree(swept, sweep_dir)
    names = [f"learning_rate=0.0001,beta={beta},seed={seed}" for beta in (1, 4) for seed in (0, 1)]
    damaged, empty, silent, whole = (sweep_dir / "members" / name for name in names)
    (damaged / "config.json").write_text("[]")
    shutil.rmtree(empty / "checkpoints")
    (empty / "evaluation.json").unlink(missing_ok=True)
    (silent / "metrics.jsonl").unlink()
    found = compare(sweep_dir, figures=False, baselines=False, **FAST).comparison
    assert {damaged.name, empty.name} <= set(found.failed)
    assert "config.json is damaged" in found.failed[damaged.name]
    assert {silent.name, whole.name} <= set(found.members.index)
    assert found.records[silent.name] == []
    said = capsys.readouterr().err
    assert f"bvae: {empty.name} is left out: " in said
    assert "bvae: note: 6 of 12 members are left out: table.md says why." in said
    shutil.rmtree(whole / "checkpoints")
    shutil.rmtree(silent / "checkpoints")
    runs = one_run_each(found, Trainers())
    assert (runs, cross(found, runs), reconstructions(runs)) == ({}, None, None)
    assert "no matched traversals" in capsys.readouterr().err
    found = suggest(sweep_dir, progress=False)
    assert f"bvae: {whole.name} is left out of the comparison of se" in capsys.readouterr().err
    assert found.cautions[0].startswith("8 members are missing, unfinished or unreadable")


def test_a_suggestion_is_written_and_reads_no_label(swept, tmp_path, monkeypatch):
    monkeypatch.setattr("bvae_jax.runs.encode.codes_of", lambda *_: pytest.fail("a label was read"))
    found = suggest(swept, rate=1.0, out=tmp_path, progress=False)
    stored = json.loads((tmp_path / "suggestion.json").read_text())
    assert stored["setting"] == found.setting
    assert found.setting in read_comparison([swept], None, Trainers(), progress=False).settings


def test_from_the_command_line(swept, tmp_path, capsys):
    flags = "--metrics mig,sap_r2 --train-points 200 --test-points 50 --permutations 0 --quiet"
    flags += " --num-points 300 --decomposition 20 --no-figures --average iqm --statistic mig"
    flags += " --columns mig,kl --width page"
    assert cli.main(["compare", str(swept), *flags.split(), "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "| setting | n | MIG ↑ | KL |" in out
    assert re.search(r"\| β = 1, learning rate = 0.0001[ †]* \| 2 \|", out)
    tex = (tmp_path / "table.tex").read_text()
    assert r"\begin{table*}" in tex
    assert "NLL $" not in tex
    assert "nll" in (tmp_path / "table.csv").read_text()
    assert "cannot be told apart" in out or "is above" in out or "is below" in out
    assert str(tmp_path / "table.tex") in out
    assert cli.main(["suggest", str(swept), "--quiet", "--out", str(tmp_path)]) == 0
    assert "labels" in capsys.readouterr().out


MISTAKES = {
    "compare {tmp}": "No sweep in",
    "compare {tmp}/typo": "there is no such file or directory",
    "compare": "Wanted the directory of a sweep",
    "compare {sweep} --metrics mgi": "Unknown metric 'mgi'",
    "compare {sweep} --metrics udr": "bvae suggest does that",
    "compare {sweep} --average median": "--average: got 'median', wanted",
    "compare {sweep} --num-points 2": "--num-points: got 2",
    "compare {sweep} --decomposition 1": "--decomposition: got 1",
    "compare {sweep} --columns kl,mgi": "--columns: got mgi, wanted some of nll, kl",
    "compare {sweep} --width 3": "--width: got '3', wanted column or page",
    "compare {sweep} --statistic mgi": "--statistic: got mgi, wanted some of",
    "suggest {tmp}": "No sweep in",
    "suggest {sweep} --rate -1": "--rate: got -1.0",
    "suggest {sweep} --measure pearson": "'pearson'",
    "sweep --sweep-dir {sweep} --betas 2": "a sweep over",
    "sweep --sweep-dir {tmp}/new --betas 1 1": "--beta: got [1.0, 1.0]",
    "sweep --sweep-dir {tmp}/new --betas 1 --grid beta=2": "Got beta twice",
    "sweep --sweep-dir {tmp}/new --betas 1 4 --beta 3": "Got beta twice, as --beta and as values",
    "sweep --sweep-dir {tmp}/new --seeds 0": "--seeds: got 0",
    "sweep --sweep-dir {tmp}/new --grid latnets=3": "Unknown field to vary 'latnets'",
    "sweep --sweep-dir {tmp}/new --shard 3/2": "--shard: got '3/2'",
    "sweep --sweep-dir {tmp}/new --strategy best": "--strategy: got 'best'",
    "sweep --sweep-dir {tmp}/new --members-at-once two": "'two'",
    "sweep --sweep-dir {tmp}/new --betas -1": "--beta: got -1.0",
    "sweep --sweep-dir {tmp}/new --resume": "No sweep in",
    "sweep --sweep-dir {sweep}/members/learning_rate=0.001,beta=1,seed=1": "is that of no sweep",
}


@pytest.mark.once
@pytest.mark.parametrize(("command", "message"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(swept, tmp_path, capsys, command, message):
    arguments = [part.format(tmp=tmp_path, sweep=swept) for part in command.split()]
    before = sorted(swept.rglob("*"))
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert sorted(swept.rglob("*")) == before
    assert not (tmp_path / "new").exists()
