"""What reads the kernel: hostile names, broken files, broken messages, missing data. Nothing crashes or is made up."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from luban.adapters.kernel_bonds import netlink, procfs, sysfs
from luban.adapters.kernel_bonds.device_names import is_device_name, readable
from luban.adapters.kernel_bonds.files import SysNet, boot_id, read, unsigned
from luban.adapters.kernel_bonds.netlink import Dump, LinkEvents
from luban.adapters.kernel_bonds.readings import bond_readings, relevant
from luban.adapters.kernel_bonds.source import KernelBonds
from luban.adapters.kernel_bonds.wire import (
    HEADER,
    LINKS_REQUEST,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    RTM_GETLINK,
    RTM_NEWLINK,
    Link,
    dump_request,
    link_of,
    messages,
)
from luban.core.bonds.host import judge_bond
from luban.core.bonds.model import BondReading, HostReading
from luban.errors import TemporaryError
from tests.unit.core.bond_states import (
    FOLDER,
    START,
    STATES,
    attribute,
    datagram,
    from_files,
    from_netlink,
    link_message,
    links_of,
    make_tree,
    proc_text,
)


def nothing(_link: Link) -> tuple[None, None]:
    """No speed."""
    return None, None


class TestNames:
    """Linux takes nearly any bytes as a device's name."""

    @pytest.mark.parametrize(
        ("raw", "text"),
        [
            (b"bond0", "bond0"),
            ("büro".encode(), "büro"),
            (b"bond\xff", "bond\\xff"),
            (b"a\x1b[31m", "a\\x1b[31m"),
            (b"a\\x1b", "a\\\\x1b"),
            ("a\u202eb".encode(), "a\\xe2\\x80\\xaeb"),
            (b'"', '"'),
        ],
    )
    def test_readable(self, raw: bytes, text: str) -> None:
        assert readable(raw) == text

    @settings(deadline=None)
    @given(raw=st.binary(max_size=15), other=st.binary(max_size=15))
    @example(raw=b"\xff", other=b"\\xff")
    @example(raw=b"\xff", other=b"\xc3\xbf")
    def test_readable_names_are_text_and_stay_different(self, raw: bytes, other: bytes) -> None:
        text = readable(raw)
        assert json.loads(json.dumps(text).encode("utf-8")) == text
        assert text.encode("utf-8").decode() == text
        assert text.isprintable()
        assert len(text) <= 60
        assert (readable(other) == text) == (other == raw)

    @pytest.mark.parametrize("raw", [b"", b".", b"..", b"a/b", b"../../etc", b"a b", b"a:1", b"a\0", b"\t", b"x" * 16])
    def test_what_is_no_name_is_never_part_of_a_path(self, raw: bytes, tmp_path: Path) -> None:
        assert not is_device_name(raw)
        folder = tmp_path / "class" / "net"
        folder.mkdir(parents=True)
        (tmp_path / "class" / "speed").write_text("1000")
        sysnet = SysNet(tmp_path)
        assert (sysnet.text(raw, "speed"), sysnet.words(raw, "speed"), sysnet.uppers(raw)) == (None, None, [])
        assert sysfs.read_bond(raw, tmp_path, sysnet).ports == ()

    def test_odd_names_are_followed(self, tmp_path: Path) -> None:
        raw = b"b\xff\x1b"
        folder = tmp_path / "class" / "net" / os.fsdecode(raw)
        folder.mkdir(parents=True)
        (folder / "speed").write_text("25000\n")
        assert SysNet(tmp_path).speed(raw) == 25000


