"""The model card of an exported run: what it is, how to use it, and how it was made, all taken from the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from thinkprm_jax.errors import reading
from thinkprm_jax.protocol.prompts import DECISION, NO, THINK_CLOSE, VERIFICATION_PROMPT, YES
from thinkprm_jax.records.files import has_lines, read_line_file
from thinkprm_jax.storage import Location

PAPER = "[Process Reward Models That Think](https://arxiv.org/abs/2504.16828)"
# Figures of a moment; the others of metrics.jsonl say how good the model is.
_RATES = ("step", "time", "learning_rate", "gradient_norm", "left_out", "mfu", "goodput")
_RATE_ENDINGS = ("_per_second", "_seconds", "_share")
_RATE_BEGINNING = "badput_"


@dataclass(frozen=True)
class CardFacts:
    """What a card is made of.

    Attributes:
      name: the folder's or repository's. step: of the checkpoint. parameters: of the whole model.
      dtype: of the stored weights. recipe: as YAML text. settings: the same as a dictionary.
      base: hub id or folder of the model that training began with; None: random weights.
      license: of the base, where known. adapter: the folder holds a LoRA adapter alone.
      kind: config.json's key ``thinkprm``, for a discriminative verifier.
      examples: of the training set; None: not known. epoch: the one under way, from 0. left_out: so far.
      figures: name -> (step, value), see :func:`last_figures`.
    """

    name: str
    step: int
    parameters: int
    dtype: str
    recipe: str
    settings: Mapping[str, Any]
    base: str | None = None
    base_on_hub: bool = False
    license: str | None = None
    adapter: bool = False
    kind: Mapping[str, Any] | None = None
    examples: int | None = None
    epoch: int | None = None
    left_out: int | None = None
    figures: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    @property
    def discriminative(self) -> bool:
        return self.kind is not None and self.kind.get("task") == "discriminative"


def last_figures(path: Location, step: int) -> dict[str, tuple[int, float]]:
    """The last value of every quality figure in metrics.jsonl up to ``step``, with its step.

    Raises:
      UserError: it cannot be read, or a line is damaged.
    """
    figures: dict[str, tuple[int, float]] = {}
    with reading(path):
        lines = list(read_line_file(path)) if has_lines(path) else []
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()  # a run may be writing it
    for place, line in enumerate(lines, 1):
        with reading(f"{path}:{place}"):
            values = json.loads(line)
            at = values.get("step", 0)
            for name, value in values.items():
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                if at <= step and number and not _is_rate(name):
                    name.encode()  # the card is UTF-8
                    figures[name] = (at, float(value))
    return figures


def _is_rate(name: str) -> bool:
    return name in _RATES or name.endswith(_RATE_ENDINGS) or name.startswith(_RATE_BEGINNING)


def model_card(facts: CardFacts) -> str:
    """README.md as text: a YAML header for the hub, then Markdown."""
    usage = _discriminative_usage(facts) if facts.discriminative else _generative_usage(facts)
    parts = [_header(facts), _introduction(facts), usage, _data(facts), _metrics(facts), _recipe(facts)]
    return "\n\n".join([*parts, _license(facts)]) + "\n"


def _header(facts: CardFacts) -> str:
    header: dict[str, Any] = {}
    if facts.license:
        header["license"] = facts.license
    if facts.base_on_hub:
        header["base_model"] = facts.base
        header["base_model_relation"] = "adapter" if facts.adapter else "finetune"
    header["library_name"] = "peft" if facts.adapter else "transformers"
    header["pipeline_tag"] = "text-generation"
    header["tags"] = ["process-reward-model", "verifier", "thinkprm", *(["lora"] if facts.adapter else [])]
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---"


def _introduction(facts: CardFacts) -> str:
    if facts.discriminative:
        what = (
            "A discriminative process reward model: in one pass over a problem and the steps of a solution it "
            f"gives the probability that each step is correct (the baseline DiscPRM of {PAPER})."
        )
    else:
        what = (
            f"A process reward model that thinks ({PAPER}): given a problem and the steps of a solution, it "
            "writes a verification chain that judges each step, then says whether the solution is correct."
        )
    origin = f"fine-tuned from `{facts.base}`" if facts.base else "trained from random weights"
    lora = facts.settings.get("lora")
    if lora:
        origin += f" with LoRA (rank {lora['rank']}, alpha {lora['alpha']:g})"
        origin += "; this is the adapter alone" if facts.adapter else "; the adapter is merged into these weights"
    return f"""# {facts.name}

{what}

{facts.parameters:,} parameters{" with its base" if facts.adapter else ""}, weights in {facts.dtype}, {origin}. \
From step {facts.step:,} of a training run of thinkprm-jax.

## Intended use

Scoring and checking solutions of the kind that the training data holds (below): choosing among candidates,
guiding a search, finding the first wrong step. It is no judge of other subjects, its verdicts can be wrong, and a
fluent chain is no proof. Problem and steps should reach it as plain characters, without control tokens."""


def _generative_usage(facts: CardFacts) -> str:
    return f"""## With thinkprm-jax

```python
from thinkprm_jax import ThinkPRM

prm = ThinkPRM("{facts.name}", n=4, temperature=0.6, max_length=8192)
prm.predict_correctness_batch([problem], [steps])
```

## With transformers

The prompt is one user turn in the tokenizer's chat template, which ends with `<think>` and a newline and brings
its own begin-of-sentence token. The score is P(`{YES}`) against P(`{NO}`) after the closed chain and the question.

