"""Every request that a service could get straight it gets through httpd, and its answer comes back as it was.

Each case is sent to a plain service straight and through a real agent with a real httpd, and both are compared: first
by the rules that hold for every proxy (tests/fakes/plain/compare.py), then by the list of what httpd does otherwise
(tests/fakes/plain/differences.py), which must be exact.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.httpd_harness import HTTPD, ROOT, HttpdHarness, plain_stage
from tests.fakes.plain.cases import Case, all_cases
from tests.fakes.plain.client import ask
from tests.fakes.plain.compare import Way, differences
from tests.fakes.plain.differences import DIFFERENCES
from tests.fakes.plain.service import PlainService

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

CASES = all_cases()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front() -> AsyncIterator[HttpdHarness]:
    """An agent's httpd in front of one plain service."""
    async with plain_stage() as stage:
        await stage.start()
        yield stage


async def way(service: PlainService, case: Case, address: str, port: int) -> Way:
    """Send a case to an address."""
    service.plays[case.name] = case.play
    service.seen.pop(case.name, None)
    answer = await ask(address, port, case.request, method=case.method)
    seen = service.seen[case.name]
    assert len(seen) <= 1, "a request that was sent once arrives once"
    return Way(seen[0] if seen else None, answer)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_it_arrives_and_comes_back_as_it_was(front: HttpdHarness, case: Case) -> None:
    service = front.services["a"]
    straight = await way(service, case, service.address, service.port)
    through = await way(service, case, HTTPD, front.port)
    expected = DIFFERENCES[case.name].fields if case.name in DIFFERENCES else {}
    assert differences(straight, through, "127.0.0.1") == expected


def test_the_docs_give_each_reason() -> None:
    text = " ".join((ROOT / "docs" / "http.md").read_text().split())
    assert [one.why for one in DIFFERENCES.values() if one.why not in text] == []


def test_names_are_unique_and_each_difference_has_its_case() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert set(DIFFERENCES) <= set(names)
