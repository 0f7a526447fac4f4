"""Tables say what the numbers are, in every format."""

import csv
import dataclasses
import json
import math
import re
import shutil
import subprocess
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bvae_jax.comparison import findings, tables
from bvae_jax.comparison.base import (
    CORRELATED,
    GAPS,
    Comparison,
    default_scores,
    find_scores,
    heading,
    known_scores,
)
from bvae_jax.comparison.compare import _wandb_project, write_tables
from bvae_jax.comparison.figures import draw_comparison
from bvae_jax.comparison.matching import representatives
from bvae_jax.comparison.statistics import Interval, interval, pair_tests, sentence, wide
from bvae_jax.comparison.tables import Cell, Table, explanation, latex, texts, to_latex
from bvae_jax.config import Config
from bvae_jax.errors import UserError
from bvae_jax.files import write_json
from bvae_jax.metrics import METRICS
from bvae_jax.metrics.scoring import jsonable
from bvae_jax.plots import style
from bvae_jax.runs import rundir

NAN = math.nan
SCORES = ("mig", "nll", "kl", "odd_100%")
BETTER = {"mig": "high", "nll": "low", "kl": ""}


def comparison(betas=(1, 4, 16), seeds=6, scores=SCORES, better=BETTER, **more) -> Any:
    """MIG is best at 4, the NLL at 1; the last score is noise."""
    rng = np.random.default_rng(0)
    settings = tuple(f"β = {beta}" for beta in betas)
    means = {"mig": [0.1, 0.4, 0.39], "nll": [50, 60, 90], "kl": [30, 20, 5]}
    rows = {
        f"beta={beta},seed={seed}": {
            "setting": f"β = {beta}",
            "beta": beta,
            "seed": seed,
            **{s: means.get(s, [0.5])[n % len(means.get(s, "x"))] for s in scores},
        }
        for n, beta in enumerate(betas)
        for seed in range(seeds)
    }
    members: Any = pd.DataFrame.from_dict(rows, orient="index")
    noise = [1.0 if s in ("nll", "kl") else 0.02 for s in scores]
    members[list(scores)] = members[list(scores)] + noise * rng.normal(
        size=(len(members), len(scores))
    )
    given = {
        "sweeps": (), "varied": ("beta",), "settings": settings,
        "members": members, "scores": scores, "better": better,
        "baselines": pd.DataFrame(columns=["baseline", *scores]), "kl_per_latent": {},
        "factor_scores": pd.DataFrame(), "records": {}, "run_dirs": {}, "failed": {}, "missing": (),
    }  # fmt: skip
    return Comparison(**(given | more))


def with_baselines(**more):
    baselines = pd.DataFrame(
        {
            "baseline": ["raw_pixels", "untrained", "untrained", "untrained", "without a score"],
            "mig": [0.05, 0.02, 0.03, 0.04, NAN],
            "nll": [NAN] * 5,
            "kl": [NAN] * 5,
            "odd_100%": [0.5, 0.4, NAN, 0.3, NAN],
        }
    )
    return comparison(baselines=baselines, **more)


def in_words(given):
    return findings.statistics_text(findings.statistics_of(given).values())