```python
{_transformers_loader(facts)}
PROMPT = \"\"\"{VERIFICATION_PROMPT}\"\"\"

solution = "\\n".join(f"Step {{i}}: {{step}}" for i, step in enumerate(steps, 1))
message = PROMPT.replace("{{problem}}", problem).replace("{{solution}}", solution)
chat = [{{"role": "user", "content": message}}]
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
out = model.generate(ids, max_new_tokens=4096, stop_strings=["{THINK_CLOSE}"], tokenizer=tokenizer)
chain = tokenizer.decode(out[0]).split("{THINK_CLOSE}")[0].removesuffix(tokenizer.eos_token)
asked = chain + "{THINK_CLOSE}{_escaped(DECISION)}"
ids = tokenizer(asked, add_special_tokens=False, return_tensors="pt").input_ids
yes, no = (tokenizer.encode(text, add_special_tokens=False)[0] for text in ("{YES}", "{NO}"))
score = model(ids).logits[0, -1, [yes, no]].float().softmax(-1)[0].item()
```

## With vLLM

The same prompt as ids, so that no second begin-of-sentence token is added; then the question, and one more token.

```python
import math

from vllm import LLM, SamplingParams
{_vllm_loader(facts)}
thinking = SamplingParams(temperature=0.6, top_p=0.95, max_tokens=4096, stop=["{THINK_CLOSE}"])
ids = tokenizer.encode(prompt, add_special_tokens=False)
chain = llm.generate([{{"prompt_token_ids": ids}}], thinking{_vllm_request(facts)})[0].outputs[0].text
ids = tokenizer.encode(prompt + chain + "{THINK_CLOSE}{_escaped(DECISION)}", add_special_tokens=False)
decision = SamplingParams(temperature=0, max_tokens=1, logprobs=20)
out = llm.generate([{{"prompt_token_ids": ids}}], decision{_vllm_request(facts)})[0].outputs[0].logprobs[0]
odds = [math.exp(out[token].logprob) if token in out else 0.0 for token in (yes, no)]
score = odds[0] / sum(odds)
```"""


def _transformers_loader(facts: CardFacts) -> str:
    # AutoTokenizer may put the rules of the family's own tokenizer in the place of those in tokenizer.json.
    tokenizer = f'tokenizer = PreTrainedTokenizerFast.from_pretrained("{facts.name}")'
    if facts.adapter:
        return f"""from peft import AutoPeftModelForCausalLM
from transformers import PreTrainedTokenizerFast

model = AutoPeftModelForCausalLM.from_pretrained("{facts.name}")
{tokenizer}"""
    return f"""from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

model = AutoModelForCausalLM.from_pretrained("{facts.name}")
{tokenizer}"""


def _vllm_loader(facts: CardFacts) -> str:
    if not facts.adapter:
        return f'\nllm = LLM("{facts.name}")'
    rank = facts.settings["lora"]["rank"]
    return f"""from vllm.lora.request import LoRARequest

llm = LLM("{facts.base}", enable_lora=True, max_lora_rank={rank})
adapter = LoRARequest("verifier", 1, "{facts.name}")"""


def _vllm_request(facts: CardFacts) -> str:
    return ", lora_request=adapter" if facts.adapter else ""


def _escaped(text: str) -> str:
    return text.replace("\n", "\\n")


def _discriminative_usage(facts: CardFacts) -> str:
    assert facts.kind is not None
    separator, labels = facts.kind["separator"], facts.kind["labels"]
    return f"""## With thinkprm-jax

```python
from thinkprm_jax.verifier.discriminative import DiscriminativePRM

prm = DiscriminativePRM("{facts.name}")
prm.predict_correctness_batch([problem], [steps])
```

## Elsewhere

It is an ordinary causal language model; transformers, vLLM and SGLang load it as one. The text is the problem,
then for each step a newline, `Step i: ` and the step. After each step stands the last token id of `{separator}`,
appended as an id. The score of the step is the softmax over the logits, at that position, of the last token ids of
`{labels[0]}` and `{labels[1]}`. `config.json` names these three texts under the key `thinkprm`."""


def _data(facts: CardFacts) -> str:
    source = {name: value for name, value in facts.settings["data"]["train"].items() if value is not None}
    name, value = next(iter(source.items()))
    if name == "arithmetic":
        text = f"The synthetic arithmetic task of thinkprm-jax (split {value['split']}, seed {value['seed']})"
    else:
        text = f"`{value}` ({'PRM800K step labels' if name == 'prm800k' else 'verification chains'})"
    counts = []
    if facts.examples is not None:
        counts.append(f"{facts.examples:,} examples")
    if facts.left_out is not None:
        counts.append(f"left out as unusable or too long, over all epochs so far: {facts.left_out:,}")
    if facts.epoch is not None:
        counts.append(f"epochs begun: {facts.epoch + 1:,}")
    return f"## Training data\n\n{text}{': ' if counts else ''}{'; '.join(counts)}."


def _metrics(facts: CardFacts) -> str:
    if not facts.figures:
        return "## Metrics\n\nThe run wrote none."
    rows = "\n".join(f"| {name} | {value:.4g} | {step:,} |" for name, (step, value) in facts.figures.items())
    return f"""## Metrics

The last figures of the run up to this checkpoint. `held_out_` figures are teacher-forced, on the recipe's
evaluation data; `loss` is that of one training batch.

| figure | value | at step |
|---|---|---|
{rows}"""


def _recipe(facts: CardFacts) -> str:
    return f"## Recipe\n\n```yaml\n{facts.recipe.strip()}\n```"


def _license(facts: CardFacts) -> str:
    if facts.base is None:
        text = "Trained from random weights; no licence has been chosen. Name one before publishing the model."
    elif facts.license:
        text = f"The base `{facts.base}` is under `{facts.license}`; this model derives from it."
    else:
        text = f"This model derives from `{facts.base}`, whose licence applies; name it before publishing."
    return f"## Licence\n\n{text}"