class TestFiles:
    """No data is None."""

    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("17", 17),
            ("0x1003", 0x1003),
            (" 5 \n", 5),
            ("-1", None),
            ("", None),
            ("1_0", None),
            ("٣", None),
            ("4294967296", None),
            ("9" * 5000, None),
            ("zz", None),
            (None, None),
        ],
    )
    def test_numbers(self, text: str | None, number: int | None) -> None:
        assert unsigned(text) == number

    @pytest.mark.parametrize("text", ["-1", "0", "4294967295", "", "fast"])
    def test_speeds_that_drivers_make_up(self, text: str, tmp_path: Path) -> None:
        folder = tmp_path / "class" / "net" / "eth1"
        folder.mkdir(parents=True)
        (folder / "speed").write_text(text)
        (folder / "duplex").write_text("unknown\n")
        assert (SysNet(tmp_path).speed(b"eth1"), SysNet(tmp_path).duplex(b"eth1")) == (None, None)

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("6d2f0a1c-1234-4abc-8def-0123456789ab\n", "6d2f0a1c-1234-4abc-8def-0123456789ab"),
            ("6d2f0a1c", ""),
            ("", ""),
            ("\xff" * 36, ""),
        ],
    )
    def test_boot_id(self, text: str, found: str, tmp_path: Path) -> None:
        assert boot_id(tmp_path) == ""
        folder = tmp_path / "sys" / "kernel" / "random"
        folder.mkdir(parents=True)
        (folder / "boot_id").write_text(text)
        assert boot_id(tmp_path) == found

    @pytest.mark.parametrize(("text", "found"), [("7\n", 7), ("0\n", None), ("-1", None), ("", None)])
    def test_index(self, text: str, found: int | None, tmp_path: Path) -> None:
        folder = tmp_path / "class" / "net" / "eth1"
        folder.mkdir(parents=True)
        assert SysNet(tmp_path).index(b"eth1") is None
        (folder / "ifindex").write_text(text)
        assert SysNet(tmp_path).index(b"eth1") == found

    def test_what_cannot_be_read(self, tmp_path: Path) -> None:
        assert read(tmp_path) is None
        assert read(tmp_path / "missing") is None
        assert read(tmp_path / "nul\0") is None
        assert SysNet(tmp_path).bonds() is None


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A recorded /proc/net/bonding file with some of it cut, changed, or put elsewhere."""
    data = bytearray(proc_text(draw(st.sampled_from(STATES))))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 1, 7, 80, 600])))
        piece = draw(
            st.sampled_from([b"", bytes(data[start:end]) * 2])
            | st.binary(max_size=8)
            | st.sampled_from([b"\n", b"Slave Interface: ", b"MII Status: up\n", b": ", b"\xff\xfe", b"63", b"None"])
        )
        data[start:end] = piece
    return bytes(data)


class TestProc:
    """/proc/net/bonding, whole and broken."""

    @settings(deadline=None)
    @given(data=mutated() | st.binary(max_size=300))
    def test_whatever_it_says_it_is_read_and_not_believed_too_much(self, data: bytes) -> None:
        reading = procfs.parse("bond0", data)
        assert judge_bond(reading, None, None, START).verdict not in ("Healthy", "Recovering")
        for port in reading.ports:
            json.dumps(port.name).encode()
            assert port.actor_state is None or 0 <= port.actor_state <= 255
        assert len({port.name for port in reading.ports}) == len(reading.ports)

    @pytest.mark.parametrize("state", ["lacp-healthy", "active-backup-healthy", "balance-rr-healthy"])
    def test_a_file_that_ends_early(self, state: str) -> None:
        data = proc_text(state)
        for end in range(0, len(data), 3):
            reading = procfs.parse("bond0", data[:end])
            assert judge_bond(reading, None, None, START).verdict == "Unknown"

    def test_a_number_that_is_cut_off_is_no_number(self) -> None:
        data = b"Slave Interface: eth1\nMII Status: up\nLink Failure Count: 1"
        assert procfs.parse("bond0", data).ports[0].link_failures is None
        assert procfs.parse("bond0", data + b"2\n").ports[0].link_failures == 12

    @pytest.mark.parametrize(
        ("text", "mode"),
        [
            ("fault-tolerance (active-backup) (fail_over_mac active)", "active-backup"),
            ("load balancing (round-robin)", "balance-rr"),
            ("adaptive load balancing", "balance-alb"),
            ("transmit load balancing", "balance-tlb"),
            ("fault-tolerance (broadcast)", "broadcast"),
            ("load balancing (psychic)", None),
        ],
    )
    def test_modes(self, text: str, mode: str | None) -> None:
        assert procfs.parse("bond0", f"Bonding Mode: {text}\n".encode()).mode == mode

    def test_partners_of_each_port(self) -> None:
        reading = procfs.parse("bond0", proc_text("lacp-two-partners-aggregator-mismatch"))
        assert len({port.partner_mac for port in reading.ports}) == 2
        assert reading.lacp_rate == "fast"

    def test_hostile_ports(self) -> None:
        names = [b"../../etc", b"a b", b"", b"eth1", b"eth1", b"e\xff"]
        data = b"".join(b"Slave Interface: " + name + b"\nMII Status: up\n" for name in names)
        assert [port.name for port in procfs.parse("bond0", data).ports] == ["eth1", "e\\xff"]

    def test_memory_is_bounded(self) -> None:
        data = b"".join(b"Slave Interface: eth%d\n" % number for number in range(5000))
        assert len(procfs.parse("bond0", data).ports) <= 256


class TestTrees:
    """/proc and /sys together."""

    def test_a_port_that_proc_lost_is_still_a_port(self, tmp_path: Path) -> None:
        proc, sys = make_tree("lacp-healthy", tmp_path)
        cut = proc_text("lacp-healthy").partition(b"Slave Interface: eth2")[0]
        (proc / "net/bonding/bond0").write_bytes(cut)
        for name in ("flags", "carrier", "bonding_slave/mii_status"):
            (sys / "class/net/eth2" / name).unlink()
        judgement = judge_bond(sysfs.read_bond(b"bond0", proc, SysNet(sys)), None, None, START)
        assert (judgement.verdict, judgement.total) == ("Unknown", 2)

    def test_a_kernel_without_the_list_of_ports(self, tmp_path: Path) -> None:
        proc, sys = make_tree("lacp-healthy", tmp_path)
        (sys / "class/net/bond0/bonding/slaves").unlink()
        reading = sysfs.read_bond(b"bond0", proc, SysNet(sys))
        assert [port.name for port in reading.ports] == ["eth1", "eth2"]
        assert judge_bond(reading, None, None, START).verdict == "Unknown"

    def test_a_host_without_bonding(self, tmp_path: Path) -> None:
        assert sysfs.bond_names(tmp_path, SysNet(tmp_path)) == []
        assert judge_bond(sysfs.read_bond(b"bond0", tmp_path, SysNet(tmp_path)), None, None, START).verdict == "Unknown"

    def test_bonds_are_listed_by_proc_where_sys_does_not(self, tmp_path: Path) -> None:
        proc, sys = make_tree("lacp-healthy", tmp_path)
        (sys / "class/net/bonding_masters").unlink()
        assert sysfs.bond_names(proc, SysNet(sys)) == [b"bond0"]

    def test_what_stands_on_a_bond(self, tmp_path: Path) -> None:
        _, sys = make_tree("lacp-healthy", tmp_path)
        net = sys / "class" / "net"
        for lower, upper in (("bond0", "bond0.5"), ("bond0.5", "br0"), ("br0", "bond0")):
            (net / lower).mkdir(exist_ok=True)
            (net / lower / f"upper_{upper}").symlink_to(net / upper)
        reading = sysfs.read_bond(b"bond0", tmp_path / "proc", SysNet(sys))
        assert set(reading.carries) >= {"bond0.5", "br0"}

    @given(data=st.data())
    @settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_file_may_be_missing_or_broken(self, data: st.DataObject, tmp_path_factory: Any) -> None:
        """A file less can turn Healthy into Unknown, never anything else into Healthy."""
        state = data.draw(st.sampled_from(["lacp-healthy", "lacp-silent-eth1-expired", "active-backup-failed-over"]))
        proc, sys = make_tree(state, tmp_path_factory.mktemp("tree"))
        files = sorted(path for path in sys.rglob("*") if path.is_file())
        for path in data.draw(st.lists(st.sampled_from(files), max_size=4, unique=True)):
            if data.draw(st.booleans()):
                path.unlink()
            else:
                path.write_bytes(data.draw(st.binary(max_size=6)))
        found = judge_bond(sysfs.read_bond(b"bond0", proc, SysNet(sys)), 2, None, START).verdict
        assert state == "lacp-healthy" or found not in ("Healthy", "Recovering")


class TestFill:
    """What one reader does not know, another may."""

    def test_an_old_kernels_netlink_is_completed(self, tmp_path: Path) -> None:
        whole = from_netlink("lacp-silent-eth1-expired")
        lacking = {"actor_state": None, "partner_state": None, "churn_actor": None, "churn_partner": None}
        old = replace(whole, ports=tuple(replace(port, **lacking) for port in whole.ports))  # type: ignore[arg-type]
        assert judge_bond(old, None, None, START).verdict == "Unknown"
        filled = sysfs.fill(old, from_files("lacp-silent-eth1-expired", tmp_path))
        assert judge_bond(filled, None, None, START).reasons == judge_bond(whole, None, None, START).reasons

    def test_ports_are_added_only_where_some_may_be_missing(self) -> None:
        other = procfs.parse("bond0", proc_text("lacp-healthy"))
        assert sysfs.fill(BondReading("bond0"), other).ports == ()
        assert len(sysfs.fill(BondReading("bond0", ports_known=False), other).ports) == 2


class TestWire:
    """Netlink messages, whole and broken."""

    @settings(deadline=None)
    @given(data=st.binary(max_size=300))
    def test_any_bytes(self, data: bytes) -> None:
        bond_readings(list(links_of(data)), nothing)

    @settings(deadline=None)
    @given(state=st.sampled_from(STATES), data=st.data())
    def test_any_damage(self, state: str, data: st.DataObject) -> None:
        """What the damage leaves is read; it can hide facts, and a port whose facts are hidden is not healthy."""
        raw = bytearray(datagram(state))
        for _ in range(data.draw(st.integers(1, 5))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        for bond in bond_readings(list(links_of(bytes(raw))), nothing):
            judge_bond(bond, None, None, START)

    @pytest.mark.parametrize("state", ["lacp-healthy", "active-backup-healthy"])
    def test_attributes_that_are_missing(self, state: str) -> None:
        """Each attribute that health hangs on, left out alone."""
        links = json.loads((FOLDER / f"{state}.pyroute2.json").read_text())
        slave = links[1]["attrs"]["IFLA_LINKINFO"]["IFLA_INFO_SLAVE_DATA"]
        needed = ["MII_STATUS"]
        if state.startswith("lacp"):
            needed += ["STATE", "AD_AGGREGATOR_ID", "AD_ACTOR_OPER_PORT_STATE", "AD_PARTNER_OPER_PORT_STATE"]
        for name in needed:
            without = {key: value for key, value in slave.items() if key != f"IFLA_BOND_SLAVE_{name}"}
            links[1]["attrs"]["IFLA_LINKINFO"]["IFLA_INFO_SLAVE_DATA"] = without
            data = b"".join(link_message(link) for link in links)
            (bond,) = bond_readings(list(links_of(data)), nothing)
            assert judge_bond(bond, None, None, START).verdict == "Unknown", name

    def test_a_slave_of_a_kernel_that_tells_nothing_about_slaves(self) -> None:
        links = json.loads((FOLDER / "active-backup-healthy.pyroute2.json").read_text())
        for link in links[1:]:
            del link["attrs"]["IFLA_LINKINFO"]
        found = list(links_of(b"".join(link_message(link) for link in links)))
        (bond,) = bond_readings(found, nothing)
        assert (len(bond.ports), judge_bond(bond, None, None, START).verdict) == (2, "Unknown")
        assert relevant(found) == {link["index"] for link in links}

    def test_the_table_of_a_vrf(self) -> None:
        info = attribute(1, b"vrf\0") + attribute(2, attribute(1, struct.pack("=I", 1000)))
        body = struct.pack("=BxHiII", 0, 1, 9, 1, 0) + attribute(3, b"blue\0") + attribute(18, info)
        found = link_of(body)
        assert found is not None
        assert (found.name, found.vrf_table, found.bond) == (b"blue", 1000, None)

    def test_words_of_a_newer_kernel(self) -> None:
        links = json.loads((FOLDER / "lacp-healthy.pyroute2.json").read_text())
        links[0]["attrs"]["IFLA_LINKINFO"]["IFLA_INFO_DATA"]["IFLA_BOND_MODE"] = 7
        (bond,) = bond_readings(list(links_of(b"".join(link_message(link) for link in links))), nothing)
        assert (bond.mode, judge_bond(bond, None, None, START).verdict) == (None, "Unknown")

    def test_what_stands_on_a_bond(self) -> None:
        bond = {"index": 8, "flags": 1, "attrs": {"IFLA_IFNAME": "bond0", "IFLA_MASTER": 20}}
        bond["attrs"]["IFLA_LINKINFO"] = {"IFLA_INFO_KIND": "bond", "IFLA_INFO_DATA": {}}  # type: ignore[index]
        others = [
            {"index": 20, "flags": 1, "attrs": {"IFLA_IFNAME": "br0"}},
            {"index": 21, "flags": 1, "attrs": {"IFLA_IFNAME": "bond0.5", "IFLA_LINK": 8}},
            {"index": 22, "flags": 1, "attrs": {"IFLA_IFNAME": b"v\xff", "IFLA_LINK": 21}},
            {"index": 23, "flags": 1, "attrs": {"IFLA_IFNAME": "pod", "IFLA_LINK": 8, "IFLA_LINK_NETNSID": 0}},
        ]
        data = b"".join(link_message(link) for link in [bond, *others])
        (reading,) = bond_readings(list(links_of(data)), nothing)
        assert set(reading.carries) == {"br0", "bond0.5", "v\\xff"}

    def test_an_independent_decoder_agrees(self) -> None:
        """pyroute2 on the recorded datagrams."""
        for line in (FOLDER / "events-lacp-flapping-6x400ms-6x20ms.jsonl").read_text().splitlines():
            if "nlmsg_hex" not in line:
                continue
            raw = bytes.fromhex(json.loads(line)["nlmsg_hex"])
            theirs = ifinfmsg(raw)
            theirs.decode()
            (message,) = messages(raw)
            ours = link_of(message.payload)
            assert ours is not None
            assert (ours.index, ours.flags) == (theirs["index"], theirs["flags"])
            assert ours.name.decode() == theirs.get_attr("IFLA_IFNAME")
            assert ours.master == theirs.get_attr("IFLA_MASTER")
            assert ours.carrier_downs == theirs.get_attr("IFLA_CARRIER_DOWN_COUNT")


class FakeSocket:
    """A netlink socket that answers as it is told."""

    def __init__(self, *answers: list[bytes] | OSError) -> None:
        self.answers = list(answers)
        self.waiting: list[bytes] = []
        self.closed = False

    def setsockopt(self, *_: object) -> None:
        """Anything."""

    def send(self, data: bytes) -> None:
        """A request: the next answer follows, with its sequence number."""
        sequence = HEADER.unpack_from(data)[3]
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        self.waiting = [struct.pack_into("=I", (raw := bytearray(one)), 8, sequence) or bytes(raw) for one in answer]

    def recvmsg(self, _size: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        """The next datagram."""
        if not self.waiting:
            raise BlockingIOError
        return self.waiting.pop(0), [], 0, (0, 0)

    def close(self) -> None:
        """Closed."""
        self.closed = True


def message(type_: int, flags: int = 2, payload: bytes = bytes(4)) -> bytes:
    """A message without a link."""
    return HEADER.pack(HEADER.size + len(payload), type_, flags, 0, 0) + payload


def link(name: str, flags: int = 2) -> bytes:
    """RTM_NEWLINK."""
    raw = bytearray(link_message({"index": 1, "flags": 1, "attrs": {"IFLA_IFNAME": name}}, type_=RTM_NEWLINK))
    struct.pack_into("=H", raw, 6, flags)
    return bytes(raw)


class TestDump:
    """The answer to a request for all links."""

    @pytest.fixture
    def answer(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Sets what the socket answers."""

        def prepare(*answers: list[bytes] | OSError) -> FakeSocket:
            fake = FakeSocket(*answers)
            monkeypatch.setattr(netlink, "_open", lambda _groups: fake)
            return fake

        return prepare

    def test_links(self, answer: Any) -> None:
        answer([link("lo"), link("eth0"), message(NLMSG_DONE)])
        assert [one.name for one in Dump().links()] == [b"lo", b"eth0"]

    def test_a_list_that_changed_meanwhile_is_asked_for_again(self, answer: Any) -> None:
        torn = [link("lo", NLM_F_DUMP_INTR), message(NLMSG_DONE)]
        answer(torn, [link("eth0"), message(NLMSG_DONE)])
        assert [one.name for one in Dump().links()] == [b"eth0"]
        answer(torn, torn, torn)
        with pytest.raises(TemporaryError, match="links change so fast"):
            Dump().links()

    def test_the_last_message_may_say_that_the_list_changed(self, answer: Any) -> None:
        answer([link("lo"), message(NLMSG_DONE, NLM_F_DUMP_INTR)], [link("eth0"), message(NLMSG_DONE)])
        assert [one.name for one in Dump().links()] == [b"eth0"]

    @pytest.mark.parametrize("type_", [NLMSG_ERROR, NLMSG_DONE])
    def test_an_error_closes_the_socket(self, answer: Any, type_: int) -> None:
        fake = answer([message(type_, payload=struct.pack("=i", -1))])
        with pytest.raises(TemporaryError, match="Operation not permitted"):
            Dump().links()
        assert fake.closed

    def test_silence(self, answer: Any) -> None:
        answer([link("lo")])
        with pytest.raises(TemporaryError, match="no list of links"):
            Dump().links()

    def test_the_request(self) -> None:
        length, type_, flags, sequence, _ = HEADER.unpack_from(dump_request(RTM_GETLINK, LINKS_REQUEST, 7))
        assert (length, type_, flags & 0x301, sequence) == (
            len(dump_request(RTM_GETLINK, LINKS_REQUEST, 7)),
            18,
            0x301,
            7,
        )


