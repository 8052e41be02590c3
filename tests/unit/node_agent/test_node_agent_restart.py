"""A node agent that is started again goes on where the one before ended: all that it has is the status."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from luban.api.host import LubanHostStatus
from luban.core.bonds.host import HostMemory, Route
from luban.core.bonds.judge import FORGET_SECONDS
from luban.core.bonds.model import BondReading, BondSettings
from luban.core.times import rfc3339
from luban.errors import TemporaryError
from luban.node_agent.memory import RestoredMemory
from tests.unit.core.bond_states import START
from tests.unit.core.test_bond_rules import lacp, port
from tests.unit.node_agent.test_node_agent import DEGRADED, DOWN, HEALTHY, World

pytestmark = pytest.mark.looptime


async def test_a_hold_goes_on() -> None:
    world = World(DOWN)
    async with world.running():
        await asyncio.sleep(5.0)
    world.bonds.bonds = (HEALTHY,)
    async with world.running():
        await asyncio.sleep(9.0)
        assert set(world.api.verdicts) == {"Down"}
        assert world.api.status["bond"]["since"] == rfc3339(START)
        message = world.api.status["bonds"][0]["message"]
        assert message.startswith("the bond has no carrier, 2 of 2 ports carry traffic (over: now Healthy")
    async with world.running():
        await asyncio.sleep(1.0)
        assert world.api.status["bonds"][0]["message"] == message, "what is added is not added twice"
        await asyncio.sleep(10.0)
        assert world.api.verdicts[-1] == "Healthy"


async def test_a_report_of_long_ago_holds_nothing() -> None:
    world = World(DOWN)
    async with world.running():
        pass
    await asyncio.sleep(3600.0)
    world.bonds.bonds = (HEALTHY,)
    async with world.running():
        assert world.api.verdicts == ["Down", "Healthy"]


async def test_flapping_is_remembered_for_its_window() -> None:
    world = World(HEALTHY)
    async with world.running():
        world.bonds.become(lacp(port(carrier_downs=9), port("eth2")))
        await asyncio.sleep(3.0)
        assert world.api.verdicts[-1] == "Flapping"
    async with world.running():
        await asyncio.sleep(50.0)
        assert world.api.verdicts[-1] == "Flapping"
        await asyncio.sleep(15.0)
        assert world.api.verdicts[-1] == "Healthy"


async def test_losses_of_carrier_between_two_agents_count() -> None:
    world = World(HEALTHY)
    async with world.running():
        await asyncio.sleep(1.0)
    world.bonds.bonds = (lacp(port(carrier_downs=9), port("eth2")),)
    async with world.running():
        assert world.api.verdicts[-1] == "Flapping"


async def test_the_bond_with_the_route_goes_on_to_count() -> None:
    world = World(HEALTHY, replace(HEALTHY, name="bond1"))
    world.bonds.devices = ("bond1",)
    async with world.running():
        pass
    world.bonds.bonds, world.bonds.devices = (HEALTHY, replace(DOWN, name="bond1")), ()
    async with world.running():
        assert world.api.status["bond"]["name"] == "bond1"
        assert world.api.verdicts == ["Healthy", "Down"]


async def test_the_worst_is_not_taken_for_the_one_with_the_route() -> None:
    world = World(HEALTHY, replace(DEGRADED, name="bond1"))
    world.bonds.devices = ()
    async with world.running():
        assert world.api.status["bond"]["chosenBy"] == "Worst"
    world.bonds.bonds = (DOWN, replace(DEGRADED, name="bond1"))
    async with world.running():
        assert (world.api.status["bond"]["name"], world.api.verdicts[-1]) == ("bond0", "Down")


async def test_bond_and_port_that_went_meanwhile_are_missed() -> None:
    world = World(HEALTHY, replace(HEALTHY, name="bond1"), resync=5.0)
    async with world.running():
        pass
    world.bonds.bonds = (lacp(port()),)
    async with world.running():
        assert world.api.status["bond"]["ports"] == "1/2"
        first, second = world.api.status["bonds"]
        assert (first["verdict"], second["verdict"]) == ("Degraded", "Down")
        assert first["ports"][1]["message"] == "not a port of the bond any more"
        gone = first["ports"][1]["goneSince"], second["goneSince"]
        await asyncio.sleep(100.0)
    async with world.running():
        await asyncio.sleep(1.0)
        first, second = world.api.status["bonds"]
        assert (first["ports"][1]["goneSince"], second["goneSince"]) == gone
        await asyncio.sleep(FORGET_SECONDS - 85.0)
        assert [bond["name"] for bond in world.api.status["bonds"]] == ["bond0"]
        assert world.api.status["bond"]["ports"] == "1/1"


def renamed(port_index: int, bond_index: int) -> BondReading:
    """A bond of which everything has another name than in `NAMED`, by the indexes that it has now."""
    ports = (port("uplink1", index=port_index, carrier_downs=9), port("uplink2", index=port_index + 1))
    return lacp(*ports, name="uplink", index=bond_index)


NAMED = lacp(port(index=4), port("eth2", index=5), index=6)


async def test_bond_and_ports_that_were_renamed_meanwhile_are_the_same() -> None:
    world = World(NAMED)
    world.bonds.boot = "6d2f0a1c-0000-4000-8000-000000000001"
    async with world.running():
        assert world.api.status["bootId"] == world.bonds.boot
        assert world.api.status["bonds"][0]["ifIndex"] == 6
        assert [one["ifIndex"] for one in world.api.status["bonds"][0]["ports"]] == [4, 5]
    world.bonds.bonds, world.bonds.devices = (renamed(4, 6),), ("uplink",)
    async with world.running():
        (bond,) = world.api.status["bonds"]
        assert (bond["name"], bond["total"]) == ("uplink", 2)
        assert bond["verdict"] == "Flapping", "the counter of the port that was eth1 goes on"
        assert world.api.status["bond"]["chosenBy"] == "DefaultRoute"


async def test_after_a_reboot_indexes_mean_nothing() -> None:
    world = World(NAMED)
    world.bonds.boot = "6d2f0a1c-0000-4000-8000-000000000001"
    async with world.running():
        pass
    world.bonds.boot = "6d2f0a1c-0000-4000-8000-000000000002"
    world.bonds.bonds = (lacp(port(index=5, carrier_downs=9), port("eth2", index=6), index=4),)
    async with world.running():
        (bond,) = world.api.status["bonds"]
        assert (bond["verdict"], bond["total"], world.api.status["bootId"]) == ("Healthy", 2, world.bonds.boot)


async def test_a_status_of_an_agent_that_told_no_indexes() -> None:
    world = World(NAMED)
    async with world.running():
        pass
    assert world.api.object is not None
    for bond in world.api.object["status"]["bonds"]:
        bond.pop("ifIndex")
        for one in bond["ports"]:
            one.pop("ifIndex")
    world.bonds.bonds = (lacp(port(index=4), port("uplink2", index=5), index=6),)
    async with world.running():
        assert world.api.status["bond"]["ports"] == "2/2"


async def test_the_only_bond_went_meanwhile() -> None:
    world = World(HEALTHY)
    async with world.running():
        pass
    world.bonds.bonds = ()
    async with world.running():
        assert world.api.verdicts == ["Healthy", "Down"]


async def test_a_status_that_cannot_be_read_is_no_obstacle() -> None:
    world = World(HEALTHY)
    async with world.running():
        pass
    assert world.api.object is not None
    for broken in ({"lastReport": "soon"}, {"lastReport": "0001-01-01T00:00:00"}, {"bonds": 7}):
        world.api.object["status"] = {**world.api.object["status"], **broken}
        with capture_logs() as logs:
            async with world.running():
                assert world.api.verdicts[-1] == "Healthy"
        assert any(it["log_level"] == "warning" and "agent before" in it["event"] for it in logs), broken


async def test_newer_words_of_the_agent_before_cost_themselves_alone() -> None:
    world = World(DOWN, replace(HEALTHY, name="bond1"))
    world.bonds.devices = ("bond0",)
    async with world.running():
        pass
    assert world.api.object is not None
    status = world.api.object["status"]
    since = status["bonds"][0]["since"]
    status["bond"]["chosenBy"] = "Oracle"
    status["bonds"][1]["verdict"] = "Congested"
    world.bonds.bonds = (HEALTHY, replace(HEALTHY, name="bond1"))
    await asyncio.sleep(1.0)
    with capture_logs() as logs:
        async with world.running():
            first = world.api.status["bonds"][0]
            assert (first["verdict"], first["since"]) == ("Down", since), "it is held on"
            assert world.api.status["bonds"][1]["verdict"] == "Unknown", "which is held, too"
    (told,) = [it for it in logs if it["event"] == "parts of the status of the agent before left out"]
    assert any("Congested" in part for part in told["parts"])
    assert any("chosenBy" in part for part in told["parts"])


async def test_nothing_can_be_read_after_the_restart() -> None:
    world = World(HEALTHY)
    async with world.running():
        pass
    world.bonds.trouble = TemporaryError("NetlinkFailed", "no list of links")
    async with world.running():
        await asyncio.sleep(6.0)
        assert world.api.status["bonds"][0]["verdict"] == "Unknown"
    world.bonds.trouble, world.bonds.bonds = None, ()
    async with world.running():
        await asyncio.sleep(11.0)
        assert world.api.verdicts[-1] == "Down", "it is still known that there was a bond"


def memory(wall: float = START, **status: object) -> HostMemory:
    """What a status tells at 100 s of our clock."""
    written = LubanHostStatus.model_validate(status)
    return RestoredMemory(written, 100.0, wall, 60.0, BondSettings()).memory()


class TestRestoredMemory:
    """A status alone."""

    def test_nothing(self) -> None:
        assert memory() == HostMemory()

    def test_flapping_beside_something_worse(self) -> None:
        bond = {
            "name": "bond0",
            "verdict": "Degraded",
            "reasons": ["Degraded", "Flapping"],
            "message": "eth2: no carrier",
        }
        found = memory(lastReport=rfc3339(START), bonds=[{**bond, "since": rfc3339(START)}]).bonds["bond0"]
        assert (found.seen["Degraded"].message, found.seen["Degraded"].keep) == ("eth2: no carrier", 0.0)
        assert (found.seen["Flapping"].keep, "eth2" in found.seen["Flapping"].message) == (60.0, False)

    def test_a_clock_that_was_set_back(self) -> None:
        bond = {"name": "bond0", "verdict": "Down", "since": rfc3339(START)}
        found = memory(START - 3600, lastReport=rfc3339(START), bonds=[bond]).bonds["bond0"]
        assert found.seen["Down"].last == 100.0, "never in the future"

    def test_without_a_time_of_the_report_no_verdict_counts(self) -> None:
        found = memory(
            bonds=[{"name": "bond0", "verdict": "Down", "since": rfc3339(START), "ports": [{"name": "eth1"}]}]
        )
        assert (found.bonds["bond0"].seen, found.known) == ({}, {"bond0": None})

    def test_a_time_that_is_none(self) -> None:
        with pytest.raises(ValueError, match="isoformat"):
            memory(lastReport="soon")

    def test_a_bond_that_only_the_spec_named_was_not_there(self) -> None:
        bond = {"name": "bond7", "verdict": "Down", "reasons": ["Down"], "since": rfc3339(START)}
        summary = {"name": "bond7", "verdict": "Down", "active": 0, "total": 0, "ports": "0/0", "chosenBy": "Spec"}
        found = memory(bonds=[bond], bond=summary, lastReport=rfc3339(START))
        assert (found.known, found.route) == ({}, Route())
