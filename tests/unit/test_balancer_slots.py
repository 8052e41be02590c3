"""The balancer agent's decisions: slots, drain, reports; and its whole loop on an httpd in memory, at random."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from luban.adapters.httpd_manager import LiveSlot, SlotState
from luban.balancer_agent.converge import Converger, Inputs
from luban.balancer_agent.loader import Loader
from luban.balancer_agent.memory import Store
from luban.balancer_agent.metrics import Metrics, kind_of
from luban.balancer_agent.quiet import Quiet
from luban.balancer_agent.report import Seen, member_reports
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
from luban.render.balancer import BalancerDocument, BalancerSettings, document_json, parse_balancer_json
from luban.render.httpd import Runtime
from tests.fakes.balancers import FakeHttpd

PORT = 8080


def member(name: str, state: MemberState = "Enabled", address: str = "10.0.0.1", port: int = PORT) -> Member:
    """A member."""
    return Member(name, address, port, state)


def live_of(table: Table, flags: str = "D") -> dict[str, LiveSlot]:
    """httpd with the table's slots, all with the same flags."""
    state = SlotState(frozenset(flags), "x", 1)
    return {slot.name: LiveSlot(state, slot.port, False, 7) for slot in table}


def balancer_settings(**changed: object) -> BalancerSettings:
    """Settings of a small cluster."""
    defaults: dict[str, object] = {
        "cluster": "shop",
        "method": "byrequests",
        "listen_address": "127.0.0.1",
        "listen_port": 8000,
        "sticky_cookie": "",
        "timeout_seconds": 60,
        "health_path": "/healthz",
        "health_interval_seconds": 2,
        "health_timeout_seconds": 2,
        "slots": 4,
        "vm_port": PORT,
    }
    return BalancerSettings(**{**defaults, **changed})  # type: ignore[arg-type]


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
        quiet = Quiet(closed_at=10.0)
        for now in (10.0, 10.9, 11.0, 11.05, 11.25):
            quiet = quiet.after(0, now)
            assert not quiet.drained
        assert quiet.after(0, 11.5).drained

    def test_a_connection_begins_the_count_anew(self) -> None:
        quiet = Quiet(0.0).after(0, 1.0).after(0, 1.25).after(1, 1.5).after(0, 1.75).after(0, 2.0)
        assert not quiet.drained
        assert quiet.after(0, 2.25).drained

    def test_drained_stays_drained(self) -> None:
        quiet = Quiet(0.0).after(0, 1.0).after(0, 1.25).after(0, 1.5)
        assert quiet.after(5, 1.75).drained


class TestReports:
    """member_reports."""

    def test_one_that_moved_is_drained_only_when_both_slots_are(self) -> None:
        table = (
            Slot(1, PORT, member("a"), leaving=True),
            Slot(2, PORT, member("a", "Draining", "10.0.0.2"), settled=True),
        )
        done = Quiet(0.0, zeros=3)
        connections = Counter({("10.0.0.1", PORT): 2})
        half = member_reports(table, Seen(live_of(table), connections, {"s002": done}), ())
        assert [(one.address, one.in_flight, one.drained) for one in half] == [("10.0.0.2", 2, False)]
        whole = member_reports(table, Seen(live_of(table), Counter(), {"s001": done, "s002": done}), ())
        assert whole[0].drained

    def test_sessions_are_requests_in_flight_unless_sticky(self) -> None:
        table = (Slot(1, PORT, member("a"), settled=True, served_before=3),)
        connections = Counter({("10.0.0.1", PORT): 2})
        plain = member_reports(table, Seen(live_of(table, ""), connections), ())[0]
        sticky = member_reports(table, Seen(live_of(table, ""), connections, sessions={"a": 40}, sticky=True), {"a"})[0]
        assert (plain.state, plain.sessions, plain.served, plain.healthy) == ("Enabled", 2, 4, True)
        assert (sticky.sessions, sticky.in_flight, sticky.healthy) == (40, 2, False)

    def test_a_member_that_httpd_does_not_know_takes_nothing(self) -> None:
        report = member_reports((Slot(1, PORT, member("a"), settled=True),), Seen(), ())[0]
        assert (report.state, report.drained, report.served) == ("Disabled", False, 0)


