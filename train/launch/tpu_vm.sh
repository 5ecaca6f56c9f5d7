#!/usr/bin/env bash
# A training run on a slice of Cloud TPU VMs, from your own machine, over ssh.
#
#   export TPU_NAME=prm ZONE=us-west4-a NFS=10.0.0.2:/share
#   train/launch/tpu_vm.sh keep configs/train/r1_distill_1.5b.yaml
#
#   create                        the slice, where there is none
#   install                       the commit HEAD of this checkout, on every host
#   run RECIPE [field=value ...]  starts it on every host and follows process 0; ends with the run's exit status
#   keep RECIPE [field=value ...] all of these, again after every preemption, until the run is complete
#   judge PROGRAM [argument ...]  score, search and the like: all hosts on one folder, or each on a shard; again: it goes on
#   follow                        follows process 0 again; Ctrl-C ends the following, not the run
#   stop | kill                   a checkpoint and the end (SIGTERM) | SIGKILL on every host, for a run that hangs
#   logs                          the last lines of every host
#   export RUN OUT [option ...]   `thinkprm export` on host 0, on the shared disk
#   fetch PATH FOLDER             a path of the shared disk, to here
#   delete                        the slice; the shared disk stays
#
# Required: TPU_NAME, ZONE, and for all but create and delete NFS (SERVER:/PATH), the disk that all hosts share.
# Optional: PROJECT (gcloud's), ACCELERATOR (v5litepod-16), RUNTIME (v2-alpha-tpuv5-lite), SPOT=1, RESTARTS (20).
# Relative paths of a recipe (output, data) are on the shared disk. docs/pods.md says more.
set -euo pipefail

die() { echo "tpu_vm.sh: $*" >&2; exit 2; }

: "${TPU_NAME:?tpu_vm.sh: set TPU_NAME, the name of the slice}"
: "${ZONE:?tpu_vm.sh: set ZONE, such as us-west4-a}"
ACCELERATOR=${ACCELERATOR:-v5litepod-16}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}
RESTARTS=${RESTARTS:-20}
PAUSE=${PAUSE:-30} # seconds before trying again
STOPPED=75         # exit status of a run that a signal stopped
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
HOST_SCRIPT=thinkprm/code/train/launch/tpu_host.sh # below the home folder of a host

tpu() { # VERB [argument ...]
    local verb=$1
    shift
    gcloud compute tpus tpu-vm "$verb" "$@" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"}
}

on() { # WORKER COMMAND [argument ...]: quoted, so that every argument arrives as it is
    local worker=$1
    shift
    tpu ssh "$TPU_NAME" --worker="$worker" --command="$(printf '%q ' "$@")"
}

host() { # WORKER VERB [argument ...] of tpu_host.sh
    local worker=$1
    shift
    on "$worker" env "NFS=${NFS:?tpu_vm.sh: set NFS=SERVER:/PATH, the disk that all hosts share}" \
        bash "$HOST_SCRIPT" "$@"
}

state() { # of the slice; MISSING where there is none; UNKNOWN where gcloud gives no answer (it says why)
    local said
    if said=$(tpu describe "$TPU_NAME" --format='value(state)' 2>&1); then
        tail -n 1 <<<"$said"
    elif [[ $said == *NOT_FOUND* || $said == *"not found"* ]]; then
        echo MISSING
    else
        echo "$said" >&2
        echo UNKNOWN
    fi
}

create() {
    tpu create "$TPU_NAME" --accelerator-type="$ACCELERATOR" --version="$RUNTIME" ${SPOT:+--spot}
}

delete() { tpu delete "$TPU_NAME" --quiet; }

