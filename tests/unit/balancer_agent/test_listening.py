"""Why httpd cannot listen where it shall, and what to change."""

from __future__ import annotations

import errno

import pytest

from luban.balancer_agent.listening import cannot_listen, with_remedy


@pytest.mark.parametrize(
    ("where", "number", "words"),
    [
        (
            ("127.0.0.1", 8080),
            errno.EADDRINUSE,
            "httpd cannot listen at 127.0.0.1:8080: Address already in use: "
            "choose another balancer.listen.port, or stop what listens there",
        ),
        (
            ("", 80),
            errno.EACCES,
            "httpd cannot listen at *:80: Permission denied: "
            "httpd may not listen at ports below 1024 here: choose another balancer.listen.port, from 1024 on",
        ),
        (
            ("2001:db8::1", 8080),
            errno.EADDRNOTAVAIL,
            "httpd cannot listen at [2001:db8::1]:8080: Cannot assign requested address: "
            "balancer.listen.address must be an address of the machine that httpd is on, or empty for all",
        ),
        (("10.0.0.1", 8080), errno.EINVAL, "httpd cannot listen at 10.0.0.1:8080: Invalid argument"),
    ],
)
def test_the_remedy_follows_the_cause(where: tuple[str, int], number: int, words: str) -> None:
    refused = cannot_listen(where, OSError(number, "in the system's words"))
    assert (refused.reason, refused.message) == ("CannotListen", words)


def test_httpds_own_words_get_the_same_remedy() -> None:
    taken = (
        "(98)Address already in use: AH00072: make_sock: could not bind to address 127.0.0.1:80\nno listening sockets"
    )
    assert with_remedy(taken) == f"{taken}: choose another balancer.listen.port, or stop what listens there"
    refused = "(13)Permission denied: AH00072: make_sock: could not bind to address 0.0.0.0:80"
    assert "below 1024" in with_remedy(refused)


@pytest.mark.parametrize("words", ["", "AH00526: Syntax error", "(98)Address already in use: AH01234: other"])
def test_other_words_stay_as_they_are(words: str) -> None:
    assert with_remedy(words) == words
