"""Default routes in all their forms: chosen, decoded from netlink, parsed from /proc, read now and then."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from luban.adapters.kernel_bonds import KernelBonds, netlink, route_reader
from luban.adapters.kernel_bonds.device_names import is_device_name
from luban.adapters.kernel_bonds.netlink import Dump
from luban.adapters.kernel_bonds.proc_routes import proc_routes
from luban.adapters.kernel_bonds.route_reader import ROUTES_SECONDS, RouteReader
from luban.adapters.kernel_bonds.route_wire import (
    RTM_GETNEXTHOP,
    RTM_GETROUTE,
    RTM_GETRULE,
    RTM_NEWNEXTHOP,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    NextHop,
    nexthop_of,
    route_of,
    rule_of,
    with_devices,
)
from luban.adapters.kernel_bonds.routes import Route, Rule, default_devices
from luban.adapters.kernel_bonds.wire import HEADER, NLMSG_DONE, NLMSG_ERROR, RTM_GETLINK, Link
from luban.core.bonds.host import carrier_of_route
from luban.errors import TemporaryError
from tests.unit.core.bond_states import attribute, datagram, link_message, links_of

V4, V6 = socket.AF_INET, socket.AF_INET6
MAIN = 254
BOND, NIC, TUNNEL, OTHER = 5, 6, 7, 8


def route(prefix: str, *devices: int, metric: int = 0, table: int = MAIN) -> Route[int]:
    """A route to a prefix."""
    network = ipaddress.ip_network("::/0" if prefix == "default6" else "0.0.0.0/0" if prefix == "default" else prefix)
    family = V4 if network.version == 4 else V6
    return Route(family, int(network.network_address), network.prefixlen, devices, metric, table)


RULES = (Rule(V4, 0, 255), Rule(V4, 32766, MAIN), Rule(V4, 32767, 253), Rule(V6, 0, 255), Rule(V6, 32766, MAIN))
"""What every kernel has."""


class TestDefault:
    """What is a default route, and which comes first."""

    @pytest.mark.parametrize(
        ("routes", "devices"),
        [
            ([route("default", BOND)], [BOND]),
            ([route("default", NIC, metric=200), route("default", BOND, metric=100)], [BOND, NIC]),
            ([route("default", NIC, BOND)], [NIC, BOND]),
            ([route("0.0.0.0/1", BOND), route("128.0.0.0/1", BOND)], [BOND]),
            ([route("0.0.0.0/1", NIC), route("128.0.0.0/1", BOND)], [NIC, BOND]),
            ([route("0.0.0.0/1", BOND)], []),
            ([route("128.0.0.0/1", BOND)], []),
            ([route("0.0.0.0/2", BOND), route("64.0.0.0/2", BOND), route("128.0.0.0/1", BOND)], [BOND]),
            ([route(f"{number << 5}.0.0.0/3", BOND) for number in range(7)], [BOND]),
            ([route(f"{number << 5}.0.0.0/3", BOND) for number in range(6)], []),
            (
                [
                    *(route(f"{1 << n}.0.0.0/{8 - n}", BOND) for n in range(8)),
                ],
                [BOND],
            ),
            ([route("default", BOND), route("0.0.0.0/1", TUNNEL), route("128.0.0.0/1", TUNNEL)], [TUNNEL, BOND]),
            ([route("default", BOND), route("0.0.0.0/1", NIC)], [BOND]),
            (
                [route("0.0.0.0/1", NIC), route("128.0.0.0/1", NIC), route("10.0.0.0/8", BOND)],
                [NIC],
            ),
            ([route("default6", BOND)], [BOND]),
            ([route("::/1", BOND), route("8000::/1", BOND)], [BOND]),
            ([route("::/1", BOND)], []),
            ([route("8000::/1", BOND)], []),
            ([route("2000::/3", BOND), route("fc00::/7", NIC)], [BOND]),
            ([route("default6", NIC), route("2000::/3", BOND)], [BOND, NIC]),
            ([route("0.0.0.0/1", BOND), route("8000::/1", BOND)], []),
            ([route("default6", NIC), route("default", BOND)], [BOND, NIC]),
            ([route("default", BOND, table=100)], []),
            ([route("0.0.0.0/1", BOND), route("128.0.0.0/1", BOND, table=100)], []),
            ([], []),
        ],
    )
    @pytest.mark.parametrize("rules", [(), RULES], ids=["no rules", "usual rules"])
    def test_of_the_main_table(self, routes: list[Route[int]], devices: list[int], rules: tuple[Rule, ...]) -> None:
        assert default_devices(routes, rules) == devices

    @pytest.mark.parametrize(
        ("rule", "devices"),
        [
            (Rule(V4, 100, 100), [BOND, NIC]),
            (Rule(V4, 32768, 100), [NIC, BOND]),
            (Rule(V4, 100, 100, selective=True), [NIC, BOND]),
            (Rule(V4, 100, 101), [NIC]),
            (Rule(V6, 100, 100), [NIC]),
            (Rule(V4, 100, 100, suppressed=0), [NIC]),
            (Rule(V4, 100, 0, selective=True, for_vrfs=True), [NIC, BOND]),
        ],
    )
    def test_of_a_table_that_a_rule_leads_to(self, rule: Rule, devices: list[int]) -> None:
        routes = [route("default", NIC), route("default", BOND, table=100)]
        assert default_devices(routes, (*RULES, rule), [100]) == devices

    def test_halves_in_a_table_that_a_rule_leads_to(self) -> None:
        halves = [route(prefix, BOND, table=51) for prefix in ("::/1", "8000::/1", "0.0.0.0/1", "128.0.0.0/1")]
        assert default_devices(halves, RULES) == []
        assert default_devices(halves, (*RULES, Rule(V4, 9, 51, selective=True))) == [BOND]
        assert default_devices(halves, (*RULES, Rule(V6, 9, 51, suppressed=0))) == [BOND]
        assert default_devices(halves, (*RULES, Rule(V6, 9, 51, suppressed=1))) == []

    def test_a_suppressed_default_route_counts_by_the_rule_that_does_not_suppress_it(self) -> None:
        """As a tunnel's programs set it up: what is not the tunnel's own goes into it."""
        rules = (*RULES, Rule(V4, 9, MAIN, suppressed=0), Rule(V4, 10, 51820, selective=True))
        routes = [route("default", BOND), route("default", TUNNEL, table=51820)]
        assert default_devices(routes, rules) == [BOND, TUNNEL]

    @settings(deadline=None)
    @given(cuts=st.lists(st.integers(0, 2**30), max_size=12), version=st.sampled_from([4, 6]), data=st.data())
    def test_any_parts_of_everything(self, cuts: list[int], version: int, data: st.DataObject) -> None:
        """However it is cut into prefixes of up to eight bits; and never without one of the parts that are needed."""
        parts: list[Any] = [ipaddress.ip_network("0.0.0.0/0" if version == 4 else "::/0")]
        for cut in (0, *cuts):
            part = parts.pop(cut % len(parts))
            parts += part.subnets() if part.prefixlen < 8 else [part]
        routes = [route(str(part), number) for number, part in enumerate(parts)]
        first, last = (b"\x01", b"\xdf") if version == 4 else (b"\x01", b"\xfd")
        needed = [
            number
            for number, part in enumerate(parts)
            if part.broadcast_address.packed >= first and part.network_address.packed[:1] <= last
        ]
        assert set(needed) <= set(default_devices(routes))
        if not any(str(part) == "2000::/3" for part in parts):
            lost = data.draw(st.sampled_from(needed), label="lost")
            assert default_devices([one for one in routes if one.devices != (lost,)]) == []


def header(family: int, length: int, *, table: int = MAIN, type_: int = 1, flags: int = 0, source: int = 0) -> bytes:
    """rtmsg."""
    return struct.pack("=BBBBBBBBI", family, length, source, 0, table, 3, 0, type_, flags)


def u32(type_: int, number: int) -> bytes:
    """An attribute with a number."""
    return attribute(type_, struct.pack("=I", number))


def hop(device: int, *, flags: int = 0, extra: bytes = b"") -> bytes:
    """rtnexthop."""
    return struct.pack("=HBBi", 8 + len(extra), flags, 0, device) + extra


def rule_header(family: int, *, to: int = 0, from_: int = 0, table: int = 0, action: int = 1, flags: int = 0) -> bytes:
    """fib_rule_hdr."""
    return struct.pack("=BBBBBBBBI", family, to, from_, 0, table, 0, 0, action, flags)


GATEWAY = attribute(5, bytes([10, 0, 0, 1]))
DEAD, LINKDOWN = 1, 16


class TestWire:
    """Messages as the kernel makes them."""

    @pytest.mark.parametrize(
        ("payload", "wanted"),
        [
            (header(V4, 0) + u32(15, MAIN) + GATEWAY + u32(4, BOND), route("default", BOND)),
            (
                header(V4, 0, table=252) + u32(15, 1000) + u32(6, 50) + u32(4, BOND),
                route("default", BOND, metric=50, table=1000),
            ),
            (header(V4, 1) + attribute(1, bytes([128, 0, 0, 0])) + u32(4, BOND), route("128.0.0.0/1", BOND)),
            (header(V4, 1) + u32(4, BOND), route("0.0.0.0/1", BOND)),
            (header(V6, 1) + attribute(1, b"\x80" + bytes(15)) + u32(4, BOND), route("8000::/1", BOND)),
            (header(V6, 0, source=48) + u32(4, BOND), route("default6", BOND)),
            (
                header(V4, 0) + attribute(9, hop(NIC, extra=GATEWAY) + hop(BOND, flags=DEAD | LINKDOWN, extra=GATEWAY)),
                route("default", NIC, BOND),
            ),
            (header(V4, 0) + attribute(9, hop(NIC) + hop(BOND)[:5]), route("default", NIC)),
            (header(V4, 0) + attribute(9, struct.pack("=HBBi", 3, 0, 0, BOND)), route("default")),
            (header(V4, 9) + u32(4, BOND), None),
            (header(V4, 0, type_=2) + u32(4, BOND), None),
            (header(V4, 0, type_=7), None),
            (header(V4, 0, flags=0x200) + u32(4, BOND), None),
            (header(28, 0) + u32(4, BOND), None),
            (header(V4, 0)[:11], None),
        ],
        ids=[
            "default",
            "table and metric",
            "upper half",
            "lower half",
            "upper half of IPv6",
            "for a source",
            "multipath, one dead",
            "multipath, cut off",
            "multipath, nonsense",
            "long prefix",
            "local",
            "unreachable",
            "cached",
            "MPLS",
            "cut off",
        ],
    )
    def test_routes(self, payload: bytes, wanted: Route[int] | None) -> None:
        assert route_of(payload) == wanted

    @pytest.mark.parametrize(
        ("payload", "wanted"),
        [
            (rule_header(V4, table=MAIN) + u32(15, MAIN) + u32(14, 0xFFFFFFFF) + u32(6, 32766), Rule(V4, 32766, MAIN)),
            (rule_header(V4, table=252) + u32(15, 1000) + u32(6, 5), Rule(V4, 5, 1000)),
            (rule_header(V4, from_=24, table=100) + attribute(2, bytes(4)), Rule(V4, 0, 100, selective=True)),
            (rule_header(V6, to=64, table=100), Rule(V6, 0, 100, selective=True)),
            (rule_header(V4, table=100) + u32(10, 1) + u32(16, 1), Rule(V4, 0, 100, selective=True)),
            (rule_header(V4, table=100) + attribute(3, b"eth0\0"), Rule(V4, 0, 100, selective=True)),
            (rule_header(V4, table=100, flags=2), Rule(V4, 0, 100, selective=True)),
            (rule_header(V4, table=100) + attribute(21, b"\x02"), Rule(V4, 0, 100)),
            (rule_header(V4, table=MAIN) + u32(14, 0), Rule(V4, 0, MAIN, suppressed=0)),
            (rule_header(V6) + attribute(19, b"\x01") + u32(6, 1000), Rule(V6, 1000, 0, selective=True, for_vrfs=True)),
            (rule_header(V4, action=7), None),
            (rule_header(V4, action=2) + u32(4, 100), None),
            (rule_header(128, table=100), None),
            (b"", None),
        ],
        ids=[
            "main",
            "large table",
            "from",
            "to",
            "mark",
            "interface",
            "not",
            "origin",
            "suppressed",
            "VRFs",
            "unreachable",
            "goto",
            "multicast routing",
            "cut off",
        ],
    )
    def test_rules(self, payload: bytes, wanted: Rule | None) -> None:
        assert rule_of(payload) == wanted

    def test_next_hop_objects(self) -> None:
        nexthop_header = struct.pack("=BBBxI", V4, 0, 3, 0)
        group = b"".join(struct.pack("=IBBH", number, 0, 0, 0) for number in (1, 2, 9))
        found = [
            nexthop_of(nexthop_header + u32(1, 1) + u32(5, NIC)),
            nexthop_of(nexthop_header + u32(1, 2) + u32(5, BOND)),
            nexthop_of(nexthop_header + u32(1, 10) + attribute(2, group + b"torn")),
        ]
        assert found == [NextHop(1, NIC), NextHop(2, BOND), NextHop(10, None, (1, 2, 9))]
        assert nexthop_of(nexthop_header) is None
        by_number = {one.number: one for one in found if one is not None}
        over_group, over_one, over_none = (route_of(header(V4, 0) + u32(30, number)) for number in (10, 2, 3))
        assert over_group is not None
        assert over_one is not None
        assert over_none is not None
        assert with_devices(over_group, by_number).devices == (NIC, BOND)
        assert with_devices(over_one, by_number).devices == (BOND,)
        assert with_devices(over_none, by_number).devices == ()
        assert with_devices(route("default", OTHER), by_number).devices == (OTHER,)

    @settings(deadline=None)
    @given(data=st.binary(max_size=120), family=st.sampled_from([V4, V6]), length=st.integers(0, 8))
    def test_any_bytes(self, data: bytes, family: int, length: int) -> None:
        for payload in (data, header(family, length) + data, rule_header(family) + data, bytes(8) + data):
            routes = [found for found in [route_of(payload)] if found is not None]
            rules = [found for found in [rule_of(payload)] if found is not None]
            hops = {found.number: found for found in [nexthop_of(payload)] if found is not None}
            default_devices([with_devices(one, hops) for one in routes], rules, [0])

    def test_an_independent_encoder_agrees(self) -> None:
        """pyroute2's."""
        theirs = rtmsg()
        theirs.update(family=V4, dst_len=1, table=MAIN, type=1)
        theirs["attrs"] = [("RTA_DST", "128.0.0.0"), ("RTA_PRIORITY", 7), ("RTA_OIF", BOND), ("RTA_TABLE", 1000)]
        theirs.encode()
        assert route_of(bytes(theirs.data[HEADER.size :])) == route("128.0.0.0/1", BOND, metric=7, table=1000)
        rule = fibmsg()
        rule.update(family=V4, src_len=24, action=1)
        rule["attrs"] = [
            ("FRA_SRC", "10.0.0.0"),
            ("FRA_TABLE", 1000),
            ("FRA_PRIORITY", 9),
            ("FRA_SUPPRESS_PREFIXLEN", 0),
        ]
        rule.encode()
        assert rule_of(bytes(rule.data[HEADER.size :])) == Rule(V4, 9, 1000, selective=True, suppressed=0)


