"""What the operator makes of the node agents' LubanHosts."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from luban.api.cluster import Host
from luban.core.model import BondObservation
from luban.core.times import rfc3339
from luban.senses.host_reports import STALE_SECONDS, HostReports, node_of
from tests.fakes.hosts import NOW, SINCE, body, bond

HOST = Host(name="host-b", uri="qemu+tls://host-b/system")


def heard(*bodies: dict[str, Any], now: float = NOW) -> HostReports:
    reports = HostReports()
    for it in bodies:
        reports.take(it, now, now)
    return reports


def test_a_report() -> None:
    degraded = bond(verdict="Degraded", active=1, message="bond0: eth2 has no carrier, 1 of 2 ports carry traffic")
    found = heard(body(degraded)).look(HOST, NOW + 5)
    assert found == BondObservation(
        "Degraded", "bond0: eth2 has no carrier, 1 of 2 ports carry traffic", "bond0", "802.3ad", 1, 2, SINCE
    )


def test_nobody_reported() -> None:
    assert HostReports().look(HOST, NOW) is None
    made_by_the_user = {"metadata": {"name": "host-b"}, "spec": {"bond": "bond0"}}
    assert heard(made_by_the_user).look(HOST, NOW) is None


def test_the_node_may_have_another_name() -> None:
    named = HOST.model_copy(update={"node_name": "rack1-b.example"})
    assert node_of(named) == "rack1-b.example"
    reports = heard(body(bond(verdict="Down")), body(node="rack1-b.example"))
    found = reports.look(named, NOW)
    assert found is not None
    assert found.verdict == "Healthy"


class TestWhichBond:
    BOTH = (bond("bond0"), bond("bond1", "Down"))

    @pytest.mark.parametrize(("primary", "verdict"), [("bond0", "Healthy"), ("bond1", "Down")])
    def test_the_one_that_the_agent_puts_first(self, primary: str, verdict: str) -> None:
        found = heard(body(*self.BOTH, primary=primary)).look(HOST, NOW)
        assert found is not None
        assert (found.name, found.verdict) == (primary, verdict)

    def test_the_one_that_the_host_entry_names(self) -> None:
        named = HOST.model_copy(update={"bond": "bond1"})
        found = heard(body(*self.BOTH, primary="bond0")).look(named, NOW)
        assert found is not None
        assert found.verdict == "Down"

    def test_one_that_is_not_there_is_down_and_the_others_are_named(self) -> None:
        named = HOST.model_copy(update={"bond": "bond7"})
        found = heard(body(*self.BOTH)).look(named, NOW)
        assert found == BondObservation("Down", "node host-b reports no bond bond7; it has: bond0, bond1", "bond7")

    def test_a_host_without_a_bond(self) -> None:
        nothing = {"name": "", "verdict": "None", "active": 0, "total": 0, "ports": "0/0"}
        found = heard(body(bond=nothing, bonds=[])).look(HOST, NOW)
        assert found == BondObservation("None", "node host-b has no bond")

    def test_an_agent_that_can_read_nothing(self) -> None:
        nothing = {"name": "", "verdict": "Unknown", "active": 0, "total": 0, "ports": "0/0"}
        found = heard(body(bond=nothing, bonds=[])).look(HOST, NOW)
        assert found is not None
        assert found.verdict == "Unknown"


class TestAge:
    """A dead agent's last word is not believed for ever."""

    def test_after_three_signs_of_life_it_is_unknown(self) -> None:
        reports = heard(body())
        fresh, stale = reports.look(HOST, NOW + STALE_SECONDS), reports.look(HOST, NOW + STALE_SECONDS + 1)
        assert fresh is not None
        assert stale is not None
        assert (fresh.verdict, stale.verdict) == ("Healthy", "Unknown")
        assert stale.message == f"the agent of node host-b has not reported since {rfc3339(NOW)}"

    def test_a_sign_of_life_keeps_it_fresh(self) -> None:
        reports = heard(body())
        reports.take(body(at=NOW + 60), NOW + 60, NOW + 60)
        found = reports.look(HOST, NOW + STALE_SECONDS + 30)
        assert found is not None
        assert found.verdict == "Healthy"

    @pytest.mark.parametrize("skew", [-86_400.0, 86_400.0])
    def test_the_nodes_clock_may_be_wrong(self, skew: float) -> None:
        reports = heard(body(at=NOW + skew))
        reports.take(body(at=NOW + skew + 60), NOW + 60, NOW + 60)
        fresh, stale = (reports.look(HOST, NOW + 60 + after) for after in (STALE_SECONDS, STALE_SECONDS + 1))
        assert fresh is not None
        assert stale is not None
        assert (fresh.verdict, stale.verdict) == ("Healthy", "Unknown")

    def test_what_an_operator_finds_at_its_start_is_as_old_as_it_says(self) -> None:
        found = heard(body(at=NOW - 600)).look(HOST, NOW)
        assert found is not None
        assert found.verdict == "Unknown"

    def test_being_told_the_same_again_makes_it_no_younger(self) -> None:
        """Watches list everything anew once in a while."""
        reports = heard(body())
        reports.take(body(), NOW + 170, NOW + 170)
        found = reports.look(HOST, NOW + STALE_SECONDS + 1)
        assert found is not None
        assert found.verdict == "Unknown"


