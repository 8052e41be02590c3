"""The balancer agent's decisions: slots, states, drain, reports."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luban.adapters.apache_httpd.manager import LiveSlot, SlotState
from luban.balancer_agent.drain_watch import DrainWatch
from luban.balancer_agent.metrics import kind_of
from luban.balancer_agent.report import HttpdLook, member_reports
from luban.balancer_agent.slots import (
    Facts,
    Slot,
    Table,
    View,
    changes,
    lines,
    out_of_service,
    placed,
    ports_of,
    resized,
    state_of,
)
from luban.core.model import Member, MemberState

PORT = 8080


def member(name: str, state: MemberState = "Enabled", address: str = "10.0.0.1", port: int = PORT) -> Member:
    """A member."""
    return Member(name, address, port, state)


def live_of(table: Table, flags: str = "D") -> dict[str, LiveSlot]:
    """httpd with the table's slots, all with the same flags."""
    state = SlotState(frozenset(flags), "x", 1)
    return {slot.name: LiveSlot(state, slot.port, False, 7) for slot in table}


class TestPlacing:
    """placed and resized."""

    def test_takes_the_first_free_slot_and_notes_its_counter(self) -> None:
        table = resized((), 4, PORT)
        done = placed(table, [member("a")], Facts(live_of(table)))
        assert done[0] == Slot(1, PORT, member("a"), served_before=7)
        assert [slot.member for slot in done[1:]] == [None, None, None]

    def test_prefers_a_slot_that_httpd_is_known_to_keep_closed(self) -> None:
        table = resized((), 4, PORT)
        live = {**live_of(table, ""), "s003": live_of(table)["s003"]}
        assert placed(table, [member("a")], Facts(live))[2].serves == "a"

    def test_a_member_keeps_its_slot_and_gets_its_new_state(self) -> None:
        table = placed(resized((), 4, PORT), [member("b"), member("a")], Facts())
        done = placed(table, [member("a", "Draining"), member("b")], Facts())
        assert [(slot.serves, slot.wanted) for slot in done[:2]] == [("b", "Enabled"), ("a", "Draining")]

    def test_one_that_is_not_wanted_any_more_leaves_only_when_drained(self) -> None:
        table = placed(resized((), 4, PORT), [member("a")], Facts())
        leaving = placed(table, [], Facts(live_of(table, "")))
        assert leaving[0].leaving
        assert leaving[0].wanted == "Disabled"
        assert placed(leaving, [], Facts(live_of(table, ""), drained={"s001"}))[0].leaving, "httpd has it open still"
        assert placed(leaving, [], Facts(live_of(table), drained={"s001"}))[0] == Slot(1, PORT)

    def test_one_that_comes_back_before_it_left_has_its_slot_again(self) -> None:
        table = placed(placed(resized((), 4, PORT), [member("a")], Facts()), [], Facts())
        assert placed(table, [member("a")], Facts()) == placed(resized((), 4, PORT), [member("a")], Facts())

    def test_another_address_is_another_member(self) -> None:
        table = placed(resized((), 4, PORT), [member("a")], Facts())
        done = placed(table, [member("a", address="10.0.0.2")], Facts())
        assert [(slot.serves, slot.leaving, slot.address) for slot in done[:2]] == [
            ("a", True, "10.0.0.1"),
            ("a", False, "10.0.0.2"),
        ]

    def test_more_members_than_slots_make_more_slots(self) -> None:
        done = placed(resized((), 1, PORT), [member("a"), member("b", address="10.0.0.2")], Facts())
        assert [slot.serves for slot in done][:2] == ["a", "b"]
        assert len(done) == 17

    def test_another_port_takes_a_free_slot_over(self) -> None:
        done = placed(resized((), 2, PORT), [member("a", port=9000)], Facts())
        assert ports_of(done) == (9000, PORT)

    def test_resizing_never_touches_a_member(self) -> None:
        table = placed(resized((), 3, PORT), [member("a"), member("b", address="10.0.0.2")], Facts())
        smaller = resized(table, 1, 9000)
        assert [(slot.serves, slot.port) for slot in smaller] == [("a", PORT), ("b", PORT)]
        assert ports_of(resized(table, 4, 9000)) == (PORT, PORT, 9000, 9000)

    @given(
        st.lists(
            st.lists(
                st.builds(
                    member,
                    st.sampled_from("abcdef"),
                    st.sampled_from(["Enabled", "Draining", "Disabled"]),
                    st.sampled_from(["10.0.0.1", "10.0.0.2"]),
                    st.sampled_from([PORT, 9000]),
                ),
                unique_by=lambda one: one.name,
                max_size=6,
            ),
            max_size=8,
        ),
        st.sets(st.sampled_from(["s001", "s002", "s003"])),
    )
    def test_each_member_has_one_slot_that_does_not_leave(
        self, documents: list[list[Member]], drained: set[str]
    ) -> None:
        table = resized((), 3, PORT)
        for members in documents:
            table = placed(table, members, Facts(live_of(table), drained))
            held = [slot.member for slot in table if slot.member and not slot.leaving]
            assert sorted(held, key=str) == sorted(members, key=str)
            assert [slot.index for slot in table] == list(range(1, len(table) + 1))
            assert placed(table, members, Facts(live_of(table))) == table, "a second look changes nothing"


