"""The node agent's loop on a host, an API server and a clock of our own: what it reads when, and what it writes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from luban.adapters.kernel_bonds import HANGS
from luban.api.host import LubanHost
from luban.core.bonds.model import BondReading, HostReading
from luban.core.times import rfc3339
from luban.errors import PermanentError, TemporaryError
from luban.node_agent.agent import Agent, AgentOptions
from luban.node_agent.metrics import LACP_BITS
from luban.node_agent.reporter import SPEC_SECONDS
from luban.node_agent.schedule import ECHOES, SPACING
from tests.unit.core.bond_states import START
from tests.unit.core.test_bond_rules import backup, lacp, port

pytestmark = pytest.mark.looptime

HEALTHY = lacp()
DEGRADED = lacp(port(), port("eth2", carrier=False))
DOWN = lacp(carrier=False)


class VirtualClock:
    """The event loop's time, as if it began at START."""

    def __init__(self) -> None:
        self.set_by = 0.0
        """Seconds by which somebody set it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return START + self.set_by + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        """The event loop's."""
        return asyncio.get_running_loop().time()


class FakeBonds:
    """Bonds that are as the test says."""

    def __init__(self, *bonds: BondReading) -> None:
        self.bonds = bonds
        self.devices: tuple[str, ...] = ("bond0",)
        self.boot = ""
        self.trouble: TemporaryError | None = None
        self.deaf = False
        self.hangs = False
        self.reads: list[float] = []
        self.wake: Callable[[str], None] | None = None

    async def read(self) -> HostReading:
        """What is so now."""
        now = asyncio.get_running_loop().time()
        self.reads.append(now)
        if self.hangs:
            await asyncio.Event().wait()
        if self.trouble is not None:
            raise self.trouble
        return HostReading(START + now, self.bonds, self.devices, boot=self.boot)

    def watch(self, wake: Callable[[str], None]) -> Callable[[], None]:
        """Events come from `become`."""
        if self.deaf:
            raise TemporaryError("NetlinkFailed", "no events here")
        self.wake = wake
        return self._unwatch

    def _unwatch(self) -> None:
        self.wake = None

    async def close(self) -> None:
        """Nothing to close."""

    def become(self, *bonds: BondReading) -> None:
        """Change, with an event."""
        self.bonds = bonds
        if self.wake is not None:
            self.wake("link")


