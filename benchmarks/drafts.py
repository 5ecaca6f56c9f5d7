"""Drafts: how many tokens a step they give on real chains, and what they save on a real model.

    python benchmarks/drafts.py chains FILE... --tokenizer FOLDER      acceptance, by the rules of the sampler
    python benchmarks/drafts.py verdicts MODEL FILE [--slots 1 4 16]   seconds of verdicts, drafts off and on
    python benchmarks/drafts.py files MODEL FILE [--slots 1 4 16]      what `thinkprm score` writes, off and on

``chains`` runs no model. A FILE is JSON Lines, each line with a prompt and chains that were written for it:
`prompt` and `generations` (a list), or `problem`, `prefix` and `cot`. A chain is what a model wrote, and a draft
is accepted as far as it equals what the chain says next, which is what the sampler would accept. What chains
written beside each other quote from one another is up to date here; in the sampler it is as of the last chunk.

``verdicts`` judges the first solutions (`problem`, `steps`) of FILE, as `thinkprm score` does, with drafts off and
with those that pay here, in turns after a warm-up. Nothing is left from the turn before. It checks that chains and
labels are the same and says by how much scores differ. A short run: ``--rows 4 --max-gen-tokens 48 --warm-up 1``,
once its programs are in the cache folder.

``files`` has `thinkprm score` write two files, with drafts off and on, and compares their bytes. Exit status 1
where they differ.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from thinkprm_jax.protocol.prompts import verification_message
from thinkprm_jax.protocol.steps import split_solution
from thinkprm_jax.sampler.drafts import _FORGET, _LEARN, ACCEPTED, LONGEST_MATCH
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

SIBLINGS = 4  # that have ended, and as many that run


@dataclasses.dataclass(frozen=True)
class Group:
    """A prompt and the chains that were written for it, as ids."""

    prompt: list[int]
    chains: list[list[int]]


def read_groups(files: Sequence[Path], tokenizer: Tokenizer) -> list[Group]:
    groups = []
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "generations" in row:
                prompt, chains = row["prompt"], row["generations"]
            else:
                prompt, chains = verification_message(row["problem"], split_solution(row["prefix"])), [row["cot"]]
            groups.append(Group(tokenizer.encode(prompt), [tokenizer.encode(chain) for chain in chains]))
    return groups


class Text:
    """Ids, and for every run of up to LONGEST_MATCH of them where it last ended (the very last run apart)."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids: list[int] = []
        self._ends: dict[tuple[int, ...], int] = {}
        for id in ids:
            self.add(id)

    def add(self, id: int) -> None:
        end = len(self.ids)
        for length in range(1, min(LONGEST_MATCH, end) + 1):
            self._ends[tuple(self.ids[end - length :])] = end - 1
        self.ids.append(id)

    def after(self, run: tuple[int, ...], most: int) -> list[int]:
        end = self._ends.get(run)
        return [] if end is None else self.ids[end + 1 : end + 1 + most]


@dataclasses.dataclass
class Row:
    """A chain that is being written."""

    group: int
    chain: list[int]
    text: Text
    written: int = 0
    trust: float = 1.0

    def draft(self, others: Sequence[Text], most: int) -> tuple[list[int], float]:
        """The draft, and how many of its tokens are expected to be accepted."""
        for length in range(LONGEST_MATCH, 0, -1):
            run = tuple(self.text.ids[-length:])
            for text in (self.text, *others):
                if found := text.after(run, most):
                    found = found[: len(self.chain) - self.written - 1]
                    return found, min(ACCEPTED[length], 0.7 * len(found)) if found else 0.0
        return [], 0.0

    def take(self, draft: Sequence[int], expected: float) -> int:
        """Writes what a step gives. Returns: how many tokens of the draft were accepted."""
        rest = self.chain[self.written :]
        accepted = 0
        while accepted < len(draft) and draft[accepted] == rest[accepted]:
            accepted += 1
        if draft:
            self.trust += _LEARN * (accepted / max(expected, 0.1) - self.trust)
        else:
            self.trust += _FORGET * (1 - self.trust)
        for id in rest[: accepted + 1]:
            self.text.add(id)
        self.written += accepted + 1
        return accepted


