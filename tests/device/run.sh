#!/usr/bin/env bash
# What to run when an accelerator is available for a few minutes, most valuable phases first. No network is needed.
#
#   tests/device/run.sh --out DIR [--tiny] [PHASE ...]
#
# The default phases are tests, bench, twin and trainings, which take ten minutes together; the others are kernels (a profile of
# the training steps) and rehearse (the first epoch of each training, which fills the cache in JAX_COMPILATION_CACHE_DIR for a later
# run). Each phase has a limit in seconds, such as TWIN_LIMIT=120, and leaves its finished results in DIR even if it is killed.
# --tiny runs all phases at tiny sizes, in three minutes on a CPU. RUN names a work directory in which to keep the trainings, and
# LANES lists folders of networks to train side by side, such as "surrogates/resnet18-rfn validation_targets,targets".
#
# It uses the python3 of the machine, or PYTHON. Missing packages (tests/device/wheels.txt) are taken from the wheels in WHEELS
# (default .wheels), and CIFAR-10 from CIFAR10_PACKED (default .wheels/cifar10.npz), the file of tests/device/pack_cifar10.py.
set -uo pipefail
from=$PWD
cd "$(dirname "$0")/../.." || exit 1
usage() { echo "usage: tests/device/run.sh --out DIR [--tiny] [tests|bench|twin|trainings|kernels|rehearse ...]" >&2; exit 2; }
here=tests/device
out= tiny= phases=()
while [ $# -gt 0 ]; do
  case $1 in
    --out) [ $# -gt 1 ] || usage; out=$(realpath -m "$from/$2"); [[ $2 != /* ]] || out=$2; shift ;;
    --tiny) tiny=1 ;;
    tests | bench | twin | trainings | kernels | rehearse) phases+=("$1") ;;
    *) usage ;;
  esac
  shift
done
[ -n "$out" ] || usage
if [ ${#phases[@]} -eq 0 ]; then
  phases=(tests bench twin trainings)
  [ -z "$tiny" ] || phases+=(kernels rehearse)
fi
mkdir -p "$out" || exit 1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python=${PYTHON:-python3}

if ! $python -c 'import jax' 2>/dev/null; then
  echo "run.sh: $python has no jax; name another one with PYTHON=" >&2
  exit 1
fi
# If rfn_jax is not installed, use a copy of it.
if ! $python -P -c 'import rfn_jax.configs' 2>/dev/null; then
  mkdir -p "$scratch/site"
  if compgen -G "${WHEELS:-.wheels}/*.whl" >/dev/null; then
    $python -m pip install -q --no-index --no-deps --no-compile --target "$scratch/site" "${WHEELS:-.wheels}"/*.whl
  fi
  cp -rL rfn_jax "$scratch/site/"
  export PYTHONPATH=$scratch/site
fi
export PYTHONSAFEPATH=1 TF_CPP_MIN_LOG_LEVEL=2
if [ -n "${JAX_COMPILATION_CACHE_DIR:-}" ]; then
  export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.3 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1
fi

status=0
phase() {  # NAME LIMIT COMMAND...: runs the command with a limit and a log
  local name=$1 limit=$2 start=$SECONDS rc
  shift 2
  timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>&1
  rc=$?
  echo "== $name: status $rc, $((SECONDS - start)) s"
  tail -n "${TAIL:-25}" "$out/$name.log"
  [ $rc -eq 0 ] || status=1
}

tests() {
  local only=(tests/device tests/training tests/optim/test_textbook.py tests/attacks/test_linear.py)
  local processes=6
  [ -z "$tiny" ] || only=(tests/device/test_accelerator.py -k 'resnet or scan') processes=0
  # Without a search for the fastest kernels, since each program runs only once. Compiling takes most of the time, on one core
  # each, so several processes share the accelerator.
  XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_autotune_level=0" JAX_DEFAULT_MATMUL_PRECISION=float32 \
    XLA_PYTHON_CLIENT_PREALLOCATE=false phase tests "${TESTS_LIMIT:-60}" \
    $python -m pytest -n $processes -p no:cacheprovider -o filterwarnings=default -m accelerator "${only[@]}"
}
bench() {
  local flags=(--models=cifar_resnet18:128,resnet50:256 --precisions=bfloat16)
  [ -z "$tiny" ] || flags=(--models=cifar_resnet20:4 --minimizers=sgd,rfn_sam --attacks= --rounds=2 --seconds=0.05)
  phase bench "${BENCH_LIMIT:-75}" $python -m rfn_jax.cli.main bench --out="$out/bench.json" \
    --limit="${BENCH_BEGIN:-45}" "${flags[@]}"
}
twin() {
  phase twin $((${TWIN_LIMIT:-100} + 15)) $python $here/twin.py --out "$out/twin.json" --limit "${TWIN_LIMIT:-100}" \
    ${tiny:+--tiny}
}
kernels() {
  local models=(cifar_resnet18:128:sgd cifar_resnet18:128:rfn_sam resnet50:256:sgd)
  [ -z "$tiny" ] || models=(cifar_resnet20:4:sgd)
  phase kernels "${KERNELS_LIMIT:-75}" $python $here/kernels.py --out="$out/kernels.json" "${models[@]}"
}
data() {  # prepares the data, and sets the config of the trainings
  config=tests/small_experiment.py
  [ -z "$tiny" ] || return 0
  config=$here/cifar10_arrays.py
  export CIFAR10_NPZ=${CIFAR10_NPZ:-$scratch/cifar10.npz}
  if [ ! -e "$CIFAR10_NPZ" ] && [ ! -e "${CIFAR10_PACKED:-.wheels/cifar10.npz}" ]; then
    echo "trainings need CIFAR-10: TFDS_DATA_DIR=... python tests/device/pack_cifar10.py pack .wheels/cifar10.npz" >&2
    return 1
  fi
  [ -e "$CIFAR10_NPZ" ] || $python $here/pack_cifar10.py unpack "${CIFAR10_PACKED:-.wheels/cifar10.npz}" "$CIFAR10_NPZ"
}
trainings() {
  local limit=${TRAININGS_LIMIT:-330} config
  data || return 1
  phase trainings $((limit + 15)) $python $here/trainings.py --config=$config --workdir="${RUN:-$scratch/run}" --out="$out/trainings" \
    --limit="$limit" --reserve="${RESERVE:-80}" ${LANES:+--lanes $LANES}
}
rehearse() {
  local limit=${REHEARSE_LIMIT:-90} config
  data || return 1
  phase rehearse $((limit + 10)) $python $here/trainings.py --config=$config --workdir="$scratch/rehearsal" --out="$out/rehearsal" \
    --limit="$limit" --rehearse
}

for name in "${phases[@]}"; do
  "$name" || status=1
done
exit $status
