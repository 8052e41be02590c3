"""Who gets an agent's report, for how long a verdict holds, and how often the API server is asked."""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any

import pytest
from structlog.testing import capture_logs

from luban.balancer_agent.gate import (
    AGAIN_SECONDS,
    BAD_SECONDS,
    BURST,
    DEFAULT_OPERATOR,
    GOOD_SECONDS,
    MOST_ADDRESSES,
    MOST_VERDICTS,
    PER_SECOND,
    TOTAL_BURST,
    Gate,
)
from luban.errors import TemporaryError

EPOCH = 1_800_000_000.0
"""Time of day when the virtual clock is 0."""
PEER = "10.0.0.7"
SOMEBODY = "system:serviceaccount:team-b:default"


def jwt(end: float, **claims: Any) -> str:
    """A token that ends then."""
    payload = json.dumps({"exp": int(end), **claims}).encode()
    return f"header.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.signature"


class ApiServer:
    """Knows whose tokens are."""

    def __init__(self) -> None:
        self.users: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.away = False

    async def review(self, token: str) -> str:
        """See Review."""
        self.asked[token] += 1
        if self.away:
            raise TemporaryError("APIServerUnreachable", "no route")
        return self.users.get(token, "")


class Scene:
    """A gate and what it asks."""

    def __init__(self) -> None:
        self.server = ApiServer()
        self.now = 0.0
        self.gate = Gate(
            self.server.review, "an-audience", DEFAULT_OPERATOR, lambda: self.now, lambda: EPOCH + self.now
        )

    def token(self, user: str = DEFAULT_OPERATOR, lifetime: float = 3600.0) -> str:
        """A good one."""
        token = jwt(EPOCH + self.now + lifetime, sub=user)
        self.server.users[token] = user
        return token

    async def status(self, token: str, address: str = PEER) -> int:
        """HTTP status that somebody with this token gets."""
        refusal = await self.gate.refusal(f"Bearer {token}", address)
        return refusal.status if refusal is not None else 200


@pytest.fixture
def scene() -> Scene:
    return Scene()


class TestVerdicts:
    """Who is answered."""

    async def test_the_operator_is(self, scene: Scene) -> None:
        assert await scene.status(scene.token()) == 200

    async def test_somebody_else_is_not_and_learns_who_would_be(self, scene: Scene) -> None:
        refusal = await scene.gate.refusal(f"Bearer {scene.token(SOMEBODY)}", PEER)
        assert refusal is not None
        assert refusal.status == 403
        assert DEFAULT_OPERATOR in refusal.message
        assert f"--operator {SOMEBODY}" in refusal.message

    async def test_a_bad_token_is_refused(self, scene: Scene) -> None:
        assert await scene.status("abc") == 401

    @pytest.mark.parametrize(
        "header",
        ["", "Bearer", "Bearer ", "Basic YTpi", "abc", "Bearer a b", "Bearer \udcff", "Bearer é", "Bearer a\n"],
    )
    async def test_what_is_no_token_costs_the_api_server_nothing(self, scene: Scene, header: str) -> None:
        refusal = await scene.gate.refusal(header, PEER)
        assert refusal is not None
        assert refusal.status == 401
        assert "--open-reports" in refusal.message
        assert not scene.server.asked

    async def test_the_scheme_may_be_written_in_lower_case(self, scene: Scene) -> None:
        assert await scene.gate.refusal(f"bearer {scene.token()}", PEER) is None


