"""Datasets of training examples: chains, from the synthetic task or a file, as token ids with target weights."""

from __future__ import annotations

import json
import pickle
import tempfile
import threading
from abc import ABC, abstractmethod
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np

from thinkprm_jax.data.batches import TokenisedExample
from thinkprm_jax.data.chains import NOT_ENCODABLE, TOO_LONG, ChainReport, LabelledChain, LeftOut, check_verdicts
from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.protocol.prompts import NO, YES, encode_training_text
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

VERDICT_WORDS = ("correct", "incorrect", YES, NO)
# Tokens of examples that are kept, the latest ones: what the stream looks ahead at, and the whole of a small set,
# so that its later epochs tokenise nothing. 8 bytes each.
KEPT_TOKENS = 8_000_000


class TokenisedDataset(ABC):
    """Examples that are made when first asked for (the base of every dataset; see ``batches.Dataset``).

    Sizes are remembered for good, the examples themselves as far as KEPT_TOKENS go. An example that cannot be
    made is left out: counted and, for the first few, named in ``report``, once. May be read from several threads.
    """

    def __init__(self, size: int, name: str = "data", report: ChainReport | None = None) -> None:
        """report: goes on counting in the report of the file the examples are from; default: a new one."""
        self.report = ChainReport(name) if report is None else report
        self.unusable = self.report.left_out
        self._size = size
        # Zeros cost memory where they are written only, so a stream of millions is fine.
        self._lengths = np.zeros(size, np.int32)  # 0: not known yet, -1: left out
        self._targets = np.zeros(size, np.int32)
        self._kept: OrderedDict[int, TokenisedExample] = OrderedDict()
        self._room = KEPT_TOKENS
        self._lock = threading.Lock()

    @abstractmethod
    def make(self, index: int) -> TokenisedExample:
        """The example, a pure function of its index.

        Raises:
          LeftOut: it cannot be trained on.
        """

    @abstractmethod
    def identity(self) -> list[Any]:
        """Everything the examples depend on beside their number, as things that JSON can write."""

    @cached_property
    def fingerprint(self) -> str:
        """A hash that two datasets share if they hold the same examples."""
        return stable_hash([self._size, *self.identity()])

    def place(self, index: int) -> str:
        """How messages call an example."""
        return f"example {index}"

    def __len__(self) -> int:
        return self._size

    def length(self, index: int) -> int | None:
        if not self._lengths[index]:
            self[index]
        length = int(self._lengths[index])
        return None if length < 0 else length

    def targets(self, index: int) -> int:
        if not self._lengths[index]:
            self[index]
        return int(self._targets[index])

    def __getitem__(self, index: int) -> TokenisedExample | None:
        with self._lock:
            if self._lengths[index] < 0:
                return None
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        try:
            example = self.make(index)
        except LeftOut as why:
            with self._lock:
                if not self._lengths[index]:
                    self._lengths[index] = -1
                    self.report.leave_out(self.place(index), why)
            return None
        with self._lock:
            self._targets[index] = np.count_nonzero(example.columns[2])
            self._lengths[index] = example.length
            self._keep(index, example)
        return example

    def _keep(self, index: int, example: TokenisedExample) -> None:
        if index not in self._kept:
            self._kept[index] = example
            self._room -= len(example.ids)
        while self._room < 0:
            _, oldest = self._kept.popitem(last=False)
            self._room += len(oldest.ids)


