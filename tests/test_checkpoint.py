"""Checkpoints come back bit for bit, and what does not is noticed."""

import functools
import json
import os
import shutil
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_equal
from test_train import POOL, STEPS, draw, fresh, tiny

from bvae_jax.errors import UserError
from bvae_jax.runs import checkpoint
from bvae_jax.runs.checkpoint import Checkpoints, fingerprint
from bvae_jax.runtime import Interrupt
from bvae_jax.step import _host_loop, make_train_body


@functools.cache
def loop():
    return _host_loop(make_train_body(tiny()[1], draw))


def like():
    return jax.eval_shape(fresh)


def saved(path, steps=(0, 1, 2), keep=None):
    """States of the given steps, written to `path`."""
    state, states = fresh(), {}
    with Checkpoints(path, keep) as checkpoints:
        for step in steps:
            if step > int(state.step):
                state, _ = loop()(state, POOL, step - int(state.step))
            checkpoints.save(state, {"wall_seconds": float(step)})
            # A copy, because the next steps are given the state to write over.
            states[step] = jax.tree.map(lambda x: x.copy(), state)
    return states


def damage(directory):
    """Flip a byte in the middle of the largest file."""
    files = [p for p in directory.rglob("*") if p.is_file()]
    path = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def test_restored_training_is_bitwise_the_same(tmp_path):
    straight, _ = loop()(fresh(), POOL, STEPS)
    saved(tmp_path, [2])
    with Checkpoints(tmp_path) as checkpoints:
        state, meta = checkpoints.restore(like())
    assert int(state.step) == 2
    assert meta["wall_seconds"] == 2.0
    resumed, _ = loop()(state, POOL, STEPS - 2)
    assert_equal(resumed, straight)
    assert fingerprint(resumed) == fingerprint(straight)


def test_training_on_while_a_checkpoint_is_written(tmp_path):
    """The state is donated to the next step: what is written must be what it was."""
    states = saved(tmp_path, range(0, 40, 2))
    with Checkpoints(tmp_path) as checkpoints:
        for step, state in states.items():
            assert_equal(checkpoints.restore(like(), step=step).state, state)


def test_keeps_the_newest(tmp_path):
    saved(tmp_path, [0, 1, 2, 3], keep=2)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [2, 3]


def test_later_checkpoints_are_dropped_or_set_aside_and_no_others(tmp_path):
    """Twice of the same step, too: the one that is there already is kept."""
    path = tmp_path / "checkpoints"
    saved(path)
    shutil.copytree(path / "2", tmp_path / "2")
    for number in (0, 1):
        with Checkpoints(path) as checkpoints:
            checkpoints.set_aside_after(1)
            assert checkpoints.steps() == [0, 1]
        assert sorted(p.name for p in (tmp_path / "damaged").iterdir())[-1] == f"2-{number}"
        shutil.copytree(tmp_path / "2", path / "2")
    with Checkpoints(path) as checkpoints:
        checkpoints.drop_after(1)
        assert checkpoints.steps() == [0, 1]
    assert len([*(tmp_path / "damaged").iterdir()]) == 2


def test_nothing_to_restore(tmp_path):
    with Checkpoints(tmp_path / "none") as checkpoints:
        assert checkpoints.restore(like()) is None


def test_damaged_newest_is_named_and_the_one_before_used(tmp_path, capsys):
    states = saved(tmp_path / "checkpoints")
    damage(tmp_path / "checkpoints" / "2")
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        restored = checkpoints.restore(like())
        assert_equal(restored.state, states[1])
        assert f"checkpoint {tmp_path / 'checkpoints' / '2'} is damaged" in capsys.readouterr().err
        checkpoints.set_aside_after(1)
        assert checkpoints.steps() == [0, 1]
        state, _ = loop()(restored.state, POOL, 1)
        checkpoints.save(state, {})  # step 2 is free again
    assert (tmp_path / "damaged" / "2-0").is_dir()
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert_equal(checkpoints.restore(like()).state, states[2])


def test_damaged_metadata_cost_the_newest_checkpoint_alone(tmp_path, capsys):
    states = saved(tmp_path, [0, 1])
    path = tmp_path / "1" / "meta" / "metadata"
    content = path.read_bytes()
    words = [b"state_sha256", b"format", b"wall_seconds", b"2", b"1.0", b"checksum"]
    for place in [content.index(word) for word in words]:
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with Checkpoints(tmp_path, read_only=True) as checkpoints:
            restored = checkpoints.restore(like())
            step = int(restored.state.step)
            assert_equal(restored.state, states[step])
            assert restored.meta["wall_seconds"] == step
        if step == 0:
            assert f"checkpoint {tmp_path / '1'} is damaged" in capsys.readouterr().err
        assert step == 0 or content[place:].startswith(b"checksum")  # as of an older checkpoint


