"""What only a kernel with bonds can tell: devices renamed while they are ports, half duplex, routes over a bond.

A program in the guest changes things, reads them as the agent does, and prints each judgement that it waited for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab.bonds.guest import BondGuest, wait_for_traffic
from lab.bonds.image import ensure_bond_guest
from lab.bonds.settings import BondSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

INSIDE = """
import array, fcntl, json, socket, struct, subprocess, sys, time
from luban.adapters.kernel_bonds import KernelBonds
from luban.core.bonds.host import BondExpectation, HostMemory, judge_host
from luban.core.bonds.model import BondSettings

SPEC = BondExpectation(settings=BondSettings(hold_seconds=0.0))
source = KernelBonds()
memory = HostMemory()


def ip(*commands):
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)


def rename(old, new):
    ip(f"link set {old} down", f"link set {old} name {new}", f"link set {new} up")


def duplex(device, number):
    # ethtool -s DEVICE speed 1000 duplex ...: struct ethtool_cmd with ETHTOOL_SSET, of a port of no known kind.
    command = struct.pack("=IIIHBBBBBBIIHBBI8x", 2, 0, 0, 1000, number, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    buffer = array.array("b", command)
    with socket.socket() as any_socket:
        request = struct.pack("16sP", device.encode(), buffer.buffer_info()[0])
        fcntl.ioctl(any_socket, 0x8946, request)


def look(seconds=60.0, **wanted):
    # Judge what is there until it is as wanted; tell the last judgement.
    global memory
    deadline = time.monotonic() + seconds
    while True:
        judged = judge_host(source.read_now(), SPEC, memory, time.monotonic(), time.time())
        memory = judged.memory
        bond = judged.primary
        told = {
            "bond": bond.reading.name,
            "verdict": bond.verdict,
            "ports": sorted(port.name for port in bond.ports),
            "usable": f"{bond.active}/{bond.total}",
            "message": bond.message,
            "chosen": judged.chosen_by,
            "bonds": sorted(one.reading.name for one in judged.bonds),
        }
        if all(told[key] == value for key, value in wanted.items()) or time.monotonic() > deadline:
            print(json.dumps(told), flush=True)
            return
        time.sleep(0.1)

"""


@pytest.fixture(scope="module")
def guest() -> Iterator[BondGuest]:
    """Booted once."""
    with BondGuest(ensure_bond_guest()) as booted:
        yield booted


def judgements(guest: BondGuest, script: str) -> list[dict[str, Any]]:
    """What the script's looks told."""
    done = guest.run("/usr/bin/python3", "-c", INSIDE + script, timeout=240.0)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_is_renamed_stays_what_it_was(guest: BondGuest) -> None:
    guest.configure(BondSettings())
    wait_for_traffic(guest)
    first, port, swapped, bond, back = judgements(
        guest,
        """
look(verdict="Healthy")
rename("eth1", "uplink1")
look(verdict="Healthy", ports=["eth2", "uplink1"])
rename("uplink1", "x"); rename("eth2", "uplink1"); rename("x", "eth2")
look(verdict="Healthy", ports=["eth2", "uplink1"])
rename("bond0", "trunk0")
look(verdict="Healthy", bond="trunk0")
rename("trunk0", "bond0"); rename("eth2", "eth1"); rename("uplink1", "eth2")
look(verdict="Healthy", bond="bond0")
""",
    )
    assert [one["usable"] for one in (first, port, swapped, bond, back)] == ["2/2"] * 5
    assert [one["verdict"] for one in (first, port, swapped, bond, back)] == ["Healthy"] * 5
    assert (first["ports"], port["ports"]) == (["eth1", "eth2"], ["eth2", "uplink1"])
    assert (bond["bonds"], back["bonds"]) == (["trunk0"], ["bond0"])


def test_a_half_duplex_port_is_told_by_its_duplex(guest: BondGuest) -> None:
    guest.configure(BondSettings())
    found, mended = judgements(
        guest,
        """
def remake(number):
    ip("link set eth2 nomaster", "link set eth2 down")
    duplex("eth2", number)
    ip("link set eth2 master bond0")

look(verdict="Healthy")
remake(0)
look(verdict="NoPartner")
remake(1)
look(verdict="Healthy")
""",
    )[1:]
    assert found["verdict"] == "NoPartner"
    assert found["message"].startswith("eth2: half duplex, LACP needs full duplex (")
    assert mended["verdict"] == "Healthy"


def test_the_bond_of_the_default_route(guest: BondGuest) -> None:
    guest.configure(BondSettings())
    steps = judgements(
        guest,
        """
ip("link add bond9 type bond mode active-backup", "link set bond9 up")
look(chosen="Worst", bond="bond9")
for route in (
    ["route add default nexthop via 10.0.2.2 dev eth0 nexthop via 10.9.0.2 dev bond0"],
    ["route add 0.0.0.0/1 via 10.9.0.2", "route add 128.0.0.0/1 via 10.9.0.2"],
    ["route add default via 10.9.0.2 table 1000", "rule add from 10.9.0.0/24 lookup 1000"],
    ["link add br0 type bridge", "link set br0 up", "addr add 10.7.0.1/24 dev br0", "link set bond0 master br0",
     "route add default via 10.7.0.2"],
    ["nexthop add id 1 via 10.0.2.2 dev eth0", "nexthop add id 2 via 10.9.0.2 dev bond0", "nexthop add id 9 group 1/2",
     "route add default nhid 9"],
):
    memory = HostMemory()
    ip(*route)
    look(chosen="DefaultRoute")
    for line in route:
        words = line.replace(" add ", " del ")
        if words.startswith(("route", "rule", "nexthop del id 9", "nexthop del id 1", "nexthop del id 2")):
            subprocess.run(["ip", *words.split()], stderr=subprocess.DEVNULL)
    subprocess.run(["ip", "link", "del", "br0"], stderr=subprocess.DEVNULL)
ip("link del bond9")
""",
    )
    assert (steps[0]["chosen"], steps[0]["bond"]) == ("Worst", "bond9")
    assert [(one["chosen"], one["bond"]) for one in steps[1:]] == [("DefaultRoute", "bond0")] * 5
