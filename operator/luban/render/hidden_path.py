"""A path that clients do not get, however they spell it, while httpd passes every other path on as it was sent.

Services resolve paths in ways of their own: some decode %2F before they look for steps and others after, some take
backslashes for slashes, leave out parameters (;x), empty steps and spaces at the end, end at a zero byte, or know no
capitals. So what counts is not what httpd makes of a path but what any of them could. Two rules:

* The path as httpd has normalised it is the hidden one, in any of those spellings. httpd decodes letters, digits and
  - . _ ~ alone, and resolves /./ and /../.
* The path as it was sent has a step `..` in any spelling, and a step that is called as the hidden path's last one.
  Which of the others `..` removes depends on the service.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote_to_bytes

_DIALECTS = ("/", r"[/\x5c]", "(?:/|%2f)", r"(?:[/\x5c]|%2f|%5c)")
"""What services take for a slash. Each service is of one mind about it in all of a path."""
_SEMICOLON = "(?:;|%3b)"
_ZERO = "%00"
_BLANK = r"(?:%0[1-9a-f]|%1[0-9a-f]|%20|%7f)"
"""Control characters and the space; httpd refuses raw ones."""
_UP = rf"{_DIALECTS[-1]}(?:\.|%2e){{2}}(?:[;%? ]|{_DIALECTS[-1]}|$)"
_PLAIN = re.compile(rb"[A-Za-z0-9_-]")
_UNRESERVED = re.compile(rb"[A-Za-z0-9._~-]")


def hidden_path(path: str) -> list[str]:
    """Lines of a virtual host that answer 404 for a path. None for an empty one, for / and for one with a query."""
    steps = [step for step in posixpath.normpath(unquote_to_bytes(path)).split(b"/") if step]
    if not path or not steps or "?" in path:
        return []
    lines = []
    for rule in normalised_rules(steps):
        lines += [f'<LocationMatch "{rule}">', "    Redirect 404", "</LocationMatch>"]
    return [*lines, f'<If "%{{THE_REQUEST}} =~ m#{request_rule(steps[-1])}#">', "    Redirect 404", "</If>"]


def normalised_rules(steps: Sequence[bytes]) -> list[str]:
    """Regular expressions for the path as httpd has normalised it. Not one for all: PCRE takes no very long ones."""
    return [f"(?i)^{_in_dialect(slash, steps)}" for slash in _DIALECTS]


# Each character can be matched in one way alone (*+, ++ and ?+ give nothing back): nobody can make httpd try them all.
def _in_dialect(slash: str, steps: Iterable[bytes]) -> str:
    """The rule for services that take this for a slash."""
    # Parameters of a step, or what stands behind a zero byte.
    aside = f"(?:(?:{_SEMICOLON}|{_ZERO})(?:(?!{slash}).)*+)"
    # With steps between them that say nothing: empty ones, dots, parameters.
    slashes = rf"(?:{slash}(?:\.?+{aside}?+(?={slash}))?+)++"
    literal = (slashes + "".join(map(_normalised, step)) for step in steps)
    return f"{f'{aside}?+'.join(literal)}(?:{_rest(slash, aside)}$|{_rest(slash, _before_zero(slash))}{_ZERO})"


def _before_zero(slash: str) -> str:
    """Parameters of a step that end at a zero byte."""
    return f"(?:{_SEMICOLON}(?:(?!{slash}|{_ZERO}).)*+)"


def _rest(slash: str, aside: str) -> str:
    """What says nothing behind the last step."""
    trifles = f"(?:{_BLANK}|{aside})*+"
    dot = rf"(?:\.(?={slash}|{_BLANK}|{_SEMICOLON}|{_ZERO}|$))?+"
    return f"{trifles}(?:{slash}{dot}{trifles})*+"


def request_rule(step: bytes) -> str:
    """A regular expression for request lines whose path has a step `..`, and the given step."""
    literal = "".join(map(_as_sent, step))
    return f"(?i)^[^ ]+ (?=[^? ]*?{_UP})[^? ]*?{_DIALECTS[-1]}{literal}(?:[;%? ]|{_DIALECTS[-1]}|$)"


def _normalised(byte: int) -> str:
    """A byte of a path, as it may be spelt when httpd has decoded what need not be encoded."""
    return _literal(byte) if _UNRESERVED.match(bytes([byte])) else f"(?:{_literal(byte)}|%{byte:02x})"


def _as_sent(byte: int) -> str:
    """A byte of a path in all its spellings; small and capital letters have different codes."""
    codes = {f"%{code:02x}" for char in (bytes([byte]).lower(), bytes([byte]).upper()) for code in char}
    return f"(?:{'|'.join((_literal(byte), *sorted(codes)))})"


def _literal(byte: int) -> str:
    """A byte, made of letters, digits, _, - and backslashes alone."""
    return chr(byte) if _PLAIN.match(bytes([byte])) else rf"\x{byte:02x}"