class TestStates:
    """state_of, changes, lines."""

    @pytest.mark.parametrize(
        ("slot", "view", "flags"),
        [
            (Slot(1, PORT), View(), "D"),
            (Slot(1, PORT, member("a")), View(), "D"),
            (Slot(1, PORT, member("a"), settled=True), View(), ""),
            (Slot(1, PORT, member("a"), settled=True), View(failing={"a"}), "C"),
            (Slot(1, PORT, member("a"), settled=True, leaving=True), View(), "D"),
            (Slot(1, PORT, member("a", "Disabled"), settled=True), View(failing={"a"}), "D"),
            (Slot(1, PORT, member("a", "Draining"), settled=True), View(), "DN"),
            (Slot(1, PORT, member("a", "Draining"), settled=True), View(sessions={"a": 3}), "DN"),
            (Slot(1, PORT, member("a", "Draining"), settled=True), View(sticky=True, sessions={"a": 3}), "N"),
            (Slot(1, PORT, member("a", "Draining"), settled=True), View(sticky=True, sessions={"a": 0}), "DN"),
        ],
    )
    def test_flags(self, slot: Slot, view: View, flags: str) -> None:
        assert state_of(slot, view).flags == frozenset(flags)

    def test_a_free_slot_has_a_route_that_no_vm_can_have(self) -> None:
        assert state_of(Slot(1, PORT), View()).route == "_s001"
        assert state_of(Slot(1, PORT, member("s001"), settled=True), View()).route == "s001"

    def test_closing_comes_before_opening(self) -> None:
        table = (Slot(1, PORT, member("a"), settled=True), Slot(2, PORT, member("b", "Disabled"), settled=True))
        live = {**live_of(table), "s002": live_of(table, "")["s002"]}
        assert [slot.serves for slot, _ in changes(table, live, View())] == ["b", "a"]

    def test_nothing_to_change_where_httpd_has_no_such_slot(self) -> None:
        table = (Slot(1, 9000, member("a"), settled=True),)
        assert changes(table, live_of((Slot(1, PORT),)), View()) == []

    def test_lines_follow_the_configuration_in_force(self) -> None:
        table = (Slot(1, PORT, member("a"), settled=True), Slot(2, 9000, member("b"), settled=True))
        made = lines(table, (PORT, PORT, PORT), View(failing={"a"}))
        assert [(line.name, line.port, line.flags) for line in made] == [
            ("s001", PORT, ""),
            ("s002", PORT, "D"),
            ("s003", PORT, "D"),
        ]

    def test_never_all_members_are_taken_out_for_their_health(self) -> None:
        table = tuple(Slot(index, PORT, member(name), settled=True) for index, name in enumerate("ab", start=1))
        assert out_of_service({"a"}, table) == {"a"}
        assert out_of_service({"a", "b"}, table) == frozenset()
        assert out_of_service({"gone"}, table) == frozenset()

    def test_kinds_of_changes(self) -> None:
        def state(flags: str, factor: int = 1) -> SlotState:
            return SlotState(frozenset(flags), "a", factor)

        assert kind_of(state("D"), state("")) == "open"
        assert kind_of(state(""), state("DN")) == "close"
        assert kind_of(state(""), state("N")) == "drain"
        assert kind_of(state("N"), state("")) == "undrain"
        assert kind_of(state(""), state("C")) == "failing"
        assert kind_of(state("C"), state("")) == "healthy"
        assert kind_of(state(""), state("", 5)) == "adjust"


class TestQuiet:
    """When a slot is drained."""

    def test_needs_a_second_and_three_looks_apart(self) -> None:
        quiet = DrainWatch(closed_at=10.0)
        for now in (10.0, 10.9, 11.0, 11.05, 11.25):
            quiet = quiet.after(0, now)
            assert not quiet.drained
        assert quiet.after(0, 11.5).drained

    def test_a_connection_begins_the_count_anew(self) -> None:
        quiet = DrainWatch(0.0).after(0, 1.0).after(0, 1.25).after(1, 1.5).after(0, 1.75).after(0, 2.0)
        assert not quiet.drained
        assert quiet.after(0, 2.25).drained

    def test_drained_stays_drained(self) -> None:
        quiet = DrainWatch(0.0).after(0, 1.0).after(0, 1.25).after(0, 1.5)
        assert quiet.after(5, 1.75).drained


class TestReports:
    """member_reports."""

    def test_one_that_moved_is_drained_only_when_both_slots_are(self) -> None:
        table = (
            Slot(1, PORT, member("a"), leaving=True),
            Slot(2, PORT, member("a", "Draining", "10.0.0.2"), settled=True),
        )
        done = DrainWatch(0.0, zeros=3)
        connections = Counter({("10.0.0.1", PORT): 2})
        half = member_reports(table, HttpdLook(live_of(table), connections, {"s002": done}), (), {})
        assert [(one.address, one.in_flight, one.drained) for one in half] == [("10.0.0.2", 2, False)]
        whole = member_reports(table, HttpdLook(live_of(table), Counter(), {"s001": done, "s002": done}), (), {})
        assert whole[0].drained

    def test_sessions_are_requests_in_flight_unless_sticky(self) -> None:
        table = (Slot(1, PORT, member("a"), settled=True, served_before=3),)
        connections = Counter({("10.0.0.1", PORT): 2})
        plain = member_reports(table, HttpdLook(live_of(table, ""), connections), (), {})[0]
        sticky = member_reports(
            table, HttpdLook(live_of(table, ""), connections, sessions={"a": 40}, sticky=True), {"a"}, {}
        )[0]
        assert (plain.state, plain.sessions, plain.served, plain.healthy) == ("Enabled", 2, 4, True)
        assert (sticky.sessions, sticky.in_flight, sticky.healthy) == (40, 2, False)

    def test_a_member_that_httpd_does_not_know_takes_nothing(self) -> None:
        report = member_reports((Slot(1, PORT, member("a"), settled=True),), HttpdLook(), (), {})[0]
        assert (report.state, report.drained, report.served) == ("Disabled", False, 0)
