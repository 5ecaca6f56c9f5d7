#!/usr/bin/env bash
# What an accelerator does with this package, in one go:
#
#     bash benchmarks/device.sh OUT [--tiny]
#
# Runs the parts of benchmarks/device.py one after the other, each in a process of its own and for a time of its own,
# and ends with OUT/device.json and OUT/device.md, whatever has failed or was stopped. LIMIT=seconds for all (default
# 470), PYTHON=an interpreter (default python3). Needs jax, flax, optax, orbax, tokenizers and safetensors; torch and
# transformers where they are. --tiny tries it on any machine.
set -u
out=${1:?usage: device.sh OUT [--tiny]}
shift
python=${PYTHON:-python3}
begin=$SECONDS
limit=${LIMIT:-470}
cd "$(dirname "$0")/.." || exit 2
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-${TMPDIR:-/tmp}/thinkprm_device_cache}"
# The parts beside torch leave it room, and what --plan expects is compared with what is really in use.
export XLA_PYTHON_CLIENT_PREALLOCATE=false

part() { # NAME SECONDS ARGUMENTS...
    local name=$1 seconds=$2 left=$((limit - (SECONDS - begin) - 5))
    shift 2
    if [ "$left" -lt 10 ]; then
        echo "$name: no time left" | tee -a "$out/device.log"
        return
    fi
    [ "$seconds" -gt "$left" ] && seconds=$left
    local start=$SECONDS
    timeout -k 5 "$seconds" "$python" benchmarks/device.py "$name" "$out" "$@" 2>&1 | tee -a "$out/device.log"
    echo "$name: status ${PIPESTATUS[0]} after $((SECONDS - start)) s of $seconds" | tee -a "$out/device.log"
}

: > "$out/device.log"
part machine 45 "$@"
part decode 190 "$@"
part train 110 "$@"
part parity 70 "$@"
part sampling 90 "$@"
part peer 60 "$@"
"$python" benchmarks/device.py table "$out" "$@"