def cells_of(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


# The table


def test_cells_are_intervals_with_marks():
    given = with_baselines()
    table = tables.make_table(given, "iqm")
    frame = wide(given.members, "mig", given.settings)
    for setting in given.settings:
        cell = table.rows[setting]["mig"]
        assert cell.interval == interval(frame[setting].to_numpy(), average="iqm")
    marks = {s: {k: (c.best, c.tied) for k, c in row.items()} for s, row in table.rows.items()}
    assert marks["β = 1"]["mig"] == (False, False)
    assert {marks[s]["mig"] for s in given.settings[1:]} == {(True, False), (False, True)}
    assert marks["β = 1"]["nll"] == (True, False)
    assert not any(sum(marks[s]["kl"]) + sum(marks[s]["odd_100%"]) for s in given.settings)
    assert table.seeds == dict.fromkeys(given.settings, 6)
    assert list(table.baselines) == ["raw_pixels", "untrained"]
    assert table.baselines["raw_pixels"]["mig"].interval[0::3] == (0.05, 1)
    assert table.baselines["untrained"]["odd_100%"].interval.n == 2
    assert table.baselines["untrained"]["nll"].interval.n == 0


def test_the_best_is_bold_by_the_average_that_is_shown():
    given = comparison(better=BETTER | {"odd_100%": "low"})
    given.members.loc["beta=4,seed=0", "odd_100%"] = -9.0
    averages: Any = ("mean", "iqm")
    bold = []
    for average in averages:
        rows = tables.make_table(given, average).rows
        centers = {s: row["odd_100%"].interval.center for s, row in rows.items()}
        bold += [s for s, row in rows.items() if row["odd_100%"].best]
        assert bold[-1] == min(centers, key=lambda s: centers[s])
    assert bold == ["β = 4", "β = 16"]


def test_left_out_members_and_missing_numbers():
    given = comparison(
        failed={"beta=1,seed=9": "nan in the loss"}, missing=("beta=4,seed=8", "beta=4,seed=9")
    )
    given.members.loc["beta=4,seed=2", "mig"] = NAN
    given.members.loc[given.members.setting != "β = 4", "nll"] = NAN
    table = tables.make_table(given)
    assert table.rows["β = 4"]["mig"].interval.n == 5
    assert table.rows["β = 1"]["nll"].interval.n == 0
    assert not any(row["nll"].best or row["nll"].tied for row in table.rows.values())
    shown = tables.to_markdown(table)
    alike = "`beta=4,seed=8`, `beta=4,seed=9` (missing or not finished)"
    assert f"Left out: `beta=1,seed=9` (nan in the loss); {alike}." in shown
    assert "] (n = 5)" in shown.replace("**", "").replace(r"\*", "")
    assert cells_of(shown.splitlines()[2])[3] == "–"


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("betas", [(4,), range(1, 11)])
def test_tables_of_one_seed_and_of_one_or_many_settings(betas, seeds, tmp_path):
    given = comparison(betas=betas, seeds=seeds)
    table = tables.make_table(given)
    assert len(write_tables(table, table, tmp_path / "new", given.varied)) == 3
    assert len(table.rows) == len(betas)
    marked = any(cell.best for row in table.rows.values() for cell in row.values())
    assert marked == (len(betas) > 1)
    few, body, _ = tables.to_markdown(table).split("\n\n")
    assert few.startswith("One seed of " if seeds == 1 else f"Few seeds (n = {seeds}): ")
    assert "[" not in body
    assert ("(" in body) == (seeds > 1)
    assert in_words(given).count("nothing can be said") == (
        len(SCORES) * math.comb(len(betas), 2) * (seeds == 1)
    )
    json.dumps(findings.statistics_json(given, findings.statistics_of(given)), allow_nan=False)


def test_tables_without_members():
    given = comparison(missing=("beta=1,seed=0",))
    empty = comparison(members=given.members[:0], missing=("beta=1,seed=0",))
    table = tables.make_table(empty)
    assert set(table.seeds.values()) == {0}
    assert "not finished" in tables.to_markdown(table)
    to_latex(table, caption="", label="x")
    in_words(empty)
    json.dumps(findings.statistics_json(empty, findings.statistics_of(empty)), allow_nan=False)


# CSV


def test_csv_has_every_digit(tmp_path):
    given = with_baselines()
    table = tables.make_table(given)
    write_tables(table, table, tmp_path, given.varied)
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["setting"] for row in rows] == [*given.settings, "raw_pixels", "untrained"]
    assert [row["kind"] for row in rows] == ["setting"] * 3 + ["baseline"] * 2
    assert [row["n"] for row in rows] == ["6", "6", "6", "1", "3"]
    for row in rows:
        cells = (table.rows | table.baselines)[row["setting"]]
        for score, cell in cells.items():
            names = (score, f"{score}_low", f"{score}_high")
            found = [float(row[name] or "nan") for name in names]
            np.testing.assert_array_equal(found, cell.interval[:3])
            assert row[f"{score}_n"] == str(cell.interval.n)
            assert row[f"{score}_mark"] == ("best" if cell.best else "tied" if cell.tied else "")


# Markdown


