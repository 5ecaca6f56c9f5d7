#!/usr/bin/env bash
# E1: binary F1 of whole-solution verdicts on OlympiadBench and Omni-MATH, an untuned model as a judge against the same
# model trained to verify. Published (judge / ThinkPRM, OlympiadBench): 1.5B 5.0 / 76.3, 7B 44.8 / 73.4,
# 14B 72.8 / 87.3, QwQ 50.6 / 73.1; unreadable judges 51.4%, 18.2%, 13.3%, 7.9%. No ThinkPRM on QwQ was released: train
# one with configs/train/qwq_32b_lora.yaml and `thinkprm export runs/qwq_32b_lora runs/qwq_32b_lora/exported`.
set -euo pipefail
thinkprm() { command thinkprm "$@" || [ $? -eq 1 ]; } # 1: some solutions got no verdict, which is counted

thinkprm evaluate processbench --subset olympiadbench omnimath --verifier judge --model deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e1/judge_1.5b
thinkprm evaluate processbench --subset olympiadbench omnimath --model launch/ThinkPRM-1.5B --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e1/thinkprm_1.5b
thinkprm evaluate processbench --subset olympiadbench omnimath --verifier judge --model deepseek-ai/DeepSeek-R1-Distill-Qwen-7B --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e1/judge_7b
thinkprm evaluate processbench --subset olympiadbench omnimath --model launch/ThinkPRM-7B --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e1/thinkprm_7b
thinkprm evaluate processbench --subset olympiadbench omnimath --verifier judge --model deepseek-ai/DeepSeek-R1-Distill-Qwen-14B --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e1/judge_14b
thinkprm evaluate processbench --subset olympiadbench omnimath --model launch/ThinkPRM-14B --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e1/thinkprm_14b
thinkprm evaluate processbench --subset olympiadbench omnimath --verifier judge --model Qwen/QwQ-32B-Preview --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e1/judge_qwq
thinkprm evaluate processbench --subset olympiadbench omnimath --model runs/qwq_32b_lora/exported --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e1/thinkprm_qwq
# How much the judge depends on its prompt (the paper's appendix), on 14B.
thinkprm evaluate processbench --subset olympiadbench omnimath --verifier judge --judge-prompt index --model deepseek-ai/DeepSeek-R1-Distill-Qwen-14B --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e1/judge_14b_index
thinkprm evaluate processbench --subset olympiadbench omnimath --verifier judge --judge-prompt steps --model deepseek-ai/DeepSeek-R1-Distill-Qwen-14B --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e1/judge_14b_steps
