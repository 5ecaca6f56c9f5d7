#!/usr/bin/env bash
# The part of tpu_vm.sh that runs on every host of a slice. It needs NFS=SERVER:/PATH.
#
# On a host: ~/thinkprm/code (this project), venv, train.log, pid (of the program), status (its exit status).
# On the shared disk, /mnt/thinkprm: outputs and data of the recipes, the Hugging Face cache, compiled programs, and
# `environment`, a file of yours with variables for the runs (export HF_TOKEN=...), if you put one there.
set -euo pipefail

: "${NFS:?tpu_host.sh: set NFS=SERVER:/PATH}"
SHARED=${SHARED:-/mnt/thinkprm}
HERE=$HOME/thinkprm
SELF=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/tpu_host.sh
STOPPED=75 # as in tpu_vm.sh

die() { echo "$(hostname): $*" >&2; exit 2; }

mount_shared() {
    mountpoint -q "$SHARED" && return
    command -v mount.nfs >/dev/null || { sudo apt-get update -q && sudo apt-get install -qy -o DPkg::Lock::Timeout=300 nfs-common; }
    sudo mkdir -p "$SHARED"
    # hard: a write waits for the server instead of failing
    sudo mount -t nfs -o hard,noatime "$NFS" "$SHARED"
    # A share of Filestore belongs to root; user ids may differ between hosts.
    sudo chmod 0777 "$SHARED"
}

install() {
    mount_shared
    # The system's Python is older than 3.11, so uv brings one.
    command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | env UV_UNMANAGED_INSTALL="$HERE/bin" sh
    uv venv --quiet --allow-existing --python 3.12 "$HERE/venv"
    uv pip install --quiet --python "$HERE/venv/bin/python" -e "$HERE/code[tpu]"
}

prepare() { # the environment of a program, and its folder
    mountpoint -q "$SHARED" || die "$SHARED is not mounted; run install first"
    [[ -x $HERE/venv/bin/thinkprm ]] || die "thinkprm is not installed; run install first"
    umask 000 # see mount_shared
    cd "$SHARED"
    # Process 0 alone writes compiled programs; on a shared disk the others find them.
    export THINKPRM_JAX_CACHE=$SHARED/compiled HF_HOME=$SHARED/huggingface
    # No LIBTPU_INIT_ARGS: docs/pods.md, "Flags of XLA and libtpu", has what other trainers set there and what libtpu
    # makes of it; the one that helps a training step sets itself. Flags of yours go into `environment`.
    # shellcheck disable=SC1091
    if [[ -e environment ]]; then source ./environment; fi
}

running() { # and it is ours: after a restart of the machine the number may be another process's
    [[ -e $HERE/pid ]] && grep -qs thinkprm "/proc/$(<"$HERE/pid")/cmdline"
}

start() { # RECIPE [field=value ...]
    running && die "a run is under way here (process $(<"$HERE/pid")); stop or kill it first"
    prepare
    local recipe=$1
    shift
    [[ $recipe == /* || -e $recipe ]] || recipe=$HERE/code/$recipe
    [[ -e $recipe ]] || die "no recipe $recipe"
    rm -f "$HERE/status" "$HERE/pid"
    sudo rm -f /tmp/libtpu_lockfile # what a killed process leaves
    # Nothing of this connection may hold the run: it has to outlive it.
    setsid nohup bash "$SELF" supervise "$recipe" "$@" >"$HERE/train.log" 2>&1 </dev/null &
    for _ in {1..50}; do
        [[ -e $HERE/pid ]] && return
        sleep 0.1
    done
    tail -n 20 "$HERE/train.log" >&2
    echo "$(hostname): the program did not start" >&2
    exit 1
}

supervise() { # RECIPE ...: runs the program and keeps its exit status
    prepare
    trap : TERM # of the machine's end: the program has got it, too
    "$HERE/venv/bin/thinkprm" train --status-if-stopped "$STOPPED" "$@" &
    local child=$! status=0
    echo "$child" >"$HERE/pid.new"
    mv "$HERE/pid.new" "$HERE/pid"
    while kill -0 "$child" 2>/dev/null; do wait "$child" || true; done # a signal ends a wait early
    wait "$child" || status=$?
    echo "$status" >"$HERE/status.new"
    mv "$HERE/status.new" "$HERE/status"
}

follow() {
    [[ -e $HERE/train.log ]] || die "there is no run here"
    tail -n 20 -f "$HERE/train.log" &
    local follower=$!
    # shellcheck disable=SC2064
    trap "kill $follower 2>/dev/null || true" EXIT
    while [[ ! -e $HERE/status ]]; do
        if ! running; then
            sleep 2 # the status comes right after the end, if the machine has not been restarted
            [[ -e $HERE/status ]] || { echo "$(hostname): the run ended without a status" >&2; exit 1; }
        fi
        sleep 1
    done
    sleep 1 # the last lines
    exit "$(<"$HERE/status")"
}

judge() { # NUMBER SHARING PROGRAM [argument ...]: on the chips of this host alone, whatever slice it is of
    running && die "a run is under way here (process $(<"$HERE/pid")); stop or kill it first"
    prepare
    export TPU_HOST_BOUNDS=1,1,1 TPU_PROCESS_BOUNDS=1,1,1
    export JAX_PROCESS_ID=$1 JAX_NUM_PROCESSES=$2 # programs share an output by these two
    shift 2
    exec "$HERE/venv/bin/thinkprm" "$@"
}

verb=${1:?tpu_host.sh: install, start, judge, follow, running, stop, kill, logs or export}
shift
PATH=$HERE/bin:$HOME/.local/bin:$PATH
case $verb in
    install | start | supervise | judge | follow | running) "$verb" "$@" ;;
    stop | kill)
        if running; then
            if [[ $verb == stop ]]; then kill -TERM "$(<"$HERE/pid")"; else kill -KILL "$(<"$HERE/pid")"; fi
            for _ in {1..600}; do
                running || exit 0
                sleep 1
            done
            die "process $(<"$HERE/pid") is still there after ten minutes"
        fi
        ;;
    logs)
        echo "== $(hostname): exit status $(cat "$HERE/status" 2>/dev/null || echo 'none yet')"
        tail -n 20 "$HERE/train.log"
        ;;
    export)
        prepare
        # On a host of a slice the TPU's library would wait for the other hosts.
        JAX_PLATFORMS=cpu "$HERE/venv/bin/thinkprm" export "$@"
        ;;
    *) die "no such command: $verb" ;;
esac
