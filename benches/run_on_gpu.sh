#!/bin/bash
# Everything that only a GPU can tell, in one command on a machine with one (and nvcc, cmake, ninja, PyTorch with CUDA):
#   OUT=gpu-results [WHEELS=folder] benches/run_on_gpu.sh
# Builds the core with its CUDA kernels, runs the tests marked cuda, compute-sanitizer on small shapes and the kernel
# benchmarks. Logs and results go to $OUT; the last lines say what passed. Takes some ten minutes. WHEELS: wheels of
# Python packages that the machine lacks (pybind11, sqlalchemy, pytest), for one without a network.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=$(realpath -m "${OUT:-gpu-results}")
PYTHON=${PYTHON:-python3}
BUILD=${BUILD:-build/gpu}
mkdir -p "$OUT"
summary=()

step() {  # step NAME COMMAND...: runs it, keeps its log, notes the outcome
  local name=$1 status
  shift
  "$@" >"$OUT/$name.log" 2>&1
  status=$?
  if [ $status -eq 0 ]; then summary+=("ok      $name"); else summary+=("FAILED  $name (exit $status)"); fi
  return $status
}

build() {
  if [ -n "${WHEELS:-}" ]; then
    "$PYTHON" -m pip install -q --no-index --no-deps --target "$BUILD/site" --upgrade "$WHEELS"/*.whl || return
  fi
  cmake -S . -B "$BUILD" -G Ninja -DPYNAS_CUDA=ON -DPython_EXECUTABLE="$(command -v "$PYTHON")" \
    -Dpybind11_DIR="$("$PYTHON" -m pybind11 --cmakedir)" &&
    cmake --build "$BUILD" && cp "$BUILD"/_C*.so pynas/
}

cuda_tests() { "$PYTHON" -m pytest -q -p no:cacheprovider -m cuda tests/ops "$@"; }

# Small shapes and few of them: the sanitizers slow kernels down a hundredfold. Without caching every tensor is an
# allocation of its own, so that the first byte beyond it is out of bounds.
sanitize() {
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout 420 compute-sanitizer --tool "$1" --error-exitcode 9 \
    "$PYTHON" -m pytest -q -x -p no:cacheprovider -m cuda tests/ops/test_cuda.py -k "test_same_bits_twice"
}

# The core lies in the source tree while this runs; an editable install's own core stays where it is.
trap 'rm -f pynas/_C*.so' EXIT
export PYTHONPATH="$PWD:$PWD/$BUILD/site${PYTHONPATH:+:$PYTHONPATH}"
nvidia-smi >"$OUT/device.log" 2>&1
if step build build; then
  step tests cuda_tests
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck initcheck; do step "sanitizer-$tool" sanitize "$tool"; done
  else
    summary+=("skipped compute-sanitizer: not on the PATH")
  fi
  step kernels "$PYTHON" benches/gpu_kernels.py --save "$OUT/gpu_kernels.jsonl"
  tail -n 40 "$OUT/kernels.log"
  step edges "$PYTHON" benches/gpu_mixed_op.py --save "$OUT/gpu_mixed_op.jsonl"
  tail -n 12 "$OUT/edges.log"
  tail -n 15 "$OUT/tests.log"
else
  tail -n 30 "$OUT/build.log"
fi
printf '%s\n' "${summary[@]}" | tee "$OUT/summary.txt"
! grep -q FAILED "$OUT/summary.txt"
