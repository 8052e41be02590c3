"""What the kernel says about a bond's ports, over raw netlink: the quickest look there is. Standard library alone.

It stands beside the node agent as a yardstick, and judges simply: a port is usable if it is up, has a carrier and a
good MII status, and with LACP is collecting and distributing together with its partner. Prints one line of JSON for
each change: `at` (CLOCK_MONOTONIC, ns), `verdict` (Healthy, Degraded, LACPTimeout, NoPartner, Down), `ports` (name ->
usable), `cause` (event or look).

Numbers: linux/rtnetlink.h, linux/if_link.h. Port states of 802.3ad: 1 active, 2 short timeout, 4 aggregating,
8 synchronised, 16 collecting, 32 distributing, 64 defaulted, 128 expired.
"""

import json
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

RTM_NEWLINK, RTM_GETLINK, NLMSG_DONE = 16, 18, 3
RTMGRP_LINK = 1
NLM_F_REQUEST_DUMP = 0x301
IFF_UP = 1
IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_CARRIER = 3, 10, 18, 33
INFO_DATA, INFO_SLAVE_DATA = 2, 5
BOND_MODE, MODE_LACP = 1, 4
SLAVE_STATE, SLAVE_MII, SLAVE_AGGREGATOR, SLAVE_ACTOR, SLAVE_PARTNER = 1, 2, 6, 7, 8
WORKING, BROKEN, DEFAULTED, EXPIRED = 0x3C, 0xC0, 0x40, 0x80
LOOK_AGAIN = (0.15, 4.0)
"""Seconds after an event: some changes that follow it come without an event of their own."""
RESYNC = 1.0
HEADER = struct.Struct("=IHHII")
LINK = struct.Struct("=BxHiII")

Link = dict[str, Any]


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in a block."""
    found, place = {}, 0
    while place + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, place)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[place + 4 : place + length]
        place += (length + 3) & ~3
    return found


def number(found: dict[int, bytes], kind: int) -> int:
    """An attribute as a number; 0 if it is not there."""
    return int.from_bytes(found.get(kind, b""), sys.byteorder)


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of each message in a block."""
    place = 0
    while place + HEADER.size <= len(data):
        length, kind, *_ = HEADER.unpack_from(data, place)
        yield kind, data[place + HEADER.size : place + length]
        place += (length + 3) & ~3


def decode(content: bytes) -> Link:
    """What matters of one link."""
    _, _, index, flags, _ = LINK.unpack_from(content)
    found = attributes(content[LINK.size :])
    info = attributes(found.get(IFLA_LINKINFO, b""))
    slave, bond = attributes(info.get(INFO_SLAVE_DATA, b"")), attributes(info.get(INFO_DATA, b""))
    return {
        "index": index,
        "name": found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(),
        "master": number(found, IFLA_MASTER),
        "up": bool(flags & IFF_UP),
        "carrier": number(found, IFLA_CARRIER),
        "mode": number(bond, BOND_MODE),
        "state": number(slave, SLAVE_STATE),
        "mii": number(slave, SLAVE_MII),
        "aggregator": number(slave, SLAVE_AGGREGATOR),
        "actor": number(slave, SLAVE_ACTOR),
        "partner": number(slave, SLAVE_PARTNER),
    }


class Reader:
    """The links of one bond, as events and looks tell of them."""

    def __init__(self, bond: str) -> None:
        self.bond = bond
        self.events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self.events.bind((0, RTMGRP_LINK))
        self.events.setblocking(False)
        self.query = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self.links: dict[str, Link] = {}
        self.said: tuple[str, dict[str, bool]] | None = None

    def look(self) -> None:
        """Ask for all links."""
        self.query.send(HEADER.pack(HEADER.size + LINK.size, RTM_GETLINK, NLM_F_REQUEST_DUMP, 1, 0) + bytes(LINK.size))
        found: dict[str, Link] = {}
        while True:
            for kind, content in messages(self.query.recv(1 << 18)):
                if kind == NLMSG_DONE:
                    self.links = found
                    return
                link = decode(content)
                found[link["name"]] = link

    def take_events(self) -> None:
        """Take the carriers out of events; the port states in events are stale."""
        try:
            while True:
                for kind, content in messages(self.events.recv(1 << 18)):
                    link = decode(content)
                    if kind == RTM_NEWLINK and link["name"] in self.links:
                        self.links[link["name"]] |= {"carrier": link["carrier"], "up": link["up"]}
        except BlockingIOError:
            return

    def say(self, cause: str) -> None:
        """Print the verdict if it or a port has changed."""
        verdict, ports = self.judge()
        if (verdict, ports) != self.said:
            self.said = verdict, ports
            line = {"at": time.monotonic_ns(), "verdict": verdict, "ports": ports, "cause": cause}
            print(json.dumps(line), flush=True)

    def judge(self) -> tuple[str, dict[str, bool]]:
        """The verdict, and which ports are usable."""
        bond = self.links.get(self.bond)
        if bond is None:
            return "Down", {}
        lacp = bond["mode"] == MODE_LACP
        ports = {name: link for name, link in sorted(self.links.items()) if link["master"] == bond["index"]}
        usable = {name: is_usable(link, lacp=lacp) for name, link in ports.items()}
        if not any(usable.values()):
            return "Down", usable
        if all(usable.values()):
            return "Healthy", usable
        linked = [link for name, link in ports.items() if not usable[name] and link["carrier"] and not link["mii"]]
        if lacp and any(link["actor"] & EXPIRED for link in linked):
            return "LACPTimeout", usable
        if lacp and any(link["actor"] & DEFAULTED for link in linked):
            return "NoPartner", usable
        return "Degraded", usable

    def follow(self) -> None:
        """Look and judge for ever."""
        again: list[float] = []
        while True:
            self.look()
            self.say("look")
            now = time.monotonic()
            again = [at for at in again if at > now]
            rest = min([*again, now + RESYNC]) - now
            if select.select([self.events], [], [], rest)[0]:
                self.take_events()
                self.say("event")
                again = [time.monotonic() + later for later in LOOK_AGAIN]


def is_usable(link: Link, *, lacp: bool) -> bool:
    """Whether a port can carry traffic, as far as this side knows."""
    if not (link["up"] and link["carrier"] and link["mii"] == 0):
        return False
    if not lacp:
        return True
    both = (link["actor"], link["partner"])
    return link["state"] == 0 and all(state & WORKING == WORKING and not state & BROKEN for state in both)


if __name__ == "__main__":
    Reader(sys.argv[1]).follow()
