"""How the two bonds are set up, as commands for `ip -batch`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

NEAR, FAR = "bond0", "bond1"
NEAR_ADDRESS, FAR_ADDRESS = "10.9.0.1", "10.9.0.2"
FAR_NETNS = "far"
NEAR_PORTS, FAR_PORTS = ("eth1", "eth2"), ("eth3", "eth4")


class Mode(StrEnum):
    """Bonding modes of the experiment, named as in the paper and in the kernel."""

    LACP = "802.3ad"
    ACTIVE_BACKUP = "active-backup"
    ROUND_ROBIN = "balance-rr"
    XOR = "balance-xor"


@dataclass(frozen=True)
class BondSettings:
    """Options of both bonds."""

    mode: Mode = Mode.LACP
    miimon: int = 100
    """How often the driver looks at the carriers (ms); 0: never"""
    extra: str = ""
    """Further options in the words of `ip link add type bond`, such as `min_links 2`"""

    def bond_options(self) -> str:
        """Options of `ip link add NAME type bond`."""
        words = [f"mode {self.mode}"]
        if self.miimon:
            words.append(f"miimon {self.miimon}")
        if self.mode is Mode.LACP:
            words.append("lacp_rate fast")
        if self.mode in (Mode.LACP, Mode.XOR):
            # By ports too: two addresses alone would always choose the same cable.
            words.append("xmit_hash_policy layer3+4")
        if self.extra:
            words.append(self.extra)
        return " ".join(words)


def removal(name: str, ports: tuple[str, ...]) -> list[str]:
    """Take a bond away; the ports are free and down afterwards."""
    return [f"link del {name}", *(f"link set {port} down" for port in ports)]


def creation(name: str, ports: tuple[str, ...], address: str, settings: BondSettings) -> list[str]:
    """Make a bond out of ports that are down, and give it an address."""
    return [
        f"link add {name} type bond {settings.bond_options()}",
        *(f"link set {port} master {name}" for port in ports),
        f"addr add {address}/24 dev {name}",
        f"link set {name} up",
    ]
