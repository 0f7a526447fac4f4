"""Compiled programs that outlive their process."""

import jax

from bvae_jax import runtime


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
