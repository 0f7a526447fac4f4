"""What is written comes back; what is damaged is one line, whatever the damage."""

import json
import os
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import pytest

from bvae_jax import cli
from bvae_jax.errors import UserError, naming_flags, say
from bvae_jax.files import (
    misfit,
    new_directory,
    read_json,
    remove_abandoned,
    write_json,
)
from bvae_jax.files.archive import (
    write_npz,
)


class Inner(TypedDict):
    number: float
    count: NotRequired[int]


class Outer(TypedDict):
    inner: list[Inner]
    text: str | None


GOOD = {"inner": [{"number": 1}, {"number": 0.5, "count": 2, "more": []}], "text": None}


@pytest.mark.parametrize(
    ("value", "shape", "said"),
    [
        (GOOD, Outer, ""),
        ({}, Outer, "it has no inner"),
        ([], Outer, "it is a list, wanted an object"),
        (GOOD | {"inner": {}}, Outer, "inner is an object, wanted a list"),
        (GOOD | {"inner": [{"number": "1"}]}, Outer, "inner.0.number is a text, wanted a number"),
        (GOOD | {"inner": [{"count": 1}]}, Outer, "inner.0 has no number"),
        (GOOD | {"text": 3}, Outer, "text is a whole number, wanted a text"),
        ({"number": True}, Inner, "number is true or false, wanted a number"),
        ({"number": 1, "count": 1.5}, Inner, "count is a number, wanted a whole number"),
        ({"a": {"b": None}}, dict[str, dict[str, int]], "a.b is null, wanted a whole number"),
        ({"a": [1, "x"]}, dict[str, Any], ""),
    ],
)
def test_what_does_not_fit_is_named(value, shape, said):
    assert misfit(value, shape) == said


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 10**5, b'{"a": ' * 10**5, b"1" * 10**5, b"null"],
)
def test_damage_is_one_line(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"file\.json is damaged: .+\. Put back a copy") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_flipped_bits_are_seen_or_change_nothing(tmp_path):
    path, value = tmp_path / "file.json", {"nll": 12.5, "kl": [1e-3, 2], "names": ["x", None]}
    write_json(path, value, checksum=True)
    assert read_json(path) == value
    content = path.read_bytes()
    for bit in range(0, 8 * len(content), 7):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            found = read_json(path)
        except UserError:
            continue
        # A key that is not called so any more is one more key, as of a file without a checksum.
        assert {name: found[name] for name in value} == value
    path.write_text(json.dumps(json.loads(content) | {"nll": 12.6}))
    with pytest.raises(UserError, match="its contents are not those of its checksum"):
        read_json(path)


def test_layout_does_not_matter_and_older_files_have_no_checksum(tmp_path):
    path, value = tmp_path / "file.json", {"b": 0.1, "a": {"2": 1, "10": [True]}}
    write_json(path, value, checksum=True)
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert read_json(path) == value
    path.write_text(json.dumps(value))
    assert read_json(path) == value


def test_links_are_replaced_and_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / "thesis").write_text("years of work")
    path = tmp_path / "file.json"
    path.symlink_to("thesis")
    (tmp_path / f".file.json.{os.getpid()}.part").symlink_to("thesis")
    (tmp_path / ".file.json.1.part").write_text("{")
    write_json(path, {"nll": 1.0})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.json", "thesis"]
    assert read_json(path) == {"nll": 1.0}
    assert (tmp_path / "thesis").read_text() == "years of work"


@pytest.mark.parametrize(
    "write", [lambda p: write_json(p, {"nll": 1.0}), lambda p: write_npz(p, nll=np.ones(9))]
)
def test_what_is_about_to_be_moved_is_not_taken_for_abandoned(tmp_path, monkeypatch, write):
    replace = Path.replace

    def while_another_writes(part, path):
        remove_abandoned(tmp_path, ".file.*.part")
        replace(part, path)

    monkeypatch.setattr(Path, "replace", while_another_writes)
    write(tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "runs" / "new"
    with new_directory(path) as part:
        write_json(part / "file.json", {})
        assert not path.exists()
    (tmp_path / "plain").mkdir()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    with (
        pytest.raises(OSError, match="not empty") as found,
        new_directory(path),
    ):  # where something is already
        pass
    assert found.value.filename == str(path)
    with pytest.raises(KeyboardInterrupt), new_directory(tmp_path / "other"):
        raise KeyboardInterrupt
    with pytest.raises(IsADirectoryError) as found:
        write_json(path, {})
    assert found.value.filename == str(path)
    assert [p.name for p in path.parent.iterdir()] == ["new"]
    assert [p.name for p in path.iterdir()] == ["file.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain", "runs"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_json_has_no_word_for_is_not_written(tmp_path, bad):
    path = tmp_path / "file.json"
    write_json(path, {"nll": 1.0})
    with pytest.raises(UserError, match=r"file\.json is not written: a number in it is not finite"):
        write_json(path, {"scores": [1.0, bad]})
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]
    assert read_json(path) == {"nll": 1.0}


def test_text_of_others_reaches_the_terminal_as_python_writes_it(capsys):
    """Names, metadata and addresses may hold line breaks, terminal codes and no UTF-8."""
    strange, shown = "é\n\x1b[31m\udce9", r"é\n\x1b[31m\udce9"
    assert str(UserError(strange)) == shown
    say(strange)
    assert capsys.readouterr().err == f"bvae: {shown}\n"
    assert cli.main(["export", f"{strange}.npz"]) == 2
    assert shown in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "called"),
    [
        ("--num-points: got 9, wanted at most 3.", "num_points: got 9, wanted at most 3."),
        ("Go on (--resume), or choose --run-dir.", "Go on (resume=True), or choose run_dir."),
        ("Try bvae export a.b --to npz; or --beta 4.", "Try bvae export a.b --to npz; or beta 4."),
        ("Start it by sbatch --array=1-N.", "Start it by sbatch --array=1-N."),
        ("No run in runs/a--lr or x.--b-c.", "No run in runs/a--lr or x.--b-c."),
        ("Own: --plugin FILE.py. a -- b, --x", "Own: --plugin FILE.py. a -- b, --x"),
    ],
)
def test_messages_name_settings_as_their_reader_does(typed, called, capsys):
    with naming_flags(False):
        assert str(UserError(typed)) == called
        say(typed)
    assert str(UserError(typed)) == typed
    say(typed)
    assert capsys.readouterr().err.splitlines() == [f"bvae: {called}", f"bvae: {typed}"]