@dataclasses.dataclass
class Count:
    tokens: int = 0
    row_steps: int = 0
    steps: int = 0
    wide: int = 0
    accepted: int = 0

    def gain(self, price: float) -> float:
        """Tokens a row in the time of a narrow step."""
        return self.tokens / self.row_steps * self.steps / (self.steps + price * self.wide)


def simulate(groups: Sequence[Group], rows: int, most: int, price: float, quote: bool = True) -> Count:
    """Writes all chains, ``rows`` at a time; ``quote``: from other chains of the prompt, too."""
    count = Count()
    waiting: Iterator[Row] = (
        Row(number, chain, Text(group.prompt)) for number, group in enumerate(groups) for chain in group.chains
    )
    running: list[Row] = []
    ended: dict[int, list[Text]] = {}
    while True:
        while len(running) < rows and (row := next(waiting, None)) is not None:
            running.append(row)
        if not running:
            return count
        drafts = []
        for row in running:
            beside = [other.text for other in running if other.group == row.group and other is not row]
            others = [*beside[:SIBLINGS], *reversed(ended.get(row.group, [])[-SIBLINGS:])] if quote else []
            drafts.append(row.draft(others, most))
        gained = sum(row.trust * expected for row, (_, expected) in zip(running, drafts, strict=True))
        wide = gained > price * len(running)
        count.steps += 1
        count.wide += wide
        for row, (draft, expected) in zip(running, drafts, strict=True):
            before = row.written
            count.accepted += row.take(draft if wide else [], expected)
            count.tokens += row.written - before
            count.row_steps += 1
            if row.written == len(row.chain):
                ended.setdefault(row.group, []).append(Text(row.chain))
        running = [row for row in running if row.written < len(row.chain)]


def show_chains(arguments: argparse.Namespace) -> None:
    groups = read_groups(arguments.files, Tokenizer.load(arguments.tokenizer))
    chains = [chain for group in groups for chain in group.chains]
    table = Table(title=f"{len(chains)} chains, {sum(map(len, chains)):,} tokens")
    columns = ("rows", "L", "price", "tokens a step", "wide steps", "accepted in one, a row", "gain")
    for column in columns:
        table.add_column(column, justify="right")
    for rows in arguments.rows:
        for most in arguments.tokens:
            for price in arguments.prices:
                found = simulate(groups, rows, most, price, not arguments.alone)
                table.add_row(
                    str(rows),
                    str(most),
                    f"{price:g}",
                    f"{found.tokens / found.row_steps:.2f}",
                    f"{found.wide / found.steps:.0%}",
                    f"{found.accepted * found.steps / max(found.wide, 1) / found.row_steps:.2f}",
                    f"{found.gain(price):.2f}x",
                )
    Console(width=100).print(table)


def show_verdicts(arguments: argparse.Namespace) -> None:
    from thinkprm_jax import ThinkPRM
    from thinkprm_jax.checkpoint.huggingface import load_model
    from thinkprm_jax.runtime import enable_compilation_cache
    from thinkprm_jax.sampler import Sampler

    enable_compilation_cache()
    model, tokenizer = load_model(arguments.model, dtype=arguments.dtype)
    lines = arguments.file.read_text(encoding="utf-8").splitlines()[: arguments.rows]
    rows = [json.loads(line) for line in lines]
    what = [row["problem"] for row in rows], [row["steps"] for row in rows]
    table = Table(
        title=f"{len(rows)} solutions, n {arguments.n}, {arguments.new} tokens a chain, {arguments.dtype}"
    )
    for column in (
        "slots",
        "drafts",
        "seconds",
        "off / it",
        "tokens a step",
        "wide steps",
        "same",
        "scores within",
    ):
        table.add_column(column, justify="right")
    for slots in arguments.slots:
        samplers = {
            "off" if drafts == 0 else "on": Sampler(
                model, tokenizer, slots=slots, max_length=arguments.max_length, drafts=drafts
            )
            for drafts in (0, arguments.drafts)
        }
        seconds: dict[str, list[float]] = {drafts: [] for drafts in samplers}
        found: dict[str, list[dict]] = {}
        for turn in range(1 + arguments.repeats):
            for drafts, sampler in samplers.items():
                sampler.release()
                sampler.use(model)
                prm = ThinkPRM(sampler=sampler, n=arguments.n, max_gen_tokens=arguments.new)
                some = what if turn else tuple(part[: arguments.warm_up] for part in what)
                start = time.perf_counter()
                found[drafts] = prm.predict_correctness_batch(*some)
                seconds[drafts].append(time.perf_counter() - start)
        for drafts, sampler in samplers.items():
            stats, choice = sampler.stats, sampler.drafts
            taken = statistics.median(seconds[drafts][1:])
            pairs = list(zip(found[drafts], found["off"], strict=True))
            same = sum(a["outputs"] == b["outputs"] and a["step_labels"] == b["step_labels"] for a, b in pairs)
            table.add_row(
                str(slots),
                drafts if drafts == "off" else ", ".join(f"{c.tokens} at {c.price:.2f}" for c in choice.values()),
                f"{taken:.2f}",
                f"{statistics.median(seconds['off'][1:]) / taken:.2f}x",
                f"{(stats.fed_samples + stats.forced_tokens + stats.refed_tokens) / stats.busy_slot_steps:.2f}",
                f"{stats.wide_steps / stats.decode_steps:.0%}",
                f"{same} of {len(pairs)}",
                f"{max(abs(a['prefix_score'] - b['prefix_score']) for a, b in pairs):.1e}",
            )
    Console(width=110).print(table)


