"""Discriminative PRMs that others trained, read from the folders that they released.

    MathShepherdPRM   peiyi9979/math-shepherd-mistral-7b-prm            `+` against `-` at a tag behind each step
    RLHFlowPRM        RLHFlow/Llama3.1-8B-PRM-{Mistral,Deepseek}-Data   a chat: a step, `+`, a step, `+`, ...
    QwenPRM           Qwen/Qwen2.5-Math-PRM-7B, -72B, -7B-PRM800K       a two-class head at `<extra_0>`
    SkyworkPRM        Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B, -7B    a value at the newline behind each step

Each is a layout of the text and a place to read; :mod:`.stepwise` does the rest. The released codes search their
texts for the ids of the marks, so a step that happens to hold one shifts all scores behind it; here the places are
those where the marks were put, and control tokens in a problem or a step are plain text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from thinkprm_jax.data.discriminative import Layout, StepEncoder, StepwiseText
from thinkprm_jax.errors import RequestError
from thinkprm_jax.protocol.steps import LocatedStep
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.verifier.stepwise import StepwisePRM, StepwiseSettings

# `problem Step 1: ... ки\nStep 2: ... ки` after the begin-of-sentence token (the model card, and `MathShepherdPRM`
# of the paper's code). The tag's id is that of `ки` at the start of a text, which is that of ` ки` inside one.
# search-and-learn scores another text (its own system prompt, the problem, paragraphs without `Step i:`), and the
# paper's code edits "The answer is" into the colon form of the training data: neither is done here.
MATH_SHEPHERD = Layout(separator="ки", labels=("+", "-"), bos=True, opening=" ")
STEP_MARK = "<extra_0>"
QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


def paragraphs(solution: str) -> list[str]:
    """The steps of a whole solution: what stands between blank lines, as in search-and-learn."""
    return [step for step in solution.strip().split("\n\n") if step.strip()]


def in_order(solution: str, steps: Sequence[str]) -> list[LocatedStep]:
    """Steps that stand in the text one behind the other, with nothing but blanks between them."""
    located, end = [], 0
    for step in steps:
        start = solution.index(step, end)
        end = start + len(step)
        located.append(LocatedStep(step, start, end))
    return located


@dataclasses.dataclass(frozen=True, kw_only=True)
class MathShepherdSettings(StepwiseSettings):
    """Of Math-Shepherd."""

    kind: ClassVar[str] = "math_shepherd"


class MathShepherdPRM(StepwisePRM):
    """Math-Shepherd (arXiv 2312.08935): Mistral-7B. Its sliding window of 4,096 tokens bounds ``max_length``.

    See :class:`.StepwisePRM` for the arguments. The steps of a whole solution are those of ``Step i:`` labels
    where it has some, since the text has them.

    Example:

        prm = MathShepherdPRM("peiyi9979/math-shepherd-mistral-7b-prm")
        prm.score(["2 + 2?"], [["2 + 2 = 4."]])
    """

    Settings = MathShepherdSettings

    def make_encoder(self) -> StepEncoder:
        return StepEncoder(self.tokenizer, MATH_SHEPHERD)


class TurnEncoder:
    """RLHFlow's layout: a conversation in which the user says the steps, one a turn (the problem, a blank and the
    first step in the first), and the assistant answers `+` to each; what it would have said is read at the token
    before each `+`. One pass gives all steps, since the answers before a step are `+` whatever the model thinks.

    From math-rm/prm_evaluate.py of RLHFlow/RLHF-Reward-Modeling, which runs a pass for every step and reads the
    third token from the end. (ProcessBench's script puts a blank line between the problem and the first step.)

    Raises:
      UserError: this tokenizer's chat template does not keep the answers as tokens of their own.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.choices = (tokenizer.encode_plain("+")[-1], tokenizer.encode_plain("-")[-1])
        try:
            self.encode("?", ["1", "2"])
        except RequestError as error:
            raise tokenizer.fault(str(error)) from None

    def encode(self, problem: str, steps: Sequence[str]) -> StepwiseText:
        steps = [step.strip() for step in steps]
        first = f"{problem} {steps[0]}"
        ids, others = (self._ids([first, *steps[1:]], label) for label in ("+", "-"))
        # The two conversations differ at the answers and nowhere else, whatever the template and the steps hold.
        places = [at for at, pair in enumerate(zip(ids, others, strict=False)) if pair == self.choices]
        differing = sum(a != b for a, b in zip(ids, others, strict=False))
        if len(ids) != len(others) or len(places) != len(steps) or differing != len(places):
            raise RequestError("the chat template does not keep the answers + and - as tokens of their own")
        return StepwiseText(ids, [place - 1 for place in places])

    def show(self, text: StepwiseText) -> str:
        return self._tokenizer.decode(text.ids)

    def _ids(self, turns: Sequence[str], label: str) -> list[int]:
        answer = {"role": "assistant", "content": label}
        messages = [message for turn in turns for message in ({"role": "user", "content": turn}, answer)]
        return self._tokenizer.encode_chat(messages, add_generation_prompt=False)


class MarkEncoder:
    """Qwen's layout: a chat of its own system prompt, the problem, and an answer with ``<extra_0>`` behind each
    step and nothing between them (model card of Qwen2.5-Math-PRM-7B).

    Raises:
      UserError: the tokenizer has no such token, or a chat template that does not open an answer as it would begin
        one that is there.
    """

    choices = None  # the head has its own classes

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        if STEP_MARK not in tokenizer.control_ids:
            raise tokenizer.fault(f"the tokenizer has no {STEP_MARK}, the mark behind each step")
        self._mark = tokenizer.control_ids[STEP_MARK]
        chat = self._chat("x")
        answered = tokenizer.render_chat([*chat, {"role": "assistant", "content": "x"}], False)
        if not answered.startswith(tokenizer.render_chat(chat, True) + "x"):
            raise tokenizer.fault("the chat template opens an answer otherwise than it writes one")

    def encode(self, problem: str, steps: Sequence[str]) -> StepwiseText:
        ids = self._tokenizer.encode_chat(self._chat(problem), add_generation_prompt=True)
        # The first step goes on in the run of text that opens the answer: a token may reach over the seam.
        opening = 1 + max(at for at, id in enumerate(ids) if id in self._tokenizer.control_ids.values())
        run = self._tokenizer.decode(ids[opening:])
        del ids[opening:]
        places = []
        for step in steps:
            ids += [*self._tokenizer.encode_plain(run + step, inner=True), self._mark]
            places.append(len(ids) - 1)
            run = ""
        return StepwiseText(ids, places)

    def show(self, text: StepwiseText) -> str:
        return self._tokenizer.decode(text.ids)

    @staticmethod
    def _chat(problem: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": QWEN_SYSTEM}, {"role": "user", "content": problem}]


class LineEncoder:
    """Skywork's layout: begin-of-sentence, the problem and a newline; then each line of the answer, encoded by
    itself, and the newline's token, where the line is scored (``prepare_input`` of
    SkyworkAI/skywork-o1-prm-inference). A step of several lines is scored at its last newline.

    Raises:
      UserError: the tokenizer has no begin-of-sentence token.
    """

    choices = None  # the head has a value

    def __init__(self, tokenizer: Tokenizer) -> None:
        if tokenizer.bos_id is None:
            raise tokenizer.fault("the layout begins with a begin-of-sentence token, this tokenizer has none")
        self._tokenizer, self._bos = tokenizer, tokenizer.bos_id
        self._newline = tokenizer.encode_plain("\n")[-1]

    def encode(self, problem: str, steps: Sequence[str]) -> StepwiseText:
        ids = [self._bos, *self._tokenizer.encode_plain(problem + "\n")]
        places = []
        for step in steps:
            for line in step.split("\n"):
                ids += [*(self._tokenizer.encode_plain(line) if line else ()), self._newline]
            places.append(len(ids) - 1)
        return StepwiseText(ids, places)

    def show(self, text: StepwiseText) -> str:
        return self._tokenizer.decode(text.ids)


class ParagraphPRM(StepwisePRM):
    """A verifier whose own code cuts a solution at blank lines."""

    def locate(self, solution: str) -> list[LocatedStep]:
        return in_order(solution, paragraphs(solution))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RLHFlowSettings(StepwiseSettings):
    """Of RLHFlow's models."""

    kind: ClassVar[str] = "rlhflow"


class RLHFlowPRM(ParagraphPRM):
    """RLHFlow's Llama-3.1-8B PRMs: P(`+`) against P(`-`) as the assistant's answer to each step.

    See :class:`.StepwisePRM` for the arguments.

    Example:

        prm = RLHFlowPRM("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data")
        prm.score(["2 + 2?"], [["2 + 2 = 4."]])
    """

    Settings = RLHFlowSettings

    def make_encoder(self) -> TurnEncoder:
        return TurnEncoder(self.tokenizer)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QwenPRMSettings(StepwiseSettings):
    """Of Qwen's process reward models."""

    kind: ClassVar[str] = "qwen_prm"


class QwenPRM(ParagraphPRM):
    """Qwen2.5-Math-PRM: the softmax of the head's two classes at ``<extra_0>``, class 1.

    See :class:`.StepwisePRM` for the arguments.

    Example:

        prm = QwenPRM("Qwen/Qwen2.5-Math-PRM-7B")
        prm.score(["2 + 2?"], [["2 + 2 = 4."]])
    """

    Settings = QwenPRMSettings

    def make_encoder(self) -> MarkEncoder:
        return MarkEncoder(self.tokenizer)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkyworkPRMSettings(StepwiseSettings):
    """Of Skywork's process reward models."""

    kind: ClassVar[str] = "skywork_prm"


class SkyworkPRM(StepwisePRM):
    """Skywork-o1-Open-PRM-Qwen-2.5: the sigmoid of a value at the newline behind each line.

    See :class:`.StepwisePRM` for the arguments. The steps of a whole solution are its lines that are not blank.
    Example:

        prm = SkyworkPRM("Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B")
        prm.score(["2 + 2?"], [["2 + 2 = 4."]])
    """

    Settings = SkyworkPRMSettings

    def make_encoder(self) -> LineEncoder:
        return LineEncoder(self.tokenizer)

    def locate(self, solution: str) -> list[LocatedStep]:
        return in_order(solution, [line for line in solution.split("\n") if line.strip()])
