"""One term of leading: how it ends, and that no fault ends it unheard."""

from __future__ import annotations

import asyncio
from typing import Any

import kopf
import pytest
from structlog.testing import capture_logs

from luban.controller import program
from luban.controller.leadership import RENEW_SECONDS, Leader
from luban.controller.manager import Manager
from luban.controller.program import Options
from luban.errors import TemporaryError
from luban.ports import LeaseRecord
from tests.fakes.lease import FakeLease
from tests.fakes.managed import World
from tests.fakes.operator_harness import LoopClock

pytestmark = pytest.mark.looptime(end=3600)

OPTIONS = Options(kubeconfig=None, namespaces=(), listen_address="127.0.0.1", listen_port=0)


class Handlers:
    """Stands for kopf: one loop of one cluster, as its daemon runs it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
        self.error: Exception | None = None
        self.late_error: Exception | None = None
        """When it is told to end."""
        self.seconds = 3600.0
        self._world = world
        monkeypatch.setattr(kopf, "spawn_tasks", self._spawn)
        monkeypatch.setattr(kopf, "run_tasks", self._run)
        monkeypatch.setattr(program, "set_on_signals", lambda _: None)

    async def _spawn(self, **_: Any) -> list[asyncio.Task[Any]]:
        return []

    async def _run(self, _tasks: object, **_: Any) -> None:
        self.loop = asyncio.ensure_future(self._world.manager.reconcile(self._world.body(), asyncio.Event()))
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            if self.late_error is not None:
                raise self.late_error from None
            raise
        if self.error is not None:
            raise self.error


class BrokenLease:
    """A store that fails in a way that nobody foresaw, once it is to renew."""

    def __init__(self) -> None:
        self._store = FakeLease().store()

    async def renew(self, record: LeaseRecord) -> LeaseRecord:
        """See LeaseStore."""
        raise RuntimeError("a fault of the store")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def handlers(monkeypatch: pytest.MonkeyPatch, world: World) -> Handlers:
    return Handlers(monkeypatch, world)


async def term(manager: Manager, leader: Leader | None = None, *, stop_after: float = 3000.0) -> float:
    """A term; how long it took."""
    stop, begun = asyncio.Event(), asyncio.get_running_loop().time()
    asyncio.get_running_loop().call_later(stop_after, stop.set)
    await program._term(OPTIONS, manager, leader, stop)
    return asyncio.get_running_loop().time() - begun


async def test_a_term_ends_when_it_is_told_to(world: World, handlers: Handlers) -> None:
    assert await term(world.manager, stop_after=60) == pytest.approx(60, abs=5)
    assert handlers.loop.done()
    assert world.harness.consistent(2)


async def test_a_term_that_never_came_to_act_hears_nothing_any_more(
    world: World, handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows objects tells its manager until the next term begins."""

    async def never(_told: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(world.harness.api, "follow_vms", never)
    assert await term(world.manager, stop_after=10.0) >= 10.0
    assert world.manager._stopping


async def test_a_fault_in_keeping_the_lease_is_no_loss_of_it(world: World, handlers: Handlers) -> None:
    leader = Leader(BrokenLease(), "a", LoopClock())
    assert await leader.acquire(asyncio.Event())
    with pytest.raises(RuntimeError, match="a fault of the store"):
        await term(world.manager, leader)
    assert asyncio.get_running_loop().time() < 2 * RENEW_SECONDS
    assert handlers.loop.done(), "nothing acts any more"


@pytest.mark.parametrize(("error", "raised"), [(None, TemporaryError), (RuntimeError("kopf's own"), RuntimeError)])
async def test_nothing_acts_when_kopf_ends_by_itself(
    world: World, handlers: Handlers, error: Exception | None, raised: type[Exception]
) -> None:
    handlers.seconds, handlers.error = 30.0, error
    with pytest.raises(raised):
        await term(world.manager)
    assert handlers.loop.done()


async def test_a_fault_at_the_very_end_is_logged(world: World, handlers: Handlers) -> None:
    handlers.late_error = RuntimeError("at the very end")
    with capture_logs() as logs:
        await term(world.manager, stop_after=30)
    (told,) = (it for it in logs if it["log_level"] == "error")
    assert told["exc_info"] is handlers.late_error
