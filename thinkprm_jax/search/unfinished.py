"""What a search has of problems that have no rows yet, on disk: a run that goes on does not do it again.

A piece depends on its problem, its seed and the tokens before it, and on nothing beside them; a judgement on its
problem and the text. So what is given again from here is what would be written or judged anyway.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, cast

from thinkprm_jax.records.files import LineFile, has_lines, remove_lines, write_lines
from thinkprm_jax.records.jsonl import read_growing, write_line
from thinkprm_jax.records.output import other_model
from thinkprm_jax.records.search import SearchJudgementRow, SearchPieceRow
from thinkprm_jax.sampler.handle import Handle, StepLoop, finished
from thinkprm_jax.search.engine import Continuation, Engine, Finish, Judgement, Piece, Problem
from thinkprm_jax.storage import Location

UnfinishedRow = SearchPieceRow | SearchJudgementRow
_TIDY_FROM = 1024  # lines of finished problems that may stand in the file


class UnfinishedStore:
    """The file: pieces and judgements of problems that are searched, appended as they come; gone at the end.

    Args:
      path: another program must not write it.
      wanted: numbers of the problems that are still to be searched; lines of others are dropped.
    Attributes:
      kept: pieces and judgements that an earlier run has left.
    Raises:
      UserError: the file cannot be used; names file and line.
    """

    def __init__(self, path: Location, wanted: Collection[int]) -> None:
        self._path = path
        self._lock = threading.Lock()  # pieces and judgements come from two threads
        self._lines: dict[int, list[bytes]] = {}
        self._known: dict[tuple[str, int, str], UnfinishedRow] = {}
        self._finished = 0  # lines of the file that nobody needs any more
        self._file: LineFile | None = None
        self._made_by: dict[str, Mapping[str, str]] = {}  # format of a row -> fingerprints of what makes it
        rows, half_written = read_growing(path) if has_lines(path) else ([], False)
        for place, content in rows:
            kind = SearchJudgementRow if "verdict" in content else SearchPieceRow
            row: UnfinishedRow = kind.from_dict(content, place)
            if row.index in wanted:
                self._known[row.FORMAT, row.index, row.key] = row
                self._lines.setdefault(row.index, []).append(write_line(row.to_dict()))
            else:
                self._finished += 1
        self.kept = len(self._known)
        if self._finished or half_written:
            self._tidy()

    def use(self, generator: Mapping[str, str], verifier: Mapping[str, str]) -> None:
        """Before the search: the fingerprints of the models.

        Raises:
          UserError: what is kept was made by models with other files of the same name.
        """
        self._made_by = {SearchPieceRow.FORMAT: generator, SearchJudgementRow.FORMAT: verifier}
        for (format, _, _), row in self._known.items():
            for name, ours in self._made_by[format].items():
                theirs = getattr(row, name)
                if theirs is not None and theirs != ours:
                    raise other_model(self._path, "", name, theirs, ours)

    def piece(self, index: int, key: str) -> Piece | None:
        """Of problem ``index``; None: it has to be written."""
        row = self._known.get((SearchPieceRow.FORMAT, index, key))
        if not isinstance(row, SearchPieceRow):
            return None
        return Piece(row.ids, row.text, cast(Finish, row.finish), row.tokens)

    def judgement(self, index: int, key: str) -> Judgement | None:
        """Of problem ``index``; None: it has to be made."""
        row = self._known.get((SearchJudgementRow.FORMAT, index, key))
        if not isinstance(row, SearchJudgementRow):
            return None
        return Judgement.of_record(row.verdict, row.tokens)

    def keep_piece(self, index: int, key: str, piece: Piece) -> Piece:
        """Writes it down. What failed may come right in another run. Returns: the piece."""
        if piece.error is None:
            made_by = self._made_by.get(SearchPieceRow.FORMAT, {})
            row = SearchPieceRow(index, key, piece.ids, piece.text, piece.finish, piece.tokens, **made_by)
            self._append(row)
        return piece

    def keep_judgement(self, index: int, key: str, judgement: Judgement) -> Judgement:
        if judgement.record is not None and judgement.error is None:
            made_by = self._made_by.get(SearchJudgementRow.FORMAT, {})
            self._append(SearchJudgementRow(index, key, judgement.tokens, judgement.record, **made_by))
        return judgement

    def forget(self, index: int) -> None:
        """The problem has its rows."""
        with self._lock:
            self._finished += len(self._lines.pop(index, ()))
            for place in [place for place in self._known if place[1] == index]:
                del self._known[place]
            if self._finished >= max(_TIDY_FROM, sum(map(len, self._lines.values()))):
                self._tidy()

    def close(self) -> None:
        """The file stays while there is something in it that a next run can use."""
        with self._lock:
            self._close_file()
            if not self._lines:
                remove_lines(self._path)

    def _append(self, row: UnfinishedRow) -> None:
        line = write_line(row.to_dict())
        with self._lock:
            self._lines.setdefault(row.index, []).append(line)
            if self._file is None:
                self._file = LineFile(self._path)
            self._file.append(line)

    def _tidy(self) -> None:
        """Writes the file anew, without lines of finished problems."""
        self._close_file()
        write_lines(self._path, (line for lines in self._lines.values() for line in lines))
        self._finished = 0

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


class UnfinishedAnswers(Protocol):
    """What an engine asks of one store, or of several."""

    def piece(self, index: int, key: str) -> Piece | None: ...

    def judgement(self, index: int, key: str) -> Judgement | None: ...

    def keep_piece(self, index: int, key: str, piece: Piece) -> Piece: ...

    def keep_judgement(self, index: int, key: str, judgement: Judgement) -> Judgement: ...


class KeepingEngine:
    """An engine that is asked only for what the store does not have, and whose answers go into the store; see
    :class:`.Engine`."""

    def __init__(self, engine: Engine, store: UnfinishedAnswers) -> None:
        self._engine, self._store = engine, store

    @property
    def side_by_side(self) -> bool:
        return self._engine.side_by_side

    @property
    def loops(self) -> Sequence[StepLoop]:
        return self._engine.loops

    def generate(self, continuation: Continuation) -> Handle[Piece]:
        index, key = continuation.problem.number, _key(continuation.seed, *continuation.prefix)
        known = self._store.piece(index, key)
        if known is not None:
            return finished(self.loops[0], known)
        return self._engine.generate(continuation).then(functools.partial(self._store.keep_piece, index, key))

    def verify(self, problem: Problem, solution: str) -> Handle[Judgement]:
        index, key = problem.number, _key(solution)
        known = self._store.judgement(index, key)
        if known is not None:
            return finished(self.loops[-1], known)
        handle = self._engine.verify(problem, solution)
        return handle.then(functools.partial(self._store.keep_judgement, index, key))


def _key(*parts: int | str) -> str:
    """Of what a piece or a judgement depends on, beside its problem and the recipe."""
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:24]
