"""What a caller asks of the sampler: a prompt and a short script of phases.

A script is a generator function. It yields phases, the sampler carries them out on one slot's context, and sends
back each outcome::

    def script():
        thought = yield Think(max_tokens=512, stop_ids=(close_think,))
        yield Force(tokenizer.encode("\\nIs the solution correct?"))
        yes, no = yield Choose((yes_id, no_id))
        return thought.text, yes - no

The value the generator returns is the request's result. Forced text goes through the decode loop token by token
beside the other slots' tokens; nothing is prefilled again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from thinkprm_jax.errors import RequestError, UserError

MAX_WATCHED = 4
MAX_STOP_IDS = 8
MAX_DRAFTED = 15


def check_drafts(tokens: int | None) -> None:
    """UserError where drafts cannot be of so many tokens: 0 is none, and None what pays."""
    if tokens is not None and not 0 <= tokens <= MAX_DRAFTED:
        raise UserError(f"drafts is {tokens}, it must be a number of tokens from 0 (none) to {MAX_DRAFTED}")


@dataclasses.dataclass(frozen=True)
class Think:
    """Generate until a stop id, a stop text or the budget. Outcome: :class:`Thought`.

    Example:

        Think(max_tokens=64, stop_texts=("\\n\\n",))

    What stopped the generation is taken back: it stands neither in the context nor in the outcome. Of several stop
    texts the one that is complete first counts. A stop text that begins inside a token breaks that token; the part
    before it is put back as plain text, which may be more tokens than one.

    With ``keep_stop`` it stays instead: the stop id, or every token through the one that completes the stop text
    (with whatever else that token holds). The ids are then exactly what was sampled, and can be gone on from.
    """

    max_tokens: int
    stop_ids: tuple[int, ...] = ()
    stop_texts: tuple[str, ...] = ()
    watch: tuple[int, ...] = ()  # ids whose log-probabilities are recorded at every generated position
    reserve: int = 0  # positions kept free for what the script forces later; a broken token may take some of them
    keep_stop: bool = False


@dataclasses.dataclass(frozen=True)
class Force:
    """Append these ids to the context. Outcome: None. RequestError inside the script if they do not fit.

    Example:

        _, tokenizer = load_model("mini")
        Force(tuple(tokenizer.encode_plain(" Yes", inner=True)))
    """

    ids: Sequence[int]


@dataclasses.dataclass(frozen=True)
class Choose:
    """Ask for the log-probabilities of these options behind the context; appends nothing.

    An option is an id, or several: a word that the tokenizer writes in pieces. Its log-probability is then the sum
    over its ids, each behind those before it. What options have in common is computed once.

    Outcome: float32 [len(ids)], log-softmax over the whole vocabulary of the float32 logits. RequestError inside
    the script if the longest option does not fit behind the context.

    Example:

        _, tokenizer = load_model("mini")
        Choose((tokenizer.token_id(" Yes"), tokenizer.token_id(" No")))
        Choose(tuple(tuple(tokenizer.encode_inside(word)) for word in ("flawless", "flawed")))
    """

    ids: tuple[int | tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Mark:
    """Outcome: int, the length of the context in tokens, to rewind to.

    Example:

        def twice():
            start = yield Mark()
            first = yield Think(max_tokens=8)
            yield Rewind(start)
            return first, (yield Think(max_tokens=8))
    """


@dataclasses.dataclass(frozen=True)
class Rewind:
    """Cut the context back to its first ``mark`` >= 1 tokens. Outcome: None. Costs nothing on the device.

    Example:

        Rewind(12)  # what stands at :class:`Mark`
    """

    mark: int


Phase = Think | Force | Choose | Mark | Rewind


@dataclasses.dataclass(frozen=True)
class Thought:
    """What a :class:`Think` phase generated, the stop excluded unless ``keep_stop``.

    Attributes:
      ids: the n generated ids (and, at the end, those of a broken token's remainder), with ``keep_stop`` also the
        ones that stopped it.
      text: their text.
      logprobs: float32 [n], log-probability of each id under the float32 logits at temperature 1; NaN for the
        remainder of a broken token, which was not sampled.
      watched: float32 [n, W], log-probabilities of the watched ids at the same positions.
      finish: "stop_id", "stop_text", "length" (max_tokens) or "context" (max_length - reserve).
      stop: the id or the text that stopped it, or None.
    """

    ids: list[int]
    text: str
    logprobs: np.ndarray
    watched: np.ndarray
    finish: str
    stop: int | str | None = None


Keep = Literal["", "prompt", "context"]
Script = Callable[[], Generator[Phase, Any, Any]]


@dataclasses.dataclass
class Request:
    """One prompt and its script; the sampling settings hold for all its Think phases.

    Example:

        model, tokenizer = load_model("mini")
        yes, no = tokenizer.token_id(" Yes"), tokenizer.token_id(" No")

        def script():
            return (yield Choose((yes, no)))

        request = Request(tokenizer.encode("Is the solution correct?"), script)
        [(index, result)] = Sampler(model, tokenizer, slots=1, max_length=64).run([request])
        print(result.value)  # float32 [2], log-probabilities

    A token depends on the prompt, the script, ``seed`` and its position, and on nothing else.

    ``keep`` says what a later prompt will begin with: "prompt" this request's prompt, "context" its whole context
    as it ends. That is put into the sampler's prefix cache, if it has one; what stands in a slot's row is shared
    without, but only for as long as no other request takes that row. A prompt shares what it has in common with
    such a context token by token, so go on from ``[*prompt, *result.ids]``, not from text that is encoded again.
    """

    prompt: Sequence[int]
    script: Script
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    seed: int = 0  # from 0 to 2**64 - 1
    size_hint: int = 0  # expected tokens, roughly; of a sequence of requests, larger ones start first
    keep: Keep = ""


@dataclasses.dataclass
class Result:
    """How a request ended.

    Attributes:
      value: what the script returned (None on error).
      error: why this request alone failed, or None.
      ids: the context at the end without the prompt.
      tokens: ids that were sampled for it, through each stop, rewound ones included.
      weight_version: of the weights that it ran with (:meth:`Sampler.update_weights`).
    """

    value: Any = None
    error: RequestError | None = None
    ids: list[int] = dataclasses.field(default_factory=list)
    tokens: int = 0
    weight_version: int = 0


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sample of :meth:`Sampler.generate`. ``finish_reason``: "stop" (end id or stop text) or "length".

    Example:

        model, tokenizer = load_model("mini")
        [[completion]] = Sampler(model, tokenizer, slots=1, max_length=64).generate(["2 + 2"], max_new_tokens=8)
        print(completion.text, completion.ids, completion.logprobs.mean(), completion.finish_reason)
    """

    text: str
    ids: list[int]
    logprobs: np.ndarray
    finish_reason: str


@dataclasses.dataclass
class SamplerStats:
    """Counters since the sampler was made.

    A token "was processed before" where it stood at the same place behind the same tokens, in a prompt or in a
    context that finished. The sampler remembers the last half a million of such tokens; what it has forgotten
    counts as new.
    """

    decode_steps: int = 0
    wide_steps: int = 0  # of those, the ones that tried drafts or took several given tokens
    drafted_tokens: int = 0  # that wide steps tried
    accepted_tokens: int = 0  # of those, the ones that were sampled
    slot_steps: int = 0  # decode steps x slots
    busy_slot_steps: int = 0  # of those, the ones that fed a token
    sampled_tokens: int = 0
    discarded_tokens: int = 0  # of those, the ones behind a stop text that was seen only after the chunk
    fed_samples: int = 0  # of the sampled, those that went through the layers: not the last of a phase that stops
    forced_tokens: int = 0  # a prompt's last token, which the decode loop takes, and what scripts force
    refed_tokens: int = 0  # the same, but processed before: once for each further fork of a prompt, and a rewind
    prefilled_tokens: int = 0  # of prompts without their last token, for the first time
    reprefilled_tokens: int = 0  # the same, but processed before: lost, or too short to be worth a copy
    shared_tokens: int = 0  # of prompts, kept in the row or copied from another row or the prefix cache
    saved_tokens: int = 0  # that got a place in the prefix cache
    evicted_tokens: int = 0  # that lost it to others
    finished: int = 0
    # Bytes of keys and values. What decode steps read, and what of it busy rows have to read. The peaks are of
    # rows that run, at the end of a chunk: what is held for them, and what of that are their tokens (a beginning
    # that several share counts once for each).
    cache_bytes_read: int = 0
    cache_bytes_live: int = 0
    peak_cache_bytes: int = 0
    peak_live_bytes: int = 0
    device_seconds: float = 0.0  # from a chunk's first call on the device until its results are on the host
    host_seconds: float = 0.0  # between chunks, while there is something to decode: the device waits for the host

    def plus(self, others: Iterable[SamplerStats]) -> SamplerStats:
        every = (self, *others)
        return SamplerStats(
            **{field.name: sum(getattr(one, field.name) for one in every) for field in dataclasses.fields(self)}
        )

    @property
    def occupancy(self) -> float:
        """Share of slot steps that fed a token."""
        return self.busy_slot_steps / max(self.slot_steps, 1)

    @property
    def idle_share(self) -> float:
        """Share of the time that the device waited for the host, though there was something to decode."""
        return self.host_seconds / max(self.host_seconds + self.device_seconds, 1e-9)

    @property
    def processed_tokens(self) -> int:
        """Tokens that went through the layers."""
        given = self.prefilled_tokens + self.reprefilled_tokens + self.forced_tokens + self.refed_tokens
        return self.fed_samples + given

    @property
    def first_time_tokens(self) -> int:
        """Tokens generated, forced or prefilled for the first time: the work there was to do. What was sampled and
        thrown away is none."""
        return self.sampled_tokens - self.discarded_tokens + self.forced_tokens + self.prefilled_tokens
