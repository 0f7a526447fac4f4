"""A run goes to the Hugging Face Hub and comes back, by a hub on this machine."""

import dataclasses
import shutil
import sys

import huggingface_hub
import pytest
from huggingface_hub import constants
from PIL import Image

import bvae_jax
from bvae_jax import Config, cli
from bvae_jax.evaluation.answers import Answers
from bvae_jax.export import hub as the_hub
from bvae_jax.export.card import data_name, model_card
from bvae_jax.files import write_json
from bvae_jax.runs.checkpoint import fingerprint

pytestmark = pytest.mark.usefixtures("tiny_network")

CONFIG = Config(network="tiny", image_source="rendered", batch_size=4, latents=3, steps=2,
                eval_images=16, eval_metrics="mig")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "r"
    found = bvae_jax.train(CONFIG, path, figures=False, progress=False)
    (path / "figures").mkdir()
    Image.new("L", (4, 4)).save(path / "figures" / "traversal.png")
    return found


def files(hub, name="user/name", branch="main"):
    """Of the newest commit."""
    return hub.repos[name][branch][-1]


def test_a_run_is_pushed_and_comes_back(run, hub, tmp_path, capsys):
    pushed = ["push", str(run.run_dir), "hf:user/name", "--private", "--licence", "mit"]
    assert cli.main([*pushed, "--message", "first"]) == 0
    assert capsys.readouterr().out.strip() == f"{hub.url}/user/name"
    assert (hub.messages, hub.private) == (["first"], {"user/name"})
    sent = files(hub)
    assert {"README.md", "config.json", "model.safetensors", "figures/traversal.png"} <= sent.keys()
    assert not {"provenance.json", "metrics.jsonl"} & sent.keys()
    assert not any(str(run.run_dir.parent).encode() in body for body in sent.values())

    back = bvae_jax.load("hf:user/name", data=False)
    assert fingerprint(back.params) == run.summary["params_sha256"]
    assert back.summary == run.summary
    assert not (back.run_dir / "figures" / "traversal.png").is_symlink()  # into the cache
    assert cli.main(["explore", "hf:user/name", "-o", str(tmp_path / "x.html")]) == 0


def test_what_is_left_for_a_look_is_pushed_as_it_is(run, hub, tmp_path):
    """The card may be written by hand. What the model does not have goes, other files stay."""
    run.push("hf:user/name")
    hub.repos["user/name"]["main"][-1]["LICENSE"] = b"yes"
    assert run.push("hf:user/other", out=tmp_path / "dry") == str(tmp_path / "dry")
    assert "user/other" not in hub.repos
    (tmp_path / "dry" / "README.md").write_text("# mine\n")
    shutil.rmtree(tmp_path / "dry" / "figures")
    page = bvae_jax.load(tmp_path / "dry", data=False).push("hf:user/name@v2")
    assert page == f"{hub.url}/user/name/tree/v2"
    old, new = files(hub), files(hub, branch="v2")
    assert new["README.md"] == b"# mine\n"
    assert old.keys() - new.keys() == {"figures/traversal.png"}
    assert "LICENSE" in new
    first, second = (bvae_jax.load(f"hf:user/name{at}", data=False) for at in ("", "@v2"))
    assert fingerprint(first.params) == fingerprint(second.params)
    assert first.run_dir != second.run_dir


def test_the_card_says_what_the_model_is(run, hub, tmp_path):
    directory = run.push("hf:user/name", out=tmp_path / "dry", licence="mit")
    card = huggingface_hub.ModelCard.load(f"{directory}/README.md")
    data = card.data.to_dict()
    assert (data["library_name"], data["license"]) == ("bvae_jax", "mit")
    values = {m["type"]: m["value"] for m in data["model-index"][0]["results"][0]["metrics"]}
    assert values["nll"] == pytest.approx(run.summary["nll"], abs=1e-4)
    for said in (
        "β-VAE on dSprites, β = 4",
        'bvae_jax.load("hf:user/name", data=False)',
        "Higgins et al., beta-VAE, 2017",
        f"beta_norm = {4 * 3 / 4096:.3g}",
        "Matthey, Higgins, Hassabis, Lerchner: dSprites, 2017",
        f"| NLL ↓ | {run.summary['nll']:.3f}",
        "](figures/traversal.png)",
        run.summary["params_sha256"],
    ):
        assert said in card.text
    assert "figures/samples.png" not in card.text
    assert "bvae_torch" not in card.text  # it knows no network of somebody's own
    assert "Licence of the model: mit." in card.text


