"""The kernel's own answers: a dump of real links, and real events. No bonding driver is needed."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from luban.adapters.kernel_bonds import KernelBonds
from luban.adapters.kernel_bonds.netlink import LinkDump, LinkEvents
from luban.adapters.kernel_bonds.readings import bond_readings
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
    dump = LinkDump()
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
