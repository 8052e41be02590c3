"""Growing patience with what fails: when it is tried again, by whom, and what ends it."""

from __future__ import annotations

import itertools

from luban.core.model import EnsureDomain, Failure, PublishBalancer
from luban.runtime.retries import LONGEST_SECONDS, Retries
from tests.fakes.simulator import make_vm

BUSY = Failure("HostBusy", "cannot fork", permanent=False)


def ensure(name: str, host: str = "host-b") -> EnsureDomain:
    return EnsureDomain(make_vm(name, "Provisioning", host), "DomainMissing")


def gaps(retries: Retries, seconds: int) -> list[int]:
    """Between the attempts of one that always fails, looking once a second."""
    tried = []
    for now in range(seconds):
        if retries.may_try("vm/a", ensure("a"), now):
            tried.append(now)
            retries.failed("vm/a", ensure("a"), BUSY, now)
    return [later - earlier for earlier, later in itertools.pairwise(tried)]


def test_it_doubles_up_to_five_minutes() -> None:
    found = gaps(Retries(), 3600)
    assert found[:5] == [1, 2, 4, 8, 16]
    assert found[-1] == LONGEST_SECONDS


def test_one_trouble_is_tried_by_one() -> None:
    retries = Retries()
    for name in ("a", "b", "c"):
        retries.failed(f"vm/{name}", ensure(name), BUSY, 0.0)
    tried = [name for name in ("a", "b", "c") if retries.may_try(f"vm/{name}", ensure(name), 10.0)]
    assert len(tried) == 1


def test_another_host_or_another_action_is_another_matter() -> None:
    retries = Retries()
    retries.failed("vm/a", ensure("a"), BUSY, 0.0)
    assert retries.may_try("vm/b", ensure("b", "host-c"), 0.0)
    assert retries.may_try("vm/b", ensure("b"), 0.0), "one that has not failed yet is no part of it"
    assert retries.may_try("balancer/x", PublishBalancer("x", (), "MembersChanged"), 0.0)


def test_success_of_one_lets_all_try() -> None:
    retries = Retries()
    for _ in range(8):
        retries.failed("vm/a", ensure("a"), BUSY, 0.0)
    assert not retries.may_try("vm/a", ensure("a"), 1.0)
    retries.succeeded("vm/b", ensure("b"))
    assert retries.may_try("vm/a", ensure("a"), 1.0)


def test_a_change_that_may_be_the_remedy_does() -> None:
    retries = Retries()
    for _ in range(8):
        retries.failed("vm/a", ensure("a"), BUSY, 0.0)
    retries.forget()
    assert retries.may_try("vm/a", ensure("a"), 1.0)