def test_markdown_cells():
    given = with_baselines()
    table = tables.make_table(given)
    lines = tables.to_markdown(table).splitlines()
    assert cells_of(lines[0]) == ["setting", "n", "MIG ↑", "NLL ↓", "KL", "odd 100%"]
    assert {len(cells_of(line)) for line in lines[:7]} == {2 + len(SCORES)}
    rows = {cells_of(line)[0]: cells_of(line)[1:] for line in lines[2:7]}
    low = table.rows["β = 1"]
    c, a, b, _ = low["mig"].interval
    assert rows["β = 1"][:2] == ["6", f"{c:.3f} [{a:.3f}, {b:.3f}]"]
    c, a, b, _ = low["nll"].interval
    assert rows["β = 1"][2] == f"**{c:.2f} [{a:.2f}, {b:.2f}]**"
    marks = {rows["β = 4"][1][-2:], rows["β = 16"][1][-2:]}
    assert marks == {"**", r"]\*"[-2:]}
    assert rows["raw pixels (baseline)"] == ["1", "0.050", "–", "–", "0.500"]
    assert rows["untrained encoder (baseline)"][-1] == "0.350 (0.400, 0.300) (n = 2)"


def test_few_seeds_stand_in_the_table():
    given = comparison(seeds=4)
    given.members.loc["beta=4,seed=3", "mig"] = NAN
    table = tables.make_table(given)
    assert table.remarks[0].startswith("Few seeds (n = 4): in brackets are the seeds themselves")
    few = given.members[given.members.setting == "β = 4"]["mig"].dropna()
    numbers = ", ".join(f"{value:.3f}" for value in few)
    text = " ".join(texts(table, "mig", table.rows["β = 4"]["mig"]))
    assert text == f"{few.mean():.3f} ({numbers})"
    assert "Mean over n seeds; in brackets the seeds." in explanation(table)[0]
    assert not tables.make_table(comparison(seeds=5)).remarks
    equal = comparison(seeds=5)
    equal.members["mig"] = 0.25
    table = tables.make_table(equal)
    assert texts(table, "mig", table.rows["β = 4"]["mig"]) == ("0.250", "[all equal]")


def test_intervals_end_where_scores_end():
    ranges = {"mig": (0.0, 1.0), "nll": (0.0, math.inf)}
    given = comparison(seeds=5, ranges=ranges)
    given.members["mig"] = given.members["mig"] * np.tile([0, 0, 0, 0, 2.4], 3)
    free = tables.make_table(comparison(seeds=5, members=given.members)).rows["β = 4"]["mig"]
    cell = tables.make_table(given).rows["β = 4"]["mig"]
    assert free.interval.low < 0
    assert cell.interval == free.interval._replace(low=0)
    two = comparison(seeds=2, ranges=ranges)
    two.members["mig"] = [0.9, 0.1, 0.2, 0.6, 0.3, 0.3]
    pair = findings.statistics_of(two)["mig"].pairs[0]
    assert (pair.low, pair.high) == (-1, 1)


def test_a_baseline_that_no_setting_exceeds_is_named():
    baselines = pd.DataFrame(
        {
            "baseline": ["ica", "pca", "untrained", "true factors"],
            "mig": [0.6, 0.55, 0.1, 0.9],
            "nll": [NAN, NAN, NAN, NAN],
            "odd_100%": [0.1, 0.2, 0.3, 0.0],
        }
    )
    better = BETTER | {"odd_100%": "low"}
    given = comparison(baselines=baselines.reindex(columns=["baseline", *SCORES]), better=better)
    (said,) = tables.make_table(given).remarks
    assert said == "No setting exceeds ICA in MIG, odd 100%."
    assert tables.to_markdown(tables.make_table(given)).startswith(said + "\n\n|")
    best = max(row["mig"].interval.center for row in tables.make_table(given).rows.values())
    equal = given.baselines[given.baselines.baseline == "ica"].replace(0.6, best)
    (said,) = tables.make_table(comparison(baselines=equal, better=better)).remarks
    assert said == "No setting exceeds ICA in MIG, odd 100%."
    lower = given.baselines[given.baselines.baseline != "ica"].replace(0.55, 0.2).replace(0.3, 0.9)
    lower["odd_100%"] = 0.9
    assert not tables.make_table(comparison(baselines=lower, better=better)).remarks


def test_runs_with_a_warning_are_counted():
    dead, codebook = {"no active latents": "a line"}, {"unused codebook": "a line"}
    warnings = {"beta=4,seed=0": dead, "beta=4,seed=3": dead | codebook, "beta=1,seed=2": codebook}
    assert tables.make_table(comparison(warnings=warnings)).warned == {
        "β = 1": "unused codebook (1 of 6 runs)",
        "β = 4": "no active latents (2 of 6 runs), unused codebook (1 of 6 runs)",
    }


