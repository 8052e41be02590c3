"""Questions to many VMs or balancers, each at its own pace: a slow one is waited for once, and nobody is asked twice at
once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Question(Generic[T]):
    """What is asked of one VM, or balancer."""

    about: Hashable
    """Where and for what. Anything else here is another question, to which an earlier answer is none."""
    ask: Callable[[], Coroutine[Any, Any, T]]
    """Asks, within a deadline of its own."""
    period: float
    """Seconds from one time of asking to the next; 0: whenever somebody looks."""
    lifetime: float
    """Seconds for which an answer says something."""
    impatience: float | None = None
    """So many seconds after a False it is asked again, whether anybody looks or not; None: when somebody looks."""


@dataclass(frozen=True)
class Answers(Generic[T]):
    """The last answer of each VM. One that is missing has not answered yet, or too long ago."""

    values: Mapping[str, T]
    repeated: frozenset[str]
    """Whose answer was given out before."""


@dataclass
class _Thread(Generic[T]):
    """One question, and what became of it so far."""

    name: str
    about: Hashable
    task: asyncio.Task[T] | None = None
    begun: float = float("-inf")
    answer: T | None = None
    answered: float = float("-inf")
    slow: bool = False
    """Whether somebody has waited for the answer in vain: nobody does again before one has come in time."""

    def collect(self, now: float) -> bool:
        """Take the answer if it has come. Returns whether it has. One that ended without any is asked again."""
        if self.task is None or not self.task.done():
            return False
        ended, self.task = self.task, None
        if ended.cancelled():
            return False
        self.answer, self.answered = ended.result(), now
        return True


@dataclass
class Asker(Generic[T]):
    """Asks VMs, and remembers what they answered."""

    monotonic: Callable[[], float]
    """Seconds of a clock that nobody sets."""
    on_yes: Callable[[], None] = lambda: None
    """Told when an impatient question is answered with something else than False."""
    _threads: dict[str, _Thread[T]] = field(default_factory=dict)
    """By VM."""

    async def ask(self, questions: Mapping[str, Question[T]], patience: float) -> Answers[T]:
        """Ask what is due, wait `patience` seconds at most, and return what is known then."""
        self._take_over(questions)
        fresh = self._collect()
        for name, question in questions.items():
            self._begin(name, question)
        await self._wait(patience)
        fresh |= self._collect()
        now = self.monotonic()
        known = [name for name, it in questions.items() if now - self._threads[name].answered <= it.lifetime]
        values: dict[str, Any] = {name: self._threads[name].answer for name in known}
        return Answers(values, frozenset(known) - fresh)

    def close(self) -> None:
        """Ask nobody any more."""
        self._take_over({})

    def _take_over(self, questions: Mapping[str, Question[T]]) -> None:
        """Forget the VMs and the questions that are no more."""
        for name, thread in list(self._threads.items()):
            if name not in questions or questions[name].about != thread.about:
                del self._threads[name]
                if thread.task is not None:
                    thread.task.cancel()
        for name, question in questions.items():
            self._threads.setdefault(name, _Thread(name, question.about))

    def _collect(self) -> set[str]:
        now = self.monotonic()
        return {name for name, thread in self._threads.items() if thread.collect(now)}

    def _begin(self, name: str, question: Question[T]) -> None:
        """Begin the VM's question if it is due and not under way."""
        thread, now = self._threads[name], self.monotonic()
        if thread.task is None and now - thread.begun >= question.period:
            self._start(thread, question)

    async def _wait(self, patience: float) -> None:
        """For all that is under way, but not again for what was slow before: that has its chance for nothing."""
        under_way = {thread.task: thread for thread in self._threads.values() if thread.task is not None}
        if not under_way:
            return
        prompt = [task for task, thread in under_way.items() if not thread.slow]
        if prompt:
            await asyncio.wait(prompt, timeout=patience)
        else:
            await asyncio.sleep(0)
        for task, thread in under_way.items():
            thread.slow = not task.done()

    def _start(self, thread: _Thread[T], question: Question[T]) -> None:
        thread.task, thread.begun = asyncio.ensure_future(question.ask()), self.monotonic()
        if question.impatience is not None:
            thread.task.add_done_callback(lambda task: self._answered(thread, question, task))

    def _answered(self, thread: _Thread[T], question: Question[T], task: asyncio.Task[T]) -> None:
        """An impatient question was answered: tell of it, or ask again soon."""
        if task.cancelled() or not self._goes_on(thread) or question.impatience is None:
            return
        if task.exception() is not None or task.result():
            self.on_yes()
        else:
            asyncio.get_running_loop().call_later(question.impatience, self._again, thread, question)

    def _again(self, thread: _Thread[T], question: Question[T]) -> None:
        if not self._goes_on(thread):
            return
        thread.collect(self.monotonic())
        if thread.task is None and self.monotonic() - thread.begun >= (question.impatience or 0.0):
            self._start(thread, question)

    def _goes_on(self, thread: _Thread[T]) -> bool:
        """Whether anybody still asks this."""
        return self._threads.get(thread.name) is thread
