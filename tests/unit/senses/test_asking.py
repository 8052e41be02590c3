"""Questions to many VMs: each at its own pace, nobody waits for a slow one, nobody is asked twice at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from luban.senses.asking import Asker, Question

NO_PATIENCE = 0.0


class Vms:
    """VMs that answer with how often they were asked, at once or when the test says so, and a clock."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.asked: Counter[str] = Counter()
        self.gates: dict[str, asyncio.Event] = {}
        self.ready_after = 0
        self.told = 0
        self.asker: Asker[int] = Asker(lambda: self.seconds, self._tell)

    def _tell(self) -> None:
        self.told += 1

    def question(
        self,
        name: str,
        about: str = "",
        period: float = 10.0,
        lifetime: float = 30.0,
        impatience: float | None = None,
    ) -> Question[int]:
        async def ask() -> int:
            self.asked[name] += 1
            number = self.asked[name]
            if name in self.gates:
                await self.gates[name].wait()
            return number if number >= self.ready_after else 0

        return Question(about, ask, period, lifetime, impatience)

    async def look(self, *names: str, patience: float = 1.0, **more: object) -> tuple[dict[str, int], set[str]]:
        """Values, and who repeats itself."""
        questions = {name: self.question(name, **more) for name in names}  # type: ignore[arg-type]
        answers = await self.asker.ask(questions, patience)
        return dict(answers.values), set(answers.repeated)


@pytest.fixture
async def vms() -> AsyncIterator[Vms]:
    found = Vms()
    yield found
    found.asker.close()
    await asyncio.sleep(0)


async def test_an_answer_is_kept_until_the_vm_is_asked_again(vms: Vms) -> None:
    seen = []
    for vms.seconds in range(25):
        seen.append((await vms.look("a"))[0]["a"])
    assert vms.asked == {"a": 3}
    assert seen == [1] * 10 + [2] * 10 + [3] * 5


async def test_who_repeats_itself_is_said(vms: Vms) -> None:
    assert await vms.look("a") == ({"a": 1}, set())
    vms.seconds = 1
    assert await vms.look("a", "b") == ({"a": 1, "b": 1}, {"a"})
    vms.seconds = 10
    assert await vms.look("a", "b") == ({"a": 2, "b": 1}, {"b"})


async def test_a_slow_one_is_not_waited_for_and_not_asked_twice(vms: Vms) -> None:
    vms.gates["slow"] = asyncio.Event()
    assert await vms.look("slow", "quick", patience=0.01) == ({"quick": 1}, set())
    for vms.seconds in (20, 40):
        values, _ = await vms.look("slow", "quick", patience=0.01)
        assert "slow" not in values
    assert vms.asked == {"slow": 1, "quick": 3}
    vms.gates["slow"].set()
    await asyncio.sleep(0)
    vms.seconds = 45
    values, repeated = await vms.look("slow")
    assert (values["slow"], repeated) == (2, set()), "the late answer is taken, and as it is due, it is asked again"


@pytest.mark.looptime
async def test_a_slow_one_is_waited_for_once(vms: Vms) -> None:
    loop = asyncio.get_running_loop()
    vms.gates["slow"] = asyncio.Event()
    waited = []
    for vms.seconds in (0, 10, 20):
        begun = loop.time()
        await vms.look("slow", "quick", patience=3.0)
        waited.append(loop.time() - begun)
    assert waited == [3.0, 0.0, 0.0]
    vms.gates["slow"].set()
    await asyncio.sleep(0)
    vms.seconds = 30
    assert (await vms.look("slow", "quick", patience=3.0))[0]["slow"] == 2
    vms.gates["slow"].clear()
    vms.seconds, begun = 40, loop.time()
    await vms.look("slow", "quick", patience=3.0)
    assert loop.time() - begun == 3.0, "it was prompt again, so it is waited for again"


async def test_an_answer_that_is_too_old_says_nothing(vms: Vms) -> None:
    assert (await vms.look("a", lifetime=12.0))[0] == {"a": 1}
    vms.gates["a"] = asyncio.Event()
    vms.seconds = 12
    assert (await vms.look("a", patience=0.01, lifetime=12.0))[0] == {"a": 1}
    vms.seconds = 12.1
    assert (await vms.look("a", patience=0.01, lifetime=12.0))[0] == {}


async def test_another_question_has_no_old_answer(vms: Vms) -> None:
    assert (await vms.look("a", about="10.0.0.1"))[0] == {"a": 1}
    assert (await vms.look("a", about="10.0.0.2"))[0] == {"a": 2}
    vms.gates["a"] = asyncio.Event()
    assert (await vms.look("a", about="10.0.0.3", patience=0.01))[0] == {}
    vms.gates.clear()
    assert (await vms.look("a", about="10.0.0.4"))[0] == {"a": 4}, "what hangs is not waited for"


async def test_who_is_gone_is_forgotten(vms: Vms) -> None:
    vms.gates["a"] = asyncio.Event()
    await vms.look("a", "b", patience=0.01)
    assert (await vms.look("b"))[0] == {"b": 1}
    vms.gates.clear()
    assert (await vms.look("a", "b"))[0] == {"a": 2, "b": 1}


async def test_an_impatient_question_is_asked_again_between_two_looks(vms: Vms) -> None:
    vms.ready_after = 4
    assert await vms.look("a", impatience=0.0) == ({"a": 0}, set())
    for _ in range(100):
        await asyncio.sleep(0)
    assert (vms.asked["a"], vms.told) == (4, 1), "until it was answered, and then it is told"
    assert (await vms.look("a", impatience=0.0))[0] == {"a": 4}


async def test_nobody_is_asked_again_who_is_not_looked_at_any_more(vms: Vms) -> None:
    vms.ready_after = 10**6
    await vms.look("a", impatience=0.0)
    await vms.look("b", impatience=None)
    asked = vms.asked["a"]
    for _ in range(20):
        await asyncio.sleep(0)
    assert vms.asked["a"] == asked
    assert vms.told == 0


async def test_a_question_that_was_given_up_is_no_answer(vms: Vms) -> None:
    """A CancelledError would end the tick and the loop around it."""
    vms.gates["a"] = asyncio.Event()
    await vms.look("a", patience=NO_PATIENCE)
    (thread,) = vms.asker._threads.values()
    assert thread.task is not None
    thread.task.cancel()
    vms.seconds = 10
    assert (await vms.look("a", patience=0.01)) == ({}, set())
    vms.gates.clear()
    vms.seconds = 20
    assert (await vms.look("a"))[0] == {"a": 2}


async def test_a_question_that_failed_is_asked_again(vms: Vms) -> None:
    """A fault is told once; it does not stand in the way of every look after it."""

    async def fails() -> int:
        raise RuntimeError("a fault of the prober")

    broken = {"a": Question("", fails, period=10.0, lifetime=30.0)}
    with pytest.raises(RuntimeError):
        await vms.asker.ask(broken, 1.0)
    vms.seconds = 10
    assert (await vms.look("a"))[0] == {"a": 1}
