"""Every recorded state of a bond through every reader: the same facts, the same verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from luban.adapters.kernel_bonds import procfs, sysfs
from luban.adapters.kernel_bonds.files import SysNet
from luban.adapters.kernel_bonds.netlink import concerns
from luban.adapters.kernel_bonds.wire import RTM_DELLINK, messages
from luban.core.bond_rules import SILENT_PATH
from luban.core.bonds import judge
from tests.unit.bond_states import (
    EXPECTED,
    FOLDER,
    START,
    STATES,
    STREAMS,
    from_files,
    from_netlink,
    judged_twice,
    make_tree,
    proc_text,
)

states = pytest.mark.parametrize("state", STATES)
streams = pytest.mark.parametrize("stream", STREAMS)


def test_the_table_is_complete() -> None:
    assert sorted(EXPECTED) == STATES
    assert len(STATES) == 29


@states
def test_verdicts_from_netlink(state: str) -> None:
    verdicts, ports, why = EXPECTED[state]
    judgement = judged_twice(from_netlink(state))
    assert (judgement.reasons, f"{judgement.active}/{judgement.total}") == (verdicts, ports), why
    assert judgement.found == verdicts[0]


@states
def test_verdicts_from_proc_and_sys(state: str, tmp_path: Path) -> None:
    verdicts, ports, why = EXPECTED[state]
    judgement = judged_twice(from_files(state, tmp_path))
    assert (judgement.reasons, f"{judgement.active}/{judgement.total}") == (verdicts, ports), why


@states
def test_both_readers_find_the_same(state: str, tmp_path: Path) -> None:
    netlink, files = from_netlink(state), from_files(state, tmp_path)
    for port in netlink.ports:
        other = next(one for one in files.ports if one.name == port.name)
        # Of a port that is set down sysfs tells neither carrier nor speed, and /proc an old speed. The count of lost
        # carriers was not recorded from sysfs, and only /proc has each port's partner.
        known = {name: getattr(port, name) for name in ("carrier", "speed_mbps", "duplex", "carrier_downs")}
        assert replace(other, partner_mac=None, **known) == port
    # Without an active aggregator netlink is silent, and sysfs is silent or says 0.
    assert replace(
        files, ports=(), aggregator=netlink.aggregator, partner_mac=netlink.partner_mac, lacp_rate=netlink.lacp_rate
    ) == replace(netlink, ports=())


@states
def test_proc_alone_never_makes_a_bond_healthy(state: str) -> None:
    """It says nothing about IFF_UP, and its end has no mark."""
    judgement = judged_twice(procfs.parse("bond0", proc_text(state)))
    assert judgement.found not in ("Healthy", "Recovering")


@states
def test_sys_alone_gives_the_same_primary_verdict(state: str, tmp_path: Path) -> None:
    """Where /proc/net/bonding cannot be read; only churn is missing then."""
    proc, sys = make_tree(state, tmp_path, proc=False)
    judgement = judged_twice(sysfs.read_bond(b"bond0", proc, SysNet(sys)))
    assert judgement.found == EXPECTED[state][0][0]


def test_what_the_unprivileged_read_of_proc_is_not_enough() -> None:
    reading = procfs.parse("bond0", (FOLDER / "lacp-healthy-unprivileged.proc.txt").read_bytes())
    port = reading.ports[0]
    assert (port.actor_state, port.partner_state, port.aggregator) == (None, None, 1)
    assert judge(reading, None, None, START).verdict == "Unknown"


@states
def test_messages_name_port_and_value(state: str) -> None:
    judgement = judged_twice(from_netlink(state))
    if judgement.verdict not in ("Healthy", "Down"):
        assert "eth" in judgement.message
    assert len(judgement.message) < 300


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            "lacp-silent-eth1-expired",
            "eth1: LACP partner does not answer (actor EXPIRED 0x8f), 1 of 2 ports carry traffic",
        ),
        ("lacp-one-slave-admin-down", "eth2: administratively down, 1 of 2 ports carry traffic"),
        ("active-backup-failed-over", "eth1: no carrier, 1 of 2 ports can carry traffic"),
        ("lacp-no-slaves", "the bond has no ports"),
        (
            "lacp-no-partner",
            "eth1: no LACP partner (actor 0x4f, partner 0x00); eth2: no LACP partner (actor 0x47, partner 0x00); "
            "eth1 alone lets traffic through, unaggregated, 0 of 2 ports carry traffic",
        ),
        (
            "lacp-speed-mismatch",
            "LACP does not aggregate unlike ports (eth1: 1000 Mb/s full duplex; eth2: 100 Mb/s full duplex), "
            "1 of 2 ports carry traffic",
        ),
    ],
)
def test_messages(state: str, message: str) -> None:
    assert judged_twice(from_netlink(state)).message == message


@states
def test_notes(state: str) -> None:
    silent = not state.startswith("lacp") and "arpmon" not in state
    assert judged_twice(from_netlink(state)).notes == ((SILENT_PATH,) if silent else ())


# Event streams


def lines(name: str) -> list[dict[str, object]]:
    """The records of a stream."""
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines()]


@streams
def test_recorded_events_decode_as_an_independent_decoder_had_them(stream: str) -> None:
    raw = [record for record in lines(stream) if "nlmsg_hex" in record]
    decoded = lines(f"{stream}.decoded")
    assert len(raw) == len(decoded)
    for record, wanted in zip(raw, decoded, strict=True):
        (message,) = messages(bytes.fromhex(str(record["nlmsg_hex"])))
        link = message.link
        assert link is not None
        assert link.name.decode() == wanted["if"]
        assert link.flags == wanted["flags"]
        assert link.carrier == bool(wanted["carrier"])
        assert link.carrier_changes == wanted["cc"]
        assert (message.type == RTM_DELLINK) == (wanted["event"] == "RTM_DELLINK")
        slave = wanted.get("slave")
        assert (link.port is None) == (slave is None)
        if isinstance(slave, dict):
            names = {
                "state": "STATE",
                "mii": "MII_STATUS",
                "link_failures": "LINK_FAILURE_COUNT",
                "aggregator": "AD_AGGREGATOR_ID",
                "actor_state": "AD_ACTOR_OPER_PORT_STATE",
                "partner_state": "AD_PARTNER_OPER_PORT_STATE",
                "churn_actor": "AD_CHURN_ACTOR_STATE",
                "churn_partner": "AD_CHURN_PARTNER_STATE",
            }
            assert link.port == {ours: slave[theirs] for ours, theirs in names.items() if theirs in slave}


@streams
def test_every_recorded_event_wakes(stream: str) -> None:
    """Also those of a port that was just released, which say nothing about bonding: its index is remembered."""
    for record in lines(stream):
        if "nlmsg_hex" in record:
            data = bytes.fromhex(str(record["nlmsg_hex"]))
            assert concerns(messages(data), frozenset({3, 4}))


def test_events_of_other_devices_do_not_wake() -> None:
    record = next(
        record for record in lines("events-active-backup-release-enslave-delete") if record.get("t_ms") == 196.9
    )
    assert not concerns(messages(bytes.fromhex(str(record["nlmsg_hex"]))), frozenset())