class World:
    """A converger on an httpd in memory, under a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.now = 100.0
        self.folder = folder
        self.httpd = FakeHttpd(lambda: self.now)
        self.sessions: dict[str, int] = {}
        self.failing: set[str] = set()
        self.restart()

    def restart(self) -> None:
        """An agent that knows only what is in its folder."""
        runtime = Runtime(str(self.folder), "127.0.0.1", 9181, "ab" * 16)
        self.store, metrics = Store(self.folder), Metrics()
        store = self.store
        clock = lambda: self.now  # noqa: E731
        self.loader = Loader(self.httpd, runtime, store, metrics, clock)
        inputs = Inputs(clock, lambda: self.sessions, lambda: self.failing)
        self.converger = Converger(self.httpd, self.loader, store, metrics, inputs)
        self.loader.adopt()

    def want(self, members: list[Member], **changed: object) -> BalancerDocument:
        """A new document."""
        document = parse_balancer_json(document_json(balancer_settings(**changed), members))
        self.converger.accept(document)
        return document

    def step(self) -> None:
        """One look, and the time until the next."""
        self.now += asyncio.run(self.converger.step())

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.now < end:
            self.step()

    def states(self) -> dict[str, tuple[str, bool]]:
        """State and drained by member, as reported."""
        return {one.name: (one.state, one.drained) for one in self.converger.report("shop-balancer-0").members}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A fresh one."""
    return World(tmp_path)


