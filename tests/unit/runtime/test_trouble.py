"""Ticks that fail: the status says so in steady words, and they are tried again ever more rarely."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from structlog.testing import capture_logs

from luban.core.model import Failure
from luban.errors import PermanentError, TemporaryError
from luban.runtime import tick
from luban.runtime.trouble import LONGEST_FAULT_SECONDS, LONGEST_RETRY_SECONDS, Trouble
from tests.fakes.operator_harness import NAMESPACE, OperatorHarness

FORBIDDEN = PermanentError("Forbidden", "cannot list lubanvms: grant it")


def condition(harness: OperatorHarness, kind: str) -> dict[str, Any]:
    """A condition of the cluster."""
    return {it["type"]: it for it in harness.body()["status"]["conditions"]}[kind]


async def settled() -> OperatorHarness:
    """Two VMs serve."""
    harness = OperatorHarness()
    await harness.run(60)
    assert harness.consistent(2)
    harness.api.calls.clear()
    return harness


async def test_a_good_cluster_is_reconciled() -> None:
    harness = await settled()
    assert (condition(harness, "Reconciled")["status"], condition(harness, "Ready")["status"]) == ("True", "True")


async def test_an_api_that_refuses_is_told_once_and_ends() -> None:
    harness = await settled()
    harness.api.fail_next("list_vms", FORBIDDEN, times=10**6)
    await harness.run(5)
    assert condition(harness, "Reconciled")["status"] == "False"
    assert condition(harness, "Reconciled")["reason"] == "Forbidden"
    assert "grant it" in condition(harness, "Reconciled")["message"]
    assert condition(harness, "Ready")["status"] == "True", "a moment changes nothing"
    await harness.run(600)
    assert (condition(harness, "Ready")["status"], condition(harness, "Ready")["reason"]) == (
        "Unknown",
        "NotReconciled",
    )
    assert harness.body()["status"]["phase"] == "Degraded"
    assert harness.api.calls["patch_cluster_status"] == 2
    assert harness.api.calls["list_vms"] < 60
    reasons = [it.reason for it in harness.api.event_log]
    assert reasons.count("Forbidden") == 1
    harness.api._failures.clear()
    await harness.run(20)
    assert (condition(harness, "Reconciled")["status"], condition(harness, "Ready")["status"]) == ("True", "True")
    assert harness.body()["status"]["phase"] == "Ready"
    assert "ReconciledAgain" in {it.reason for it in harness.api.events(NAMESPACE)}


async def test_a_fault_of_our_own_is_told_in_words_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = await settled()
    numbers = itertools.count()

    def broken(*_: Any, **__: Any) -> Any:
        raise OverflowError(f"year {next(numbers)} is out of range")

    monkeypatch.setattr(tick, "plan", broken)
    with capture_logs() as logs:
        await harness.run(3600)
    assert any(line.get("exc_info") for line in logs)
    found = condition(harness, "Reconciled")
    assert (found["status"], found["reason"]) == ("False", "InternalError")
    assert "OverflowError('year 0 is out of range')" in found["message"]
    assert harness.api.calls["patch_cluster_status"] == 2
    assert next(numbers) < 30


async def test_causes_that_take_turns_are_no_storm_of_writes() -> None:
    harness = await settled()
    errors = itertools.cycle([TemporaryError("Timeout", "10 s"), TemporaryError("Unavailable", "503"), FORBIDDEN])

    async def fails(*_: Any, **__: Any) -> Any:
        raise next(errors)

    harness.api.list_vms = fails  # type: ignore[method-assign]
    await harness.run(600)
    assert condition(harness, "Reconciled")["reason"] == "Timeout"
    assert harness.api.calls["patch_cluster_status"] == 2


async def test_trouble_that_cannot_be_told_is_told_later() -> None:
    harness = await settled()
    harness.api.fail_next("*", TemporaryError("APIServerUnreachable", "no"), times=6)
    harness.api.fail_next("list_vms", FORBIDDEN, times=3)
    await harness.run(120)
    assert condition(harness, "Reconciled")["status"] == "True"
    assert "Forbidden" in {it.reason for it in harness.api.events(NAMESPACE)}


@pytest.mark.parametrize("fault", [True, False])
def test_patience_grows_to_its_bound_and_is_forgotten(fault: bool) -> None:
    trouble = Trouble(lambda: 0.0)
    failure = Failure("X", "y", permanent=False)
    delays = [trouble.failed(failure, fault=fault) for _ in range(40)]
    assert all(later == min(2 * earlier, delays[-1]) for earlier, later in itertools.pairwise(delays))
    assert delays[-1] == (LONGEST_FAULT_SECONDS if fault else LONGEST_RETRY_SECONDS)
    trouble.over()
    assert trouble.failed(failure, fault=fault) == delays[0]


def test_a_cause_that_stays_replaces_the_first() -> None:
    trouble = Trouble(lambda: 0.0)
    for reason in ("A", "B", "B"):
        trouble.failed(Failure(reason, "", permanent=False), fault=False)
    assert trouble.failure is not None
    assert trouble.failure.reason == "B"
