#!/usr/bin/env bash
# All that is to be seen on a GPU, in one call of under 9 minutes: OUT=DIR experiments/gpu_benchmark.sh [--small]
#
# It wants a python3 with JAX, Flax, optax, Orbax and jaxtyping, and installs nothing. What needs PyTorch or pytest
# is left out where they are missing. --small does the same with small sizes: some minutes on a CPU.
# Each stage has a limit; at its end what was measured so far is printed. OUT/STAGE.txt holds what a stage printed,
# OUT/*.json the times of each round. What fails does not stop the others.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p "${OUT:=benchmark_out}"
OUT=$(cd "$OUT" && pwd)
PYTHON=${PYTHON:-python3}
SMALL=()
[[ ${1:-} == --small ]] && SMALL=(--small)
export PYTHONPATH=$PWD XLA_PYTHON_CLIENT_PREALLOCATE=false MPLBACKEND=Agg
export JAX_COMPILATION_CACHE_DIR=$OUT/.compiled JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0

stage() { # NAME SECONDS COMMAND...
	local name=$1 limit=$(($2 * (${#SMALL[@]} ? 4 : 1))) begin=$SECONDS code
	shift 2
	echo "== $name"
	timeout --signal=INT --kill-after=10 "$limit" "$@" >"$OUT/$name.txt" 2>"$OUT/$name.err"
	code=$?
	cat "$OUT/$name.txt"
	((code)) && tail -n 3 "$OUT/$name.err"
	echo "-- $name: exit code $code, $((SECONDS - begin)) s"
}

ours() { # STAGE SECONDS [PRECISION]
	stage "$1${3:+-$3}" "$2" "$PYTHON" experiments/gpu_benchmark.py "$1" --out "$OUT" "${SMALL[@]}" ${3:+--precision $3}
}

stage machine 10 bash -c 'nvidia-smi; nproc; grep -m 1 "model name" /proc/cpuinfo'
ours check 35
ours tests 35
for precision in float32 tensorfloat32 bfloat16; do ours sweeps 55 $precision; done
# The same with grouped convolutions instead of batched products, which are the choice for many models.
BVAE_CONV=convolution ours grouped 40 tensorfloat32
for precision in float32 tensorfloat32 bfloat16; do ours peers 55 $precision; done
for precision in float32 tensorfloat32 bfloat16; do ours train 25 $precision; done
rm -rf "$OUT/.compiled"
echo "All is in $OUT."
