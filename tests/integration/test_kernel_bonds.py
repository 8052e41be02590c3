"""The kernel's own answers: a dump of real links, and real events. No bonding driver is needed."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from luban.adapters.kernel_bonds import KernelBonds
from luban.adapters.kernel_bonds.netlink import Dump, LinkEvents
from luban.adapters.kernel_bonds.readings import bond_readings
from luban.adapters.kernel_bonds.routes import default_devices
from luban.adapters.kernel_bonds.wire import Link
from luban.ports import BondSource

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="netlink is Linux's"),
]

RTM_SETLINK = 19
NLM_F_REQUEST_ACK = 0x5


@pytest.fixture
async def source() -> AsyncIterator[BondSource]:
    """This machine's bonds, if any."""
    opened = KernelBonds()
    yield opened
    await opened.close()


@pytest.fixture
def links() -> Iterator[list[Link]]:
    """All links, asked for twice on one socket."""
    dump = Dump()
    first, second = dump.links(), dump.links()
    yield second
    dump.close()
    assert [link.index for link in first] == [link.index for link in second]


def test_a_dump_has_the_links_that_the_socket_module_lists(links: list[Link]) -> None:
    found = {link.index: link.name for link in links}
    assert found == {index: os.fsencode(name) for index, name in socket.if_nameindex()}


def test_a_dump_has_what_pyroute2_finds(links: list[Link]) -> None:
    """An independent decoder, on whatever links this machine has."""
    with IPRoute() as route:
        theirs = [_as_ours(message) for message in route.get_links()]
    ours = [
        (
            *(link.index, link.name, link.flags, link.master, link.lower),
            *(link.carrier, link.carrier_downs, link.carrier_changes, link.bond is not None, link.port is not None),
        )
        for link in links
    ]
    assert sorted(ours) == sorted(theirs)


def _as_ours(message: Any) -> tuple[object, ...]:
    info = message.get("IFLA_LINKINFO")
    kind, port = (info.get("IFLA_INFO_KIND"), info.get("IFLA_INFO_SLAVE_KIND")) if info else (None, None)
    elsewhere = message.get("IFLA_LINK_NETNSID") is not None
    return (
        message["index"],
        os.fsencode(message.get("IFLA_IFNAME")),
        message["flags"],
        message.get("IFLA_MASTER") or None,
        None if elsewhere else message.get("IFLA_LINK") or None,
        bool(message.get("IFLA_CARRIER")),
        message.get("IFLA_CARRIER_DOWN_COUNT"),
        message.get("IFLA_CARRIER_CHANGES"),
        kind == "bond",
        port == "bond",
    )


def test_the_loopback_link_is_no_bond(links: list[Link]) -> None:
    loopback = next(link for link in links if link.name == b"lo")
    assert (loopback.bond, loopback.port, loopback.master, loopback.lower) == (None, None, None, None)
    assert (loopback.carrier, loopback.admin_up) == (True, True)
    assert bond_readings([loopback], lambda _link: (None, None)) == ()


@pytest.fixture
def bonds_by_name() -> list[str]:
    """Bonds as the driver lists them; none without the driver."""
    folder = Path("/proc/net/bonding")
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


async def test_a_reading_of_this_machine(source: BondSource, bonds_by_name: list[str]) -> None:
    first, second = await source.read(), await source.read()
    assert sorted(bond.name for bond in first.bonds) == bonds_by_name
    assert first.at <= second.at
    assert not first.trouble


async def test_events_of_the_kernel_arrive(source: BondSource) -> None:
    """One of our own making: a link is set to what it is."""
    woken: asyncio.Queue[str] = asyncio.Queue()
    index = socket.if_nametoindex("lo")
    events = LinkEvents(woken.put_nowait, lambda: frozenset({index}))
    stop = source.watch(lambda _reason: None)
    try:
        if not _touch(index):
            pytest.skip("changing a link needs CAP_NET_ADMIN")
        async with asyncio.timeout(10.0):
            assert await woken.get() == "link"
    finally:
        events.close()
        stop()


