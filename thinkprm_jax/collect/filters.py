"""Which generations become training chains: the filters of rejection sampling, each with its count.

A generation is left out for the first of these reasons that holds:

    no generation                       the prompt did not fit, or the text cannot be encoded
    no verdict                          no \\boxed{correct} or \\boxed{incorrect} in it
    steps without a verdict             before or at the first step that it calls incorrect
    more verdicts than steps            summaries, second thoughts: what is right is unclear
    verdicts differ from the labels     filter.labels: process
    outcome differs from the label      filter.labels: outcome
    too long                            after it was cut behind its last verdict
    duplicates                          the same chain on the same prefix
    beyond per_prefix
    balance                             of the more frequent kind of prefix
    beyond the target
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from thinkprm_jax.collect.recipe import Filters, Generated
from thinkprm_jax.collect.spool import Rows, Spool, SpooledRows
from thinkprm_jax.data.prm800k import Prefix
from thinkprm_jax.errors import RequestError
from thinkprm_jax.protocol.prompts import DECISION, NO, THINK_CLOSE, THINK_OPEN, YES, strip_step_label
from thinkprm_jax.protocol.reading import find_verdicts, read_chain
from thinkprm_jax.records.collection import CollectedChainRow, DecisionRow
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

REASONS = (
    "no generation",
    "no verdict",
    "steps without a verdict",
    "more verdicts than steps",
    "verdicts differ from the labels",
    "outcome differs from the label",
    "too long",
    "duplicates",
    "beyond per_prefix",
    "balance",
    "beyond the target",
)
KEPT = "kept"
_CLOSERS = re.compile(r"[ ]?(?:\\\)|\\\]|\$\$?)?(?:\*\*)?\.?")  # of what the last verdict stands in: \( \), **, $


@dataclass(frozen=True)
class Candidate:
    """A chain that passed the filters on itself. place: its index in Collection.decisions."""

    place: int
    correct: bool
    tokens: int
    row: CollectedChainRow


def _candidate(place: int, correct: int, tokens: int, content: str) -> Candidate:
    return Candidate(place, bool(correct), tokens, CollectedChainRow.from_dict(json.loads(content)))


def _decision(content: str, left_out: str | None) -> DecisionRow:
    """left_out: why it is, though it has passed the filters."""
    source, prefix, chain, reason = json.loads(content)
    return DecisionRow(source, prefix, chain, left_out or reason)


def cut_chain(text: str) -> str | None:
    """The chain of a generation, cut behind its last verdict; None without a verdict.

    Verdicts are written as `\\boxed{correct}` whatever LaTeX was in the box, because scores are read at the token
    behind `\\boxed{`. Of a text that closes a thinking part, the answer counts if it has verdicts.
    """
    thinking, closed, answer = text.rpartition(THINK_CLOSE)
    body = answer if not closed or find_verdicts(answer) else thinking
    verdicts = find_verdicts(body)
    if not verdicts:
        return None
    pieces, place = [], 0
    for start, end, label in verdicts:
        pieces += [body[place:start], "\\boxed{correct}" if label else "\\boxed{incorrect}"]
        place = end
    closers = _CLOSERS.match(body, place)
    assert closers is not None
    chain = "".join(pieces) + closers[0]
    return chain.replace(THINK_OPEN, "").strip()


def chain_row(prefix: Prefix, chain: str, labels: Sequence[int]) -> CollectedChainRow:
    """The row of a kept chain. labels: what the chain says, through its first incorrect step."""
    correct = 0 not in labels
    steps = [f"Step {number}: {strip_step_label(step)}" for number, step in enumerate(prefix.steps, start=1)]
    ending = f"\n{THINK_CLOSE}{DECISION}{YES if correct else NO}"
    return CollectedChainRow(
        problem=prefix.problem,
        prefix="\n".join(steps),
        cot=f"{THINK_OPEN}\n{chain}{ending}",
        prefix_steps=tuple(steps),
        gt_step_labels=tuple("+" if label else "-" for label in labels),
        prefix_label=correct,
    )


class Collection:
    """Takes generations in, in order, and gives the selection at any time. What it has taken in is on disk.

    Args:
      seed: of what is left out for the balance and the target, and of the order of the rows.
      wave: prefixes between two looks at whether the target is reached; None: all are taken in.

    Attributes:
      prefixes: taken in. over: the target was reached at the end of a wave; no more are taken in.
    """

    def __init__(self, filters: Filters, tokenizer: Tokenizer, seed: int, wave: int | None = None) -> None:
        self._filters, self._tokenizer, self._seed, self._wave = filters, tokenizer, seed, wave
        self._spool = Spool(
            "decision (place INTEGER PRIMARY KEY, content TEXT)",
            "candidate (place INTEGER PRIMARY KEY, correct INTEGER, tokens INTEGER, rank BLOB, content TEXT)",
            "kept (number INTEGER PRIMARY KEY, place INTEGER)",
            "left_out (place INTEGER PRIMARY KEY, reason TEXT)",
        )
        self._decisions = self.prefixes = 0
        self._passed: Counter[bool] = Counter()
        self.over = False
        self.generated = Counter[str]()  # "chains", "tokens" where known, and "finish: stop" and so on

    def add(self, number: int, generated: Generated) -> None:
        """number: of the prefix; each is given once, with all its generations."""
        if self.over:
            return
        seen: set[str] = set()
        passed = 0
        counts = zip(generated.texts, generated.tokens, generated.finish, strict=True)
        for chain, (text, tokens, finish) in enumerate(counts):
            self.generated["chains"] += 1
            self.generated["tokens"] += tokens or 0
            self.generated[f"finish: {finish}"] += 1
            reason, candidate = self._examine(generated.prefix, text, finish)
            if candidate is not None:
                if candidate.row.cot in seen:
                    reason, candidate = "duplicates", None
                elif self._filters.per_prefix is not None and passed >= self._filters.per_prefix:
                    reason, candidate = "beyond per_prefix", None
            if candidate is not None:
                seen.add(candidate.row.cot)
                passed += 1
                self._passed[candidate.correct] += 1
                self._keep(candidate)
            decision = json.dumps([generated.prefix.source, number, chain, reason])
            self._spool.run("INSERT INTO decision VALUES (?, ?)", self._decisions, decision)
            self._decisions += 1
        self.prefixes += 1
        if self._wave is not None and (number + 1) % self._wave == 0:
            self.over = self.complete

    def _keep(self, candidate: Candidate) -> None:
        values = candidate.place, candidate.correct, candidate.tokens, self._rank(candidate)
        content = json.dumps(candidate.row.to_dict())
        self._spool.run("INSERT INTO candidate VALUES (?, ?, ?, ?, ?)", *values, content)

    @property
    def selectable(self) -> int:
        """Chains that would be kept now if there were no target."""
        correct, incorrect = self._passed[True], self._passed[False]
        return 2 * min(correct, incorrect) if self._filters.balance else correct + incorrect

    @property
    def complete(self) -> bool:
        """Whether the target is reached; an odd one needs one incorrect prefix more when balanced."""
        target = self._filters.target
        if target is None:
            return False
        if not self._filters.balance:
            return self.selectable >= target
        return self._passed[True] >= target // 2 and self._passed[False] >= target - target // 2

    def shortfall(self, kept: Rows[Candidate], decisions: Rows[DecisionRow]) -> str:
        """Why there are fewer chains than were wanted: how many each filter has left out of all generations.

        Args:
          kept, decisions: of :meth:`select`.
        """
        target = f" of the {self._filters.target:,} wanted" if self._filters.target else ""
        reasons = Counter(decision.reason for decision in decisions)
        left_out = [f"{reason} {count:,}" for reason in REASONS if (count := reasons[reason])]
        said = f"{len(kept):,} chains{target}: the source is used up"
        if left_out:
            said += f"; left out of {len(decisions):,} generations: {', '.join(left_out)}"
        if reasons["balance"]:
            correct, incorrect = self._passed[True], self._passed[False]
            said += (
                f". {correct:,} chains of correct and {incorrect:,} of incorrect prefixes had passed: "
                "filter.balance=false keeps them all"
            )
        return said

    def select(self) -> tuple[Rows[Candidate], Rows[DecisionRow]]:
        """(kept chains in an order drawn by the seed, a decision for every generation in the order they came)."""
        keep, limit = self._quotas()
        for table in ("kept", "left_out"):
            self._spool.run(f"DELETE FROM {table}")
        met: Counter[bool] = Counter()
        for place, correct in self._spool.rows("SELECT place, correct FROM candidate ORDER BY rank, place"):
            label = bool(correct) if self._filters.balance else True
            met[label] += 1
            if met[label] <= keep[label]:
                self._spool.run("INSERT INTO kept (place) VALUES (?)", place)
                continue
            reason = "beyond the target" if met[label] <= limit[label] else "balance"
            self._spool.run("INSERT INTO left_out VALUES (?, ?)", place, reason)
        columns = "place, correct, tokens, content"
        kept = f"SELECT {columns} FROM kept JOIN candidate USING (place) ORDER BY number"
        decisions = "SELECT content, left_out.reason FROM decision LEFT JOIN left_out USING (place) ORDER BY place"
        return SpooledRows(self._spool, kept, _candidate), SpooledRows(self._spool, decisions, _decision)

    def _quotas(self) -> tuple[dict[bool, int], dict[bool, int]]:
        """Of correct (True) and incorrect prefixes: (how many are kept, how many the balance would allow)."""
        passed = self._passed[True], self._passed[False]
        target = self._filters.target
        if not self._filters.balance:  # one kind, counted as True
            return {True: sum(passed) if target is None else target}, {True: sum(passed)}
        limit = dict.fromkeys((True, False), min(passed))
        if target is None:
            return limit, limit
        half = {True: target // 2, False: target - target // 2}
        if self.complete:
            return half, {label: max(limit[label], half[label]) for label in half}
        return {label: min(limit[label], half[label]) for label in half}, limit

    def _rank(self, candidate: Candidate) -> bytes:
        """A pseudo-random order that depends on the texts alone."""
        data = f"{self._seed}\0{candidate.row.problem}\0{candidate.row.prefix}\0{candidate.row.cot}"
        return blake2b(data.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def _examine(self, prefix: Prefix, text: str, finish: str) -> tuple[str, Candidate | None]:
        """(reason, None), or (KEPT, candidate)."""
        if finish == "error":
            return "no generation", None
        chain = cut_chain(text)
        if chain is None:
            return "no verdict", None
        verdicts = read_chain(chain, len(prefix.steps))
        if not verdicts.complete:
            return "steps without a verdict", None
        first = len(prefix.steps) if verdicts.first_error is None else verdicts.first_error
        judged = min(first + 1, len(prefix.steps))
        if len(find_verdicts(chain)) not in (judged, len(prefix.steps)):
            return "more verdicts than steps", None
        human_first = prefix.labels.index(0) if 0 in prefix.labels else len(prefix.steps)
        if self._filters.labels == "process" and first != human_first:
            return "verdicts differ from the labels", None
        if self._filters.labels == "outcome" and (first == len(prefix.steps)) != prefix.correct:
            return "outcome differs from the label", None
        try:
            tokens = len(self._tokenizer.encode_plain(chain, inner=True))
        except RequestError:
            return "no generation", None
        if self._filters.max_tokens is not None and tokens > self._filters.max_tokens:
            return "too long", None
        labels = [int(index < first) for index in range(judged)]
        row = chain_row(prefix, chain, labels)
        return KEPT, Candidate(self._decisions, row.prefix_label, tokens, row)
