#!/bin/bash
# What only a GPU can tell, the most valuable answer first, on a machine with one (and PyTorch with CUDA):
#   OUT=gpu-results [LIMIT=450] [CORE=folder] [WHEELS=folder] benches/run_on_gpu.sh
# Every step has its own limit, LIMIT seconds in all, and every line is written when it is known: a run that is cut
# short has told what it found. $OUT gets summary.txt (what passed), results.jsonl (figures) and log.txt (everything).
# CORE: holds a _C*.so that `make gpu-core` built for this PyTorch and Python; without one that loads, it is built here
# (nvcc, cmake, ninja, pybind11). WHEELS: wheels of Python packages that the machine lacks and cannot fetch.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=$(realpath -m "${OUT:-gpu-results}")
PYTHON=${PYTHON:-python3}
LIMIT=${LIMIT:-450}
START=$SECONDS
mkdir -p "$OUT"
LOG=$OUT/log.txt
SITE=$(mktemp -d)
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD:$SITE${PYTHONPATH:+:$PYTHONPATH}"
# The core lies in the source tree while this runs; an editable install's own core stays where it is.
trap 'rm -rf pynas/_C*.so "$SITE"' EXIT

note() { echo "[$((SECONDS - START)) s] $*" | tee -a "$OUT/summary.txt"; }

step() {  # step NAME SECONDS COMMAND...: runs it for so long at most, and notes the outcome
  local name=$1 most=$2 left=$((LIMIT - SECONDS + START)) status
  shift 2
  if ((left < 15)); then note "SKIPPED $name: no time left"; return 1; fi
  if ((most > left)); then most=$left; fi
  echo "=== $name" >>"$LOG"
  timeout -k 5 "$most" "$@" >>"$LOG" 2>&1
  status=$?
  if [ $status -eq 0 ]; then note "ok $name"; else note "FAILED $name (exit $status)"; fi
  return $status
}

loads() { "$PYTHON" -c "import torch, pynas._C as core; assert torch.cuda.is_available() and core.has_cuda"; }

build() {
  cmake -S . -B build/gpu -G Ninja -DPYNAS_CUDA=ON -DPYNAS_WERROR=OFF -DCMAKE_CUDA_ARCHITECTURES="${ARCHITECTURES:-90}" \
    -DPython_EXECUTABLE="$(command -v "$PYTHON")" -Dpybind11_DIR="$("$PYTHON" -m pybind11 --cmakedir)" &&
    cmake --build build/gpu && cp build/gpu/_C*.so pynas/ && loads
}
export -f build loads
export PYTHON

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv >>"$LOG" 2>&1
if [ -n "${WHEELS:-}" ]; then
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$SITE" "$WHEELS"/*.whl >>"$LOG" 2>&1
fi
if [ -n "${CORE:-}" ]; then cp "$CORE"/_C*.so pynas/; fi
if ! step import 40 bash -c loads; then
  rm -f pynas/_C*.so
  if ! step build 240 bash -c build; then tail -n 30 "$LOG"; exit 1; fi
fi
LOOK=("$PYTHON" benches/gpu_first_look.py)
# 1. Does every operator run, and is it right? (A hang ends it.)
step smoke 60 "${LOOK[@]}" smoke --save "$OUT/results.jsonl"
# 2. The tests marked cuda. What plugins and prototypes warn of is no failure here.
step tests 120 "$PYTHON" -m pytest -q -p no:cacheprovider -o filterwarnings=default -n 8 --dist worksteal -m cuda \
  tests/ops --maxfail=40 --tb=line
# 3. How far is each kernel from its bound?
step kernels 90 "$PYTHON" benches/gpu_kernels.py --seconds 0.05 --save "$OUT/results.jsonl"
# 4. A whole score: milliseconds, launches, waits, the same bits again.
step score 60 "${LOOK[@]}" score --save "$OUT/results.jsonl"
# 5. Counters of the kernels, once each.
if command -v ncu >/dev/null; then
  step counters 60 ncu --clock-control none --target-processes all --kernel-name-base demangled \
    -k 'regex:tile_kernel|forward_kernel|backward_weight_kernel|moments_kernel|elements_kernel|affine_kernel' \
    --metrics gpu__time_duration.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed,sm__inst_executed_pipe_tensor.sum,sm__warps_active.avg.pct_of_peak_sustained_active \
    "${LOOK[@]}" once
else
  note "SKIPPED counters: ncu is not on the PATH"
fi
# 6. Supernet edges against the loop over candidates.
step edges 60 "$PYTHON" benches/gpu_mixed_op.py --seconds 0.5 --save "$OUT/results.jsonl"
# 7. The memory checker, a hundredfold slower. Without caching every tensor is an allocation of its own, so that the
#    first byte beyond it is out of bounds.
if command -v compute-sanitizer >/dev/null; then
  step memcheck 90 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck --error-exitcode 9 \
    "${LOOK[@]}" smoke
else
  note "SKIPPED memcheck: compute-sanitizer is not on the PATH"
fi
tail -n 45 "$OUT/results.jsonl"
grep -aE "FAILED|Error|passed|failed" "$LOG" | tail -n 25
cat "$OUT/summary.txt"
! grep -q FAILED "$OUT/summary.txt"
