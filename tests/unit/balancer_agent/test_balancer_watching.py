"""What the balancer agent watches beside httpd: members' health, sticky sessions, its documents; and its command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from luban.balancer_agent import command
from luban.balancer_agent.agent import AgentOptions
from luban.balancer_agent.health import Check, HealthChecks
from luban.balancer_agent.memory import AgentMemory, Skeleton, Store, secret
from luban.balancer_agent.requests import RequestLog
from luban.balancer_agent.sessions import MOST_SESSIONS, SessionWindow
from luban.balancer_agent.slots import Slot
from luban.balancer_agent.sources import FolderSource
from luban.core.model import Member
from luban.errors import FolderUnusable
from luban.render.balancer import BalancerSettings, document_json, parse_balancer_json
from tests.fakes.disk import fill_disk

SETTINGS = BalancerSettings("shop", "byrequests", "", 8080, "", 60, "/healthz", 2, 2, 16, 8080)
CHECK = Check("192.0.2.1", 8080, "/healthz", interval=2.0, timeout=1.0)


class Probes:
    """Answers as told: True, False at once, or None: silence until the timeout."""

    def __init__(self) -> None:
        self.answer: dict[str, bool | None] = {}
        self.asked: list[tuple[float, str]] = []

    async def ready(self, address: str, port: int, path: str, timeout: float) -> bool:
        """As told, for the address."""
        self.asked.append((asyncio.get_running_loop().time(), address))
        answer = self.answer.get(address, True)
        if answer is None:
            await asyncio.sleep(timeout)
        return bool(answer)

    async def gauge(self, address: str, port: int, path: str, metric: str, timeout: float) -> int | None:
        """Not asked for."""
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
async def watched() -> AsyncIterator[tuple[HealthChecks, Probes, asyncio.Event]]:
    probes, woken = Probes(), asyncio.Event()
    checks = HealthChecks(probes, woken.set)
    yield checks, probes, woken
    await checks.close()


Watched = tuple[HealthChecks, Probes, asyncio.Event]


@pytest.mark.looptime
class TestHealth:
    """HealthChecks, under a clock that waits for nobody."""

    async def test_a_refusal_counts_at_once_and_a_success_ends_it(self, watched: Watched) -> None:
        checks, probes, woken = watched
        checks.follow({"a": CHECK})
        await asyncio.sleep(1.0)
        assert not woken.is_set()
        probes.answer["192.0.2.1"] = False
        await asyncio.sleep(2.0)
        assert checks.failing == {"a"}
        assert woken.is_set()
        probes.answer["192.0.2.1"] = True
        await asyncio.sleep(2.0)
        assert checks.failing == frozenset()

    async def test_silence_counts_when_two_questions_had_their_time(self, watched: Watched) -> None:
        checks, probes, _ = watched
        probes.answer["192.0.2.1"] = None
        checks.follow({"a": CHECK})
        await asyncio.sleep(1.4)
        assert [moment for moment, _ in probes.asked] == [0.0, 0.5]
        assert checks.failing == frozenset()
        await asyncio.sleep(0.2)
        assert checks.failing == {"a"}

    async def test_a_refusal_of_the_second_question_waits_for_the_first(self, watched: Watched) -> None:
        checks, probes, _ = watched
        probes.answer["192.0.2.1"] = None
        checks.follow({"a": CHECK})
        await asyncio.sleep(0.4)
        probes.answer["192.0.2.1"] = False
        await asyncio.sleep(0.5)
        assert checks.failing == frozenset()
        await asyncio.sleep(0.2)
        assert checks.failing == {"a"}

    async def test_one_silence_is_forgiven(self, watched: Watched) -> None:
        checks, probes, woken = watched
        probes.answer["192.0.2.1"] = None
        checks.follow({"a": CHECK})
        await asyncio.sleep(0.4)
        probes.answer["192.0.2.1"] = True
        await asyncio.sleep(10.0)
        assert checks.failing == frozenset()
        assert not woken.is_set()

    async def test_checks_come_at_their_interval_and_end_with_the_member(self, watched: Watched) -> None:
        checks, probes, _ = watched
        checks.follow({"a": CHECK})
        await asyncio.sleep(5.0)
        checks.follow({"a": CHECK})
        assert [round(moment) for moment, _ in probes.asked] == [0, 2, 4]
        checks.follow({})
        await asyncio.sleep(5.0)
        assert len(probes.asked) == 3

    async def test_one_that_is_not_checked_any_more_does_not_fail(self, watched: Watched) -> None:
        checks, probes, _ = watched
        probes.answer["192.0.2.1"] = False
        checks.follow({"a": CHECK})
        await asyncio.sleep(1.0)
        assert checks.failing == {"a"}
        checks.follow({"a": Check("192.0.2.2", 8080, "/healthz", 2.0, 1.0)})
        assert checks.failing == frozenset()

    async def test_a_hung_member_does_not_delay_others(self, watched: Watched) -> None:
        checks, probes, _ = watched
        probes.answer["192.0.2.1"] = None
        checks.follow({"a": CHECK, "b": Check("192.0.2.2", 8080, "/healthz", 2.0, 1.0)})
        await asyncio.sleep(5.0)
        assert [round(moment) for moment, address in probes.asked if address == "192.0.2.2"] == [0, 2, 4]


def asked(moment: int, answered: str, member: str, session: str, address: str = "192.0.2.1") -> str:
    """A line of the request log."""
    return f"{moment} {answered} {member} {session} {address} 2500"


class Window:
    """A SessionWindow with the log that it reads."""

    def __init__(self) -> None:
        self.log, self.window = RequestLog(), SessionWindow()
        self.counts = self.window.counts

    def add(self, lines: list[str], now: float, bound: int = 0) -> None:
        self.window.add(self.log.take(lines, now), bound)


class TestSessions:
    """SessionWindow."""

    def test_counts_distinct_sessions_of_the_last_minute(self) -> None:
        window = Window()
        window.add([asked(100, "a", "a", "x"), asked(101, "a", "a", "x"), asked(102, "a", "a", "y")], 102.0)
        window.add([asked(103, "b", "b", "z")], 103.0)
        assert window.counts(103.0) == {"a": 2, "b": 1}
        window.add([asked(130, "a", "a", "x")], 130.0)
        assert window.counts(165.0) == {"a": 1}
        assert window.counts(191.0) == {}

    def test_a_line_that_comes_late_sets_no_session_back(self) -> None:
        window = Window()
        window.add([asked(100, "a", "a", "x"), asked(50, "a", "a", "x"), asked(100, "a", "a", "y")], 100.0)
        assert window.counts(120.0) == {"a": 2}

    @pytest.mark.parametrize("step", [-3600, -30, 30, 3600, 86_400 * 365])
    def test_a_clock_that_is_set_changes_no_count(self, step: int) -> None:
        window, day = Window(), 1_800_000_000
        for second in range(50):
            window.add([asked(day + second, "a", "a", f"before-{second}")], 500.0 + second)
        window.add([asked(day + 50, "a", "a", "x"), asked(day + 51 + step, "a", "a", "y")], 551.0)
        assert window.counts(551.0) == {"a": 52}
        for second in range(52, 300):
            window.add([asked(day + second + step, "a", "a", f"after-{second}")], 500.0 + second)
            assert window.counts(500.0 + second)["a"] <= 62
        assert window.counts(799.0) == {"a": 61}
        assert window.counts(900.0) == {}

    def test_of_what_was_logged_while_no_agent_ran_only_the_end_counts(self) -> None:
        window = Window()
        window.add([asked(1000 + second, "a", "a", str(second)) for second in range(600)], 5.0)
        assert window.counts(5.0) == {"a": 61}
        assert window.counts(35.0) == {"a": 31}

    def test_a_session_that_had_to_move_is_counted_where_it_went_only_when_it_comes_back(self) -> None:
        window = Window()
        window.add([asked(100, "b", "a", "x")], 100.0)
        assert window.counts(100.0) == {}
        window.add([asked(101, "b", "b", "y")], 101.0)
        assert window.counts(101.0) == {"b": 1}

    @pytest.mark.parametrize(
        "line",
        ["", "x", "100", "100 a", "-1 a a c 1 9", "1e9 a a c 1 9", "100 - a x 1 9", "a b c d e f", "100 a a - 1 9"],
    )
    def test_what_is_no_line_of_ours_is_passed_over(self, line: str) -> None:
        window = Window()
        window.add([line], 100.0)
        assert window.counts(100.0) == {}

    @pytest.mark.parametrize("address", ["", "2001:db", ":::", "x", "192.0.2", "fe80::1%eth0"])
    def test_a_line_cut_short_does_no_harm(self, address: str) -> None:
        window = Window()
        window.add([asked(100, "a", "a", "x", address)], 100.0, bound=1)
        assert window.counts(100.0) == {"a": 1}

    def test_clients_cannot_fill_the_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("luban.balancer_agent.sessions.MOST_SESSIONS", 10)
        assert MOST_SESSIONS > 10_000
        window = Window()
        window.add([asked(100, "a", "a", str(number)) for number in range(50)], 100.0)
        assert window.counts(100.0) == {"a": 10}

    def test_one_address_counts_for_so_many_sessions_at_most(self) -> None:
        window = Window()
        window.add([asked(100, "a", "a", str(number)) for number in range(50)], 100.0, bound=3)
        window.add([asked(101, "a", "a", "other", "192.0.2.2"), asked(101, "b", "b", "0")], 101.0, bound=3)
        assert window.counts(101.0) == {"a": 4, "b": 1}

    def test_whoever_moves_or_comes_back_is_counted_once(self) -> None:
        window = Window()
        window.add([asked(100, "a", "a", "x"), asked(130, "a", "a", "x", "192.0.2.2")], 130.0, bound=1)
        assert window.counts(165.0) == {"a": 1}
        window.add([asked(165, "a", "a", "y")], 165.0, bound=1)
        assert window.counts(165.0) == {"a": 1}, "x still counts for its first address"
        assert window.counts(191.0) == {}
        window.add([asked(200, "a", "a", "y")], 200.0, bound=1)
        assert window.counts(200.0) == {"a": 1}

    def test_all_of_an_ipv6_network_is_one_address(self) -> None:
        window = Window()
        window.add([asked(100, "a", "a", str(n), f"2001:db8::{n:x}:1") for n in range(20)], 100.0, bound=2)
        window.add([asked(100, "a", "a", "other", "2001:db8:0:1::1")], 100.0, bound=2)
        assert window.counts(100.0) == {"a": 3}


class TestMemory:
    """What an agent finds after a restart."""

    def test_there_and_back(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        assert store.memory == AgentMemory()
        document = parse_balancer_json(document_json(SETTINGS, [Member("a", "192.0.2.1", 8080, "Enabled")]))
        table = (Slot(1, 8080, document.members[0], settled=True, served_before=7), Slot(2, 9000))
        store.update(AgentMemory(document, Skeleton(SETTINGS, (8080, 9000)), table))
        assert Store(tmp_path).memory == store.memory

    def test_on_a_full_disk_both_memory_and_file_stay_as_they_were(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        document = parse_balancer_json(document_json(SETTINGS, [Member("a", "192.0.2.1", 8080, "Enabled")]))
        store.update(AgentMemory(document))
        fill_disk(tmp_path / "state.json")
        with pytest.raises(FolderUnusable, match="No space left on device"):
            store.update(AgentMemory(document, Skeleton(SETTINGS, (8080,))))
        assert store.memory == Store(tmp_path).memory == AgentMemory(document)

    @pytest.mark.parametrize(
        "text", [b"{", b"\xff", b"[" * 100_000, b"5", b'{"document": 5, "inForce": 5, "table": 5}']
    )
    def test_one_that_cannot_be_read_is_as_none(self, tmp_path: Path, text: bytes) -> None:
        (tmp_path / "state.json").write_bytes(text)
        assert Store(tmp_path).memory == AgentMemory()

    def test_the_secret_stays_and_is_ours_alone(self, tmp_path: Path) -> None:
        first = secret(tmp_path)
        assert secret(tmp_path) == first
        assert len(bytes.fromhex(first)) == 16
        assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


class TestFolder:
    """FolderSource."""

    @pytest.mark.looptime
    async def test_follows_a_file(self, tmp_path: Path) -> None:
        changes = FolderSource(tmp_path).changes()
        assert await anext(changes) is None
        (tmp_path / "balancer.json").write_text("one")
        assert await anext(changes) == {"balancer.json": "one"}
        (tmp_path / "balancer.json").write_text("two")
        assert await anext(changes) == {"balancer.json": "two"}

    @pytest.mark.looptime
    async def test_what_is_no_text_comes_as_something_that_is_no_document(self, tmp_path: Path) -> None:
        (tmp_path / "balancer.json").write_bytes(b"\xff{}")
        data = await anext(FolderSource(tmp_path).changes())
        assert data is not None
        with pytest.raises(ValueError, match="cannot be read"):
            parse_balancer_json(data["balancer.json"])


class TestCommand:
    """The command line."""

    @pytest.fixture
    def started(self, monkeypatch: pytest.MonkeyPatch) -> list[AgentOptions]:
        """Options of agents that would have run."""
        monkeypatch.delenv("POD_IP", raising=False)
        found: list[AgentOptions] = []

        async def remember(options: AgentOptions, _stop: asyncio.Event) -> None:
            found.append(options)

        monkeypatch.setattr(command, "run", remember)
        return found

    def test_as_in_the_lab(self, started: list[AgentOptions]) -> None:
        words = ["--cluster", "shop", "--report-address", "127.0.16.2", "--state-dir", "/tmp/x", "--namespace", "web"]
        result = CliRunner().invoke(command.balancer_agent_command, words)
        assert result.exit_code == 0, result.output
        assert (started[0].name, started[0].namespace) == ("shop-balancer-0", "web")
        assert started[0].advertise == "http://127.0.16.2:9180"
        assert started[0].operator == "system:serviceaccount:luban-system:luban-operator"
        assert not started[0].open_reports

    def test_as_in_a_pod(self, started: list[AgentOptions]) -> None:
        variables = {
            "LUBAN_BALANCER_AGENT_NAME": "my-shop-balancer-2",
            "LUBAN_BALANCER_AGENT_NAMESPACE": "web",
            "LUBAN_BALANCER_AGENT_OPERATOR": "system:serviceaccount:ops:luban",
            "LUBAN_BALANCER_AGENT_OPEN_REPORTS": "true",
            "POD_IP": "2001:db8::7",
        }
        result = CliRunner().invoke(command.balancer_agent_command, [], env=variables)
        assert result.exit_code == 0, result.output
        assert (started[0].cluster, started[0].index, started[0].namespace) == ("my-shop", 2, "web")
        assert started[0].advertise == "http://[2001:db8::7]:9180"
        assert (started[0].operator, started[0].open_reports) == ("system:serviceaccount:ops:luban", True)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], "give --cluster"),
            (["--name", "shop"], "<cluster>-balancer-<index>"),
            (["--cluster", "shop"], "give --advertise or set POD_IP"),
            (["--cluster", "shop", "--report-port", "0"], "--report-port"),
        ],
    )
    def test_what_is_missing(self, started: list[AgentOptions], words: list[str], message: str) -> None:
        result = CliRunner().invoke(command.balancer_agent_command, words)
        assert result.exit_code == 2
        assert message in result.output
        assert started == []

    def test_every_option_has_help_and_a_variable(self) -> None:
        for parameter in command.balancer_agent_command.params:
            assert parameter.envvar == f"LUBAN_BALANCER_AGENT_{(parameter.name or '').upper()}"
            assert getattr(parameter, "help", "")