def test_older_metadata_have_no_checksum(tmp_path, capsys):
    """What they say is believed, unless the checkpoint before fits what is wanted."""
    states = saved(tmp_path, [0, 1])
    path = tmp_path / "1" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    del meta["checksum"]
    path.write_text(json.dumps(meta))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert_equal(checkpoints.restore(like()).state, states[1])
    assert capsys.readouterr().err == ""
    path.write_text(json.dumps(meta | {"format": 3}))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert_equal(checkpoints.restore(like()).state, states[0])
    assert "is damaged" in capsys.readouterr().err


def test_a_path_with_every_odd_character_that_is_not_refused(tmp_path):
    states = saved(tmp_path / "a b%20#{}|;&$'\"~:,=@^!()<é日\n\x7f", [0])
    with Checkpoints(next(tmp_path.iterdir())) as checkpoints:
        assert_equal(checkpoints.restore(like()).state, states[0])


def test_a_directory_that_was_deleted_is_not_answered_with_make_room(tmp_path):
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(UserError, match="was deleted or moved while the run was trained"):
            checkpoints.save(fresh(), {})


def test_reads_and_writes_that_end_after_a_failed_one_are_not_on_stderr(tmp_path, monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: reported.append(str(found.exc_value)))
    checkpoint._silence_late_tasks.cache_clear()
    with Interrupt(), Checkpoints(tmp_path):  # a command: the next in this process is silent, too
        pass
    for message in ("Event loop is closed", "another"):
        found = types.SimpleNamespace(exc_type=RuntimeError, exc_value=RuntimeError(message))
        sys.unraisablehook(found)  # pyright: ignore
    assert reported == ["another"]
    checkpoint._silence_late_tasks.cache_clear()  # what is patched here is undone


@pytest.mark.parametrize("loss", ["state", "meta", "all"])
def test_a_missing_part_is_damage(tmp_path, capsys, loss):
    states = saved(tmp_path)
    lost = tmp_path / "2" if loss == "all" else tmp_path / "2" / loss
    for path in sorted(lost.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert_equal(checkpoints.restore(like()).state, states[1])
    assert "is damaged" in capsys.readouterr().err


def test_all_damaged_is_an_error(tmp_path, capsys):
    saved(tmp_path, [0, 1])
    for step in "01":
        damage(tmp_path / step)
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(UserError, match=r"No checkpoint in .* can be read \(tried \[0, 1\]\)"),
    ):
        checkpoints.restore(like())
    assert capsys.readouterr().err.count("is damaged") == 2


def test_another_versions_checkpoint_is_not_called_damaged(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    saved(tmp_path, [0, 1])
    monkeypatch.undo()
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(UserError, match="another version of bvae_jax: got format 1, wanted 2"),
    ):
        checkpoints.restore(like())
    assert capsys.readouterr().err == ""


def test_a_step_that_is_not_there(tmp_path):
    saved(tmp_path, [0, 1])
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(UserError, match=r"No checkpoint of step 7 in .*; there are \[0, 1\]"),
    ):
        checkpoints.restore(like(), step=7)


def test_silent_casts_are_refused(tmp_path, capsys):
    """Orbax would read another dtype and cast it without a word."""
    state = fresh()
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.params)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state._replace(params=half), {})
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match="can be read"):
        checkpoints.restore(like())
    assert "is damaged" in capsys.readouterr().err


def test_saving_a_step_twice_is_noticed(tmp_path):
    state = fresh()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, {})
        checkpoints.wait()
        with pytest.raises(RuntimeError, match="refused to save step 0"):
            checkpoints.save(state, {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises((UserError, OSError)), Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(fresh(), {})


def test_no_room_is_known_before_anything_is_written(tmp_path, monkeypatch):
    full = types.SimpleNamespace(free=1000)
    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
        with pytest.raises(UserError, match=r"[1-9] MB needed, 0 MB free"):
            checkpoints.save(fresh(), {})
    assert not list(tmp_path.iterdir())


def test_reading_leaves_a_write_in_progress_alone(tmp_path):
    saved(tmp_path, [0])
    unfinished = tmp_path / "5.orbax-checkpoint-tmp"
    unfinished.mkdir()
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.restore(like()) is not None
    assert unfinished.exists()


def test_fingerprint_sees_every_bit_and_the_order():
    tree = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0])}
    assert fingerprint(tree) == fingerprint(dict(reversed(tree.items())))
    changed = tree | {"b": jnp.nextafter(tree["b"], jnp.float32(4))}
    assert fingerprint(changed) != fingerprint(tree)
    import hashlib

    wanted = hashlib.sha256(np.array([1, 2, 3], np.float32).tobytes()).hexdigest()
    assert fingerprint(tree) == wanted
