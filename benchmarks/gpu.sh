#!/usr/bin/env bash
# What is to be seen of a GPU, stage after stage, into OUT/results.jsonl; what is done is passed over.
#
#   bash benchmarks/gpu.sh OUT [speed] [correct] [tests] [peers] [published]
#
# It needs Python >= 3.11 with JAX for the GPU, Flax, optax, Orbax, jaxtyping, scikit-learn, pandas and
# matplotlib; pytest-xdist and tyro for `tests`, PyTorch for `peers`. PYTHON is the interpreter, JOBS how
# many processes there are at a time, LIMIT the seconds of a stage, NETWORK what is measured, MEMBERS
# the sizes of sweeps, QUICK further flags, as "--steps 4 --points 512" to see whether it works. DRY=1
# only says what it would do.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "$1" && cd "$1" && pwd) && shift
network=${NETWORK:-locatello}
export PYTHON=${PYTHON:-python3} OUT=$out
export XLA_PYTHON_CLIENT_PREALLOCATE=false PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=3

one() {  # a job: arguments of benchmarks.gpu
    local mark="$OUT/done/${*// /_}"
    [ -e "$mark" ] && return
    mkdir -p "$OUT/done" "$OUT/logs"
    $PYTHON -m benchmarks.gpu "$OUT" "$@" >"$OUT/logs/${*// /_}" 2>&1 && touch "$mark"
}
export -f one

jobs() {  # of a stage, a line for each
    case $1 in
    speed)
        echo rates
        for members in ${MEMBERS:-64 256 1 16}; do
            for precision in bfloat16 tensorfloat32 float32; do
                echo time --network "$network" --precision $precision --members $members --profile
            done
        done ;;
    correct)
        for precision in tensorfloat32 bfloat16 float32; do
            echo quality --network "$network" --precision $precision
        done
        for flags in "" --xla-flags=--xla_gpu_autotune_level=0 --xla-flags=--xla_gpu_deterministic_ops=true; do
            echo resume --network "$network" --precision tensorfloat32 $flags
            echo time --network "$network" --precision bfloat16 --members 64 $flags
        done
        echo losses --network "$network" --precision float32
        echo losses --network "$network" --precision tensorfloat32
        echo encode --network "$network" --precision tensorfloat32 ;;
    tests)  # those of what a device may compute otherwise
        local names=augment,checkpoint,codes,conv,decomposition,elbo,explore,keys,likelihoods,networks
        names+=,objectives,rendered,runner,sweep,train,training,traversal,vae
        echo "-m pytest -p no:benchmark -n ${JOBS:-4} -m not\ once $(eval echo "tests/test_{$names}.py")" ;;
    peers)
        for mode in cudagraph eager compile; do
            for precision in tensorfloat32 bfloat16 float32; do
                echo time --network "$network" --precision $precision --torch $mode
            done
        done ;;
    published)
        local figures="--dir $OUT/sweeps --figures $OUT"
        for script in chen2018 higgins2017 dubois2019; do
            echo "experiments/$script.py --scale gpu $figures"
        done
        echo "experiments/locatello2019.py --scale annealed $figures"
        echo "experiments/locatello2019.py --scale gpu $figures" ;;
    esac
}

[ $# -gt 0 ] || set -- speed correct tests peers published
for stage in "$@"; do
    if [ -n "${DRY:-}" ]; then
        jobs "$stage"
    elif [ "$stage" = published ] || [ "$stage" = tests ]; then
        mkdir -p "$out/logs"
        jobs "$stage" | timeout -s INT "${LIMIT:-600}" xargs -L1 $PYTHON 2>&1 | tee "$out/logs/$stage"
    else
        jobs "$stage" | sed "s/$/ ${QUICK:-}/" | timeout "${LIMIT:-600}" xargs -P "${JOBS:-4}" -I{} bash -c "one {}"
    fi
done
if [ -e "$out/results.jsonl" ]; then cat "$out/results.jsonl"; fi
