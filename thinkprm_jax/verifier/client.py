"""A verifier that is a server somewhere else: `thinkprm serve`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from thinkprm_jax.activity import Activity
from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.protocol.steps import split_solution
from thinkprm_jax.sampler.handle import Handle, StepLoop, finished
from thinkprm_jax.verifier.base import Item, Verdict, Verifier, check_item, check_lengths, verify_all
from thinkprm_jax.verifier.connection import ServerConnection, read_key
from thinkprm_jax.verifier.settings import VerifierSettings, check_names, setting

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.sampler import Sampler

T = TypeVar("T")
# Settings -> fields of a request, where they are not called alike.
_FIELDS = {"max_gen_tokens": "budget"}
# Of a verifier of kind server, those that a request says.
_ASKED = ("n", "rounds", "temperature", "top_p", "seed", "max_gen_tokens", "decision_temperature")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerSettings(VerifierSettings):
    """How a server is asked."""

    kind: ClassVar[str] = "server"
    needs_model: ClassVar[bool] = False

    server: str = setting("http://127.0.0.1:8000", "address of a `thinkprm serve`", stamped="never")
    key_file: str | None = setting(
        None, "file with the key that it wants (default: $THINKPRM_API_KEY)", stamped="never", recipe=""
    )
    patience: float = setting(
        300.0, "seconds that a verdict is tried for while the server is busy or away", stamped="never", recipe=""
    )
    connections: int = setting(64, "solutions that are judged at once, at most", stamped="never")
    n: int = setting(1, "chains a solution; scores are averaged")
    rounds: int = setting(1, "thinking rounds a chain", recipe="n_thinking_rounds")
    temperature: float | None = setting(None, "of the chains (default: 0, greedy, for one chain; else 0.6)")
    top_p: float = setting(1.0, "of sampling: the likeliest tokens that have this probability together")
    seed: int = setting(0, "of sampling", shared=True)
    max_gen_tokens: int | None = setting(
        None, "tokens a round may think (default: what fits)", recipe="max_verification_tokens"
    )
    decision_temperature: float = setting(1.0, "divides the log-probabilities of the final Yes and No")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.connections < 1:
            raise UserError(f"connections is {self.connections}, it must be at least 1")

    def settled(self) -> Self:
        """Greedy for one chain, as elsewhere."""
        if self.temperature is not None:
            return self
        return dataclasses.replace(self, temperature=0.0 if self.n == 1 else 0.6)

    def identified(self) -> Self:
        """With the fingerprints of the server's model, which is asked for them."""
        connection = ServerConnection(self.server, read_key(self.key_file), self.patience)

        async def ask() -> Mapping[str, Any]:
            try:
                return await connection.info()
            finally:
                await connection.close()

        stamp = _run_beside(ask())["settings"]
        names = ("config", "tokenizer", "chat_template", "weights")
        return dataclasses.replace(self, fingerprints={name: stamp[name] for name in names if name in stamp})

    def fields(self, kind: str) -> dict[str, Any]:
        """Of a request to a server whose verifier is of this kind: what other kinds do not know is left out where
        it has its default."""
        usual = type(self)().settled()
        values = {name: getattr(self, name) for name in _ASKED}
        return {
            _FIELDS.get(name, name): value
            for name, value in values.items()
            if value is not None and (kind == "thinkprm" or value != getattr(usual, name))
        }


def _given(url: str | None, settings: ServerSettings | None, values: dict[str, Any]) -> ServerSettings:
    """What a client was given, as settings."""
    if settings is None:
        check_names(ServerSettings, values)
        settings = ServerSettings(**values if url is None else {"server": url, **values})
    return settings.settled()