class TestLoop:
    """The converger, step by step."""

    def test_first_start_serves_at_once(self, world: World) -> None:
        document = world.want([member("a"), member("b", address="10.0.0.2")])
        world.step()
        assert world.httpd.serving() == {"a": "10.0.0.1", "b": "10.0.0.2"}
        assert world.converger.applied == document.version
        assert world.converger.report("x").ready

    def test_joining_takes_the_time_of_a_lookup(self, world: World) -> None:
        world.want([member("a")])
        world.step()
        document = world.want([member("a"), member("b", address="10.0.0.2")])
        world.run(1.9)
        assert world.httpd.serving() == {"a": "10.0.0.1"}
        assert world.converger.applied != document.version
        world.run(0.3)
        assert world.httpd.serving() == {"a": "10.0.0.1", "b": "10.0.0.2"}
        assert world.converger.applied == document.version

    def test_joining_is_immediate_where_the_address_was_known(self, world: World) -> None:
        world.want([member("a"), member("b", "Disabled", "10.0.0.2")])
        world.step()
        world.want([member("a"), member("b", "Disabled", "10.0.0.2"), member("c", "Disabled", "10.0.0.3")])
        world.run(4.0)
        world.want([member("a"), member("b", "Enabled", "10.0.0.2"), member("c", "Enabled", "10.0.0.3")])
        world.step()
        assert set(world.httpd.serving()) == {"a", "b", "c"}

    def test_drain_waits_for_requests_in_flight(self, world: World) -> None:
        world.want([member("a"), member("b", address="10.0.0.2")])
        world.step()
        world.httpd.in_flight["10.0.0.1", PORT] = 1
        world.want([member("a", "Draining"), member("b", address="10.0.0.2")])
        world.run(5.0)
        assert world.states()["a"] == ("Draining", False)
        world.httpd.in_flight.clear()
        world.run(1.0)
        assert world.states()["a"] == ("Draining", True)

    def test_sticky_sessions_hold_a_draining_member_until_disabled(self, world: World) -> None:
        world.sessions = {"a": 2}
        world.want([member("a"), member("b", address="10.0.0.2")], sticky_cookie="ID")
        world.step()
        world.want([member("a", "Draining"), member("b", address="10.0.0.2")], sticky_cookie="ID")
        world.run(5.0)
        assert world.states()["a"] == ("Draining", False)
        assert world.httpd.live["s001"].state.flags == {"N"}
        world.want([member("a", "Disabled"), member("b", address="10.0.0.2")], sticky_cookie="ID")
        world.run(2.0)
        assert world.states()["a"] == ("Disabled", True)

    def test_one_that_left_is_reported_until_drained(self, world: World) -> None:
        world.want([member("a"), member("b", address="10.0.0.2")])
        world.step()
        world.httpd.in_flight["10.0.0.1", PORT] = 1
        world.want([member("b", address="10.0.0.2")])
        world.run(3.0)
        assert world.states()["a"] == ("Disabled", False)
        world.httpd.in_flight.clear()
        world.run(2.0)
        assert set(world.states()) == {"b"}
        assert world.httpd.hosts["s001.slot.invalid"] == "255.255.255.255"

    def test_an_address_that_a_newer_member_has_says_nothing_about_the_old_one(self, world: World) -> None:
        world.want([member("a")])
        world.step()
        world.want([member("b")])
        world.httpd.in_flight["10.0.0.1", PORT] = 9
        world.run(5.0)
        assert set(world.states()) == {"b"}

    def test_new_settings_are_loaded_once_and_not_too_often(self, world: World) -> None:
        world.want([member("a")])
        world.step()
        for method in ("bytraffic", "bybusyness", "byrequests", "bytraffic"):
            world.want([member("a")], method=method)
            world.step()
        world.run(20.0)
        assert len(world.httpd.reloads) == 1
        assert world.httpd.reloads[0] >= 105.0
        assert "lbmethod=bytraffic" in world.httpd.config

    def test_refused_settings_leave_the_old_ones_in_force(self, world: World) -> None:
        world.want([member("a")])
        world.step()
        world.httpd.refuse = "AH00526: Syntax error"
        document = world.want([member("a"), member("b", address="10.0.0.2")], method="bytraffic")
        world.run(15.0)
        report = world.converger.report("x")
        assert (report.ready, report.message) == (False, "AH00526: Syntax error")
        assert report.applied != document.version
        assert set(world.httpd.serving()) == {"a", "b"}, "membership does not wait for settings"
        assert world.httpd.reloads == []
        world.httpd.refuse = ""
        world.want([member("a")], method="bybusyness")
        world.run(8.0)
        assert world.converger.report("x").ready

    def test_settings_that_end_httpd_are_taken_back(self, world: World) -> None:
        world.want([member("a")])
        world.step()
        world.httpd.fatal = "lbmethod=bytraffic"
        world.want([member("a")], method="bytraffic")
        world.run(8.0)
        assert world.httpd.serving() == {"a": "10.0.0.1"}
        assert "byrequests" in world.httpd.config
        assert (world.converger.report("x").ready, world.converger.report("x").message) == (False, "httpd ended")
        world.httpd.die()
        world.run(2.0)
        assert world.httpd.serving() == {"a": "10.0.0.1"}
        world.httpd.fatal = ""
        world.want([member("a")], method="bybusyness")
        world.run(8.0)
        assert world.converger.report("x").ready

    def test_a_first_start_that_fails_is_tried_again(self, world: World) -> None:
        world.httpd.fatal = "lbmethod"
        world.want([member("a")])
        world.run(5.0)
        assert world.converger.report("x").message == "httpd ended"
        world.httpd.fatal = ""
        world.run(10.0)
        assert world.converger.report("x").ready

    def test_an_httpd_that_died_comes_back_as_it_was(self, world: World) -> None:
        world.want([member("a"), member("b", "Draining", "10.0.0.2")])
        world.run(2.0)
        world.httpd.die()
        world.step()
        assert world.httpd.serving() == {"a": "10.0.0.1"}
        assert world.httpd.starts == 2

    def test_an_httpd_that_dies_at_once_is_not_started_at_once(self, world: World) -> None:
        world.want([member("a")])
        world.step()
        world.now = 100.1
        world.httpd.die()
        world.step()
        assert world.httpd.starts == 1
        assert not world.converger.report("x").ready
        world.run(2.0)
        assert world.httpd.starts == 2
        assert world.converger.report("x").ready

    def test_an_httpd_that_does_not_start_is_tried_more_and_more_rarely(self, world: World) -> None:
        world.httpd.refuse = "no"
        world.want([member("a")])
        world.run(100.0)
        assert not world.converger.report("x").ready
        world.httpd.refuse = ""
        world.run(31.0)
        assert world.converger.report("x").ready

    def test_a_restarted_agent_changes_nothing(self, world: World) -> None:
        world.want([member("a"), member("b", "Disabled", "10.0.0.2")])
        world.run(5.0)
        before = world.httpd.serving()
        world.restart()
        world.step()
        assert world.httpd.serving() == before
        assert (world.httpd.starts, world.httpd.reloads) == (1, [])

    def test_a_failing_member_is_out_until_it_passes(self, world: World) -> None:
        world.want([member("a"), member("b", address="10.0.0.2")])
        world.step()
        world.failing = {"a"}
        world.step()
        assert set(world.httpd.serving()) == {"b"}
        world.failing = set()
        world.step()
        assert set(world.httpd.serving()) == {"a", "b"}

    def test_a_change_that_httpd_does_not_take_is_tried_again(self, world: World) -> None:
        world.want([member("a"), member("b", address="10.0.0.2")])
        world.step()
        world.httpd.deaf = True
        document = world.want([member("a", "Draining"), member("b", address="10.0.0.2")])
        world.run(2.0)
        assert world.states()["a"] == ("Enabled", False)
        assert world.converger.applied != document.version
        world.httpd.deaf = False
        world.step()
        assert world.states()["a"] == ("Draining", False)

    def test_state_that_cannot_be_read_is_as_none(self, world: World) -> None:
        (world.folder / "state.json").write_text("{")
        world.restart()
        world.want([member("a")])
        world.step()
        assert world.httpd.serving() == {"a": "10.0.0.1"}