def test_training_that_was_not_at_its_end_is_said():
    def records(last):
        elbo = [-100.0] * 90 + [last] * 10
        return [{"step": k, "split": "train", "elbo": e} for k, e in enumerate(elbo, 1)]

    names = [f"beta={beta},seed={seed}" for beta in (1, 4, 16) for seed in range(6)]
    rises = {name: records(-95.0 if "beta=4" in name else -100.01) for name in names}
    (said,) = tables.make_table(comparison(records=rises)).remarks
    assert said.endswith("in its last tenth the ELBO still rose for β = 4 by 5 nats.")
    few = {name: of[-2:] if "beta=4" in name else of[-1:] for name, of in rises.items()}
    few = {name: [few[0] | {"elbo": -220.4}, *few[1:]] for name, few in few.items()}
    alone, rising = tables.make_table(comparison(records=few)).remarks
    assert alone == "Whether training was at its end, one record cannot say: β = 1, β = 16."
    assert rising.endswith(
        "between its last two records the ELBO still rose for β = 4 by 125 nats."
    )


def test_markdown_says_what_it_shows():
    few = tables.to_markdown(tables.make_table(comparison(seeds=3)))
    many = tables.to_markdown(tables.make_table(comparison(seeds=5), "iqm"))
    assert "\nMean over n seeds; in brackets the seeds. " in few
    assert "\nInterquartile mean over n seeds and its 95 % interval" in many
    assert "(Student's t with bootstrap standard errors)" in many
    assert r"Bold: the best setting; \*: not told apart from it (paired t tests" in many
    one = tables.make_table(comparison(seeds=1))
    assert one.remarks == ["One seed of each setting: that they differ may be chance."]
    assert "\nMean over n seeds. Bold: the best setting; ‡: not tested, " in tables.to_markdown(one)
    assert not [text for text in explanation(one) if "old apart" in text]
    mixed = comparison(seeds=3, images="Of 7 images.")
    few = mixed.members["setting"].eq("β = 16") & mixed.members["seed"].gt(0)
    mixed = dataclasses.replace(mixed, members=mixed.members[~few])
    shown = tables.to_markdown(tables.make_table(mixed))
    assert "(paired t tests, Holm-corrected for all pairs, α = 0.05); ‡: not tested, for" in shown
    assert " Of 7 images. Bold" in shown
    assert r"$^{\ddagger}$" in to_latex(tables.make_table(mixed), caption="", label="")
    plain = tables.to_markdown(tables.make_table(comparison(better={})))
    assert "best" not in plain
    assert "**" not in plain
    assert "Left out" not in plain


def test_markdown_of_hostile_names():
    given = comparison(scores=("a|b", "*c*"), better={})
    given = comparison(
        scores=("a|b", "*c*"), better={}, failed={"m": "a | b\n<b>"}, members=given.members
    )
    shown = tables.to_markdown(tables.make_table(given))
    assert cells_of(shown.splitlines()[0]) == ["setting", "n", r"a\|b", r"\*c\*"]
    assert r"`m` (a \| b \<b>)" in shown
    hostile = "_$a_{$_ [b](c) ~~d~~ &lt; snake_case _ 1 < 2"
    wanted = r"\_\$a\_{\$\_ [b\](c) \~\~d\~\~ \&lt; snake_case \_ 1 < 2"
    assert tables.markdown(hostile) == wanted


def test_a_legend_may_explain_the_marks():
    average, tests, weighed = explanation(tables.make_table(comparison()))
    assert average.startswith("Mean over n seeds and its 95 % interval")
    assert tests == ("Told apart by paired t tests, Holm-corrected for all pairs, α = 0.05.")
    assert weighed == "No best in KL: objectives weigh them."
    assert len(explanation(tables.make_table(comparison(better={})))) == 1


def test_two_total_correlations_are_told_apart():
    table = tables.make_table(comparison())
    names = ("total_correlation", "unsupervised/gaussian_total_correlation")
    assert "opposite ways" in explanation(table._replace(columns=names))[-1]
    assert "opposite ways" not in explanation(table._replace(columns=names[:1]))[-1]