def test_the_card_says_which_part_of_the_images(run, hub, tmp_path):
    config = run.config.replace(only="orientation=0", correlate="x,y=0.2", augment="flip")
    directory = dataclasses.replace(run, config=config).push("hf:user/name", out=tmp_path / "dry")
    card = huggingface_hub.ModelCard.load(f"{directory}/README.md")
    (result,) = card.data.to_dict()["model-index"][0]["results"]
    name = "dSprites (only orientation=0, correlate x,y=0.2)"
    assert result["dataset"] == {"name": name, "type": "dSprites"}
    assert f"β-VAE on {name}, β = 4" in card.text
    assert "restricted: only orientation=0, correlate x,y=0.2, augment flip" in card.text


def test_the_card_of_an_autoencoder_has_no_posterior(run, hub, tmp_path, capsys):
    """Nor β. And a name cannot write a heading of its own."""
    named = {"dataset": "folder:a\n\n# forged", "beta": None, "beta_schedule": None}
    config = run.config.replace(network="mlp", objective="ae", **named)
    summary = {name: x for name, x in run.summary.items() if name not in ("kl", "elbo", "warnings")}
    out = tmp_path / "points"
    dataclasses.replace(run, config=config, summary=summary).push("hf:user/name", out=out)
    text = (out / "README.md").read_text()
    assert (out / "bvae_torch.py").is_file()
    for said in (
        "vae = bvae_torch.load(directory)",
        "# images: [n, 1, 64, 64], float32 in [0, 1]\ncodes = vae.encode(images)  # [n, 3]\n",
        r"autoencoder on a\n\n# forged",
        "Licence of the model: none is stated.",
        "'bvae_jax[hub] @ git+https://github.com/bvae-jax/bvae_jax'",
    ):
        assert said in text
    for unsaid in ("KL", "β", "logvar", "variational", "beta-vae", "\n# forged"):
        assert unsaid not in text
    assert cli.main(["push", str(run.run_dir), "hf:user/name", "-o", str(tmp_path / "dry")]) == 0
    assert "dry: README.md, config.json, figures, model.saf" in capsys.readouterr().out


def test_the_card_of_a_member_has_the_other_seeds(run, tmp_path):
    """Of the same setting, on as many images; and scores of its own parameters alone."""
    values = {"beta": [4.0, 1.0], "seed": [0, 1, 2, 3]}
    write_json(tmp_path / "config.json", {"config": CONFIG.to_dict(), "values": values})
    members = ((4, 0, 10.0, 16), (4, 1, 11.0, 16), (4, 2, 50.0, 8), (1, 3, 99.0, 16))
    for beta, seed, nll, images in members:
        member = tmp_path / "members" / f"beta={beta},seed={seed}"
        shutil.copytree(run.run_dir, member)
        config = run.config.replace(beta=float(beta), seed=seed)
        write_json(member / "config.json", config.to_dict())
        summary = run.summary | {"nll": nll, "eval_images": images}
        write_json(member / "summary.json", summary)
    first = tmp_path / "members" / "beta=4,seed=0"
    answers = Answers(first / "evaluation.json")
    for name, of in (("mig", run.summary["params_sha256"]), ("irs", "others")):
        answers.put(name, {"score": 0.25, "n": 300}, {"params_sha256": of})
    first = bvae_jax.load(first, data=False)
    card = model_card(first, tmp_path, "user/name", None)
    assert "| NLL ↓ | 10.000 | 16 | 10.500 (10.000 to 11.000; 2 seeds) |" in card
    assert "| MIG ↑ | 0.250 | 300 |" in card
    assert "IRS" not in card
    here = model_card(first, tmp_path / "mine", None, None)  # of one that is on no Hub
    assert "hf:" not in here
    assert 'load(".", data=False)' in here


