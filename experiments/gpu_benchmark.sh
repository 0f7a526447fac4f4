#!/usr/bin/env bash
# All that is measured on a GPU, in one call of under 9 minutes: OUT=DIR experiments/gpu_benchmark.sh [--small]
#
# It wants python3 with JAX, Flax, optax and Orbax, and installs nothing. PyTorch, pytest and beartype may be missing:
# what needs them is left out, and said. --small does the same with small sizes, in two minutes on a CPU.
# Each stage has its own limit; what it printed goes to OUT/STAGE.txt, and what failed does not stop the others.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=$(mkdir -p "${OUT:-benchmark_out}" && cd "${OUT:-benchmark_out}" && pwd)
PYTHON=${PYTHON:-python3}
SMALL=; [[ ${1:-} == --small ]] && SMALL=--small
export PYTHONPATH=$PWD XLA_PYTHON_CLIENT_PREALLOCATE=false MPLBACKEND=Agg
export JAX_COMPILATION_CACHE_DIR=$OUT/.compiled JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0

stage() { # NAME SECONDS COMMAND...
	local name=$1 limit=$2 begin=$SECONDS; shift 2
	echo "== $name"
	timeout --signal=INT --kill-after=10 "$limit" "$@" > >(tee "$OUT/$name.txt") 2> "$OUT/$name.err"
	local code=$?
	wait
	echo "   exit code $code, $((SECONDS - begin)) s"
	((code)) && tail -n 3 "$OUT/$name.err"
	return 0
}

stage machine 30 bash -c 'nvidia-smi; nproc; grep -m1 "model name" /proc/cpuinfo; true'
stage tests 60 "$PYTHON" experiments/gpu_benchmark.py tests $SMALL --out "$OUT"
for precision in float32 tensorfloat32 bfloat16; do
	stage "$precision" 130 "$PYTHON" experiments/gpu_benchmark.py measure $SMALL --out "$OUT" --precision $precision
done
stage train 60 "$PYTHON" experiments/gpu_benchmark.py train $SMALL --out "$OUT"
rm -rf "$OUT/.compiled"
echo "All is in $OUT."
