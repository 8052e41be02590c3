"""Verdicts over time: hold, flapping, since."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luban.api.host import BondVerdict
from luban.core.bonds.judge import SAMPLES, judge_bond, recall_bond
from luban.core.bonds.model import SEVERITY, BondMemory, BondSettings
from tests.unit.core.bond_states import START
from tests.unit.core.test_bond_rules import Watched, lacp, port


class TestTime:
    """Hold, flapping, since."""

    def test_worse_at_once_better_after_the_hold(self) -> None:
        watched = Watched()
        down = lacp(carrier=False)
        assert watched.sees(lacp()).verdict == "Healthy"
        worse = watched.sees(down, 100.0)
        assert (worse.verdict, worse.since) == ("Down", START + 100)
        held = watched.sees(lacp(), 1.0)
        assert (held.verdict, held.found, held.held, held.since) == ("Down", "Healthy", True, START + 100)
        assert held.message == (
            "the bond has no carrier, 2 of 2 ports carry traffic "
            "(over: now Healthy; Down until it has been better for 10 s)"
        )
        assert watched.sees(lacp(), 8.9).verdict == "Down"
        better = watched.sees(lacp(), 0.1)
        assert (better.verdict, better.since) == ("Healthy", START + 110)

    def test_better_in_steps(self) -> None:
        watched = Watched()
        degraded = lacp(port(), port("eth2", carrier=False))
        watched.sees(lacp(carrier=False))
        watched.sees(degraded, 1.0)
        assert watched.sees(lacp(), 8.0).verdict == "Down"
        assert watched.sees(lacp(), 1.0).verdict == "Degraded", "the worst of the last 10 s"
        assert watched.sees(lacp(), 1.0).verdict == "Recovering", "eth2 has had its carrier for 2 s"
        watched.sees(lacp(), 1.0)
        assert watched.sees(lacp(), 9.0).verdict == "Healthy"

    def test_a_relapse_holds_on(self) -> None:
        watched = Watched()
        for _ in range(5):
            watched.sees(lacp(carrier=False), 1.0)
            assert watched.sees(lacp(), 5.0).verdict == "Down"
        assert watched.sees(lacp(), 5.0).verdict == "Healthy"

    def test_since_is_kept_while_the_verdict_is(self) -> None:
        watched = Watched()
        watched.sees(lacp())
        assert watched.sees(lacp(port(link_failures=4), port("eth2")), 50.0).since == START

    def test_since_survives_a_restart(self) -> None:
        memory = judge_bond(lacp(), None, None, START).memory
        assert recall_bond(memory, BondMemory("Healthy", START - 500), START).since == START - 500
        assert recall_bond(memory, BondMemory("Down", START - 500), START).since == START
        assert recall_bond(memory, BondMemory("Healthy", START + 500), START).since == START
        unseen = BondMemory("Healthy", START - 500)
        assert judge_bond(lacp(), None, unseen, START).since == START - 500
        assert judge_bond(lacp(carrier=False), None, unseen, START).since == START

    @pytest.mark.parametrize(("downs", "verdict"), [(2, "Healthy"), (3, "Flapping")])
    def test_flapping(self, downs: int, verdict: BondVerdict) -> None:
        watched = Watched(BondSettings(hold_seconds=0.0))
        watched.sees(lacp(port(carrier_downs=7), port("eth2")))
        for number in range(downs):
            watched.sees(lacp(port(carrier_downs=8 + number), port("eth2")), 4.0)
        later = lacp(port(carrier_downs=7 + downs), port("eth2"))
        assert watched.sees(later, 3.0).verdict == verdict
        if verdict == "Flapping":
            assert "eth1: carrier lost 3 times within 60 s" in watched.sees(later).message

    def test_flapping_ends_with_its_window(self) -> None:
        watched = Watched(BondSettings(hold_seconds=0.0, flapping_window_seconds=60.0))
        watched.sees(lacp(port(carrier_downs=0), port("eth2")))
        after = lacp(port(carrier_downs=3), port("eth2"))
        watched.sees(after, 1.0)
        assert watched.sees(after, 59.9).verdict == "Flapping"
        assert watched.sees(after, 0.1).verdict == "Healthy"

    def test_flaps_that_polling_misses_count(self) -> None:
        """All that one reading sees is the counter."""
        watched = Watched(BondSettings(hold_seconds=0.0))
        watched.sees(lacp())
        assert watched.sees(lacp(port(carrier_downs=13), port("eth2")), 1.0).verdict == "Flapping"

    def test_a_counter_that_begins_anew_is_no_flap(self) -> None:
        watched = Watched(BondSettings(hold_seconds=0.0))
        watched.sees(lacp(port(carrier_downs=40), port("eth2")))
        assert watched.sees(lacp(port(carrier_downs=0), port("eth2")), 1.0).verdict == "Healthy"
        assert watched.sees(lacp(port(carrier_downs=1), port("eth2")), 9.0).found != "Flapping"

    def test_another_counter_is_no_flap(self) -> None:
        watched = Watched(BondSettings(hold_seconds=0.0))
        watched.sees(lacp(port(carrier_downs=None, link_failures=0), port("eth2")))
        assert watched.sees(lacp(port(carrier_downs=40), port("eth2")), 1.0).verdict == "Healthy"

    def test_old_kernels_have_the_bonds_own_count(self) -> None:
        watched = Watched(BondSettings(hold_seconds=0.0))
        watched.sees(lacp(port(carrier_downs=None, link_failures=5), port("eth2")))
        last = lacp(port(carrier_downs=None, link_failures=9), port("eth2"))
        assert watched.sees(last, 1.0).verdict == "Flapping"

    @settings(deadline=None)
    @given(steps=st.lists(st.tuples(st.floats(0.001, 5.0), st.integers(0, 9)), min_size=1, max_size=200))
    def test_memory_stays_small(self, steps: list[tuple[float, int]]) -> None:
        watched, count = Watched(), 0
        for after, more in steps:
            count += more
            watched.sees(lacp(port(carrier_downs=count), port("eth2")), after)
        assert watched.memory is not None
        assert len(watched.memory.ports["eth1"].downs) <= SAMPLES + 3
        assert len(watched.memory.seen) <= len(SEVERITY)

    @settings(deadline=None)
    @given(steps=st.lists(st.tuples(st.floats(0.001, 20.0), st.integers(0, 3)), min_size=1, max_size=60))
    def test_flaps_are_counted_nearly_exactly(self, steps: list[tuple[float, int]]) -> None:
        """Never fewer than within the window; more only by what is one bucket older."""
        watched, count, history = Watched(), 0, [(START, 0)]
        watched.sees(lacp(port(carrier_downs=0), port("eth2")))
        for after, more in steps:
            count += more
            judgement = watched.sees(lacp(port(carrier_downs=count), port("eth2")), after)
            history.append((watched.now, count))
            window = watched.settings.flapping_window_seconds
            least = count - _at(history, watched.now - window)
            most = count - _at(history, watched.now - window * (1 + 2 / SAMPLES))
            flapping = "Flapping" in judgement.reasons
            assert flapping or least < 3
            assert not flapping or most >= 3


def _at(history: list[tuple[float, int]], when: float) -> int:
    """The counter's value at a time; before the first look: the first value."""
    return max((count for at, count in history if at <= when), default=history[0][1])
