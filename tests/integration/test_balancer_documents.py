"""Documents that the balancer agent cannot read or follow: it says so, and httpd goes on with the last good one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest

from luban.balancer_agent.agent import Outside
from luban.balancer_agent.sources import FolderSource
from tests.fakes.httpd_harness import HttpdHarness, a_stage, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture
async def stage() -> AsyncIterator[HttpdHarness]:
    """Two members, no agent yet."""
    async with a_stage() as stage:
        yield stage


class TestDocuments:
    """What comes in."""

    @pytest.mark.parametrize("content", [b"{}", b"[" * 100_000, b"\xff{}"], ids=["empty", "deep", "bytes"])
    async def test_what_cannot_be_read_is_reported(self, stage: HttpdHarness, content: bytes) -> None:
        await stage.start()
        (stage.folder / "config" / "balancer.json").write_bytes(content)

        async def reported() -> bool:
            report = await stage.report()
            return not report.ready and "balancer.json" in report.message

        await until(reported, "message")
        assert (await stage.client().request("GET", "/"))[0] == 200

    async def test_a_document_that_fails_in_a_way_nobody_foresaw_ends_nothing(
        self, stage: HttpdHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await stage.start()

        def fails(*_: object) -> None:
            raise RuntimeError("unforeseen")

        async def told() -> bool:
            report = await stage.report()
            return not report.ready and "unforeseen" in report.message

        with monkeypatch.context() as patch:
            patch.setattr("luban.balancer_agent.agent.parse_balancer_json", fails)
            stage.want("a", "Draining")
            await until(told, "failure told")
            assert (await stage.client().request("GET", "/"))[0] == 200
        stage.want("a", "Disabled")
        await stage.drained("a")
        assert (await stage.report()).ready

    async def test_neither_a_source_nor_a_lease_that_fails_ends_the_agent(
        self, stage: HttpdHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        good = FolderSource(stage.options.config_dir or stage.folder)
        failed: list[str] = []

        class Source:
            async def changes(self) -> AsyncIterator[Mapping[str, str] | None]:
                if not failed.count("source"):
                    failed.append("source")
                    raise RuntimeError("unforeseen")
                async for data in good.changes():
                    yield data

        async def announce(_: str) -> bool:
            failed.append("lease")
            raise RuntimeError("unforeseen")

        async def outside(*_: object) -> Outside:
            return Outside(Source(), announce)

        for name in ("ANNOUNCE_RETRY_SECONDS", "FOLLOW_RETRY_SECONDS"):
            monkeypatch.setattr(f"luban.balancer_agent.agent.{name}", 0.1)
        monkeypatch.setattr("luban.balancer_agent.agent._reach_out", outside)
        await stage.start()
        assert failed.count("lease") > 1
        assert (await stage.report()).ready