class TestTime:
    """How long verdicts hold."""

    async def test_a_good_one_holds_for_minutes_then_the_api_server_is_asked_again(self, scene: Scene) -> None:
        token = scene.token()
        for _ in range(int(GOOD_SECONDS)):
            assert await scene.status(token) == 200
            scene.now += 1
        assert scene.server.asked[token] == 1
        del scene.server.users[token]
        assert await scene.status(token) == 401

    async def test_a_good_one_does_not_outlive_its_token(self, scene: Scene) -> None:
        token = scene.token(lifetime=60)
        assert await scene.status(token) == 200
        del scene.server.users[token]
        scene.now += 61
        assert await scene.status(token) == 401

    async def test_a_bad_one_holds_for_a_moment(self, scene: Scene) -> None:
        assert {await scene.status("abc") for _ in range(100)} == {401}
        assert scene.server.asked["abc"] == 1
        scene.now += BAD_SECONDS
        scene.server.users["abc"] = DEFAULT_OPERATOR
        assert await scene.status("abc") == 200

    async def test_a_token_that_names_no_end_is_good_as_long_as_a_verdict(self, scene: Scene) -> None:
        scene.server.users["opaque"] = DEFAULT_OPERATOR
        assert await scene.status("opaque") == 200
        scene.server.away = True
        scene.now += GOOD_SECONDS + 1
        assert await scene.status("opaque") == 503

    @pytest.mark.parametrize("payload", [b"[]", b"5", b"{", b'{"exp": "soon"}', b'{"exp": null}', b"[" * 9999, b"\xff"])
    async def test_a_payload_that_is_odd_does_no_harm(self, scene: Scene, payload: bytes) -> None:
        token = f"a.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.b"
        scene.server.users[token] = DEFAULT_OPERATOR
        assert await scene.status(token) == 200


class TestOutage:
    """The API server is away."""

    async def test_the_operator_is_answered_until_its_token_ends(self, scene: Scene) -> None:
        token = scene.token(lifetime=1800)
        assert await scene.status(token) == 200
        scene.server.away = True
        scene.now += 1790
        assert await scene.status(token) == 200
        scene.now += 11
        assert await scene.status(token) == 503

    async def test_it_is_asked_again_now_and_then(self, scene: Scene) -> None:
        token = scene.token()
        await scene.status(token)
        scene.server.away = True
        scene.now += GOOD_SECONDS
        for _ in range(3 * int(AGAIN_SECONDS)):
            assert await scene.status(token) == 200
            scene.now += 1
        assert scene.server.asked[token] == 1 + 3
        scene.server.away = False
        del scene.server.users[token]
        assert await scene.status(token) == 401

    async def test_new_tokens_must_wait_and_the_reason_is_told_once(self, scene: Scene) -> None:
        scene.server.away = True
        token = scene.token()
        with capture_logs() as logs:
            for _ in range(3):
                assert await scene.status(token) == 503
        assert [it["error"] for it in logs] == ["no route"]
        scene.server.away = False
        assert await scene.status(token) == 200

    async def test_somebody_else_stays_refused(self, scene: Scene) -> None:
        token = scene.token(SOMEBODY)
        await scene.status(token)
        scene.server.away = True
        scene.now += GOOD_SECONDS + 1
        assert await scene.status(token) == 403

    async def test_a_bad_one_is_not_made_better_by_it(self, scene: Scene) -> None:
        await scene.status("abc")
        scene.server.away = True
        scene.now += BAD_SECONDS + 1
        assert await scene.status("abc") == 503


class TestBounds:
    """Somebody who asks without end."""

    async def test_an_address_causes_few_questions_and_others_none_the_fewer(self, scene: Scene) -> None:
        seconds = 100
        for second in range(seconds):
            for number in range(50):
                assert await scene.status(f"bad-{second}-{number}", "10.9.9.9") in (401, 503)
            scene.now += 1
        assert scene.server.asked.total() <= BURST + PER_SECOND * seconds
        assert await scene.status(scene.token()) == 200

    async def test_many_addresses_together_cause_a_bounded_number(self, scene: Scene) -> None:
        for number in range(500):
            await scene.status(f"bad-{number}", f"10.9.{number // 250}.{number % 250}")
        assert scene.server.asked.total() == TOTAL_BURST

    async def test_a_flood_does_not_take_a_good_verdict_away(self, scene: Scene) -> None:
        token = scene.token()
        for second in range(int(GOOD_SECONDS) + 30):
            for number in range(20):
                await scene.status(f"bad-{second}-{number}", f"10.9.{second % 250}.{number}")
            assert await scene.status(token) == 200
            scene.now += 1

    async def test_what_is_remembered_is_bounded_and_holds_no_token(self, scene: Scene) -> None:
        for number in range(2000):
            await scene.status(f"bad-{number}", f"10.9.{number // 250}.{number % 250}")
            scene.now += 0.1
        gate = scene.gate
        assert len(gate._verdicts) <= MOST_VERDICTS
        assert len(gate._budgets) <= MOST_ADDRESSES
        assert "bad-1999" not in repr(vars(gate))
