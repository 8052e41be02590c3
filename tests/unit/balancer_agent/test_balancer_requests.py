"""Users and response times out of httpd's request log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luban.balancer_agent import requests
from luban.balancer_agent.requests import Answers, RequestLog, Traffic


def line(
    second: int, answered: str = "a", *, session: str = "-", address: str = "192.0.2.1", first_byte: str = "2500"
) -> str:
    """A line of the log."""
    return f"{second} {answered} {'-' if session == '-' else answered} {session} {address} {first_byte}"


def traffic(*lines: str, now: float = 1000.0) -> Traffic:
    """What one batch of lines tells."""
    found = Traffic()
    found.add(RequestLog().take(lines, now))
    return found


class TestUsers:
    """Concurrent users."""

    def test_without_cookies_addresses_count(self) -> None:
        seen = traffic(line(1), line(1), line(2, address="192.0.2.2"), line(2, address="192.0.2.2"))
        assert seen.users(1000.0) == 2

    def test_of_one_address_each_session_counts(self) -> None:
        assert traffic(line(1, session="x"), line(1, session="y"), line(1, session="x")).users(1000.0) == 2

    def test_an_ipv6_network_is_one_user(self) -> None:
        seen = traffic(line(1, address="2001:db8::1"), line(1, address="2001:db8::2"), line(1, address="2001:db8:1::1"))
        assert seen.users(1000.0) == 2

    def test_who_asked_a_minute_ago_is_gone(self) -> None:
        seen = traffic(line(1), line(31, address="192.0.2.2"), now=1000.0)
        assert seen.users(1000.0) == 2
        assert seen.users(1030.5) == 1
        assert seen.users(1061.0) == 0

    def test_clients_cannot_fill_the_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(requests, "MOST_USERS", 10)
        assert traffic(*(line(1, session=str(number)) for number in range(50))).users(1000.0) == 10

    def test_what_no_member_answered_is_nobody_of_ours(self) -> None:
        seen = traffic(line(1, "-"))
        assert seen.users(1000.0) == 0
        assert not seen.answers()


class TestAnswers:
    """Response times."""

    def test_by_member(self) -> None:
        seen = traffic(line(1, first_byte="1500"), line(1, first_byte="500"), line(1, "b", first_byte="1000000"))
        assert seen.answers() == {"a": Answers(2, pytest.approx(0.002)), "b": Answers(1, 1.0)}

    @pytest.mark.parametrize("text", ["-", "", "x", "-5"])
    def test_a_request_without_an_answer_says_nothing_of_answers(self, text: str) -> None:
        seen = traffic(line(1, first_byte=text))
        assert not seen.answers()
        assert seen.users(1000.0) == 1

    def test_a_member_that_went_is_forgotten(self) -> None:
        seen = traffic(line(1), line(1, "b"))
        seen.keep(["b"])
        assert set(seen.answers()) == {"b"}


@given(st.lists(st.tuples(st.floats(0, 5), st.lists(st.integers(-100, 100), max_size=4)), max_size=8))
def test_moments_never_go_back_and_never_lie_in_the_future(batches: list[tuple[float, list[int]]]) -> None:
    log, now, last = RequestLog(), 0.0, float("-inf")
    for pause, seconds in batches:
        now += pause
        for request in log.take([line(1000 + second) for second in seconds], now):
            assert last <= request.moment <= now
            last = request.moment
