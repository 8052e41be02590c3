"""The balancer agent's whole loop on an httpd in memory: step by step, and in any order."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from luban.balancer_agent.converge import LONGEST_RETRY_SECONDS, Converger, Inputs
from luban.balancer_agent.loader import Loader
from luban.balancer_agent.memory import Store
from luban.balancer_agent.metrics import Metrics
from luban.core.model import Member, MemberState
from luban.render.balancer import BalancerDocument, BalancerSettings, document_json, parse_balancer_json
from luban.render.httpd import AgentSettings
from tests.fakes.balancers import FakeHttpd
from tests.fakes.disk import fill_disk, free_disk

PORT = 8080


def member(name: str, state: MemberState = "Enabled", address: str = "10.0.0.1", port: int = PORT) -> Member:
    """A member."""
    return Member(name, address, port, state)


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
        runtime = AgentSettings(str(self.folder), "127.0.0.1", 9181, "ab" * 16)
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

    def looks(self, seconds: float) -> int:
        """Let time pass; how often httpd was looked at."""
        end, looks = self.now + seconds, 0
        while self.now < end:
            self.step()
            looks += 1
        return looks

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

    def test_a_full_disk_is_told_and_httpd_goes_on(self, world: World) -> None:
        before = world.want([member("a"), member("b", address="10.0.0.2")])
        world.step()
        fill_disk(world.folder / "state.json")
        after = world.want([member("a", "Draining"), member("b", address="10.0.0.2")])
        world.run(5.0)
        report = world.converger.report("x")
        assert (report.ready, report.applied) == (False, before.version)
        assert "No space left on device" in report.message
        assert world.httpd.serving() == {"a": "10.0.0.1", "b": "10.0.0.2"}
        world.failing = {"a"}
        world.run(5.0)
        assert world.httpd.serving() == {"b": "10.0.0.2"}, "what needs no memory is still done"
        free_disk(world.folder / "state.json")
        world.failing = set()
        world.run(5.0)
        assert world.converger.report("x").ready
        assert world.converger.applied == after.version
        assert world.states()["a"] == ("Draining", True)

    def test_a_disk_that_was_full_carries_out_the_last_document(self, world: World) -> None:
        world.want([member("a")])
        world.step()
        fill_disk(world.folder / "state.json")
        world.want([member("b", address="10.0.0.2")])
        world.run(2.0)
        document = world.want([member("a"), member("c", address="10.0.0.3")])
        world.run(2.0)
        free_disk(world.folder / "state.json")
        world.run(8.0)
        assert world.converger.applied == document.version
        assert world.httpd.serving() == {"a": "10.0.0.1", "c": "10.0.0.3"}

    def test_it_looks_when_something_can_have_changed(self, world: World) -> None:
        world.want([member("a"), member("b", address="10.0.0.2")])
        world.run(5.0)
        world.want([member("a"), member("b", address="10.0.0.2"), member("c", address="10.0.0.3")])
        assert world.looks(2.1) <= 4
        assert "c" in world.httpd.serving()
        world.httpd.in_flight["10.0.0.1", PORT] = 1
        world.want([member("a", "Draining"), member("b", address="10.0.0.2")])
        assert world.looks(5.0) <= 25
        assert world.states()["a"] == ("Draining", False)
        world.httpd.in_flight.clear()
        assert world.looks(0.6) <= 7
        assert world.states()["a"] == ("Draining", True)

    def test_what_fails_is_tried_ever_more_rarely(self, world: World) -> None:
        world.want([member("a")])
        world.step()
        world.httpd.silent = True
        begin, steps = world.now, 0
        while world.now < begin + 60.0:
            world.step()
            steps += 1
        assert steps < 20
        world.httpd.silent = False
        world.run(LONGEST_RETRY_SECONDS)
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

    def test_what_is_in_flight_counts_as_sessions_where_the_log_does_not_know_it_yet(self, world: World) -> None:
        world.httpd.in_flight["10.0.0.1", PORT] = 1000
        world.sessions = {"a": 3, "b": 7}
        world.want([member("a"), member("b", address="10.0.0.2")], sticky_cookie="ID")
        world.run(2.0)
        assert [one.sessions for one in world.converger.report("x").members] == [1000, 7]

    def test_a_websocket_keeps_a_draining_member_for_its_session(self, world: World) -> None:
        world.httpd.in_flight["10.0.0.1", PORT] = 1
        world.want([member("a"), member("b", address="10.0.0.2")], sticky_cookie="ID")
        world.step()
        world.want([member("a", "Draining"), member("b", address="10.0.0.2")], sticky_cookie="ID")
        world.run(5.0)
        assert world.httpd.live["s001"].state.flags == {"N"}
        world.httpd.in_flight.clear()
        world.run(3.0)
        assert world.states()["a"] == ("Draining", True)
        world.httpd.in_flight["10.0.0.1", PORT] = 1
        world.run(1.0)
        assert world.httpd.live["s001"].state.flags == {"D", "N"}, "somebody's probe opens nothing"

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

    def test_a_refusal_whose_cause_goes_away_is_no_refusal_any_more(self, world: World) -> None:
        world.want([member("a")])
        world.step()
        world.httpd.refuse = "Address already in use"
        document = world.want([member("a")], listen_port=8001)
        world.run(15.0)
        assert world.converger.report("x").message == "Address already in use"
        world.httpd.refuse = ""
        world.run(32.0)
        report = world.converger.report("x")
        assert (report.ready, report.message, report.applied) == (True, "", document.version)

    def test_httpd_is_not_told_what_it_would_die_of_and_changes_when_it_starts(self, world: World) -> None:
        world.want([member("a")])
        world.step()
        document = world.want([member("a")], listen_address="")
        world.run(8.0)
        assert "change listen.port too" in world.converger.report("x").message
        assert world.httpd.reloads == []
        world.httpd.die()
        world.run(3.0)
        assert world.converger.applied == document.version
        assert "Listen 8000\n" in world.httpd.config

    def test_what_stays_refused_is_tried_ever_more_rarely_until_something_else_is_wanted(self, world: World) -> None:
        world.want([member("a")])
        world.step()
        world.httpd.refuse = "no"
        world.want([member("a")], method="bytraffic")
        world.run(3600.0)
        assert 13 <= world.httpd.checks <= 17
        world.httpd.refuse = ""
        world.want([member("a"), member("b", address="10.0.0.2")], method="bytraffic")
        world.run(8.0)
        assert world.converger.report("x").ready

    @pytest.mark.parametrize(("words", "tried"), [("httpd ended", 1), ("(98)Address already in use: AH00072: x", 9)])
    def test_settings_that_end_httpd_are_tried_again_only_if_a_port_was_the_cause(
        self, world: World, words: str, tried: int
    ) -> None:
        world.want([member("a")])
        world.step()
        world.httpd.fatal, world.httpd.last_words = "lbmethod=bytraffic", words
        world.want([member("a")], method="bytraffic")
        world.run(1500.0)
        world.want([member("a"), member("b", address="10.0.0.2")], method="bytraffic")
        world.run(8.0)
        assert len(world.httpd.reloads) == tried
        assert set(world.httpd.serving()) == {"a", "b"}

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