def test_numbers_of_a_score_have_as_many_decimals():
    ends = {
        "a": Interval(0.5, -0.00001, 1.00001, 5),
        "b": Interval(1.25, NAN, NAN, 1),
        "c": Interval(1 + 1e-9, NAN, NAN, 1),  # 1 but for rounding
    }
    three, two = ("0.500", "[0.000, 1.000]"), ("0.50", "[0.00, 1.00]")
    for names, wanted in (("a", three), ("ab", two), ("ac", three)):
        rows = {name: {"x": Cell(ends[name])} for name in names}
        table = Table("mean", ("x",), rows, {}, dict.fromkeys(names, 5), {})
        assert texts(table, "x", rows["a"]["x"]) == wanted
        assert texts(table, "x", Cell(Interval(NAN, NAN, NAN, 0))) == ("–", "")


# LaTeX


def assert_balanced(tex):
    """Braces and environments close in order; no special character is left unescaped."""
    depth = 0
    plain = re.sub(r"\\[\\_%&#${}]", "", "\n".join(re.sub(r"(?<!\\)%.*", "", tex).splitlines()))
    for character in plain:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert plain.count("$") % 2 == 0
    text = re.sub(r"\$[^$]*\$", "", plain)
    text = re.sub(r"\\label\{[^}]*\}", "", text)
    assert not re.search(r"[_#^~αβγλ]", text)
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", tex):
        opened.append(name) if kind == "begin" else None
        assert kind == "begin" or opened.pop() == name
    assert opened == []


def tabulars(tex):
    """Rows of cells of each tabular."""
    bodies = re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", tex, re.DOTALL)
    for columns, body in bodies:
        body = re.sub(
            r"\\scriptsize ?\\shortstack\{(.*?)\}(?= &| \\\\)",
            lambda m: m[1].replace(r"\\", ""),
            body,
        )
        body = re.sub(r"\\(toprule|midrule|bottomrule|addlinespace\[2pt\])", "", body)
        rows = [row for row in body.split(r"\\") if row.strip()]
        yield len(columns), [[c.strip() for c in re.split(r"(?<!\\)&", row)] for row in rows]


def test_latex_cells():
    given = with_baselines()
    table = tables.make_table(given)
    tex = to_latex(table, caption=r"On $x$.", label="tab:x")
    assert_balanced(tex)
    assert tex.startswith("% Needs \\usepackage{booktabs,graphicx}.\n")
    assert r"\caption{On $x$. Mean over n seeds and its 95 \% interval" in tex
    assert r"{*}: not told apart from it" in tex
    assert r"\label{tab:x}" in tex
    ((columns, rows),) = tabulars(tex)
    assert {len(row) for row in rows} == {columns} == {6}
    assert rows[0] == ["", "$n$", r"MIG $\uparrow$", r"NLL $\downarrow$", "KL", r"odd 100\%"]
    c, a, b, _ = table.rows["β = 1"]["nll"].interval
    assert rows[1][:2] == [r"$\beta$ = 1", "6"]
    assert rows[1][3] == rf"\textbf{{{c:.2f}}}"
    assert rows[2][3] == rf"{{\scriptsize [{a:.2f},}}"
    assert rows[3][3] == rf"{{\scriptsize {b:.2f}]}}"
    assert rows[2][:2] == rows[3][:2] == ["", ""]
    bold, starred = sorted((rows[4][2], rows[7][2]), key=lambda text: "*" in text)
    assert re.fullmatch(r"\\textbf\{0\.\d{3}\}", bold)
    assert re.fullmatch(r"0\.\d{3}\$\^\{\*\}\$", starred)
    below = tex.split(r"\midrule")
    assert len(below) == 3
    assert "raw pixels" in below[2]
    assert rows[-4][-1] == "0.350"
    assert [row[2] for row in rows[-3:]] == [
        rf"{{\scriptsize {part}}}" for part in ("(0.020,", "0.030,", "0.040)")
    ]
    assert rows[-1][-1] == r"{\scriptsize (n = 2)}"
    page = to_latex(table, caption="", label="x", width="page")
    assert r"\begin{table*}" in page
    ((_, rows),) = tabulars(page)
    assert rows[2][3] == rf"{{\scriptsize [{a:.2f}, {b:.2f}]}}"
    assert rows[-2][2] == r"{\scriptsize (0.020, 0.030,}"


