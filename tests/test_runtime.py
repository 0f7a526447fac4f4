"""Compiled programs that outlive their process."""

import os
import subprocess
import sys

import jax
import pytest

from bvae_jax import runtime

FLAGS = "--image-source rendered --batch-size 4 --steps 2 --eval-images 4 --no-figures --quiet"


def test_the_users_directory_unless_another_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("BVAE_CACHE_DIR", str(tmp_path))
    environment = {}
    runtime.set_compile_cache_default(environment)
    assert environment[runtime.CACHE_DIRECTORY].startswith(f"{tmp_path}/compiled-")
    named = {runtime.CACHE_DIRECTORY: "/elsewhere"}
    runtime.set_compile_cache_default(named)
    assert named[runtime.CACHE_DIRECTORY] == "/elsewhere"


def test_another_directory_and_none(tmp_path):
    before = jax.config.jax_compilation_cache_dir  # pyright: ignore
    try:
        runtime.use_compile_cache(str(tmp_path / "other"))
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "other")  # pyright: ignore
        runtime.use_compile_cache("off")
        assert jax.config.jax_compilation_cache_dir is None  # pyright: ignore
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def entries(directory):
    return {path.name for path in directory.rglob("*-cache")}


@pytest.mark.once
def test_a_second_process_compiles_nothing_again(tmp_path):
    """The first one uses the user's cache, the second is told where that is."""
    unset = (runtime.CACHE_DIRECTORY, runtime.CACHE_LEAST_SECONDS)
    environment = {k: v for k, v in os.environ.items() if k not in unset}
    environment["BVAE_CACHE_DIR"] = str(tmp_path)

    def train(name, *flags):
        command = [sys.executable, "-c", "from bvae_jax.cli import run_main; run_main()", "train"]
        arguments = [*FLAGS.split(), "--run-dir", str(tmp_path / name), *flags]
        return subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, timeout=300
        )

    first = train("first")
    assert (first.returncode, first.stderr) == (0, "")
    (directory,) = tmp_path.glob("compiled-*")
    found = entries(directory)
    assert found
    second = train("second", "--compile-cache", str(directory))
    assert (second.returncode, second.stderr) == (0, "")
    assert entries(directory) == found
