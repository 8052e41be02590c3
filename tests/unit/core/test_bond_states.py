"""Every recorded state of a bond through every reader: the same facts, the same verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from luban.adapters.kernel_bonds import procfs, sysfs
from luban.adapters.kernel_bonds.files import SysNet
from luban.adapters.kernel_bonds.netlink import concerns
from luban.adapters.kernel_bonds.readings import bond_readings
from luban.adapters.kernel_bonds.wire import RTM_DELLINK, link_of, messages
from luban.core.bonds.judge import judge_bond
from luban.core.bonds.model import Judgement
from luban.core.bonds.rules import SILENT_PATH
from tests.unit.core.bond_states import (
    EXPECTED,
    FOLDER,
    START,
    STATES,
    STREAMS,
    datagram,
    from_files,
    from_netlink,
    judged_twice,
    links_of,
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
    assert judge_bond(reading, None, None, START).verdict == "Unknown"


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
        link = link_of(message.payload)
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


def replayed(stream: str, state: str) -> list[tuple[float, Judgement]]:
    """Judgements before a stream's action and after each event: seconds since the action, and what is found.

    Each event's link takes the place of the one in the dump of `state`, which was another bond with other counters.
    """
    links = {link.index: link for link in links_of(datagram(state))}
    (bond,) = (link.index for link in links.values() if link.bond is not None)
    records = [record for record in lines(stream) if "nlmsg_hex" in record]
    events = [
        (float(str(record["t_ms"])) / 1000, replace(link, master=bond))
        for record in records
        for link in links_of(bytes.fromhex(str(record["nlmsg_hex"])))
    ]
    first = events[0][1]
    links[first.index] = replace(links[first.index], carrier_downs=(first.carrier_downs or 0) - 1)
    found, memory = [], None
    for seconds, link in [(-10.0, links[first.index]), *events]:
        links[link.index] = link
        (reading,) = bond_readings(list(links.values()), lambda _link: (1000, "full"))
        judgement = judge_bond(reading, 2, memory, START + seconds)
        memory = judgement.memory
        found.append((seconds, judgement))
    return found


def test_a_pulled_cable_is_known_with_the_first_event() -> None:
    """The carrier tells before the bond's monitoring does; LACP needs 2.5 s to let the port in again."""
    (_, before), (first_at, first), *others = replayed("events-lacp-cable-pull-restore", "lacp-healthy")
    assert before.verdict == "Healthy"
    assert (first.verdict, first.active) == ("Degraded", 1)
    assert first.message == "eth1: no carrier, 1 of 2 ports carry traffic"
    assert first_at < 0.02
    assert all(judgement.verdict == "Degraded" for _, judgement in others), "held to the end of the recording"
    *_, (last_at, last) = others
    assert last_at > 4.4
    assert last.reasons[0] == "Degraded", "the partner's state in the event is stale: the dumps after it know better"


def test_flapping_is_known_from_events() -> None:
    """With the third loss of the carrier; the recording has twelve, the quick ones among them 20 ms apart."""
    found = replayed("events-lacp-flapping-6x400ms-6x20ms", "lacp-healthy")
    downs = [judgement.reading.ports[0].carrier_downs or 0 for _, judgement in found]
    assert downs[-1] - downs[0] == 12
    for count, (_, judgement) in zip(downs, found, strict=True):
        assert ("Flapping" in judgement.reasons) == (count - downs[0] >= 3)