def show_files(arguments: argparse.Namespace) -> None:
    from thinkprm_jax.cli import main as thinkprm

    table = Table(title=f"{arguments.rows} solutions, {arguments.new} tokens a chain, {arguments.dtype}")
    for column in ("slots", "drafts", "bytes", "the same"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given.jsonl"
        lines = arguments.file.read_text(encoding="utf-8").splitlines(keepends=True)
        given.write_text("".join(lines[: arguments.rows]), encoding="utf-8")
        common = ["score", str(given), "--quiet", "--model", str(arguments.model), "--dtype", arguments.dtype]
        common += ["--n", str(arguments.n), "--max-gen-tokens", str(arguments.new)]
        common += ["--max-length", str(arguments.max_length)]
        differ = False
        for slots in arguments.slots:
            plain = b""
            on = [] if arguments.drafts is None else ["--drafts", str(arguments.drafts)]
            for name, drafts in (("off", ["--drafts", "0"]), ("on", on)):
                output = Path(folder) / f"{slots}-{name}.jsonl"
                if status := thinkprm([*common, "--slots", str(slots), *drafts, "--output", str(output)]):
                    raise SystemExit(status)
                written = output.read_bytes()
                plain = plain or written
                differ = differ or written != plain
                table.add_row(str(slots), name, f"{len(written):,}", "yes" if written == plain else "no")
    Console(width=110).print(table)
    raise SystemExit(int(differ))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    chains = commands.add_parser("chains")
    chains.add_argument("files", nargs="+", type=Path)
    chains.add_argument("--tokenizer", required=True, type=Path)
    chains.add_argument("--tokens", nargs="*", type=int, default=[7, 3])
    chains.add_argument("--prices", nargs="*", type=float, default=[0.0, 0.25, 0.5, 1.0])
    chains.add_argument("--rows", nargs="*", type=int, default=[1, 4, 16])
    chains.add_argument("--alone", action="store_true", help="quote nothing from other chains")
    chains.set_defaults(show=show_chains)
    verdicts = commands.add_parser("verdicts")
    verdicts.add_argument("--repeats", type=int, default=1)
    verdicts.add_argument("--warm-up", type=int, help="solutions of the turn before (default: all)")
    verdicts.set_defaults(show=show_verdicts)
    files = commands.add_parser("files")
    files.set_defaults(show=show_files)
    for command in (verdicts, files):
        command.add_argument("model", type=Path)
        command.add_argument("file", type=Path)
        command.add_argument("--rows", type=int, default=4, help="solutions (default: 4)")
        command.add_argument("--slots", nargs="*", type=int, default=[1, 4, 16])
        command.add_argument("--n", type=int, default=1)
        command.add_argument("--max-gen-tokens", type=int, default=96, dest="new")
        command.add_argument("--max-length", type=int, default=2048)
        command.add_argument("--drafts", type=int, help="default: what pays")
        command.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    arguments.show(arguments)


if __name__ == "__main__":
    main()
