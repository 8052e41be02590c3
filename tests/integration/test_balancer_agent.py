"""The balancer agent with a real httpd in front of small web servers: nothing is lost, whatever changes or dies.

No API server is needed here: documents come from a folder. tests/integration/test_balancer_watch.py has the real one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from luban.core.model import BalancerReport
from luban.render.httpd import BalancerSettings, slotted_config
from tests.fakes.disk import fill_disk, free_disk
from tests.fakes.httpd_harness import HttpdHarness, a_stage, until
from tests.fakes.web import Load, Outcome

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture
async def stage() -> AsyncIterator[HttpdHarness]:
    """Two members, no agent yet."""
    async with a_stage() as stage:
        yield stage


def assert_nothing_lost(outcome: Outcome, least: int) -> None:
    """Every request of a load was answered, and there were some."""
    assert outcome.failures == []
    assert outcome.total >= least


async def carried(load: Load, requests: int) -> None:
    """The load has made so many requests more, however long a busy machine takes for them."""
    wanted = load.outcome.total + requests

    async def condition() -> bool:
        return load.outcome.total >= wanted

    await until(condition, f"{requests} requests")


def _has_signs(heard: list[BalancerReport | None]) -> Callable[[], Awaitable[bool]]:
    before = heard.count(None)

    async def condition() -> bool:
        return heard.count(None) >= before + 2

    return condition


class TestMembership:
    """Joining and leaving."""

    async def test_twenty_joins_and_leaves_lose_nothing(self, stage: HttpdHarness) -> None:
        await stage.start()
        async with stage.load() as load:
            names = ["a", "b"]
            for number in range(10):
                fresh = [f"vm-{number}-{letter}" for letter in "xy"]
                await asyncio.gather(*(join(stage, name) for name in fresh))
                await asyncio.gather(*(leave(stage, name) for name in names))
                names = fresh
        assert_nothing_lost(load.outcome, least=500)
        assert len(load.outcome.answered) == 22
        assert 'luban_balancer_reloads_total{result="loaded"}' not in await stage.metrics()

    async def test_drain_waits_for_a_slow_request(self, stage: HttpdHarness) -> None:
        await stage.start()
        client = stage.client()
        slow = [asyncio.create_task(client.request("GET", "/slow?s=2")) for _ in range(4)]

        async def in_flight() -> bool:
            report = await stage.member("a")
            return report is not None and report.in_flight == 2 and stage.backends["a"].active == 2

        await until(in_flight, "two requests in flight on each")
        begin = time.monotonic()
        stage.want("a", "Draining")
        await stage.applied()
        report = await stage.member("a")
        assert report is not None
        assert (report.state, report.drained, report.in_flight) == ("Draining", False, 2)
        assert {(await client.request("GET", "/"))[2] for _ in range(4)} == {"b"}
        await stage.drained("a")
        assert 1.5 < time.monotonic() - begin < 6.0
        assert stage.backends["a"].active == 0
        await stage.backends["a"].stop()
        assert [(await one)[0] for one in slow] == [200] * 4

    async def test_a_dead_member_is_out_within_two_seconds(self, stage: HttpdHarness) -> None:
        await stage.start()
        await stage.backends["a"].stop()

        async def out() -> bool:
            report = await stage.member("a")
            return report is not None and not report.healthy

        assert await until(out, "a out") < 3.0
        async with stage.load() as load:
            await carried(load, 50)
        assert_nothing_lost(load.outcome, least=50)
        await stage.backends["a"].start()

        async def back() -> bool:
            return (await stage.client().request("GET", "/"))[2] == "a"

        await until(back, "a back")

    async def test_what_happens_is_told_to_who_follows(self, stage: HttpdHarness) -> None:
        await stage.start()
        heard: list[BalancerReport | None] = []
        following = asyncio.create_task(stage.follow(heard.append))

        async def told(states: dict[str, tuple[str, bool | None]]) -> None:
            async def condition() -> bool:
                reports = [it for it in heard if it is not None]
                return bool(reports) and {it.name: (it.state, it.healthy) for it in reports[-1].members} == states

            await until(condition, f"{states} told")

        await told({"a": ("Enabled", True), "b": ("Enabled", True)})
        await stage.backends["a"].stop()
        await told({"a": ("Enabled", False), "b": ("Enabled", True)})
        stage.want("a", None)
        await told({"b": ("Enabled", True)})
        await until(_has_signs(heard), "signs of life")
        following.cancel()

    async def test_a_hung_member_is_out_although_it_accepts(self, stage: HttpdHarness) -> None:
        await stage.start()
        stage.backends["a"].freeze()

        async def out() -> bool:
            report = await stage.member("a")
            return report is not None and not report.healthy

        await until(out, "a out")

        async def told() -> bool:
            return 'luban_balancer_changes_total{kind="failing"} 1.0' in await stage.metrics()

        await until(told, "httpd told")
        async with stage.load() as load:
            await carried(load, 50)
        assert_nothing_lost(load.outcome, least=50)
        stage.backends["a"].thaw()

    async def test_members_that_all_fail_their_check_still_get_requests(self, stage: HttpdHarness) -> None:
        await stage.start()
        for backend in stage.backends.values():
            backend.ready = False

        async def failing() -> bool:
            return not any(one.healthy for one in (await stage.report()).members)

        await until(failing, "both failing")
        assert {(await stage.client().request("GET", "/"))[0] for _ in range(4)} == {200}


async def join(stage: HttpdHarness, name: str) -> None:
    """Bring a new VM in."""
    await stage.vm(name)
    stage.want(name, "Enabled")
    await until(lambda: enabled(stage, name), f"{name} enabled")


async def leave(stage: HttpdHarness, name: str) -> None:
    """Take a VM out as the operator does: drain, stop, forget."""
    stage.want(name, "Draining")
    await stage.drained(name)
    assert stage.backends[name].active == 0
    await stage.backends[name].stop()
    stage.want(name, None)


class TestSettings:
    """What needs a reload."""

    async def test_a_sticky_cookie_binds_counts_and_holds(self, stage: HttpdHarness) -> None:
        stage.publish(sticky_cookie="LUBANID")
        await stage.start()
        client = stage.client()
        cookies: dict[str, str] = {}
        while len(cookies) < 2:
            _, headers, text = await client.request("GET", "/")
            cookies[text] = headers["set-cookie"].partition(";")[0]
        for _ in range(6):
            _, headers, text = await client.request("GET", "/", cookie=cookies["a"])
            assert (text, headers.get("set-cookie")) == ("a", None)

        async def counted() -> bool:
            return [one.sessions for one in (await stage.report()).members] == [1, 0]

        await until(counted, "one session on a")
        stage.want("a", "Draining")
        await stage.applied()
        assert {(await client.request("GET", "/"))[2] for _ in range(4)} == {"b"}, "no new session"
        assert (await client.request("GET", "/", cookie=cookies["a"]))[2] == "a", "the old one stays"
        report = await stage.member("a")
        assert report is not None
        assert not report.drained
        stage.want("a", "Disabled")
        await stage.drained("a")
        _, headers, text = await client.request("GET", "/", cookie=cookies["a"])
        assert text == "b", "moved, and bound anew"
        assert headers["set-cookie"].partition(";")[0].endswith(".b")

    async def test_what_takes_long_counts_while_it_lasts_and_is_logged_when_it_ends(self, stage: HttpdHarness) -> None:
        stage.want("b", None)
        stage.publish(sticky_cookie="LUBANID")
        await stage.start()
        client = stage.client()
        _, headers, _ = await client.request("GET", "/")
        cookie = headers["set-cookie"].partition(";")[0]
        begin = time.time()
        long = [asyncio.create_task(client.request("GET", "/slow?s=3", cookie=cookie)) for _ in range(5)]

        async def counted() -> bool:
            report = await stage.member("a")
            return report is not None and report.sessions == 5

        await until(counted, "five sessions", 2.5)
        assert {(await one)[0] for one in long} == {200}
        log = stage.options.state_dir / "requests.log"

        async def logged() -> bool:
            return len(log.read_text().splitlines()) == 6

        await until(logged, "a line for each request")
        assert all(int(line.split()[0]) >= int(begin + 3.0) for line in log.read_text().splitlines()[1:])

    @pytest.mark.parametrize("cookie", ["", "LUBANID"])
    async def test_users_and_response_times_are_reported(self, stage: HttpdHarness, cookie: str) -> None:
        stage.want("b", None)
        stage.publish(sticky_cookie=cookie)
        await stage.start()
        client = stage.client()
        await client.request("GET", "/slow?s=1")
        for _ in range(3):
            await client.request("GET", "/")

        async def told() -> bool:
            report = await stage.member("a")
            return report is not None and report.answers == 4

        await until(told, "four answers")
        report, member = await stage.report(), await stage.member("a")
        assert member is not None
        assert 1.0 <= member.answer_seconds < 4.0
        # Who keeps no cookie is known by the address.
        assert report.users == 1
        page = await stage.metrics()
        assert 'luban_balancer_member_answers_total{member="a"} 4.0' in page
        assert "luban_balancer_users 1.0" in page

    async def test_new_settings_are_loaded(self, stage: HttpdHarness) -> None:
        await stage.start()
        for method in ("bytraffic", "bybusyness"):
            stage.publish(method=method, slots=32)
        await stage.applied()
        assert 'luban_balancer_reloads_total{result="loaded"} 1.0' in await stage.metrics()
        config = (stage.options.state_dir / "httpd.conf").read_text()
        assert "lbmethod=bybusyness" in config
        assert "s032" in config
        assert {(await stage.client().request("GET", "/"))[0] for _ in range(4)} == {200}

    async def test_an_upgraded_operator_hides_the_metrics_by_a_reload(self, stage: HttpdHarness) -> None:
        await stage.start()
        client = stage.client()
        assert (await client.request("GET", "/metrics"))[0] == 200
        stage.publish(metrics_path="/metrics")
        await stage.applied()

        async def hidden() -> bool:
            return (await client.request("GET", "/metrics"))[0] == 404

        # Children of before the graceful restart may still take a connection.
        await until(hidden, "404")
        assert 'luban_balancer_reloads_total{result="loaded"} 1.0' in await stage.metrics()

    async def test_refused_settings_change_nothing_but_the_report(
        self, stage: HttpdHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await stage.start()
        good = slotted_config

        def bad(settings: BalancerSettings, *rest: object) -> str:
            return good(settings, *rest) + ("Bogus on\n" if settings.method == "bytraffic" else "")  # type: ignore[arg-type]

        monkeypatch.setattr("luban.balancer_agent.loader.slotted_config", bad)
        stage.publish(method="bytraffic")
        await stage.vm("c")
        stage.want("c", "Enabled")

        async def refused() -> bool:
            return "Invalid command 'Bogus'" in (await stage.report()).message

        await until(refused, "httpd's words")
        report = await stage.report()
        assert (report.ready, report.applied == stage.version) == (False, False)
        client = stage.client()

        async def joined() -> bool:
            return (await client.request("GET", "/"))[2] == "c"

        await until(joined, "membership goes on")
        stage.publish(method="byrequests")
        await stage.applied()
        assert (await stage.report()).ready


class TestFullDisk:
    """The folder of agent and httpd without room."""

    @pytest.mark.parametrize("name", ["state.json", "hosts", "httpd.conf"])
    async def test_both_go_on_and_it_is_told(self, stage: HttpdHarness, name: str) -> None:
        await stage.start()
        before, httpd = stage.version, stage.httpd_pid()
        fill_disk(stage.options.state_dir / name)
        await stage.vm("c")
        stage.want("c", "Enabled")

        async def told() -> bool:
            report = await stage.report()
            return not report.ready and f"{name}: No space left on device" in report.message

        await until(told, "no space")
        async with stage.load() as load:
            await carried(load, 50)
        assert_nothing_lost(load.outcome, least=50)
        assert (await stage.report()).applied == before
        free_disk(stage.options.state_dir / name)
        await stage.applied()
        assert await enabled(stage, "c")
        assert stage.httpd_pid() == httpd

    async def test_an_error_that_nobody_foresaw_is_told_and_ends_nothing(
        self, stage: HttpdHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await stage.start()

        def fails(*_: object) -> None:
            raise RuntimeError("unforeseen")

        with monkeypatch.context() as patch:
            patch.setattr("luban.balancer_agent.converge.placed", fails)

            async def told() -> bool:
                report = await stage.report()
                return not report.ready and "unforeseen" in report.message

            await until(told, "failure told")
            assert (await stage.client().request("GET", "/"))[0] == 200
        stage.want("a", "Draining")
        await stage.drained("a")
        assert (await stage.report()).ready


class TestDeaths:
    """Agent and httpd killed."""

    async def test_an_agent_that_is_killed_and_restarted_loses_nothing(self, stage: HttpdHarness) -> None:
        await stage.spawn()
        httpd = stage.httpd_pid()
        async with stage.load() as load:
            for number in range(3):
                name = f"vm-{number}"
                await stage.vm(name)
                stage.want(name, "Enabled")
                # In the midst of a join: pointed, not open yet.
                await until(lambda name=name: known(stage, name), f"{name} known")  # type: ignore[misc]
                stage.kill_agent()
                await stage.spawn()
            stage.want("vm-0", "Draining")
            await until(lambda: closed(stage, "vm-0"), "vm-0 closed")
            stage.kill_agent()
            await stage.spawn()
            await stage.drained("vm-0")
            await stage.backends["vm-0"].stop()
        assert_nothing_lost(load.outcome, least=300)
        assert stage.httpd_pid() == httpd

    async def test_an_upgraded_agent_has_its_httpd_load_what_it_writes_now(self, stage: HttpdHarness) -> None:
        await stage.spawn()
        httpd = stage.httpd_pid()
        stage.kill_agent()
        config = stage.options.state_dir / "httpd.conf"
        written = config.read_text()
        config.write_text(written.replace("    RequestHeader unset X-Forwarded-Proto early\n", ""))
        assert config.read_text() != written
        await stage.spawn()
        assert 'luban_balancer_reloads_total{result="loaded"} 1.0' in await stage.metrics()
        assert config.read_text() == written
        assert stage.httpd_pid() == httpd
        assert (await stage.client().request("GET", "/"))[0] == 200

    async def test_an_httpd_that_is_killed_comes_back_with_the_right_members(self, stage: HttpdHarness) -> None:
        await stage.start()
        stage.want("b", "Draining")
        await stage.applied()
        for _ in range(2):
            before = stage.httpd_pid()
            os.kill(before, signal.SIGKILL)

            async def back(before: int = before) -> bool:
                report = await stage.report()
                return report.ready and stage.httpd_pid() != before

            await until(back, "httpd again")
            assert {(await stage.client().request("GET", "/"))[2] for _ in range(6)} == {"a"}

    async def test_the_end_lets_requests_finish(self, stage: HttpdHarness) -> None:
        await stage.spawn()
        slow = asyncio.create_task(stage.client().request("GET", "/slow?s=1"))

        async def in_flight() -> bool:
            return any(backend.active for backend in stage.backends.values())

        await until(in_flight, "request")
        pid = stage.httpd_pid()
        await stage.close()
        assert (await slow)[0] == 200
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def enabled(stage: HttpdHarness, name: str) -> bool:
    """Whether a member takes requests."""
    report = await stage.member(name)
    return report is not None and report.state == "Enabled"


async def known(stage: HttpdHarness, name: str) -> bool:
    """Whether the agent has taken a member on."""
    return await stage.member(name) is not None


async def closed(stage: HttpdHarness, name: str) -> bool:
    """Whether a member takes nothing new."""
    report = await stage.member(name)
    return report is not None and report.state != "Enabled"