def message(type_: int, payload: bytes) -> bytes:
    """A netlink message."""
    return HEADER.pack(HEADER.size + len(payload), type_, 2, 0, 0) + payload + bytes(-len(payload) % 4)


DONE = message(NLMSG_DONE, bytes(4))


class FakeKernel:
    """A netlink socket that answers each type of request with its list."""

    def __init__(self, answers: dict[int, Sequence[bytes]]) -> None:
        self.answers = answers
        self.asked: list[int] = []
        self.waiting: list[bytes] = []
        self.closed = False

    def setsockopt(self, *_: object) -> None:
        """Anything."""

    def send(self, data: bytes) -> None:
        """A request."""
        _, type_, _, sequence, _ = HEADER.unpack_from(data)
        self.asked.append(type_)
        self.waiting = [one[:8] + struct.pack("=I", sequence) + one[12:] for one in self.answers[type_]]

    def recvmsg(self, _size: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        """The next datagram."""
        return self.waiting.pop(0), [], 0, (0, 0)

    def close(self) -> None:
        """Closed."""
        self.closed = True


def split(datagram_: bytes) -> Iterator[bytes]:
    """Its messages."""
    offset = 0
    while offset < len(datagram_):
        length = HEADER.unpack_from(datagram_, offset)[0]
        yield datagram_[offset : offset + length]
        offset += (length + 3) & ~3


def error(number: int) -> bytes:
    """NLMSG_ERROR."""
    return message(NLMSG_ERROR, struct.pack("=i", -number))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """One default route, over a next-hop object, and the main table's rule."""
    fake = FakeKernel(
        {
            RTM_GETROUTE: [message(RTM_NEWROUTE, header(V4, 0) + u32(30, 3)), DONE],
            RTM_GETRULE: [message(RTM_NEWRULE, rule_header(V4, table=MAIN) + u32(6, 32766)), DONE],
            RTM_GETNEXTHOP: [
                message(RTM_NEWNEXTHOP, struct.pack("=BBBxI", V4, 0, 3, 0) + u32(1, 3) + u32(5, BOND)),
                DONE,
            ],
        }
    )
    monkeypatch.setattr(netlink, "_open", lambda _groups: fake)
    return fake


class TestDump:
    """Requests to the kernel."""

    def test_routes_rules_and_next_hops(self, kernel: FakeKernel) -> None:
        dump = Dump()
        (found,) = dump.routes()
        assert (found.devices, found.nexthop) == ((BOND,), 3)
        assert dump.rules() == [Rule(V4, 32766, MAIN)]
        assert kernel.asked == [RTM_GETROUTE, RTM_GETNEXTHOP, RTM_GETRULE]

    def test_next_hops_are_asked_for_only_where_a_route_needs_them(self, kernel: FakeKernel) -> None:
        kernel.answers[RTM_GETROUTE] = [message(RTM_NEWROUTE, header(V4, 0) + u32(30, 3) + u32(4, NIC)), DONE]
        assert [one.devices for one in Dump().routes()] == [(NIC,)]
        assert kernel.asked == [RTM_GETROUTE]

    def test_a_kernel_without_rules(self, kernel: FakeKernel) -> None:
        kernel.answers[RTM_GETRULE] = [error(95)]
        assert Dump().rules() == []
        kernel.answers[RTM_GETRULE] = [error(1)]
        with pytest.raises(TemporaryError, match="no list of rules"):
            Dump().rules()

    def test_a_kernel_that_tells_no_routes_is_an_error(self, kernel: FakeKernel) -> None:
        kernel.answers[RTM_GETROUTE] = [error(95)]
        with pytest.raises(TemporaryError, match="no list of routes"):
            Dump().routes()
        assert kernel.closed

    def test_all_the_routes_of_the_internet(self, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(netlink, "MOST_MESSAGES", 3)
        kernel.answers[RTM_GETROUTE] = [message(RTM_NEWROUTE, header(V4, 24))] * 9
        with pytest.raises(TemporaryError, match="more than 3 messages"):
            Dump().routes()
        assert kernel.closed


class TestProc:
    """/proc/net."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """/proc/net."""
        folder = tmp_path / "net"
        folder.mkdir()
        return folder

    def test_default_routes(self, folder: Path) -> None:
        assert default_devices(proc_routes(folder.parent)) == []
        (folder / "route").write_text(
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
            "bond1\t00000000\t0100000A\t0003\t0\t0\t200\t00000000\t0\t0\t0\n"
            "br0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
            "down\t00000000\t0100000A\t0002\t0\t0\t1\t00000000\t0\t0\t0\n"
            "vpn\t00000000\t0100000A\t0003\t0\t0\t1\t00000080\t0\t0\t0\n"
            "eth9\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n"
            "torn\t00000000\t01\n"
        )
        zeros, ones = "0" * 32, "f" * 32
        (folder / "ipv6_route").write_text(
            f"{zeros} 00 {zeros} 00 {ones} 00000400 00000002 00000000 00000003     br6\n"
            f"{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200       lo\n"
            f"{ones} 40 {zeros} 00 {zeros} 00000100 00000001 00000000 00000001     eth9\n"
        )
        assert default_devices(proc_routes(folder.parent)) == [b"br0", b"bond1", b"br6"]

    def test_halves(self, folder: Path) -> None:
        lines = ["eth9 00000000 0 0003 0 0 0 00000000", "bond0 00000000 0 0003 0 0 0 00000080"]
        (folder / "route").write_text("\n".join([*lines, "bond0 00000080 0 0003 0 0 0 00000080\n"]))
        zeros, upper = "0" * 32, "8" + "0" * 31
        (folder / "ipv6_route").write_text(
            f"{zeros} 01 {zeros} 00 {zeros} 00000400 00000002 00000000 00000003 bond6\n"
            f"{upper} 01 {zeros} 00 {zeros} 00000400 00000002 00000000 00000003 bond6\n"
        )
        assert default_devices(proc_routes(folder.parent)) == [b"bond0", b"eth9", b"bond6"]
        (folder / "route").write_text("\n".join(lines))
        assert default_devices(proc_routes(folder.parent)) == [b"eth9", b"bond6"]

    @given(data=st.binary(max_size=400))
    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_routes_that_make_no_sense(self, data: bytes, folder: Path) -> None:
        (folder / "route").write_bytes(data)
        (folder / "ipv6_route").write_bytes(data)
        assert all(is_device_name(name) for name in default_devices(proc_routes(folder.parent)))


class TestReader:
    """What the agent asks each second."""

    LINKS = (Link(NIC, b"eth9", 1), Link(BOND, b"bond0", 1))

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """Seconds that the reader's clock shows."""
        shown = [100.0]
        monkeypatch.setattr(route_reader.time, "monotonic", lambda: shown[0])
        return shown

    @pytest.fixture
    def reader(self, tmp_path: Path) -> RouteReader:
        """Of netlink, and of a /proc that has another default route."""
        (tmp_path / "net").mkdir()
        (tmp_path / "net" / "route").write_text("eth9 00000000 0 0003 0 0 0 00000000\n")
        return RouteReader(Dump(), tmp_path)

    def test_it_is_believed_for_a_while(self, kernel: FakeKernel, clock: list[float], reader: RouteReader) -> None:
        assert reader.devices(self.LINKS) == ("bond0",)
        asked = len(kernel.asked)
        clock[0] += ROUTES_SECONDS - 0.1
        renamed = (self.LINKS[0], Link(BOND, b"uplink", 1))
        assert reader.devices(renamed) == ("uplink",), "by the names of now"
        assert reader.devices(self.LINKS[:1]) == ()
        assert len(kernel.asked) == asked
        kernel.answers[RTM_GETROUTE] = [DONE]
        clock[0] += 0.1
        assert reader.devices(self.LINKS) == ()

    def test_where_netlink_tells_nothing_proc_does(
        self, kernel: FakeKernel, clock: list[float], reader: RouteReader
    ) -> None:
        good, kernel.answers[RTM_GETROUTE] = kernel.answers[RTM_GETROUTE], [error(1)]
        assert reader.devices(self.LINKS) == ("eth9",)
        kernel.answers[RTM_GETROUTE] = good
        assert reader.devices(self.LINKS) == ("eth9",), "not asked again at once"
        clock[0] += ROUTES_SECONDS
        assert reader.devices(self.LINKS) == ("bond0",)

    async def test_a_reading_of_bonds_has_them(self, kernel: FakeKernel, tmp_path: Path) -> None:
        """ECMP over a plain device and a VLAN on the bond."""
        state = datagram("active-backup-healthy")
        bond0 = next(link for link in links_of(state) if link.bond is not None)
        vlan = {"index": 90, "flags": 1, "attrs": {"IFLA_IFNAME": "bond0.7", "IFLA_LINK": bond0.index}}
        nic = {"index": 91, "flags": 1, "attrs": {"IFLA_IFNAME": "eth9"}}
        kernel.answers[RTM_GETLINK] = [*split(state), link_message(vlan), link_message(nic), DONE]
        kernel.answers[RTM_GETROUTE] = [
            message(RTM_NEWROUTE, header(V4, 0) + attribute(9, hop(91) + hop(90))),
            DONE,
        ]
        source = KernelBonds(tmp_path, tmp_path)
        reading = await source.read()
        await source.close()
        assert reading.default_devices == ("eth9", "bond0.7")
        assert carrier_of_route(reading) == "bond0"

    def test_tables_of_vrfs(self, kernel: FakeKernel, clock: list[float], reader: RouteReader) -> None:
        kernel.answers[RTM_GETROUTE] = [message(RTM_NEWROUTE, header(V4, 0, table=77) + u32(4, BOND)), DONE]
        kernel.answers[RTM_GETRULE] = [message(RTM_NEWRULE, rule_header(V4) + attribute(19, b"\x01")), DONE]
        assert reader.devices(self.LINKS) == ()
        clock[0] += ROUTES_SECONDS
        assert reader.devices((*self.LINKS, Link(9, b"blue", 1, vrf_table=77))) == ("bond0",)