def test_a_row_without_a_number_is_in_the_csv_alone():
    given = with_baselines(missing=("beta=1,seed=0",))
    members = given.members[given.members.setting != "β = 1"]
    given = dataclasses.replace(given, members=members)
    shown = tables.make_table(dataclasses.replace(given, scores=("nll", "kl")))
    tex, text = to_latex(shown, caption="", label="x"), tables.to_markdown(shown)
    for written in (tex, text):
        assert not any(name in written for name in ("$\\beta$ = 1 ", "| β = 1 |", "pixels", "untr"))
    assert "β = 1" in set(tables.to_frame(shown)["setting"])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex: install TeX Live")
def test_latex_compiles_and_fits(tmp_path):
    """In a column of two and on a page, with every name that a score can have."""
    scores = tuple(known_scores(METRICS))
    names = {f"β = {beta}": f"objective = beta_tcvae, β = {beta}" for beta in (1, 4, 16)}
    given = comparison(scores=scores, better=known_scores(METRICS))
    members = given.members.assign(setting=given.members.setting.replace(names))
    given = dataclasses.replace(given, members=members, settings=tuple(names.values()))
    six = dataclasses.replace(given, scores=default_scores(scores))
    lines = [r"\documentclass[twocolumn]{article}\usepackage{booktabs,graphicx}"]
    lines += [r"\errorcontextlines=9\hfuzz=0pt\begin{document}"]
    for width in ("column", "page"):
        for each in (six, given):
            lines += [to_latex(tables.make_table(each), caption="All.", label="x", width=width)]
    (tmp_path / "paper.tex").write_text("\n".join([*lines, r"\end{document}"]))
    command = ["pdflatex", "-interaction=batchmode", "-halt-on-error", "paper.tex"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=True)
    log = (tmp_path / "paper.log").read_text(errors="replace")
    assert "Overfull" not in log
    assert "Undefined" not in log


def test_columns_are_found_by_their_metrics_and_have_names():
    known = known_scores(METRICS)
    assert find_scores(["dci", "kl", "mig", "kl"], known, "--columns") == (
        "dci/disentanglement", "kl", "mig",
    )  # fmt: skip
    for typed, got in ((["nll", "mgi"], "mgi"), ([], "none")):
        with pytest.raises(UserError, match=rf"--columns: got {got}, wanted some of nll, kl"):
            find_scores(typed, known, "--columns")
    fast = [name for name in known if "dci" not in name and name not in GAPS | CORRELATED]
    assert default_scores(fast) == ("nll", "kl", "elbo", "factor_vae_score", "mig", "sap_r2")
    assert default_scores(known)[:4] == ("nll", "kl", "nll_gap", "mse_gap")
    assert default_scores(["a", "b"]) == ("a", "b")
    headings = [heading(name, better) for name, better in known.items()]
    assert not any(re.search("[_/]", text) for text in headings)
    assert {"NLL ↓", "KL", "ELBO ↑", "MIG ↑", "DCI ↑", "active latents"} <= set(headings)


def test_latex_escapes_everything():
    given = comparison()
    hostile = r"50%_&#${}~^\ <>| λ, α"
    names = {"β = 1": f"[{hostile}", "β = 4": f"*{hostile}"}
    members = given.members.assign(setting=given.members.setting.replace(names))
    settings = (*names.values(), "β = 16")
    given = comparison(members=members, settings=settings, failed={"m%": f"why\n{hostile}"})
    tex = to_latex(tables.make_table(given), caption="", label="x")
    assert_balanced(tex)
    assert "Left out: 1 of the runs." in tex
    assert not any(line.lstrip().startswith(("[", "*")) for line in tex.splitlines())
    wanted = r"50\%\_\&\#\$\{\}\textasciitilde{}\textasciicircum{}\textbackslash{} $<$$>$$|$"
    assert latex(hostile) == wanted + r" $\lambda$, $\alpha$"
    assert latex("$a_{$ εΣς") == r"\$a\_\{\$ $\epsilon$$\Sigma$$\varsigma$"


def test_minus_signs_are_math_in_latex_and_zero_has_none():
    cell = Cell(Interval(-0.0001, -0.5, 0.25, 5), best=False, tied=False)
    table = Table("mean", ("x",), {"a": {"x": cell}}, {}, {"a": 5}, {})
    tex = to_latex(table, caption="", label="x")
    assert "a & 5 & 0.000 \\\\" in tex
    assert r"{\scriptsize [$-$0.500,}" in tex


# Files and statistics