class ChainSource(Protocol):
    """Chains by index, each a pure function of it. unchecked: their verdicts may not be those of the labels."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def unchecked(self) -> bool: ...

    def __call__(self, index: int) -> LabelledChain: ...


class ChainDataset(TokenisedDataset):
    """Chains by index, tokenised when read.

    An example whose row would be longer than ``max_length`` inputs, or that cannot be encoded, is left out. No
    chain is cut.
    """

    def __init__(
        self,
        size: int,
        chain: ChainSource,
        tokenizer: Tokenizer,
        max_length: int,
        verdict_weight: float = 1.0,
        name: str = "data",
        report: ChainReport | None = None,
    ) -> None:
        super().__init__(size, name, report)
        self._chain, self._tokenizer, self._max_length = chain, tokenizer, max_length
        self._verdict_weight = verdict_weight
        weighted = VERDICT_WORDS if verdict_weight != 1.0 else ()
        self._verdict_words = [tokenizer.encode_inside(word) for word in weighted]

    def identity(self) -> list[Any]:
        """The chains, and how one text becomes ids."""
        probe = encode_training_text(self._tokenizer, "48 * 2 = ?", ["48 * 2 = 96."], r"\boxed{correct}", True)
        return [self._chain.fingerprint, probe.ids, probe.prompt_length]

    def place(self, index: int) -> str:
        return self._chain(index).place or super().place(index)

    def make(self, index: int) -> TokenisedExample:
        chain = self._chain(index)
        if self._chain.unchecked:
            check_verdicts(chain)
        try:
            text = encode_training_text(self._tokenizer, chain.problem, chain.steps, chain.chain, chain.correct)
        except RequestError as error:
            raise LeftOut(NOT_ENCODABLE, str(error)) from error
        if len(text.ids) - 1 > self._max_length:
            raise LeftOut(TOO_LONG, f"{len(text.ids)} tokens, the longest row holds {self._max_length + 1}")
        ids = np.asarray(text.ids, np.int32)
        weights = np.ones(len(ids), np.float32)
        weights[: text.prompt_length] = 0.0
        for word in self._verdict_words:
            weights[text.prompt_length :][positions_of(word, ids[text.prompt_length :])] = self._verdict_weight
        return TokenisedExample(ids, weights)


def positions_of(word: Sequence[int], ids: np.ndarray) -> np.ndarray:
    """bool [n]: where ids int [n] hold this word, of one id or several, whole."""
    last = len(ids) - len(word) + 1
    found = np.zeros(len(ids), bool)
    if last > 0:
        begins = np.all([ids[place : place + last] == id for place, id in enumerate(word)], axis=0)
        for place in range(len(word)):
            found[place : place + last] |= begins
    return found


class SpooledChains:
    """Chains of any number, on disk: a process holds where each of them begins, eight bytes, and not its text.

    They are written to a file of this machine's temporary folder that ends with the process, whatever ends it.

    Raises:
      UserError: there are none, or there is no room for them.
    """

    def __init__(self, chains: Iterable[LabelledChain], limit: int | None = None, unchecked: bool = False) -> None:
        """``limit``: takes no more. ``unchecked``: whoever reads one compares its verdicts with its labels."""
        self.unchecked = unchecked
        digest = blake2b(digest_size=16)
        starts = array("q")
        try:
            self._file = tempfile.TemporaryFile(prefix="thinkprm-chains-")  # noqa: SIM115 (stays open)
            for number, chain in enumerate(chains):
                if limit is not None and number >= limit:
                    continue  # the file is checked to its end
                digest.update(json.dumps(chain_content(chain), sort_keys=True).encode() + b"\n")
                starts.append(self._file.tell())
                self._file.write(pickle.dumps(chain, protocol=5))
            starts.append(self._file.tell())
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"the chains cannot be kept in {tempfile.gettempdir()} ({error.strerror or error}); "
                "$TMPDIR chooses another folder"
            ) from error
        if len(starts) == 1:
            raise UserError("the data holds no chains")
        self._starts, self._reading = np.frombuffer(starts, np.int64), threading.Lock()
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __call__(self, index: int) -> LabelledChain:
        begin, end = (int(place) for place in self._starts[index : index + 2])
        with self._reading:
            self._file.seek(begin)
            written = self._file.read(end - begin)
        chain: LabelledChain = pickle.loads(written)
        return chain


class ListedChains:
    """Chains of a list."""

    unchecked = False

    def __init__(self, chains: Sequence[LabelledChain]) -> None:
        if not chains:
            raise UserError("the data holds no chains")
        self._chains = chains

    def __call__(self, index: int) -> LabelledChain:
        return self._chains[index]

    @cached_property
    def fingerprint(self) -> str:
        return stable_hash(chain_content(chain) for chain in self._chains)


def chain_content(chain: LabelledChain) -> list[Any]:
    """What of a chain an example depends on, for :func:`stable_hash`."""
    return [chain.problem, chain.steps, chain.chain, chain.labels, chain.correct]


def stable_hash(items: Iterable[Any]) -> str:
    """A hash of things that JSON can write, the same on every machine and in every Python."""
    digest = blake2b(digest_size=16)
    for item in items:
        digest.update(json.dumps(item, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