class TestSource:
    """All readers together."""

    @pytest.fixture
    def no_netlink(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sandbox without netlink sockets."""

        def refuse(_groups: int) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(netlink, "_open", refuse)

    @pytest.fixture
    async def source(self, tmp_path: Path) -> Any:
        """Reads a tree."""
        opened = KernelBonds(*make_tree("lacp-silent-eth1-expired", tmp_path))
        yield opened
        await opened.close()

    @pytest.mark.usefixtures("no_netlink")
    async def test_without_netlink_the_file_systems_tell(self, source: KernelBonds) -> None:
        reading = await source.read()
        assert [bond.name for bond in reading.bonds] == ["bond0"]
        assert judge_bond(reading.bonds[0], None, None, START).verdict == "LACPTimeout"
        with pytest.raises(TemporaryError, match="no events"):
            source.watch(lambda _reason: None)

    @pytest.mark.usefixtures("no_netlink")
    async def test_without_anything_it_is_an_error(self, tmp_path: Path) -> None:
        source = KernelBonds(tmp_path, tmp_path)
        with pytest.raises(TemporaryError, match="no list of links"):
            await source.read()
        await source.close()

    async def test_netlink_with_speeds_from_sys(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        state = "lacp-speed-mismatch"
        answer = [datagram(state), message(NLMSG_DONE)]
        monkeypatch.setattr(netlink, "_open", lambda _groups: DumpOnly(answer))
        source = KernelBonds(*make_tree(state, tmp_path))
        reading = await source.read()
        assert [port.speed_mbps for port in reading.bonds[0].ports] == [1000, 100]
        (tmp_path / "sys/class/net/eth2/speed").write_text("1000\n")
        assert [port.speed_mbps for port in (await source.read()).bonds[0].ports] == [1000, 100], "believed for a while"
        await source.close()

    async def test_speeds_are_read_anew_when_lacp_is_in_another_state(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """A port whose duplex was changed loses its partner, and no carrier."""
        links = json.loads((FOLDER / "lacp-healthy.pyroute2.json").read_text())
        kernel = DumpOnly([*map(link_message, links), message(NLMSG_DONE)])
        monkeypatch.setattr(netlink, "_open", lambda _groups: kernel)
        source = KernelBonds(*make_tree("lacp-healthy", tmp_path))
        await source.read()
        (tmp_path / "sys/class/net/eth2/duplex").write_text("half\n")
        assert [port.duplex for port in (await source.read()).bonds[0].ports] == ["full", "full"]
        slave = next(link for link in links if link["attrs"]["IFLA_IFNAME"] == "eth2")["attrs"]["IFLA_LINKINFO"]
        slave["IFLA_INFO_SLAVE_DATA"]["IFLA_BOND_SLAVE_AD_ACTOR_OPER_PORT_STATE"] = 0x47
        kernel.answer = [*map(link_message, links), message(NLMSG_DONE)]
        assert [port.duplex for port in (await source.read()).bonds[0].ports] == ["full", "half"]
        await source.close()

    async def test_a_reading_that_hangs(self, monkeypatch: pytest.MonkeyPatch, source: KernelBonds) -> None:
        release = asyncio.Event()
        loop = asyncio.get_running_loop()
        monkeypatch.setattr("luban.adapters.kernel_bonds.source.READ_SECONDS", 0.01)
        monkeypatch.setattr(source, "read_now", lambda: asyncio.run_coroutine_threadsafe(release.wait(), loop).result())
        for _ in range(2):
            with pytest.raises(TemporaryError, match=r"not read within|has not come back"):
                await source.read()
        release.set()


class DumpOnly(FakeSocket):
    """Answers every dump alike."""

    def __init__(self, answer: list[bytes]) -> None:
        super().__init__()
        self.answer = answer

    def send(self, data: bytes) -> None:
        sequence = HEADER.unpack_from(data)[3]
        self.waiting = [b"".join(_numbered(self.answer, sequence))]


def _numbered(answer: list[bytes], sequence: int) -> Iterator[bytes]:
    for datagram_ in answer:
        offset = 0
        while offset < len(datagram_):
            length = HEADER.unpack_from(datagram_, offset)[0]
            raw = bytearray(datagram_[offset : offset + length])
            struct.pack_into("=I", raw, 8, sequence)
            yield bytes(raw)
            offset += (length + 3) & ~3


class TestEvents:
    """The subscription, on a pair of sockets in place of the kernel."""

    @pytest.fixture
    def pair(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, socket.socket]]:
        """Our end, and the kernel's."""
        ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        monkeypatch.setattr(netlink, "_open", lambda _groups: ours)
        monkeypatch.setattr(netlink, "_receive", lambda from_: from_.recv(1 << 18))
        with ours, kernel:
            yield ours, kernel

    async def test_relevant_events_wake_once_for_each_batch(self, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, kernel = pair
        woken: asyncio.Queue[str] = asyncio.Queue()
        events = LinkEvents(woken.put_nowait, lambda: frozenset({3}))
        for state in ("lacp-healthy", "lacp-both-down"):
            kernel.send(datagram(state))
        kernel.send(link("veth0"))
        assert await woken.get() == "link"
        kernel.send(link_message({"index": 3, "flags": 0, "attrs": {"IFLA_IFNAME": "eth1"}}, type_=17))
        assert await woken.get() == "link", "a port that is gone"
        assert woken.empty()
        events.close()
        events.close()
        assert ours.fileno() == -1

    async def test_lost_events_wake(
        self, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, kernel = pair
        woken: asyncio.Queue[str] = asyncio.Queue()
        monkeypatch.setattr(netlink, "_receive", _overrun)
        events = LinkEvents(woken.put_nowait, frozenset)
        kernel.send(b"x")
        assert await woken.get() == "overrun"
        events.close()

    async def test_a_subscription_that_broke_is_made_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
        opened = iter(ours for ours, _ in pairs)
        answers: list[OSError] = [OSError(9, "Bad file descriptor")]
        monkeypatch.setattr(netlink, "_open", lambda _groups: next(opened))
        monkeypatch.setattr(netlink, "_receive", lambda from_: _received(from_, answers))
        monkeypatch.setattr(netlink, "REOPEN_SECONDS", 0.0)
        woken: asyncio.Queue[str] = asyncio.Queue()
        events = LinkEvents(woken.put_nowait, lambda: frozenset({3}))
        events.repair()
        assert woken.empty(), "nothing is broken yet"
        pairs[0][1].send(b"x")
        assert await woken.get() == "overrun"
        events.repair()
        assert await woken.get() == "reopened"
        pairs[1][1].send(datagram("lacp-healthy"))
        assert await woken.get() == "link"
        events.close()
        events.repair()
        assert woken.empty(), "ended for good"
        for _, kernel in pairs:
            kernel.close()

    async def test_subscribing_anew_is_tried_once_a_second_and_may_fail(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        attempts: list[int] = []

        def refuse(groups: int) -> socket.socket:
            attempts.append(groups)
            if len(attempts) > 1:
                raise OSError(24, "Too many open files")
            return ours

        monkeypatch.setattr(netlink, "_open", refuse)
        monkeypatch.setattr(netlink, "_receive", lambda from_: _received(from_, [OSError(9, "Bad file descriptor")]))
        woken: asyncio.Queue[str] = asyncio.Queue()
        events = LinkEvents(woken.put_nowait, frozenset)
        kernel.send(b"x")
        assert await woken.get() == "overrun"
        events.repair()
        assert len(attempts) == 1, "too soon"
        monkeypatch.setattr(netlink, "REOPEN_SECONDS", 0.0)
        events.repair()
        assert (len(attempts), woken.empty()) == (2, True)
        events.close()
        kernel.close()

    async def test_each_reading_repairs_the_subscription(self, monkeypatch: pytest.MonkeyPatch) -> None:
        repaired: list[str] = []
        monkeypatch.setattr(LinkEvents, "repair", lambda _self: repaired.append("again"))
        bonds = KernelBonds()
        monkeypatch.setattr(bonds, "read_now", lambda: HostReading(0.0))
        bonds.watch(lambda _reason: None)
        await bonds.read()
        await bonds.close()
        assert repaired == ["again"]


def _overrun(_socket: object) -> bytes:
    raise OSError(105, "No buffer space available")


def _received(from_: socket.socket, errors: list[OSError]) -> bytes:
    """An error while there are any, then what is there."""
    data = from_.recv(1 << 18)
    if errors:
        raise errors.pop(0)
    return data