def test_files(tmp_path):
    given = with_baselines()
    table = tables.make_table(given, "iqm")
    shown = tables.make_table(dataclasses.replace(given, scores=("kl", "mig")), "iqm")
    paths = write_tables(table, shown, tmp_path, given.varied)
    assert [path.name for path in paths] == ["table.csv", "table.md", "table.tex"]
    assert set(SCORES) <= set(pd.read_csv(paths[0]))
    assert paths[1].read_text(encoding="utf-8") == tables.to_markdown(shown)
    assert r"\caption{Scores by $\beta$. Interquartile" in paths[2].read_text(encoding="utf-8")


def test_statistics_in_words():
    given = comparison()
    text = in_words(given)
    assert re.findall("^## (.*)$", text, re.MULTILINE) == list(SCORES)
    for score in SCORES:
        for test in pair_tests(wide(given.members, score, given.settings)):
            assert f"- {sentence(test, score)}.\n" in text
    assert "- Best on average (low is better): β = 1; all others are told apart from it.\n" in text
    assert "In resamples of the seeds, which are no test, best is β = 1 in 100%; Kend" in text
    assert "; noise alone gives the setting 12% on average, and in 1 of 20 cases 33% or" in text
    assert text.count("Sum of squares: setting ") == len(SCORES)
    assert text.count("Best on average") == 2
    only = findings.statistics_text([findings.statistics_of(given)["kl"]])
    assert re.findall("^## (.*)$", only, re.MULTILINE) == ["kl"]


def test_two_seeds_are_not_resampled():
    """All resamples of two seeds may agree where no test tells anything apart."""
    given = comparison(seeds=4)
    assert "resamples" not in in_words(given)
    assert findings.statistics_of(given)["mig"].ranks is None
    five = comparison(seeds=5)
    assert findings.statistics_of(five)["mig"].ranks
    five.members.loc["beta=4,seed=2":"beta=4,seed=4", "mig"] = NAN
    assert findings.statistics_of(five)["mig"].ranks is None


@pytest.mark.parametrize("average", ["mean", "iqm"])
def test_the_table_and_the_sentences_agree(average):
    """On the best and on what is told apart from it, in settings that hardly differ."""
    told = 0
    for key in range(8):
        given = comparison(betas=range(1, 7), better={"mig": "high"})
        rng = np.random.default_rng(key)
        given.members["mig"] = np.repeat([0, 0, 0, 1, 1, 1.5], 6) + 0.3 * rng.normal(size=36)
        rows = tables.make_table(given, average).rows
        marks = {name: (row["mig"].best, row["mig"].tied) for name, row in rows.items()}
        found = findings.statistics_of(given, average)["mig"]
        best = next(name for name, (first, _) in marks.items() if first)
        assert found.best == best
        for test in found.pairs:
            if best in (test.a, test.b):
                other = test.b if test.a == best else test.a
                assert ("cannot be told apart" in sentence(test, "mig")) == marks[other][1]
                told += not marks[other][1]
    assert 0 < told < 8 * 5


def test_statistics_as_json():
    given = comparison()
    given.members.loc[given.members.setting == "β = 4", "kl"] = (
        given.members.loc[given.members.setting == "β = 1", "kl"].to_numpy() - 1
    )
    given.members.loc[given.members.setting == "β = 16", "kl"] = NAN
    found = json.loads(
        json.dumps(findings.statistics_json(given, findings.statistics_of(given)), allow_nan=False)
    )
    assert list(found["scores"]) == list(SCORES)
    mig = found["scores"]["mig"]
    tests = pair_tests(wide(given.members, "mig", given.settings))
    assert mig["pairs"] == [test._asdict() for test in tests]
    assert {mig["best"], *mig["tied"]} == {"β = 4", "β = 16"}
    assert mig["ranks"]["best_share"]["β = 1"] == 0
    assert sum(mig["variance"].values()) == pytest.approx(1)
    kl = found["scores"]["kl"]
    assert (kl["best"], kl["tied"], kl["ranks"]) == (None, [], None)
    assert kl["pairs"][0]["effect"] is None
    assert kl["pairs"][1]["p"] is None
    assert found["agreement"]["mig"]["mig"] == 1
    assert found["agreement_runs"] == 18
    assert mig == jsonable(findings.statistics_of(given)["mig"], nan=None)
    assert mig["score"] == "mig"