judge() { # PROGRAM [argument ...]: hosts share a folder, or {shard} is the number of one of {shards}, each for itself
    local hosts i argument mine child sharing status=0 worst=0 children=()
    [[ $* == *"{shard}"* || $1 == search || $1 == collect || ($1 == score && " $* " == *"/ "*) || ($1 == evaluate && $* == *--output-dir*) ]] \
        || die "no {shard} in the arguments, and no folder that hosts of $1 share: all would write to one place"
    hosts=$(tpu describe "$TPU_NAME" --format='value(networkEndpoints.len())')
    [[ $hosts =~ ^[1-9][0-9]*$ ]] || die "gcloud does not say how many hosts $TPU_NAME has"
    sharing=$hosts
    if [[ $* == *"{shard}"* ]]; then sharing=1; fi
    for ((i = 0; i < hosts; i++)); do
        mine=()
        for argument in "$@"; do
            argument=${argument//'{shards}'/"$hosts"}
            mine+=("${argument//'{shard}'/"$i"}")
        done
        host "$i" judge "$i" "$sharing" "${mine[@]}" &
        children+=($!)
    done
    for child in "${children[@]}"; do
        status=0
        wait "$child" || status=$?
        ((status <= worst)) || worst=$status
    done
    return "$worst"
}

install() {
    local archive
    [[ -z $(git -C "$ROOT" status --porcelain) ]] ||
        echo "tpu_vm.sh: this checkout has changes that are not committed; the hosts get HEAD" >&2
    archive=$(mktemp --suffix=.tar.gz)
    git -C "$ROOT" archive --format=tar.gz --output="$archive" HEAD
    tpu scp "$archive" "$TPU_NAME:thinkprm.tar.gz" --worker=all
    rm -f "$archive"
    on all bash -c 'rm -rf thinkprm/code && mkdir -p thinkprm/code && tar -xzf thinkprm.tar.gz -C thinkprm/code'
    host all install
}

run() {
    host all start "$@"
    host 0 follow
}

keep() {
    local restarts=0 failures=0 status
    while true; do
        status=0
        attempt "$@" || status=$?
        case $status in
            0) return 0 ;;
            2) die "the run was refused (exit status 2); the lines above say why" ;;
        esac
        restarts=$((restarts + 1))
        ((restarts <= RESTARTS)) || die "gave up after $RESTARTS restarts; train/launch/tpu_vm.sh logs"
        # A run that fails on a slice that is well will fail again.
        if ((status != STOPPED)) && [[ $(state) == READY ]]; then
            failures=$((failures + 1))
            ((failures < 3)) || die "three failures in a row (last exit status $status); train/launch/tpu_vm.sh logs"
        else
            failures=0
        fi
        echo "tpu_vm.sh: exit status $status; restart $restarts of $RESTARTS in $PAUSE s" >&2
        sleep "$PAUSE"
    done
}

attempt() { # one start, or going on with a run that still runs; 1: the slice is not there yet. No set -e in here.
    local status=0
    case $(state) in
        READY) ;;
        MISSING) create || return 1 ;;
        PREEMPTED | TERMINATED | STOPPED)
            delete || return 1
            create || return 1
            ;;
        *) return 1 ;; # being created, repaired or deleted
    esac
    host 0 running 2>/dev/null || status=$? # a new slice has no such script yet
    ((status != 255)) || return 255
    if ((status)); then
        "${BASH_SOURCE[0]}" install || return 1
        host all kill || return 1 # hosts where a process is left over
        host all start "$@" || return $?
    fi
    while true; do
        status=0
        host 0 follow || status=$?
        # 255: the connection broke, the run may go on
        ((status == 255)) && [[ $(state) == READY ]] || return "$status"
        sleep "$PAUSE"
    done
}

[[ $# -ge 1 ]] || die "what? create, install, run, keep, judge, follow, stop, kill, logs, export, fetch or delete"
verb=$1
shift
case $verb in
    create) [[ $(state) == READY ]] || create ;;
    install | delete) "$verb" ;;
    run | keep)
        [[ $# -ge 1 ]] || die "$verb RECIPE [field=value ...]"
        : "${NFS:?tpu_vm.sh: set NFS=SERVER:/PATH, the disk that all hosts share}"
        "$verb" "$@"
        ;;
    judge)
        [[ $# -ge 1 ]] || die "judge PROGRAM [argument ...], such as score INPUT --output FOLDER/"
        judge "$@"
        ;;
    follow) host 0 follow ;;
    stop | kill | logs) host all "$verb" ;;
    export)
        [[ $# -ge 2 ]] || die "export RUN OUT [option ...]"
        host 0 export "$@"
        ;;
    fetch)
        [[ $# -eq 2 ]] || die "fetch PATH FOLDER"
        tpu scp --recurse "$TPU_NAME:/mnt/thinkprm/$1" "$2" --worker=0
        ;;
    *) die "no such command: $verb" ;;
esac
