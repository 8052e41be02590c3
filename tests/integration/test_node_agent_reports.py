"""The node agent on a real API server: the LubanHost that it makes, what people see of it, whose fields are whose."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from lab.controlplane import ControlPlane
from lab.process import LabError
from luban.adapters.clock import SystemClock
from luban.adapters.kubernetes_api import connect_hosts
from luban.api import LubanHost, names
from luban.core.bonds.host import BondExpectation, HostMemory, judge_host
from luban.core.bonds.model import BondReading, HostReading
from luban.node_agent.agent import Agent, AgentOptions
from luban.node_agent.status import status_of
from luban.ports import LubanHosts
from tests.unit.core.bond_states import START, STATES, from_netlink

# The first test may have to build kube-apiserver: minutes on two cores, once for each machine.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

SECONDS = 20.0


class Bonds:
    """Bonds that are as the test says."""

    def __init__(self, *bonds: BondReading) -> None:
        self.bonds = bonds
        self.wake: Callable[[str], None] = lambda _reason: None

    async def read(self) -> HostReading:
        """What is so now."""
        return HostReading(SystemClock().now(), self.bonds)

    def watch(self, wake: Callable[[str], None]) -> Callable[[], None]:
        """Events come from `become`."""
        self.wake = wake
        return lambda: None

    async def close(self) -> None:
        """Nothing to close."""

    def become(self, *bonds: BondReading) -> None:
        """Change, with an event."""
        self.bonds = bonds
        self.wake("link")


class Reports:
    """The real adapter; what it writes can be waited for."""

    def __init__(self, real: LubanHosts) -> None:
        self._real = real
        self._written: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def read(self, name: str) -> dict[str, Any] | None:
        """As it is."""
        return await self._real.read(name)

    async def write(self, name: str, status: Mapping[str, Any]) -> dict[str, Any]:
        """As it is, and told."""
        answer = await self._real.write(name, status)
        await self._written.put(answer)
        return answer

    async def close(self) -> None:
        """As it is."""
        await self._real.close()

    async def next(self) -> dict[str, Any]:
        """The object after the next write."""
        async with asyncio.timeout(SECONDS):
            return await self._written.get()


@pytest.fixture
async def reports(luban_api: ControlPlane) -> AsyncIterator[Reports]:
    """Access to the API server; the LubanHost is removed at the end."""
    found = Reports(await connect_hosts(str(luban_api.layout.admin_kubeconfig)))
    yield found
    await found.close()
    luban_api.kubectl("delete", "lubanhosts", "--all")


@contextlib.asynccontextmanager
async def running(bonds: Bonds, reports: Reports) -> AsyncIterator[Agent]:
    """An agent that runs inside."""
    agent, stop = Agent(AgentOptions("host-b", heartbeat=1.0), bonds, reports, SystemClock()), asyncio.Event()
    task = asyncio.create_task(agent.run(stop))
    yield agent
    stop.set()
    await task


async def test_it_makes_the_object_and_reports(luban_api: ControlPlane, reports: Reports) -> None:
    bonds = Bonds(from_netlink("lacp-healthy"))
    async with running(bonds, reports):
        first = await reports.next()
        assert first["status"]["bond"]["verdict"] == "Healthy"
        assert first["spec"] == {
            "bond": "",
            "expectedPorts": [],
            "flapping": {"downs": 3, "window": "60s"},
            "hold": "10s",
        }
        bonds.become(from_netlink("lacp-silent-eth1-expired"))
        while (body := await reports.next())["status"]["bond"]["verdict"] != "LACPTimeout":
            pass
    port = body["status"]["bonds"][0]["ports"][0]
    assert (port["name"], port["usable"], port["actorState"]) == ("eth1", False, "0x8f")
    table = await asyncio.to_thread(luban_api.kubectl, "get", "lh", "host-b")
    heading, row = table.splitlines()
    assert heading.split() == ["NAME", "BOND", "MODE", "PORTS", "SPEED", "SINCE", "REPORTED", "AGE"]
    assert row.split()[:5] == ["host-b", "LACPTimeout", "802.3ad", "1/2", "1000"]


async def test_the_spec_is_the_users(luban_api: ControlPlane, reports: Reports) -> None:
    bonds = Bonds(from_netlink("lacp-healthy"))
    async with running(bonds, reports):
        await reports.next()
        spec = {"expectedPorts": [{"bond": "bond0", "ports": 3}]}
        body = {"apiVersion": names.API_VERSION, "kind": "LubanHost", "metadata": {"name": "host-b"}, "spec": spec}
        # A user's own apply meets no field of the agent's.
        await asyncio.to_thread(luban_api.kubectl, "apply", "--server-side", "-f", "-", stdin=json.dumps(body))
        while (found := await reports.next())["status"]["bond"]["verdict"] != "Degraded":
            pass
    assert found["status"]["bond"]["ports"] == "2/3"
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"] == 2
    managers = {entry["manager"]: entry.get("subresource", "") for entry in found["metadata"]["managedFields"]}
    assert managers[names.NODE_AGENT_FIELD_MANAGER] == "status"


async def test_every_recorded_state_is_accepted_whole(reports: Reports) -> None:
    """Nothing that the agent writes is refused or dropped by the schema, and what is not so any more goes."""
    for state in STATES:
        judged = judge_host(HostReading(START, (from_netlink(state),)), BondExpectation(), HostMemory(), START)
        status = status_of(judged, None, 1, START).wire()
        assert (await reports.write("host-b", status))["status"] == status


AT = {"uri": "qemu+tls://host-b/system"}
FULL: dict[str, Any] = {
    "pools": [f"{number:02}" + "p" * 62 for number in range(64)],
    "networks": [f"{number:02}" + "n" * 62 for number in range(64)],
    "namespaces": [f"{number:03}" + "n" * 60 for number in range(256)],
    "cidr": "10.20.0.0/16",
    "vms": {"max": 10_000},
    "memory": {"max": "4Pi"},
}
"""As much as the schema allows: the rules about all of it must be within the API server's limit of cost."""