class TestNews:
    def test_only_what_is_new_wakes(self) -> None:
        reports = HostReports()
        assert reports.take(body(), NOW, NOW)
        assert not reports.take(body(at=NOW + 60), NOW + 60, NOW + 60), "a sign of life is no news"
        assert reports.take(body(bond(verdict="Degraded"), at=NOW + 61), NOW + 61, NOW + 61)

    def test_gone(self) -> None:
        reports = heard(body())
        reports.drop("host-b")
        reports.drop("host-b")
        assert reports.look(HOST, NOW) is None

    def test_one_that_cannot_be_read_is_unknown_and_stops_nobody(self) -> None:
        with capture_logs() as logs:
            reports = heard(body(), body(bonds="none"))
        assert [it["node"] for it in logs] == ["host-b"]
        found = reports.look(HOST, NOW)
        assert found is not None
        assert found.verdict == "Unknown"
        assert "LubanHost host-b cannot be read" in found.message


class TestAnotherVersion:
    """An agent that is newer than the operator."""

    NEWER = bond("bond1", "Congested")

    def test_a_newer_verdict_is_unknown_for_that_bond_alone(self) -> None:
        with capture_logs() as logs:
            reports = heard(body(bond(), self.NEWER))
        named = HOST.model_copy(update={"bond": "bond1"})
        one, other = reports.look(HOST, NOW), reports.look(named, NOW)
        assert one is not None
        assert other is not None
        assert (one.verdict, other.verdict) == ("Healthy", "Unknown")
        (told,) = logs
        assert told["parts"] == ("status.bonds.1.verdict: 'Congested' is not known here, and counts as Unknown",)

    def test_the_bond_that_counts_may_have_it_too(self) -> None:
        found = heard(body(self.NEWER)).look(HOST, NOW)
        assert found is not None
        assert (found.verdict, found.name) == ("Unknown", "bond1")

    def test_newer_words_elsewhere_cost_themselves_alone(self) -> None:
        newer = body(bond(mode="balance-quantum", reasons=["Congested", "Degraded"], verdict="Degraded"))
        newer["status"]["bond"]["chosenBy"] = "Oracle"
        found = heard(newer).look(HOST, NOW)
        assert found == BondObservation("Degraded", "", "bond0", "", 2, 2, SINCE)

    def test_it_is_said_once(self) -> None:
        reports = HostReports()
        with capture_logs() as logs:
            for at in (NOW, NOW + 60, NOW + 120):
                reports.take(body(self.NEWER, at=at), at, at)
        assert len(logs) == 1

    def test_a_bond_that_cannot_be_read_is_not_one_that_is_not_there(self) -> None:
        reports = heard(body(bond(), bond("bond1", since=7)))
        found = reports.look(HOST.model_copy(update={"bond": "bond1"}), NOW)
        assert found is not None
        assert found.verdict == "Unknown"
        whole = body(bonds=[])
        whole["status"]["bond"]["name"] = 7
        found = heard(whole).look(HOST, NOW)
        assert found is not None
        assert found.verdict == "Unknown"
