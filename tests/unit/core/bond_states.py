"""The recorded bond states, as each reader of ours would find them on the machine where they were recorded."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from luban.adapters.kernel_bonds import sysfs
from luban.adapters.kernel_bonds.files import SysNet
from luban.adapters.kernel_bonds.readings import bond_readings
from luban.adapters.kernel_bonds.wire import HEADER, RTM_DELLINK, RTM_NEWLINK, Link, link_of, messages
from luban.api.host import BondVerdict
from luban.core.bonds.judge import judge_bond
from luban.core.bonds.model import BondReading, Judgement

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "bonding"
STATES = sorted(path.name.removesuffix(".pyroute2.json") for path in FOLDER.glob("*.pyroute2.json"))
STREAMS = sorted(
    path.name.removesuffix(".jsonl") for path in FOLDER.glob("events-*.jsonl") if "decoded" not in path.name
)
START = 1_800_000_000.0

# The state, the verdicts that its reading deserves (the first is the primary one), usable and all ports, and why.
EXPECTED: dict[str, tuple[tuple[BondVerdict, ...], str, str]] = {
    "active-backup-arpmon-healthy": (("Healthy",), "2/2", "ARP probes are answered on both ports"),
    "active-backup-both-down": (("Down", "Degraded"), "0/2", "neither port has a carrier"),
    "active-backup-failed-over": (("Degraded",), "1/2", "eth1 has no carrier, eth2 took over: no reserve is left"),
    "active-backup-healthy": (("Healthy",), "2/2", "one port active, one in reserve"),
    "active-backup-primary-updelay-healthy": (("Healthy",), "2/2", "the primary port is back in use"),
    "active-backup-recovered": (("Healthy",), "2/2", "failures of the past are only counted"),
    "active-backup-updelay-going-back": (("Degraded", "Recovering"), "1/2", "eth1 waits for its updelay"),
    "balance-rr-both-down": (("Down", "Degraded"), "0/2", "dead ports keep state active: MII and carrier tell"),
    "balance-rr-healthy": (("Healthy",), "2/2", "both carry traffic"),
    "balance-rr-no-monitoring-cable-pulled": (
        ("Degraded", "MonitoringDisabled"),
        "1/2",
        "MII says up with the cable out, for nobody looks; the carrier tells",
    ),
    "balance-rr-one-down": (("Degraded",), "1/2", "eth1 has no carrier"),
    "balance-xor-healthy": (("Healthy",), "2/2", "both carry traffic"),
    "balance-xor-one-down": (("Degraded",), "1/2", "eth1 has no carrier"),
    "lacp-both-down": (("Down", "Degraded"), "0/2", "neither port has a carrier, the bond has none"),
    "lacp-healthy": (("Healthy",), "2/2", "actor and partner 0x3f on both, one aggregator"),
    "lacp-healthy-after-recovery": (("Healthy",), "2/2", "the aggregator's number changed, nothing else"),
    "lacp-no-partner": (
        ("NoPartner", "Degraded"),
        "0/2",
        "partner MAC zero; the kernel lets eth1 (0x4f) through alone, so it is not Down",
    ),
    "lacp-no-partner-churned": (("NoPartner", "Churned", "Degraded"), "0/2", "the same, a minute later"),
    "lacp-no-slaves": (("Down",), "0/0", "no ports"),
    "lacp-one-port-no-partner": (("NoPartner", "Degraded"), "1/2", "eth2 is defaulted (0x47), eth1 aggregates"),
    "lacp-one-slave-admin-down": (("Degraded",), "1/2", "eth2 is set down and keeps its carrier"),
    "lacp-one-slave-down-cable": (("Degraded",), "1/2", "eth1 has no carrier"),
    "lacp-recovering": (("Down", "Degraded"), "0/2", "both have a link and LACP has not let either in yet"),
    "lacp-silent-eth1-defaulted": (("NoPartner", "Degraded"), "1/2", "eth1 gave its partner up (0x47)"),
    "lacp-silent-eth1-expired": (("LACPTimeout", "Degraded"), "1/2", "eth1 0x8f: silent, with MII up"),
    "lacp-slow-minlinks2-healthy": (("Healthy",), "2/2", "0x3d is healthy with the slow rate"),
    "lacp-slow-minlinks2-settling": (("Healthy",), "2/2", "churn is still watched, both ports carry traffic"),
    "lacp-speed-mismatch": (("SpeedMismatch", "Degraded"), "1/2", "1000 and 100 Mb/s to the same partner"),
    "lacp-two-partners-aggregator-mismatch": (
        ("AggregatorMismatch", "Degraded"),
        "1/2",
        "two partners, so two aggregators, and one of them is idle",
    ),
}


def proc_text(state: str) -> bytes:
    """/proc/net/bonding/bond0."""
    return (FOLDER / f"{state}.proc.txt").read_bytes()


def make_tree(state: str, root: Path, *, proc: bool = True) -> tuple[Path, Path]:
    """Make /proc and /sys as they were; returns their roots. What was EINVAL cannot be read here either."""
    values: dict[str, str] = {}
    for line in (FOLDER / f"{state}.sysfs.txt").read_text().splitlines():
        path, _, value = line.partition(": ")
        values[path.rstrip(":")] = value
    for path, value in values.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        if value == "<Invalid argument>":
            file.mkdir()
        else:
            file.write_text(f"{value}\n")
    for link in json.loads((FOLDER / f"{state}.pyroute2.json").read_text()):
        if (folder := root / "sys/class/net" / link["attrs"]["IFLA_IFNAME"]).is_dir():
            (folder / "ifindex").write_text(f"{link['index']}\n")
    (root / "sys/class/net/bonding_masters").write_text("bond0\n")
    folder = root / "proc" / "net" / "bonding"
    folder.mkdir(parents=True)
    if proc:
        (folder / "bond0").write_bytes(proc_text(state))
    return root / "proc", root / "sys"


def from_files(state: str, root: Path) -> BondReading:
    """What the reader of /proc and /sys makes of the state."""
    proc, sys = make_tree(state, root)
    return sysfs.read_bond(b"bond0", proc, SysNet(sys))


def from_netlink(state: str) -> BondReading:
    """What the reader of netlink makes of the state, encoded as the kernel sends it."""
    lines = (FOLDER / f"{state}.sysfs.txt").read_text().splitlines()
    values = dict(line.split(": ", 1) for line in lines if ": " in line)

    def speed(link: Link) -> tuple[int | None, str | None]:
        folder = f"/sys/class/net/{link.name.decode()}"
        number, duplex = values.get(f"{folder}/speed", ""), values.get(f"{folder}/duplex", "")
        return int(number) if number.isdigit() else None, duplex if duplex in ("full", "half") else None

    (reading,) = bond_readings(list(links_of(datagram(state))), speed)
    return reading


def datagram(state: str) -> bytes:
    """The netlink messages of a state."""
    return b"".join(link_message(link) for link in json.loads((FOLDER / f"{state}.pyroute2.json").read_text()))


def links_of(data: bytes) -> Iterator[Link]:
    """The links that our decoder finds."""
    for message in messages(data):
        link = link_of(message.payload) if message.type in (RTM_NEWLINK, RTM_DELLINK) else None
        if link is not None:
            yield link


def judged_twice(reading: BondReading, later: float = 6.0) -> Judgement:
    """The judgement of a state that has lasted."""
    first = judge_bond(reading, None, None, START)
    return judge_bond(reading, None, first.memory, START + later)


# The kernel's side of the wire, written anew from if_link.h: type, and how its value is packed.
_LINK = {
    "IFLA_IFNAME": (3, "z"),
    "IFLA_MASTER": (10, "I"),
    "IFLA_LINK": (5, "I"),
    "IFLA_LINK_NETNSID": (37, "i"),
    "IFLA_CARRIER": (33, "B"),
    "IFLA_CARRIER_CHANGES": (35, "I"),
    "IFLA_CARRIER_UP_COUNT": (47, "I"),
    "IFLA_CARRIER_DOWN_COUNT": (48, "I"),
    "IFLA_MTU": (4, "I"),
}
_BOND = {
    "IFLA_BOND_MODE": (1, "B"),
    "IFLA_BOND_ACTIVE_SLAVE": (2, "I"),
    "IFLA_BOND_MIIMON": (3, "I"),
    "IFLA_BOND_UPDELAY": (4, "I"),
    "IFLA_BOND_DOWNDELAY": (5, "I"),
    "IFLA_BOND_USE_CARRIER": (6, "B"),
    "IFLA_BOND_ARP_INTERVAL": (7, "I"),
    "IFLA_BOND_MIN_LINKS": (18, "I"),
    "IFLA_BOND_AD_LACP_RATE": (21, "B"),
}
_LACP = {"IFLA_BOND_AD_INFO_AGGREGATOR": (1, "H"), "IFLA_BOND_AD_INFO_NUM_PORTS": (2, "H")}
_SLAVE = {
    "IFLA_BOND_SLAVE_STATE": (1, "B"),
    "IFLA_BOND_SLAVE_MII_STATUS": (2, "B"),
    "IFLA_BOND_SLAVE_LINK_FAILURE_COUNT": (3, "I"),
    "IFLA_BOND_SLAVE_QUEUE_ID": (5, "H"),
    "IFLA_BOND_SLAVE_AD_AGGREGATOR_ID": (6, "H"),
    "IFLA_BOND_SLAVE_AD_ACTOR_OPER_PORT_STATE": (7, "B"),
    "IFLA_BOND_SLAVE_AD_PARTNER_OPER_PORT_STATE": (8, "H"),
    "IFLA_BOND_SLAVE_AD_CHURN_ACTOR_STATE": (11, "B"),
    "IFLA_BOND_SLAVE_AD_CHURN_PARTNER_STATE": (12, "B"),
}
_NESTED = 0x8000


def attribute(type_: int, data: bytes) -> bytes:
    """A netlink attribute, padded."""
    return struct.pack("=HH", 4 + len(data), type_) + data + bytes(-len(data) % 4)


def link_message(link: Mapping[str, Any], *, type_: int = RTM_NEWLINK) -> bytes:
    """RTM_NEWLINK of a link with index, flags and attrs."""
    attrs = link["attrs"]
    body = struct.pack("=BxHiII", 0, 1, link["index"], link["flags"], 0) + _packed(attrs, _LINK)
    info = attrs.get("IFLA_LINKINFO", {})
    nested = b""
    if "IFLA_INFO_KIND" in info:
        nested += attribute(1, info["IFLA_INFO_KIND"].encode() + b"\0")
    if (data := info.get("IFLA_INFO_DATA")) is not None:
        nested += attribute(2 | _NESTED, _packed(data, _BOND) + _lacp(data.get("IFLA_BOND_AD_INFO")))
    if "IFLA_INFO_SLAVE_KIND" in info:
        nested += attribute(4, info["IFLA_INFO_SLAVE_KIND"].encode() + b"\0")
    if (data := info.get("IFLA_INFO_SLAVE_DATA")) is not None:
        nested += attribute(5 | _NESTED, _packed(data, _SLAVE))
    if nested:
        body += attribute(18 | _NESTED, nested)
    return HEADER.pack(HEADER.size + len(body), type_, 2, 0, 0) + body


def _lacp(info: Mapping[str, Any] | None) -> bytes:
    if info is None:
        return b""
    mac = bytes.fromhex(info["IFLA_BOND_AD_INFO_PARTNER_MAC"].replace(":", ""))
    return attribute(23 | _NESTED, _packed(info, _LACP) + attribute(5, mac))


def _packed(values: Mapping[str, Any], table: Mapping[str, tuple[int, str]]) -> bytes:
    return b"".join(
        attribute(type_, _value(values[name], form)) for name, (type_, form) in table.items() if name in values
    )


def _value(value: Any, form: str) -> bytes:
    if form == "z":
        return (value if isinstance(value, bytes) else value.encode()) + b"\0"
    return struct.pack(f"={form}", value)