def _touch(index: int) -> bool:
    """Set the group of a link to 0, which it is: the kernel tells of it. False without the right to."""
    attribute = struct.pack("=HHI", 8, 27, 0)
    body = struct.pack("=BxHiII", 0, 0, index, 0, 0) + attribute
    request = struct.pack("=IHHII", 16 + len(body), RTM_SETLINK, NLM_F_REQUEST_ACK, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as rtnl:
        rtnl.bind((0, 0))
        rtnl.send(request)
        (error,) = struct.unpack_from("=i", rtnl.recv(4096), 16)
    return bool(error == 0)


class Namespace:
    """A network namespace with four devices, pa to pd, which a thread of the test's own is in."""

    CLONE_NEWNET = 0x40000000

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(self.CLONE_NEWNET) != 0:
            pytest.skip("a network namespace needs CAP_SYS_ADMIN")
        self._dump = Dump()
        self.ip("link set lo up")
        for number, name in enumerate(("pa", "pb", "pc", "pd"), 1):
            self.ip(f"link add {name} type veth peer name {name}x")
            self.ip(f"link set {name} up", f"link set {name}x up")
            self.ip(f"addr add 10.0.{number}.1/24 dev {name}", f"addr add fd00:{number}::1/64 dev {name} nodad")

    def ip(self, *commands: str) -> None:
        """Run `ip` with each."""
        for command in commands:
            done = subprocess.run(["ip", *command.split()], text=True, capture_output=True, check=False)
            assert done.returncode == 0, f"{command}: {done.stderr}"

    def devices(self) -> list[str]:
        """Of the default routes."""
        names = {link.index: link.name.decode() for link in self._dump.links()}
        return [names[index] for index in default_devices(self._dump.routes(), self._dump.rules())]

    def close(self) -> None:
        """The namespace ends with its thread."""
        self._dump.close()


STEPS: Sequence[tuple[Sequence[str], list[str]]] = (
    ((), []),
    (["route add 0.0.0.0/1 via 10.0.1.2"], []),
    (["route add 128.0.0.0/1 via 10.0.1.2"], ["pa"]),
    (["route add default via 10.0.2.2 metric 100"], ["pa", "pb"]),
    (["rule add from 10.0.3.0/24 lookup 100", "route add default via 10.0.3.2 table 100"], ["pa", "pb", "pc"]),
    (["rule add pref 50 lookup 1000", "route add default via 10.0.4.2 table 1000"], ["pd", "pa", "pb", "pc"]),
    (["rule del pref 50", "route add local default dev lo table 100 metric 9"], ["pa", "pb", "pc"]),
    (["rule del from 10.0.3.0/24", "rule add pref 60 lookup main suppress_prefixlength 0"], ["pa", "pb"]),
    (["route del 0.0.0.0/1", "route del 128.0.0.0/1", "route del default"], []),
    (["route add default nexthop via 10.0.1.2 nexthop via 10.0.2.2"], ["pa", "pb"]),
    (["route add default via 10.0.3.2 metric 50"], ["pa", "pb", "pc"]),
    (["route del default", "route del default"], []),
    (["-6 route add ::/1 via fd00:3::2"], []),
    (["-6 route add 8000::/1 via fd00:3::2"], ["pc"]),
    (["-6 route add 2000::/3 nexthop via fd00:4::2 nexthop via fd00:1::2"], ["pd", "pa", "pc"]),
    (
        [
            "nexthop add id 1 via 10.0.1.2 dev pa",
            "nexthop add id 2 via 10.0.3.2 dev pc",
            "nexthop add id 9 group 1/2",
            "route add default nhid 9",
        ],
        ["pa", "pc", "pd"],
    ),
)


def test_default_routes_of_all_kinds() -> None:
    """As this kernel tells them, each step on top of the last."""

    def walk() -> None:
        with contextlib.closing(Namespace()) as namespace:
            for commands, devices in STEPS:
                namespace.ip(*commands)
                assert namespace.devices() == devices, commands

    with ThreadPoolExecutor(1) as thread:
        thread.submit(walk).result()
