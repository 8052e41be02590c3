"""Questions to many VMs, each at its own pace: nobody waits for a slow one, and nobody is asked twice at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Question(Generic[T]):
    """What is asked of one VM."""

    about: Hashable
    """Where and for what. Anything else here is another question, to which an earlier answer is none."""
    ask: Callable[[], Coroutine[Any, Any, T]]
    """Asks, within a deadline of its own."""
    period: float
    """Seconds from one time of asking to the next; 0: whenever somebody looks."""
    lifetime: float
    """Seconds for which an answer says something."""


@dataclass(frozen=True)
class Answers(Generic[T]):
    """The last answer of each VM. One that is missing has not answered yet, or too long ago."""

    values: Mapping[str, T]
    repeated: frozenset[str]
    """Whose answer was given out before."""


@dataclass
class _Thread(Generic[T]):
    """One question, and what became of it so far."""

    about: Hashable
    task: asyncio.Task[T] | None = None
    begun: float = float("-inf")
    answer: T | None = None
    answered: float = float("-inf")

    def collect(self, now: float) -> bool:
        """Take the answer if it has come. Returns whether it has."""
        if self.task is None or not self.task.done():
            return False
        self.answer, self.answered, self.task = self.task.result(), now, None
        return True


@dataclass
class Asker(Generic[T]):
    """Asks VMs, and remembers what they answered. `monotonic`: seconds of a clock that nobody sets."""

    monotonic: Callable[[], float]
    _threads: dict[str, _Thread[T]] = field(default_factory=dict)
    """By VM."""

    async def ask(self, questions: Mapping[str, Question[T]], patience: float) -> Answers[T]:
        """Ask what is due, wait `patience` seconds at most, and return what is known then."""
        self._take_over(questions)
        fresh = self._collect()
        pending = [task for name, question in questions.items() if (task := self._begin(name, question)) is not None]
        if pending:
            await asyncio.wait(pending, timeout=patience)
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
            self._threads.setdefault(name, _Thread(question.about))

    def _collect(self) -> set[str]:
        now = self.monotonic()
        return {name for name, thread in self._threads.items() if thread.collect(now)}

    def _begin(self, name: str, question: Question[T]) -> asyncio.Task[T] | None:
        """The VM's question under way, begun now if it is due."""
        thread, now = self._threads[name], self.monotonic()
        if thread.task is None and now - thread.begun >= question.period:
            thread.task, thread.begun = asyncio.ensure_future(question.ask()), now
        return thread.task