def test_own_pictures_are_named_without_their_path():
    for place in ("folder:/home/me/secret/pics", "npz:/home/me/secret/pics.npz"):
        name = data_name(Config(dataset=place))
        assert name.startswith("pics")
        assert "secret" not in name


def unfinished(hub, run, monkeypatch):
    begun = dataclasses.replace(run, config=run.config.replace(steps=9), summary=None)
    monkeypatch.setattr(the_hub, "load", lambda *_, **__: begun)


def no_token(hub, run, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)


def may_not_write(hub, run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")


def offline(hub, run, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.forget()


def no_network(hub, run, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def not_installed(hub, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)


def breaks_off(hub, run, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("Error while uploading 'model.safetensors'\nto the Hub.")

    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", fail)


def nothing(hub, run, monkeypatch):
    pass


@pytest.mark.parametrize(
    ("case", "argv", "message"),
    [
        (nothing, "traverse hf:user/none", "hf:user/none: no such model, or a private one"),
        (nothing, "traverse hf:user/real@v9", "@v9: there is no such branch, tag or commit"),
        (nothing, "traverse hf:user", "Got hf:user, wanted hf:USER/NAME or hf:USER/NAME@REVISION"),
        (nothing, "traverse hf:user/empty", "hf:user/empty has no config.json: it is no model of"),
        (nothing, "traverse hf:user/bert", "its config.json is that of something else: it is no"),
        (nothing, "traverse hf:user/bare", "hf:user/bare has no model.safetensors: it is no model"),
        (offline, "traverse hf:user/real", "cannot be reached (HF_HUB_OFFLINE is set)"),
        (no_network, "traverse hf:user/real", "not in the cache, and the Hub cannot be reached"),
        (not_installed, "traverse hf:user/real", "pip install 'bvae_jax[hub]'"),
        (nothing, "train --run-dir hf:user/name", "got an address on the Hub, wanted a directory"),
        (nothing, "push RUN user/name", "Got user/name, wanted hf:USER/NAME"),
        (nothing, "push RUN hf:user/name -o RUN", "/r is not empty: choose another directory"),
        (unfinished, "push RUN hf:user/name", "is not finished: train it on with --resume"),
        (no_token, "push RUN hf:user/name", "pushing needs a token that may write: hf auth login"),
        (may_not_write, "push RUN hf:user/name", "the token may not do that: hf auth login"),
        (offline, "push RUN hf:user/name", "HF_HUB_OFFLINE is set: nothing can be pushed"),
        (no_network, "push RUN hf:user/name", "hf:user/name: the Hub cannot be reached ("),
        (breaks_off, "push RUN hf:user/name", "the transfer failed (Error while uploading 'model"),
        (not_installed, "push RUN hf:user/name", "pip install 'bvae_jax[hub]'"),
    ],
)
def test_what_goes_wrong_is_one_line(run, hub, monkeypatch, capsys, case, argv, message):
    config = (run.run_dir / "config.json").read_bytes()
    others = {
        "real": {"config.json": config, "model.safetensors": b""},
        "empty": {},
        "bert": {"config.json": b'{"hidden_size": 768}'},
        "bare": {"config.json": config},
    }
    hub.repos = {f"user/{name}": {"main": [content]} for name, content in others.items()}
    case(hub, run, monkeypatch)
    assert cli.main([str(run.run_dir) if word == "RUN" else word for word in argv.split()]) == 2
    *_, line = capsys.readouterr().err.splitlines()  # there may be bars above it
    assert message in line


def test_without_a_network_the_cache_is_taken(run, hub, monkeypatch):
    run.push("hf:user/name")
    first = bvae_jax.load("hf:user/name", data=False)
    for case in (no_network, offline):
        case(hub, run, monkeypatch)
        again = bvae_jax.load("hf:user/name", data=False)
        assert again.run_dir == first.run_dir