class Client(Verifier):
    """A server of `thinkprm serve` as a verifier: all methods of :class:`.ThinkPRM` that judge, with the same
    results. Where the server is busy (429), not ready or away it is asked again; results come in order.

    Example:

        prm = Client("http://127.0.0.1:8000", n=4)
        [result] = prm.predict_correctness_batch(["2 + 3 + 4?"], [["2 + 3 = 5.", "5 + 4 = 9."]])
        verdict = prm.submit("2 + 3 + 4?", ["2 + 3 = 5.", "5 + 4 = 9."]).result()  # a coroutine may await it

    It needs httpx (the extra `client`) and computes nothing here: no device is touched.

    Args:
      url: of the server.
      api_key: that it wants; None: ``key_file``'s, or $THINKPRM_API_KEY's.
      n_thinking_rounds: of :meth:`predict_correctness_batch_sequential_scaling`.
      settings: in place of the url and the values.
      values: of :class:`ServerSettings`: ``n``, ``rounds``, ``temperature``, ``seed``, ``max_gen_tokens``,
        ``connections`` (solutions at once), ``patience`` (seconds) and others.
    Raises:
      UserError: there is no such server, or it refuses the key.
    """

    Settings = ServerSettings
    settings: ServerSettings

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        n_thinking_rounds: int = 1,
        settings: ServerSettings | None = None,
        **values: Any,
    ) -> None:
        self.settings = settings = _given(url, settings, values)
        self.n = settings.n
        self.n_thinking_rounds = n_thinking_rounds if n_thinking_rounds != 1 else settings.rounds
        self._loop = _AnsweredLoop(self._step, self._has_room)
        self._events = _EventThread()
        self._key = read_key(settings.key_file) if api_key is None else api_key
        self._connection = ServerConnection(settings.server, self._key, settings.patience, settings.connections)
        self._running = self._finished = self._sampled = 0
        info = self._events.run(self._connection.info()).result()
        self._kind, self.judges_steps = info["kind"], bool(info["judges_steps"])

    @classmethod
    def load(cls, settings: Any, *, mesh: Mesh | None = None, sampler: Sampler | None = None) -> Self:
        return cls(settings=settings)

    def close(self) -> None:
        """Ends its connections and its thread."""
        self._events.run(self._connection.close()).result()
        self._events.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def loop(self) -> StepLoop:
        return self._loop

    @property
    def activity(self) -> Activity:
        doing = "scoring" if self._running else ""
        return Activity(doing, self._running, 0, self._finished, self._sampled)

    @property
    def sampled_tokens(self) -> int:
        return self._sampled

    def submit(self, problem: str, steps: Sequence[str]) -> Handle[Verdict]:
        return self._submit(problem, steps, {})

    def submit_within(self, problem: str, steps: Sequence[str], budget: int) -> Handle[Verdict]:
        return self._submit(problem, steps, {"budget": budget})

    def predict_correctness_batch_sequential_scaling(
        self, questions: Sequence[str], prefix_steps_batch: Sequence[Sequence[str]]
    ) -> list[dict[str, Any]]:
        """:meth:`predict_correctness_batch` with ``n_thinking_rounds`` rounds."""

        def verify(items: Iterable[Item]) -> Iterator[tuple[int, Verdict]]:
            rounds = {"rounds": self.n_thinking_rounds}
            return self.loop.serve(enumerate(items), lambda item: self._submit(*item, rounds))

        return [verdict.as_dict() for verdict in verify_all(verify, questions, prefix_steps_batch)]

    def step_rewards(self, verdict: Verdict) -> list[float]:
        """As of the kind of the server's verifier: of ThinkPRM the last one is the score of the whole."""
        if self._kind != "thinkprm":
            return super().step_rewards(verdict)
        return [*verdict.step_scores[:-1], verdict.prefix_score]

    def _submit(self, problem: str, steps: Sequence[str], other: Mapping[str, Any]) -> Handle[Verdict]:
        """other: fields of the request in place of the settings."""
        try:
            steps = check_item(problem, steps)
        except RequestError as error:
            return finished(self.loop, Verdict(error=error, locates=self.judges_steps))
        handle = _Answer(self._loop)
        fields = {**self.settings.fields(self._kind), **other}
        with self._loop.changed:
            self._running += 1
        handle.begin(self._events.run(self._connection.judge(problem, steps, fields, self._kind)), self._note)
        return handle

    def _note(self, verdict: Verdict | None) -> None:
        with self._loop.changed:
            self._running -= 1
            self._finished += 1
            self._sampled += 0 if verdict is None else verdict.output_tokens

    def _step(self) -> bool:
        return False  # the server does the work

    def _has_room(self) -> bool:
        return self._running < self.settings.connections


class _AnsweredLoop(StepLoop):
    """Handles whose work is done elsewhere: whoever waits only waits, and no device is asked whether it could."""

    def check(self) -> None:
        pass

    def drive(self, until: Callable[[], bool], timeout: float | None = None) -> bool:
        with self.changed:
            return self.changed.wait_for(until, timeout)

    def attend(self, handle: Handle[Any]) -> None:
        pass


class _Answer(Handle[Verdict]):
    """A verdict that a server is asked for."""

    def __init__(self, loop: StepLoop) -> None:
        super().__init__(loop, self._cancel_request)
        self._request: concurrent.futures.Future[Verdict] | None = None

    def begin(self, request: concurrent.futures.Future[Verdict], note: Callable[[Verdict | None], None]) -> None:
        self.started, self._request = True, request

        def done(request: concurrent.futures.Future[Verdict]) -> None:
            error = concurrent.futures.CancelledError() if request.cancelled() else request.exception()
            note(None if error is not None else request.result())
            self.settle(request.result()) if error is None else self.fail(error)
            with self.loop.changed:  # callbacks may have brought what somebody waits for
                self.loop.wake()

        request.add_done_callback(done)

    def _cancel_request(self) -> None:
        if self._request is not None:
            self._request.cancel()