def test_nobody_knows_less_than_nothing_of_a_factor_or_more_than_all():
    given = comparison(betas=(1, 4), seeds=5)
    shares = [1.0, 1.0, 1.0, 1.0, 0.9, 0.0, 0.0, 0.0, 0.0, 0.1]
    factors = pd.DataFrame({"x": shares}, index=given.members.index)
    (found,) = findings.kept(dataclasses.replace(given, factor_scores=factors))
    assert (found.best, found.lost) == ("β = 1", "β = 4")
    assert 0.9 < found.most.low < found.most.high == 1
    assert 0 == found.share.low < found.share.high < 0.1


def test_all_that_is_found_is_json():
    found = jsonable(
        {"a": Interval(NAN, -math.inf, 2.5, 3), 4: (np.float32(0.5), np.arange(2))}, nan=None
    )
    assert found == {"a": {"center": None, "low": "-inf", "high": 2.5, "n": 3}, "4": [0.5, [0, 1]]}
    values = [None, True, "β", np.bool_(False), np.int64(7), np.array([[NAN]]), {}]
    assert jsonable(values, nan=None) == [None, True, "β", False, 7, [[None]], {}]
    json.dumps(jsonable(values, nan=None), allow_nan=False)


def test_a_run_is_chosen_by_no_score_of_other_parameters(tmp_path):
    """As those of a run that was trained on, nor by one that cannot be read."""
    given = comparison(betas=(1,), seeds=3, scores=("nll",))
    given.members["nll"] = [1.0, 2.2, 2.1]
    run_dirs = {str(name): tmp_path / str(name) for name in given.members.index}
    given = dataclasses.replace(given, run_dirs=run_dirs)

    def chosen(params_sha256):
        for run_dir, score in zip(run_dirs.values(), (0.1, 0.2, 0.6), strict=True):
            run_dir.mkdir(exist_ok=True)
            summary = {"step": 4, "nll": 1.0, "params_sha256": "new"}
            write_json(run_dir / "summary.json", summary)
            entry = {"score": score, "request": {"params_sha256": params_sha256}}
            write_json(run_dir / "evaluation.json", {"mig": entry})
        return representatives(given)["β = 1"]

    assert chosen("new") == "beta=1,seed=1", "by the MIG"
    assert chosen("old") == "beta=1,seed=2", "by the nll"
    assert chosen("new") == "beta=1,seed=1"
    (tmp_path / "beta=1,seed=0" / "evaluation.json").write_text("{")
    assert representatives(given)["β = 1"] == "beta=1,seed=2"


def test_a_comparison_of_runs_for_many_betas_is_sent_where_these_were_logged(tmp_path):
    whole = tmp_path / "members" / "seed=0"
    whole.mkdir(parents=True)
    write_json(whole / "config.json", Config(multi_rate="1:16").to_dict())
    rundir.add_session(whole, 0, sweep={"strategy": "vmap", "members_at_once": 1, "wandb": "mine"})
    run_dirs = {f"beta={beta}": whole / f"beta={beta}" for beta in (1, 16)}
    assert _wandb_project(comparison(run_dirs=run_dirs)) == "mine"


@pytest.mark.parametrize(("average", "name"), [("mean", "mean"), ("iqm", "interquartile mean")])
def test_the_figure_of_scores_says_which_average_it_shows(tmp_path, monkeypatch, average, name):
    given = comparison()
    given = dataclasses.replace(given, records={str(each): [] for each in given.members.index})
    legends = []
    monkeypatch.setattr(style, "fit", lambda figure, *_: legends.extend(figure.legends))
    monkeypatch.setattr(style, "save", lambda *_: None)
    draw_comparison(given, findings.statistics_of(given), tmp_path, average, ["mig"], None)
    said = [[text.get_text() for text in legend.get_texts()] for legend in legends]
    assert said[0] == ["a seed", f"{name}, 95% interval"]


def test_figures_over_seeds_want_two_of_a_setting(tmp_path):
    one, two = (comparison(seeds=seeds, scores=("mig",)) for seeds in (1, 2))
    one = dataclasses.replace(one, members=one.members.assign(seed=[0, 1, 2]))
    over_seeds = {"variance", "profiles"}
    for given, wanted in ((one, set()), (two, over_seeds)):
        given = dataclasses.replace(given, records={str(name): [] for name in given.members.index})
        drawn = draw_comparison(
            given, findings.statistics_of(given), tmp_path, "mean", ["mig"], None
        )
        assert {each.path.name for each in drawn} & over_seeds == wanted