class FakeApi:
    """An API server with one LubanHost at most."""

    def __init__(self) -> None:
        self.object: dict[str, Any] | None = None
        self.made = 0
        self.trouble: Exception | None = None
        self.attempts: list[float] = []
        self.written: list[tuple[float, dict[str, Any]]] = []
        self.delay = 0.0
        self.read_delay = 0.0

    async def read(self, name: str) -> dict[str, Any] | None:
        """The object."""
        await asyncio.sleep(self.read_delay)
        self._fail()
        return self.object

    async def write(self, name: str, status: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the status."""
        self.attempts.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.delay)
        self._fail()
        if self.object is None:
            self.made += 1
            self.object = {"metadata": {"name": name, "generation": 1, "uid": f"{self.made}"}, "spec": {}}
        self.object["status"] = json.loads(json.dumps(status))
        self.written.append((asyncio.get_running_loop().time(), self.object["status"]))
        return dict(self.object)

    async def close(self) -> None:
        """Nothing to close."""

    def _fail(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    @property
    def status(self) -> dict[str, Any]:
        """What was written last."""
        return self.written[-1][1]

    @property
    def verdicts(self) -> list[str]:
        """Of each write."""
        return [status["bond"]["verdict"] for _, status in self.written]

    @property
    def times(self) -> list[float]:
        """Of each write."""
        return [at for at, _ in self.written]


class World:
    """An agent on all that."""

    def __init__(self, *bonds: BondReading, **options: Any) -> None:
        self.bonds = FakeBonds(*bonds)
        self.api = FakeApi()
        self.options = AgentOptions(node_name="host-b", **options)
        self.agent: Agent | None = None
        self.clock = VirtualClock()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Agent]:
        """The agent runs inside."""
        self.agent = Agent(self.options, self.bonds, self.api, self.clock)
        stop = asyncio.Event()
        task = asyncio.create_task(self.agent.run(stop))
        try:
            await asyncio.sleep(0.01)
            yield self.agent
        finally:
            stop.set()
            await task


class TestLoop:
    """Reading and writing."""

    async def test_the_first_report(self) -> None:
        world = World(HEALTHY)
        async with world.running():
            assert world.api.verdicts == ["Healthy"]
            status = world.api.status
        assert status["lastReport"] == rfc3339(START)
        assert status["bond"] == {
            "name": "bond0",
            "verdict": "Healthy",
            "chosenBy": "DefaultRoute",
            "mode": "802.3ad",
            "active": 2,
            "total": 2,
            "ports": "2/2",
            "speed": 2000,
            "since": rfc3339(START),
        }
        condition = status["conditions"][0]
        assert (condition["type"], condition["status"], condition["reason"]) == ("BondHealthy", "True", "Healthy")
        LubanHost.model_validate(world.api.object)

    async def test_nothing_new_is_written_only_as_a_sign_of_life(self) -> None:
        world = World(HEALTHY)
        async with world.running():
            await asyncio.sleep(185.0)
        assert world.api.times == pytest.approx([0.0, 60.0, 120.0, 180.0], abs=0.1)
        reports = [status.pop("lastReport") for _, status in world.api.written]
        assert len(set(reports)) == 4
        assert all(status == world.api.written[0][1] for _, status in world.api.written)

    async def test_an_event_is_reported_at_once(self) -> None:
        world = World(HEALTHY)
        async with world.running():
            await asyncio.sleep(30.3)
            now = asyncio.get_running_loop().time()
            world.bonds.become(DEGRADED)
            await asyncio.sleep(0.01)
            assert world.api.verdicts == ["Healthy", "Degraded"]
            assert world.api.times[-1] == pytest.approx(now, abs=0.001)
            await asyncio.sleep(5.0)
        echoes = [at - now for at in world.bonds.reads if at >= now]
        for delay in (0.0, *ECHOES):
            assert any(at == pytest.approx(delay, abs=0.001) for at in echoes)

    async def test_without_events_the_next_reading_finds_it(self) -> None:
        world = World(HEALTHY, events=False, resync=1.0)
        async with world.running():
            await asyncio.sleep(10.3)
            world.bonds.become(DEGRADED)
            await asyncio.sleep(0.5)
            assert world.api.verdicts == ["Healthy"]
            await asyncio.sleep(0.5)
            assert world.api.verdicts == ["Healthy", "Degraded"]
        assert len(world.bonds.reads) == pytest.approx(12, abs=1)

    async def test_where_there_are_no_events_it_polls(self) -> None:
        world = World(HEALTHY)
        world.bonds.deaf = True
        async with world.running():
            world.bonds.bonds = (DOWN,)
            await asyncio.sleep(1.1)
            assert world.api.verdicts == ["Healthy", "Down"]

    async def test_a_storm_of_events_costs_few_readings_and_writes(self) -> None:
        """Every millisecond for two seconds, with counters that move."""
        world = World(HEALTHY)
        async with world.running():
            for count in range(2000):
                world.bonds.become(lacp(port(link_failures=count), port("eth2")))
                await asyncio.sleep(0.001)
        assert len(world.bonds.reads) <= 2.1 / SPACING + 2
        assert len(world.api.written) <= 4

    async def test_better_is_written_after_the_hold_of_the_spec(self) -> None:
        world = World(DOWN)
        world.api.object = {"metadata": {"name": "host-b", "generation": 4}, "spec": {"hold": "30s"}}
        async with world.running():
            await asyncio.sleep(5.0)
            world.bonds.become(HEALTHY)
            await asyncio.sleep(29.0)
            assert world.api.status["bond"]["verdict"] == "Down"
            assert "now Healthy" in world.api.status["bonds"][0]["message"]
            await asyncio.sleep(2.1)
            assert world.api.status["bond"]["verdict"] == "Healthy"
            assert world.api.status["observedGeneration"] == 4

    async def test_expected_ports_count_from_the_first_write_on(self) -> None:
        world = World(lacp(port()))
        spec = {"expectedPorts": [{"bond": "bond0", "ports": 2}]}
        world.api.object = {"metadata": {"name": "host-b", "generation": 1}, "spec": spec}
        async with world.running():
            assert world.api.verdicts == ["Degraded"]
            assert world.api.status["bond"]["ports"] == "1/2"

    async def test_a_changed_spec_counts_within_ten_seconds(self) -> None:
        world = World(HEALTHY, replace(DEGRADED, name="bond1"))
        async with world.running():
            await asyncio.sleep(20.5)
            assert world.api.object is not None
            world.api.object |= {"spec": {"bond": "bond1"}}
            world.api.object["metadata"]["generation"] = 2
            await asyncio.sleep(SPEC_SECONDS)
            assert world.api.verdicts == ["Healthy", "Degraded"]
            assert world.api.status["observedGeneration"] == 2
            assert world.api.status["bond"]["chosenBy"] == "Spec"

    async def test_a_reading_of_the_object_that_hangs_holds_up_a_new_verdict_for_a_second_at_most(self) -> None:
        world = World(HEALTHY)
        async with world.running():
            world.api.read_delay = 1e6
            await asyncio.sleep(SPEC_SECONDS)
            changed = asyncio.get_running_loop().time()
            world.bonds.become(DEGRADED)
            await asyncio.sleep(1.1)
            assert world.api.verdicts == ["Healthy", "Degraded"]
            assert world.api.times[-1] - changed <= 1.0

    async def test_a_spec_that_cannot_be_read_changes_nothing(self) -> None:
        world = World(HEALTHY)
        world.api.object = {"metadata": {"name": "host-b", "generation": 1}, "spec": {"hold": "soon"}}
        async with world.running():
            assert world.api.verdicts == ["Healthy"]

    async def test_a_deleted_object_is_made_again(self) -> None:
        world = World(HEALTHY)
        async with world.running():
            world.api.object = None
            await asyncio.sleep(SPEC_SECONDS + 0.1)
            assert world.api.object is not None
            assert world.api.verdicts == ["Healthy", "Healthy"]

    @pytest.mark.parametrize("noticed", [True, False], ids=["read", "written"])
    async def test_a_deleted_object_is_a_fresh_start_for_what_is_gone(self, noticed: bool) -> None:
        world = World(HEALTHY, replace(HEALTHY, name="bond1"))
        async with world.running():
            world.bonds.become(lacp(port()))
            await asyncio.sleep(30.0 if noticed else 1.0)
            assert [bond["verdict"] for bond in world.api.status["bonds"]] == ["Degraded", "Down"]
            world.api.object = None
            if not noticed:
                world.bonds.become(lacp(port(link_failures=1)))
            await asyncio.sleep(22.0)
            (bond,) = world.api.status["bonds"]
            assert (bond["name"], bond["verdict"], bond["total"]) == ("bond0", "Healthy", 1)

    async def test_a_host_without_bonds(self) -> None:
        world = World()
        async with world.running():
            status = world.api.status
        assert status["bond"] == {"name": "", "verdict": "None", "active": 0, "total": 0, "ports": "0/0"}
        assert (status["conditions"][0]["status"], status["conditions"][0]["reason"]) == ("Unknown", "NoBond")


class TestPrimary:
    """Which bond counts, as it is written."""

    async def test_the_bond_that_lost_the_route_with_its_carrier_goes_on_to_count(self) -> None:
        world = World(HEALTHY, replace(HEALTHY, name="bond1"))
        world.bonds.devices = ("bond1",)
        async with world.running():
            world.bonds.devices = ()
            world.bonds.become(HEALTHY, replace(DOWN, name="bond1"))
            await asyncio.sleep(60.0)
            bond = world.api.status["bond"]
            assert (bond["name"], bond["verdict"], bond["chosenBy"]) == ("bond1", "Down", "DefaultRoute")
        assert len(world.api.written) <= 3

    async def test_a_route_that_flaps_is_not_written_again_and_again(self) -> None:
        world = World(HEALTHY, replace(DOWN, name="bond1"))
        world.bonds.devices = ("bond1",)
        async with world.running():
            for number in range(200):
                world.bonds.devices = ("bond1",) if number % 2 else ()
                world.bonds.become(*world.bonds.bonds)
                await asyncio.sleep(0.05)
        assert world.api.verdicts == ["Down"]

    async def test_another_name_alone_waits_for_its_turn(self) -> None:
        world = World(HEALTHY, replace(HEALTHY, name="bond1"))
        world.bonds.devices = ()
        async with world.running():
            world.bonds.devices = ("bond1",)
            world.bonds.become(*world.bonds.bonds)
            await asyncio.sleep(0.5)
            assert len(world.api.written) == 1
            await asyncio.sleep(0.6)
            assert [status["bond"]["name"] for _, status in world.api.written] == ["bond0", "bond1"]


class TestClockSet:
    """Somebody sets the clock."""

    @pytest.mark.parametrize("seconds", [-3600.0, 3600.0])
    async def test_a_hold_lasts_as_long_as_ever(self, seconds: float) -> None:
        world = World(DOWN)
        async with world.running():
            await asyncio.sleep(5.0)
            world.bonds.become(HEALTHY)
            await asyncio.sleep(1.0)
            world.clock.set_by = seconds
            await asyncio.sleep(8.5)
            assert world.api.status["bond"]["verdict"] == "Down"
            await asyncio.sleep(1.6)
            assert world.api.status["bond"]["verdict"] == "Healthy"
            assert world.api.status["bond"]["since"] > rfc3339(START + seconds + 14)

    @pytest.mark.parametrize("seconds", [-3600.0, 3600.0])
    async def test_what_is_shown_stays(self, seconds: float) -> None:
        world = World(HEALTHY)
        async with world.running():
            world.clock.set_by = seconds
            await asyncio.sleep(60.1)
            assert world.api.status["bond"]["since"] == rfc3339(START)
            assert world.api.status["lastReport"] > rfc3339(START + seconds + 59)
        assert len(world.api.written) == 2


class TestApiAway:
    """Writing fails; reading goes on; nothing is lost."""

    @pytest.mark.parametrize("error", [TemporaryError("Away", "no answer"), PermanentError("Forbidden", "no")])
    async def test_the_latest_state_is_written_when_it_is_back(self, error: Exception) -> None:
        world = World(HEALTHY)
        async with world.running():
            world.api.trouble = error
            world.bonds.become(DEGRADED)
            await asyncio.sleep(20.0)
            world.bonds.become(DOWN)
            await asyncio.sleep(100.0)
            assert len(world.bonds.reads) > 100
            world.api.trouble = None
            await asyncio.sleep(13.0)
            assert world.api.verdicts == ["Healthy", "Down"]
            assert world.api.status["bond"]["since"] == rfc3339(START + 20.01)
        assert len(world.api.attempts) < 25, "more and more rarely"

    async def test_it_is_away_from_the_start(self) -> None:
        world = World(DOWN)
        world.api.trouble = TemporaryError("Away", "no answer")
        async with world.running() as agent:
            await asyncio.sleep(30.0)
            assert world.api.written == []
            assert agent.metrics.judgement is not None
            assert agent.metrics.judgement.verdict == "Down"
            assert not agent.trouble()
            world.api.trouble = None
            await asyncio.sleep(13.0)
            assert world.api.verdicts == ["Down"]

    async def test_a_slow_write_holds_up_no_reading_and_the_next_state_follows(self) -> None:
        world = World(HEALTHY)
        async with world.running():
            world.api.delay = 8.0
            world.bonds.become(DEGRADED)
            await asyncio.sleep(1.0)
            world.bonds.become(DOWN)
            await asyncio.sleep(20.0)
        assert world.api.verdicts == ["Healthy", "Degraded", "Down"]

    async def test_what_is_not_written_at_the_end_gets_one_more_try(self) -> None:
        world = World(HEALTHY)
        async with world.running():
            world.bonds.become(lacp(port(link_failures=1), port("eth2")))
            await asyncio.sleep(0.1)
            assert len(world.api.written) == 1, "a counter waits for its turn"
        assert len(world.api.written) == 2
        assert world.bonds.wake is None, "unsubscribed"

    async def test_the_end_does_not_wait_for_an_api_server_that_is_away(self) -> None:
        world = World(HEALTHY)
        async with world.running():
            world.api.delay = 1e6
            world.bonds.become(DOWN)
            await asyncio.sleep(1.0)
            before = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - before <= 2.1


class TestKernelAway:
    """Readings fail."""

    async def test_unknown_after_a_while_never_healthy(self) -> None:
        world = World(HEALTHY)
        async with world.running():
            await asyncio.sleep(10.0)
            world.bonds.trouble = TemporaryError("NetlinkFailed", "no list of links")
            await asyncio.sleep(3.0)
            assert world.api.verdicts == ["Healthy"]
            await asyncio.sleep(4.0)
            assert world.api.verdicts == ["Healthy", "Unknown"]
            assert world.api.status["bonds"][0]["ports"] == []
            world.bonds.trouble = None
            await asyncio.sleep(12.0)
            assert world.api.verdicts[-1] == "Healthy"

    async def test_a_new_spec_does_not_bring_an_old_reading_back(self) -> None:
        world = World(HEALTHY)
        async with world.running():
            world.bonds.trouble = TemporaryError("NetlinkFailed", "no list of links")
            await asyncio.sleep(30.0)
            assert world.api.object is not None
            world.api.object["metadata"]["generation"] = 2
            world.api.object["spec"] = {"hold": "0s"}
            await asyncio.sleep(40.0)
        assert set(world.api.verdicts[1:]) == {"Unknown"}
        assert world.api.status["observedGeneration"] == 2

    async def test_nothing_was_ever_read(self) -> None:
        world = World(HEALTHY)
        world.bonds.trouble = TemporaryError("NetlinkFailed", "no list of links")
        async with world.running():
            assert world.api.written == []
            await asyncio.sleep(6.1)
            assert world.api.status["bond"]["verdict"] == "Unknown"
            assert world.api.status["conditions"][0]["message"] == "no list of links"

    @pytest.mark.parametrize("resync", [0.1, 1.0, 5.0])
    async def test_a_reading_is_believed_for_five_seconds(self, resync: float) -> None:
        world = World(HEALTHY, resync=resync)
        async with world.running():
            await asyncio.sleep(20.0)
            last = world.bonds.reads[-1]
            world.bonds.trouble = TemporaryError("NetlinkFailed", "no list of links")
            await asyncio.sleep(12.0)
            assert world.api.verdicts == ["Healthy", "Unknown"]
            assert world.api.times[-1] - last <= 5.0 + resync

    async def test_a_reading_that_hangs(self) -> None:
        """The last one is believed for five seconds; after thirty the program had better be started anew."""
        world = World(HEALTHY)
        async with world.running() as agent:
            await asyncio.sleep(10.0)
            last = world.bonds.reads[-1]
            world.bonds.hangs = True
            await asyncio.sleep(7.0)
            assert world.api.verdicts == ["Healthy", "Unknown"]
            assert world.api.times[-1] - last <= 5.1
            await asyncio.sleep(21.0)
            assert not agent.trouble()
            await asyncio.sleep(3.0)
            assert agent.trouble()
            world.bonds.hangs = False
            await asyncio.sleep(3.0)
            assert not agent.trouble()

    async def test_readings_that_hang_in_the_source_are_no_sign_of_life(self) -> None:
        world = World(HEALTHY)
        async with world.running() as agent:
            world.bonds.trouble = TemporaryError(HANGS, "has not come back")
            await asyncio.sleep(31.0)
            assert agent.trouble()
            world.bonds.trouble = TemporaryError("NetlinkFailed", "no list of links")
            await asyncio.sleep(2.0)
            assert not agent.trouble(), "an answer, though no good one"

    async def test_a_bug_ends_the_program(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World(HEALTHY)

        async def breaks() -> HostReading:
            raise ZeroDivisionError

        monkeypatch.setattr(world.bonds, "read", breaks)
        with pytest.raises(ZeroDivisionError):
            async with world.running():
                await asyncio.sleep(1.0)


class TestRestart:
    """Times that a status has survive the agent."""

    async def test_since_and_the_conditions_time_go_on(self) -> None:
        world = World(DEGRADED)
        async with world.running():
            await asyncio.sleep(100.0)
        async with world.running():
            await asyncio.sleep(100.0)
        assert world.api.status["bond"]["since"] == rfc3339(START)
        assert world.api.status["conditions"][0]["lastTransitionTime"] == rfc3339(START)
        assert len({json.dumps({**status, "lastReport": ""}) for _, status in world.api.written}) == 1

    async def test_a_verdict_that_changed_meanwhile_is_new(self) -> None:
        world = World(DEGRADED)
        async with world.running():
            await asyncio.sleep(1.0)
        world.bonds.bonds = (DOWN,)
        async with world.running():
            assert world.api.status["bond"]["since"] > rfc3339(START)
            assert world.api.status["conditions"][0]["lastTransitionTime"] == rfc3339(START)

    @pytest.mark.parametrize("status", [{"bonds": [{"name": 3}]}, {"bonds": [{"name": "bond0"}]}, {"conditions": 7}])
    async def test_a_status_that_cannot_be_read_is_as_none(self, status: dict[str, Any]) -> None:
        world = World(HEALTHY)
        world.api.object = {"metadata": {"name": "host-b"}, "spec": {}, "status": status}
        async with world.running():
            assert world.api.verdicts == ["Healthy"]


class TestMetrics:
    """What Prometheus gets."""

    async def test_samples(self) -> None:
        world = World(DEGRADED, backup(name="b\\xff"))
        async with world.running() as agent:
            world.bonds.become(*world.bonds.bonds)
            await asyncio.sleep(0.3)
            value = agent.metrics.registry.get_sample_value
            assert value("luban_bond_verdict", {"bond": "bond0", "verdict": "Degraded"}) == 1
            assert value("luban_bond_verdict", {"bond": "bond0", "verdict": "Healthy"}) == 0
            assert value("luban_bond_verdict", {"bond": "b\\xff", "verdict": "Healthy"}) == 1
            assert value("luban_bond_host_verdict", {"verdict": "Degraded"}) == 1
            assert value("luban_bond_ports_active", {"bond": "bond0"}) == 1
            assert value("luban_bond_ports", {"bond": "bond0"}) == 2
            assert value("node_bonding_slaves", {"master": "bond0"}) == 2
            assert value("node_bonding_active", {"master": "bond0"}) == 2
            labels = {"bond": "bond0", "port": "eth1"}
            assert value("luban_bond_port_usable", labels) == 1
            assert value("luban_bond_port_speed_mbps", labels) == 1000
            assert value("luban_bond_port_link_failures_total", labels) == 0
            assert value("luban_bond_port_carrier_downs_total", labels) == 1
            bits = {
                bit: value("luban_bond_port_lacp_state", {**labels, "side": "actor", "bit": bit}) for bit in LACP_BITS
            }
            assert [bit for bit, on in bits.items() if on] == list(LACP_BITS[:6])
            assert value("luban_bond_events_total", {"reason": "link"}) == 1
            assert (value("luban_bond_reads_total", {"result": "good"}) or 0) >= 3
            assert value("luban_bond_report_writes_total", {"result": "good"}) == 1
            assert value("luban_bond_last_report_timestamp_seconds") == START
            assert value("luban_bond_last_read_timestamp_seconds") is not None

    async def test_no_data_is_no_sample(self) -> None:
        world = World(lacp(port(speed_mbps=None, actor_state=None, link_failures=None, carrier=None), port("eth2")))
        async with world.running() as agent:
            value = agent.metrics.registry.get_sample_value
            labels = {"bond": "bond0", "port": "eth1"}
            for name in ("usable", "speed_mbps", "link_failures_total"):
                assert value(f"luban_bond_port_{name}", labels) is None
            assert value("luban_bond_port_lacp_state", {**labels, "side": "actor", "bit": "sync"}) is None
