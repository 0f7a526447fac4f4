import json
import sys
import tracemalloc

import pytest

from bvae_jax.errors import UserError
from bvae_jax.runs.loggers import (
    JsonLines,
    TensorBoard,
    WeightsAndBiases,
    check_installed,
    flat,
    read_records,
    send_comparison,
)


def record(step, split="train"):
    means = {"nll": 1.5 * step, "kl": 0.3, "elbo": -1.5 * step - 0.3, "kl_per_latent": [0.1, 0.2]}
    return {"step": step, "split": split} | means


def test_json_lines_drop_what_comes_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path, 0)
    for step in (10, 20, 30):
        log.log(record(step))
    log.close()
    with path.open("a") as file:
        file.write('{"step": 40, "spl')  # killed while writing
    log = JsonLines(path, 20)
    log.log(record(30))
    log.close()
    assert read_records(path) == [record(step) for step in (10, 20, 30)]
    assert len(path.read_text().splitlines()) == 3


def test_a_million_lines_are_not_read_to_go_on(tmp_path):
    """Only the end is looked at; what it ends with is dropped as from a short file."""
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(record(step)) + "\n" for step in range(1, 1001)]
    path.write_text("".join(lines) * 20 + "".join(lines[:900]) + "garbage\n")
    tracemalloc.start()
    log = JsonLines(path, 890)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    log.log(record(891))
    log.close()
    assert log.last_step == 890
    assert path.read_text() == "".join(lines) * 20 + "".join(lines[:891])
    assert peak < 100_000 < len("".join(lines) * 20)


def test_of_many_records_of_training_some_are_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written = [record(s, split) for s in range(1, 101) for split in ("train", "holdout")]
    path.write_text("".join(json.dumps(one) + "\n" for one in written))
    assert read_records(path, most=100) == written
    found = read_records(path, most=30)
    assert [r["step"] for r in found if r["split"] == "train"] == list(range(4, 101, 4))
    assert [r for r in found if r["split"] == "holdout"] == written[1::2]


def test_a_record_that_is_not_finite_is_not_written(tmp_path):
    log = JsonLines(tmp_path / "metrics.jsonl", 0)
    with pytest.raises(UserError, match="step 3 is not finite"):
        log.log({"step": 3, "split": "train", "nll": float("nan")})
    log.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_line_cut_short_is_passed_over_in_silence(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(record(10)) + '\n{"step": 20')
    assert read_records(path) == [record(10)]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "bad",
    ["garbage", '{"nll": 2}', "[1]", "", '{"step": 1, "nll": "x"}', "[" * 10**5]
    + [json.dumps(record(15)).replace(*change) for change in (("nll", "oll"), ('"kl"', '"jl"'))]
    + [json.dumps(record(15)).replace(*change) for change in (("15", "1.5"), ("[", "[[],"))],
)
def test_a_bad_line_costs_no_other(tmp_path, capsys, bad):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(record(10)), bad, json.dumps(record(20)), ""]
    path.write_text("\n".join(lines))
    assert read_records(path) == [record(10), record(20)]
    assert "lines [2] hold no record" in capsys.readouterr().err


def test_flat_names_every_number():
    means = {"nll": 3.0, "kl": 0.3, "elbo": -3.3, "kl_per_latent/0": 0.1, "kl_per_latent/1": 0.2}
    assert flat(record(2)) == means


def test_tensorboard_files_hold_the_numbers(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto import event_pb2

    log = TensorBoard(tmp_path, 0)
    log.log(record(10))
    log.log(record(20, "holdout"))
    log.close()
    (path,) = tmp_path.iterdir()
    content, values, position = path.read_bytes(), {}, 0
    while position < len(content):
        size = int.from_bytes(content[position : position + 8], "little")
        data = content[position + 12 : position + 12 + size]
        event = event_pb2.Event.FromString(data)  # pyright: ignore
        position += 12 + size + 4
        for value in event.summary.value:
            values[value.tag, event.step] = value.simple_value
    assert values["train/nll", 10] == 15.0
    assert values["holdout/nll", 20] == 30.0
    assert values["train/kl_per_latent/1", 10] == pytest.approx(0.2)


def test_weights_and_biases_gets_the_numbers_of_each_member(tmp_path, wandb):
    """Also where two are open at the same time: by default the second would be the first again."""
    config = {"beta": 4.0, "objective": "beta_vae", "network": "mlp"}
    logs = [WeightsAndBiases("project", tmp_path / name, config, "sweep") for name in "ab"]
    for step, log in zip((10, 20), logs, strict=True):
        log.log(record(step))
    for log in logs:
        log.close()
    first, second = wandb.runs
    assert first.options["id"] != second.options["id"]
    told = {"project": "project", "name": "a", "group": "sweep", "resume": "allow"}
    told |= {"config": config, "tags": ["beta_vae", "mlp"]}
    assert told.items() <= first.options.items()
    for run, step in ((first, 10), (second, 20)):
        ((at, values),) = run.logged
        assert (at, values["train/nll"], run.finished) == (step, 1.5 * step, True)


def test_a_comparison_that_cannot_be_sent_is_one_line(tmp_path, wandb, monkeypatch, capsys):
    def fail(**_):
        raise wandb.Error("No API key\nconfigured")

    wandb.init = fail
    send_comparison("project", tmp_path / "a, b", [])
    assert capsys.readouterr().err == "bvae: note: no artifact in W&B: No API key configured\n"
    monkeypatch.setitem(sys.modules, "wandb", None)
    send_comparison("project", tmp_path, [])
    assert "pip install 'bvae_jax[wandb]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("package", "extra"), [("tensorboardX", "tensorboard"), ("wandb", "wandb")]
)
def test_a_missing_package_says_what_to_install(monkeypatch, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"pip install 'bvae_jax\[{extra}\]'"):
        check_installed(tensorboard=extra == "tensorboard", wandb="p" if extra == "wandb" else None)
    check_installed(tensorboard=False, wandb=None)
