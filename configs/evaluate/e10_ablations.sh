#!/usr/bin/env bash
# E10: what the chains of the training set are worth. Each verifier is configs/train/r1_distill_1.5b.yaml with
# data.train.chains=FILE output=runs/ablations/NAME, exported to runs/ablations/NAME/exported; FILE:
#   short_chains: 1K chains compressed by another model
#   automatic_labels: labels by Math-Shepherd's rollouts in place of human ones
#   chains_65k: 65K process-filtered chains
#   outcome_filter: 128K outcome-filtered chains
# Chains with other filters are made by `thinkprm collect` (its filter: process, outcome, none): see docs/collection.md.
# The paper: automatic labels 75.8 / 76.5 against 76.3 / 75.7 of human ones; the filters are compared in beam search.
set -euo pipefail
thinkprm() { command thinkprm "$@" || [ $? -eq 1 ]; } # 1: some solutions got no verdict, which is counted

thinkprm evaluate processbench --subset olympiadbench omnimath --model launch/ThinkPRM-1.5B --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e10/thinkprm_1.5b
thinkprm evaluate processbench --subset olympiadbench omnimath --model runs/ablations/short_chains/exported --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e10/short_chains
thinkprm evaluate processbench --subset olympiadbench omnimath --model runs/ablations/automatic_labels/exported --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e10/automatic_labels
thinkprm evaluate processbench --subset olympiadbench omnimath --model runs/ablations/chains_65k/exported --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e10/chains_65k
thinkprm evaluate processbench --subset olympiadbench omnimath --model runs/ablations/outcome_filter/exported --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e10/outcome_filter
