#!/usr/bin/env bash
# A training run on a TPU v5e-16 slice of a GKE cluster: fills in gke_jobset.yaml and applies it.
#
#   git archive HEAD | docker build -t IMAGE -f train/launch/Dockerfile - && docker push IMAGE
#   IMAGE=... CLAIM=... train/launch/gke.sh apply /opt/thinkprm/configs/train/r1_distill_1.5b.yaml [field=value ...]
#
#   render RECIPE [field=value ...]   prints the manifest
#   apply RECIPE [field=value ...]    and applies it, with your current kubectl context
#
# With score, search, evaluate or collect in place of RECIPE the program runs on HOSTS hosts of four chips, each for
# itself (gke_judge.yaml). Hosts of score (with an --output that ends in /), search, evaluate (with an --output-dir) and
# collect share a folder; where {shard} and {shards} stand in the arguments, they become the number of a host and how
# many there are, and each host is for itself:
#
#   HOSTS=4 IMAGE=... CLAIM=... train/launch/gke.sh apply score in.parquet --output judged/ --mesh auto
#
# Required: IMAGE (pushed), CLAIM (a ReadWriteMany volume claim). Optional: NAME (thinkprm), HOSTS (4).
set -euo pipefail

die() { echo "gke.sh: $*" >&2; exit 2; }

: "${IMAGE:?gke.sh: set IMAGE, what you built from train/launch/Dockerfile and pushed}"
: "${CLAIM:?gke.sh: set CLAIM, a ReadWriteMany persistent volume claim}"
NAME=${NAME:-thinkprm}
[[ $NAME =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || die "NAME '$NAME' is no name of Kubernetes (a-z, 0-9 and -)"
[[ $# -ge 2 ]] || die "render or apply, then RECIPE [field=value ...]"
HOSTS=${HOSTS:-4}
[[ $HOSTS =~ ^[1-9][0-9]*$ ]] || die "HOSTS '$HOSTS' is no number of hosts"

verb=$1
shift
template=gke_jobset.yaml
sharing=$HOSTS # how many work on one output
case $1 in
    score | search | evaluate | collect)
        template=gke_judge.yaml
        [[ $* == *"{shard}"* || $1 == search || $1 == collect || ($1 == score && " $* " == *"/ "*) || ($1 == evaluate && $* == *--output-dir*) ]] \
            || die "no {shard} in the arguments, and no folder that hosts of $1 share: all would write to one place"
        if [[ $* == *"{shard}"* ]]; then sharing=1; fi
        ;;
esac
arguments=
for argument in "$@"; do # as a list of JSON texts, which is YAML
    if [[ $template == gke_judge.yaml ]]; then # Kubernetes fills in $(SHARD), and $$ is its $
        argument=${argument//'$'/'$$'}
        argument=${argument//'{shards}'/"$HOSTS"}
        argument=${argument//'{shard}'/'$(SHARD)'}
    fi
    argument=${argument//\\/\\\\}
    argument=${argument//\"/\\\"}
    arguments+="${arguments:+, }\"$argument\""
done

manifest=$(<"$(dirname "${BASH_SOURCE[0]}")/$template")
# Quoted: since bash 5.2 an unquoted & in a replacement stands for what it replaces.
manifest=${manifest//'${NAME}'/"$NAME"}
manifest=${manifest//'${HOSTS}'/"$HOSTS"}
manifest=${manifest//'${SHARING}'/"$sharing"}
manifest=${manifest//'${IMAGE}'/"$IMAGE"}
manifest=${manifest//'${CLAIM}'/"$CLAIM"}
manifest=${manifest//'${ARGUMENTS}'/"[$arguments]"}

case $verb in
    render) printf '%s\n' "$manifest" ;;
    apply) printf '%s\n' "$manifest" | kubectl apply -f - ;;
    *) die "no such command: $verb" ;;
esac