async def test_a_registered_host_has_a_name_that_clusters_can_use(luban_api: ControlPlane) -> None:
    def create(name: str, spec: dict[str, Any]) -> str:
        body = {"apiVersion": names.API_VERSION, "kind": "LubanHost", "metadata": {"name": name}, "spec": spec}
        return luban_api.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(body))

    for name in ("rack1-b.example", "b" * 64):
        create(name, {"bond": "bond0"})
        with pytest.raises(LabError, match=re.escape("metadata.name must have at most 63 characters and no dot")):
            create(name, {"libvirt": AT})
    create("b" * 63, {"libvirt": AT})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"hold": "2h"}, "hold must be a duration from 0s to 1h"),
        ({"hold": "soon"}, "hold must be a duration from 0s to 1h"),
        ({"flapping": {"window": "999ms"}}, "window must be a duration from 1s to 1h"),
        ({"flapping": {"window": "61m"}}, "window must be a duration from 1s to 1h"),
        ({"bond": "bond\x1b0"}, "bond must be the name of a bond as `ip link` shows it, or empty"),
        ({"expectedPorts": [{"bond": "bond\x7f", "ports": 2}]}, "bond must be the name of a bond"),
        ({"libvirt": {"uri": "host-b"}}, "uri must be a libvirt URI such as qemu+tls://host-b/system"),
        ({"libvirt": {"uri": ""}}, "uri must be a libvirt URI such as qemu+tls://host-b/system"),
        ({"libvirt": {}}, "spec.libvirt.uri: Required value"),
        ({"libvirt": AT | {"cidr": "10.0.0.0/33"}}, "cidr must be an IPv4 network such as 10.20.0.0/16, or empty"),
        ({"libvirt": AT | {"cidr": "10.0.0.1"}}, "cidr must be an IPv4 network such as 10.20.0.0/16, or empty"),
        ({"libvirt": AT | {"namespaces": ["Team A"]}}, "namespaces[] must be the name of a namespace"),
        ({"libvirt": AT | {"pools": ["../etc"]}}, "pools[] must be letters, digits, dots, hyphens and underscores"),
        ({"libvirt": AT | {"networks": [""]}}, "networks[] must be letters, digits, dots, hyphens and underscores"),
        ({"libvirt": AT | {"vms": {"max": 0}}}, "max in body should be greater than or equal to 1"),
        ({"libvirt": AT | {"memory": {"max": "8 GB"}}}, "max must be an amount of bytes from 16Mi to 4Pi"),
        ({"libvirt": AT}, ""),
        ({"libvirt": AT | FULL}, ""),
        ({"hold": "1h", "flapping": {"window": "1h"}, "bond": "bond0"}, ""),
        ({"hold": "0s", "flapping": {"window": "1s"}}, ""),
    ],
)
async def test_bounds_of_the_spec(luban_api: ControlPlane, spec: dict[str, Any], words: str) -> None:
    body = {"apiVersion": names.API_VERSION, "kind": "LubanHost", "metadata": {"name": "host-c"}, "spec": spec}
    apply = asyncio.to_thread(luban_api.kubectl, "create", "--dry-run=server", "-f", "-", stdin=json.dumps(body))
    if not words:
        await apply
        return
    with pytest.raises(LabError, match=re.escape(words)):
        await apply
    with pytest.raises(ValidationError):
        LubanHost.model_validate(body)
    # What another version let in is left out and named; the rest of the object counts.
    (left_out,) = LubanHost.parse(body).left_out
    assert left_out.startswith(f"spec.{next(iter(spec))}")


async def test_the_largest_status_is_accepted(reports: Reports) -> None:
    """A host full of bonds with long names, all in trouble: it fits into the schema's bounds and an object."""
    bond = from_netlink("lacp-both-down")
    ports = [replace(bond.ports[0], name=f"{number:02}" + r"\xff" * 13) for number in range(40)]
    bonds = [replace(bond, name=f"{number:02}" + r"\xfe" * 13, ports=tuple(ports)) for number in range(20)]
    judged = judge_host(HostReading(START, tuple(bonds)), BondExpectation(), HostMemory(), START)
    status = status_of(judged, None, 1, START).wire()
    assert (await reports.write("host-b", status))["status"] == status
    assert len(json.dumps(status)) < 500_000
