"""`python -m bvae_jax`: the same as `bvae`."""

from bvae_jax.cli import run_main

run_main()