class _EventThread:
    """A thread with an event loop."""

    def __init__(self) -> None:
        self._events = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._events.run_forever, name="thinkprm client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._events)

    def stop(self) -> None:
        self._events.call_soon_threadsafe(self._events.stop)
        self._thread.join()
        self._events.close()


def _run_beside(work: Coroutine[Any, Any, T]) -> T:
    """In a thread of its own: this one may have an event loop that runs."""
    thread = _EventThread()
    try:
        return thread.run(work).result()
    finally:
        thread.stop()


class AsyncClient:
    """:class:`Client` for coroutines, in whose event loop it works.

    Example:

        import asyncio

        async def judge():
            async with AsyncClient("http://127.0.0.1:8000", n=4) as prm:
                return await prm.predict_correctness_batch(["2 + 3 + 4?"], [["2 + 3 = 5.", "5 + 4 = 9."]])

        [result] = asyncio.run(judge())

    Arguments and errors are those of :class:`Client`; of what the server is, it asks at the first call.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        n_thinking_rounds: int = 1,
        settings: ServerSettings | None = None,
        **values: Any,
    ) -> None:
        self.settings = settings = _given(url, settings, values)
        self.n_thinking_rounds = n_thinking_rounds if n_thinking_rounds != 1 else settings.rounds
        key = read_key(settings.key_file) if api_key is None else api_key
        self._connection = ServerConnection(settings.server, key, settings.patience, settings.connections)
        self._places = asyncio.Semaphore(settings.connections)
        self._kind: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._connection.close()

    async def judge(self, problem: str, steps: Sequence[str], rounds: int | None = None) -> Verdict:
        """One verdict, with ``error`` where there is none."""
        try:
            steps = check_item(problem, steps)
        except RequestError as error:
            return Verdict(error=error)
        async with self._places:
            if self._kind is None:
                self._kind = (await self._connection.info())["kind"]
            fields = self.settings.fields(self._kind) | ({} if rounds is None else {"rounds": rounds})
            return await self._connection.judge(problem, steps, fields, self._kind)

    async def verify(self, items: Iterable[Item]) -> AsyncIterator[tuple[int, Verdict]]:
        """(index of the item, verdict) as they finish; leaving the iterator cancels the others."""

        async def one(index: int, item: Item) -> tuple[int, Verdict]:
            return index, await self.judge(*item)

        tasks = [asyncio.ensure_future(one(index, item)) for index, item in enumerate(items)]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            for each in tasks:
                each.cancel()

    async def predict_correctness_batch(
        self, questions: Sequence[str], prefix_steps_batch: Sequence[Sequence[str]]
    ) -> list[dict[str, Any]]:
        """As :meth:`Client.predict_correctness_batch`."""
        return await self._predict(questions, prefix_steps_batch, None)

    async def predict_correctness_batch_sequential_scaling(
        self, questions: Sequence[str], prefix_steps_batch: Sequence[Sequence[str]]
    ) -> list[dict[str, Any]]:
        """The same with ``n_thinking_rounds`` rounds."""
        return await self._predict(questions, prefix_steps_batch, self.n_thinking_rounds)

    async def _predict(
        self, questions: Sequence[str], prefix_steps_batch: Sequence[Sequence[str]], rounds: int | None
    ) -> list[dict[str, Any]]:
        check_lengths("prefix_steps_batch", questions, prefix_steps_batch)
        items = zip(questions, prefix_steps_batch, strict=True)
        verdicts = await asyncio.gather(*(self.judge(*item, rounds) for item in items))
        return [verdict.as_dict() for verdict in verdicts]

    async def score(
        self, questions: Sequence[str], outputs: Sequence[Sequence[str]], batch_size: int = 8
    ) -> list[list[list[float]]]:
        """As :meth:`Client.score`."""
        check_lengths("outputs", questions, outputs)
        places = [(i, text) for i, texts in enumerate(outputs) for text in texts]
        verdicts = iter(
            await asyncio.gather(*(self.judge(questions[i], split_solution(text)) for i, text in places))
        )
        whole = self._kind == "thinkprm"
        return [
            [_rewards(verdict, whole) for _, verdict in zip(texts, verdicts, strict=False)] for texts in outputs
        ]


def _rewards(verdict: Verdict, whole: bool) -> list[float]:
    return [*verdict.step_scores[:-1], verdict.prefix_score] if whole else verdict.step_scores