def _addressed(name: str, state: MemberState, subnet: int, port: int) -> Member:
    """A member with an address that no other has."""
    return member(name, state, f"10.0.{subnet}.{ord(name)}", port)


_members = st.lists(
    st.builds(
        _addressed,
        st.sampled_from(["a", "b", "c", "d", "e"]),
        st.sampled_from(["Enabled", "Enabled", "Draining", "Disabled"]),
        st.sampled_from([1, 1, 1, 2]),
        st.sampled_from([PORT, PORT, PORT, 9000]),
    ),
    unique_by=lambda one: one.name,
    max_size=5,
)


class AnyOrder(RuleBasedStateMachine):
    """Documents, requests, deaths and restarts in any order: httpd never gets to where it would lose a request."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="luban-")
        self.world = World(Path(self.folder.name))
        self.kept: dict[str, object] = {}
        self.want([_addressed("a", "Enabled", 1, PORT), _addressed("b", "Enabled", 1, PORT)])
        self.world.step()

    @precondition(lambda self: self.members)
    @rule(data=st.data(), state=st.sampled_from(["Enabled", "Draining", "Disabled", None]))
    def change_one(self, data: st.DataObject, state: MemberState | None) -> None:
        chosen = data.draw(st.sampled_from(self.members))
        rest = [one for one in self.members if one != chosen]
        self.want([*rest, replace(chosen, state=state)] if state else rest)

    @rule(members=_members)
    def want(self, members: list[Member]) -> None:
        self.members = members
        self.world.want(members, **self.kept)

    @rule(cookie=st.sampled_from(["", "ID"]), slots=st.sampled_from([2, 4, 8]))
    def configure(self, cookie: str, slots: int) -> None:
        self.kept = {"sticky_cookie": cookie, "slots": slots}
        self.world.want(self.members, **self.kept)

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 3.0, 8.0]))
    def wait(self, seconds: float) -> None:
        self.world.run(seconds)

    @precondition(lambda self: self.world.httpd.serving())
    @rule(data=st.data())
    def request_begins(self, data: st.DataObject) -> None:
        self.world.httpd.in_flight[data.draw(st.sampled_from(self.world.httpd.endpoints()))] += 1

    @precondition(lambda self: +self.world.httpd.in_flight)
    @rule(data=st.data())
    def requests_end(self, data: st.DataObject) -> None:
        del self.world.httpd.in_flight[data.draw(st.sampled_from(sorted(self.world.httpd.in_flight)))]

    @rule(sessions=st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 3)))
    def visit(self, sessions: dict[str, int]) -> None:
        self.world.sessions = sessions

    @rule(failing=st.sets(st.sampled_from(["a", "b", "c"])))
    def fail(self, failing: set[str]) -> None:
        self.world.failing = failing

    @precondition(lambda self: self.world.httpd.running)
    @rule()
    def kill_httpd(self) -> None:
        self.world.httpd.die()

    @rule()
    def kill_agent(self) -> None:
        self.world.restart()

    @invariant()
    def nothing_was_lost(self) -> None:
        assert self.world.httpd.violations == []

    @invariant()
    def what_serves_is_not_called_drained_or_gone(self) -> None:
        busy = set(+self.world.httpd.in_flight)
        reports = {(one.address, one.port): one for one in self.world.converger.report("x").members}
        held = {slot.endpoint for slot in self.world.store.table}
        assert busy <= held
        assert not any(reports[endpoint].drained for endpoint in busy if endpoint in reports)

    @invariant()
    def reloads_are_apart(self) -> None:
        moments = self.world.httpd.reloads
        assert all(later - earlier >= 5.0 for earlier, later in pairwise(moments))

    def teardown(self) -> None:
        try:
            self.comes_to_rest()
        finally:
            self.folder.cleanup()

    def comes_to_rest(self) -> None:
        """With nothing in flight any more, everything ends as it was wanted."""
        world = self.world
        world.httpd.in_flight.clear()
        world.sessions, world.failing = {}, set()
        document = world.want(self.members, **self.kept)
        world.run(30.0)
        assert world.httpd.violations == []
        wanted = {one.name: one.address for one in self.members if one.state == "Enabled"}
        assert world.httpd.serving() == wanted
        assert world.converger.applied == document.version
        out = {name for name, (state, drained) in world.states().items() if state != "Enabled" and drained}
        assert out == {one.name for one in self.members if one.state != "Enabled"}


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
