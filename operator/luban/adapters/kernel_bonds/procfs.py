"""/proc/net/bonding/NAME: what the bonding driver tells people, for kernels whose netlink tells less.

The format is bond_procfs.c's: a header, then a block for each port that begins with "Slave Interface:". Lines that are
not understood are passed over. The file says nothing about IFF_UP and ends without a mark, so a reading from it alone
never claims to have all ports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, get_args

from luban.adapters.kernel_bonds.device_names import is_device_name, readable
from luban.adapters.kernel_bonds.files import mac_of, speed_of, unsigned
from luban.api.host import BondMode, Churn, Mii
from luban.core.bonds.model import BondReading, PortReading

MODES: Final[Mapping[str, BondMode]] = {
    "load balancing (round-robin)": "balance-rr",
    "load balancing (xor)": "balance-xor",
    "fault-tolerance (broadcast)": "broadcast",
    "IEEE 802.3ad Dynamic link aggregation": "802.3ad",
    "transmit load balancing": "balance-tlb",
    "adaptive load balancing": "balance-alb",
}
_ACTIVE_BACKUP = "fault-tolerance (active-backup)"
"""May be followed by how fail_over_mac is set."""
MII: Final[Mapping[str, Mii]] = {"up": "up", "going down": "going-down", "down": "down", "going back": "going-back"}
_PORT = b"Slave Interface"
_MOST_PORTS = 256

Fields = dict[str, bytes]


def parse(name: str, data: bytes) -> BondReading:
    """Read the file of the bond `name`. Never raises."""
    header: Fields = {}
    blocks: list[Fields] = []
    section = ""
    # A line without its end is cut off: "Link Failure Count: 1" may have been 12.
    for line in data.split(b"\n")[:-1]:
        key, value = _split(line)
        if key == _PORT.decode() and len(blocks) < _MOST_PORTS:
            blocks.append({})
            section = ""
        if line.startswith(b"details "):
            section = "actor " if b"actor" in line else "partner "
        (blocks[-1] if blocks else header)[section + key] = value
    return _bond(name, header, tuple(_ports(blocks)))


def _split(line: bytes) -> tuple[str, bytes]:
    """Key and value of "key: value"."""
    key, _, value = line.partition(b":")
    return key.strip().decode("utf-8", errors="replace"), value.strip()


def _text(fields: Fields, key: str) -> str:
    return fields.get(key, b"").decode("utf-8", errors="replace")


def _number(fields: Fields, key: str) -> int | None:
    """The number that a value begins with."""
    words = _text(fields, key).split()
    return unsigned(words[0]) if words else None


def _bits(fields: Fields, key: str) -> int | None:
    number = _number(fields, key)
    return number if number is not None and number <= 0xFF else None


def _mode(text: str) -> BondMode | None:
    if text.startswith(_ACTIVE_BACKUP):
        return "active-backup"
    return MODES.get(text)


def _churn(text: str) -> Churn | None:
    return text if text in get_args(Churn) else None  # type: ignore[return-value]


def _device(raw: bytes) -> str | None:
    """A device's name; "None" is how the driver says that there is none."""
    return readable(raw) if is_device_name(raw) and raw != b"None" else None


def _bond(name: str, header: Fields, ports: tuple[PortReading, ...]) -> BondReading:
    mii = MII.get(_text(header, "MII Status"))
    # Whether there is an ARP line can only be told from a header that is whole: then a port follows.
    no_arp = 0 if ports else None
    arp = _number(header, "ARP Polling Interval (ms)")
    return BondReading(
        name=name,
        mode=_mode(_text(header, "Bonding Mode")),
        # The driver prints its own carrier here.
        carrier=None if mii is None else mii == "up",
        mii=mii,
        miimon=_number(header, "MII Polling Interval (ms)"),
        arp_interval=no_arp if arp is None else arp,
        min_links=_number(header, "Min links"),
        active_slave=_device(header.get("Currently Active Slave", b"")),
        aggregator=_number(header, "Aggregator ID"),
        partner_mac=mac_of(_text(header, "Partner Mac Address")),
        lacp_rate=rate if (rate := _text(header, "LACP rate")) in ("fast", "slow") else None,
        ports=ports,
        ports_known=False,
    )


def _ports(blocks: Iterable[Fields]) -> Iterable[PortReading]:
    seen: set[str] = set()
    for fields in blocks:
        name = _device(fields.get(_PORT.decode(), b""))
        if name is not None and name not in seen:
            seen.add(name)
            yield _port(name, fields)


def _port(name: str, fields: Fields) -> PortReading:
    duplex = _text(fields, "Duplex")
    return PortReading(
        name=name,
        mii=MII.get(_text(fields, "MII Status")),
        speed_mbps=speed_of(_number(fields, "Speed")),
        duplex=duplex if duplex in ("full", "half") else None,
        link_failures=_number(fields, "Link Failure Count"),
        aggregator=_number(fields, "Aggregator ID"),
        actor_state=_bits(fields, "actor port state"),
        partner_state=_bits(fields, "partner port state"),
        churn_actor=_churn(_text(fields, "Actor Churn State")),
        churn_partner=_churn(_text(fields, "Partner Churn State")),
        partner_mac=mac_of(_text(fields, "partner system mac address")),
    )
