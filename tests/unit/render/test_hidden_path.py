"""The hidden path, against services that resolve paths in ways of their own.

httpd's normalisation is told here in Python; tests/integration/test_httpd.py asks the real one about many spellings.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from luban.render.hidden_path import hidden_path, normalised_rules, request_rule

STEPS = (b"app", b"metrics")
NORMALISED = re.compile("|".join(normalised_rules(STEPS)).replace("|(?i)", "|"), re.DOTALL)
REQUEST = re.compile(request_rule(STEPS[-1]), re.DOTALL)
APP = ("app", "APP", "%61pp")
METRICS = ("metrics", "Metrics", "m%65trics", "%4detrics")
SLASHES = ("/", "//", "%2f", "%2F", "\\", "%5c")
TRIFLES = (
    *(
        *SLASHES,
        ".",
        "..",
        "/../",
        "/./",
        "%2e",
        "%2E%2e",
        ".%2e",
        ";",
        ";x",
        ";x=1/",
        "%3b",
        "%00",
        "%0a",
        "%20",
        "%7f",
    ),
    *("x", "x/..", "x%2f..", "..;", "%c3%a4", "%25", "...", "y"),
)
JUNK = st.lists(st.sampled_from(TRIFLES), max_size=3).map("".join)
RANDOM = st.lists(st.sampled_from((*APP, *METRICS, *TRIFLES)), max_size=10).map(lambda pieces: "/" + "".join(pieces))
NEARLY = st.builds(
    "/{}{}{}{}{}{}{}".format,
    JUNK,
    st.sampled_from(APP),
    JUNK,
    st.sampled_from(SLASHES),
    JUNK,
    st.sampled_from(METRICS),
    JUNK,
)
PATHS = st.one_of(RANDOM, NEARLY)


def normalised(path: str) -> str | None:
    """What httpd makes of a path with MergeSlashes Off and mapping=encoded; None: it answers 400."""
    decoded = re.sub(
        r"%(2[dDeE]|3\d|[46][1-9a-fA-F]|[57][0-9aA]|5[fF]|7[eE])", lambda found: chr(int(found[1], 16)), path
    )
    kept: list[str] = []
    steps = decoded[1:].split("/")
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        if step == "..":
            if not kept:
                return None
            kept.pop()
        elif step != ".":
            kept.append(step)
            continue
        if last:
            kept.append("")
    return "/" + "/".join(kept)


def hides(path: str) -> bool:
    """Whether a client that sends this path gets no further than httpd."""
    seen = normalised(path)
    return seen is None or bool(NORMALISED.search(seen)) or bool(REQUEST.search(f"GET {path} HTTP/1.1"))


def resolutions(path: str) -> Iterator[tuple[bytes, ...]]:
    """Steps that services may find in a path, each in its own way."""
    for decodes, backslashes, zero in itertools.product((False, True), repeat=3):
        text = unquote_to_bytes(path) if decodes else path.encode()
        text = text.partition(b"\0")[0] if zero else text
        raw = [unquote_to_bytes(step) for step in re.split(rb"[/\\]" if backslashes else b"/", text)]
        for parameters, dots, ends in itertools.product((False, True), repeat=3):
            yield tuple(steps_of(raw, parameters=parameters, dots=dots, ends=ends, zero=zero))


def steps_of(raw: list[bytes], *, parameters: bool, dots: bool, ends: bool, zero: bool) -> list[bytes]:
    """Steps of a path that say something, in small letters."""
    found: list[bytes] = []
    for step in raw:
        name = step.partition(b";")[0] if parameters else step
        name = name.partition(b"\0")[0] if zero else name
        if dots and name == b"..":
            del found[-1:]
        elif name not in (b"", b"."):
            found.append(name.lower())
    if ends and found:
        found[-1] = found[-1].rstrip(bytes(range(33)) + b"\x7f")
    return [name for name in found if name]


@given(PATHS)
@example("/app/metrics")
@example("/app%2fx/../metrics")
@example("/app/metrics%2fx/..")
@example("/app/x/..;/metrics")
@example("/x%2f..%2fapp/metrics%00/../y")
@example("/app/metrics/%00/../../x")
def test_no_spelling_gets_a_service_to_show_it(path: str) -> None:
    if STEPS in resolutions(path):
        assert hides(path)


@given(PATHS)
def test_nothing_else_is_hidden(path: str) -> None:
    """But for paths above the root, for those that name the hidden step and go up, and some with a zero byte."""
    assume(normalised(path) is not None and "%00" not in path)
    names_it = re.search(r"metrics", unquote_to_bytes(path).decode("latin-1").lower())
    goes_up = ".." in unquote_to_bytes(path).decode("latin-1")
    if not (names_it and goes_up) and STEPS not in resolutions(path):
        assert not hides(path)


@pytest.mark.parametrize("path", ["", "/", "//", "/?metrics", "/index.php?page=metrics", "/.", "/..", "/%2F", "/a/.."])
def test_a_page_that_people_need_stays(path: str) -> None:
    assert hidden_path(path) == []


@pytest.mark.parametrize(
    "path", ["/metrics", "//app/.//x/../m-e_t.rics~", "/a%2Fb", "/%22%3E%0A%24%7BX%7D%C3%A4", "/%25", "/a%23%"]
)
def test_every_spelling_of_each_byte_is_known(path: str) -> None:
    steps = [step for step in unquote_to_bytes(path).replace(b"/x/..", b"").replace(b"/.", b"").split(b"/") if step]
    rule = re.compile("|".join(normalised_rules(steps)).replace("|(?i)", "|"), re.DOTALL)
    plain = "/" + "/".join(quote_from_bytes(step) for step in steps)
    assert rule.search(normalised(plain) or "")
    every = "".join(f"/{''.join(f'%{byte:02X}' for byte in step)}" for step in steps)
    assert rule.search(normalised(every) or "")
    assert re.search(request_rule(steps[-1]), f"GET {every}/.. HTTP/1.1")
    assert re.search(request_rule(steps[-1]), f"GET {every.lower()}/.. HTTP/1.1")


@pytest.mark.parametrize(
    "tail", ["/;%20", "/; ", "/ ", ";", "%20", "/;x", "/", "/.", "%2f.;", "\\", "/.;", "/..;", "%00"]
)
def test_nobody_can_make_httpd_search_for_long(tail: str) -> None:
    """A rule that can match a text in many ways would try them all here, and not come to an end."""
    for begin in ("/app/metrics", "/app", "", "/app/metrics;"):
        text = begin + tail * 5000 + "/x"
        assert not NORMALISED.search(text) or "%00" in tail
        REQUEST.search(f"GET {text} HTTP/1.1")


@given(st.from_regex(r"/[A-Za-z0-9._~/?&=%-]{0,60}", fullmatch=True))
def test_no_text_gets_out_of_its_quotes(path: str) -> None:
    lines = hidden_path(path)
    allowed = r"[A-Za-z0-9_\\\[\]().?:;!|=+*<>^$%{}, #~&/-]*"
    if lines:
        *matches, last = lines[::3]
        assert all(re.fullmatch(rf'<LocationMatch "{allowed}">', line) for line in matches)
        assert re.fullmatch(rf'<If "%\{{THE_REQUEST\}} =~ m#{allowed.replace(" #", " ")}#">', last)
        assert not any("${" in line for line in lines)
