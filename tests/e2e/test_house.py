"""The house evaluation through Apache httpd while VMs come and go: sessions and records survive the VM that served."""

from __future__ import annotations

import http.cookies
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from html.parser import HTMLParser
from typing import Any

import pytest

from lab.datacentre import DataCentre
from luban_app.catalogue import catalogue
from luban_app.house.samples import SAMPLES
from luban_app.house.scoring import evaluate
from tests.e2e.lab_view import LabView

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

HOME = {"name": "山腳的家", "address": "Hill Road 5", "notes": "<b>quiet</b>"}


class Page(HTMLParser):
    """What a visitor reads on a page, and what a browser would send of its form `step` as it stands."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        """Hidden inputs, whatever they are called, texts, and what is chosen."""
        self.words = ""
        self._inside = False
        self._area = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and given.get("id") == "step":
            self._inside, self.action = True, given["action"]
        if not (self._inside or given.get("form") == "step") or "name" not in given:
            return
        if tag == "textarea":
            self._area = given["name"]
            self.fields[self._area] = ""
        elif tag == "input" and (given.get("type") not in {"radio", "checkbox"} or "checked" in given):
            self.fields[given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        """See HTMLParser."""
        self._inside = self._inside and tag != "form"
        if tag == "textarea" and self._area:
            # The first newline in it is the page's, not the field's.
            self.fields[self._area] = self.fields[self._area].removeprefix("\n")
            self._area = ""

    def handle_data(self, data: str) -> None:
        """See HTMLParser."""
        self.words += data
        if self._area:
            self.fields[self._area] += data


class Stay(urllib.request.HTTPRedirectHandler):
    """A redirection is an HTTPError, so that the VM that sent it is seen."""

    def redirect_request(self, *_: Any) -> None:
        """See HTTPRedirectHandler."""


OPENER = urllib.request.build_opener(Stay)


@dataclass
class Browser:
    """One visitor: keeps its cookies, and notes which VM answered."""

    base: str
    cookies: dict[str, str] = field(default_factory=dict)
    vm: str = ""

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """GET, or POST of a JSON body, like the pages' own script; returns the answer's JSON. Raises HTTPError."""
        data = None if body is None else json.dumps(body).encode()
        with OPENER.open(self._request(path, data, "application/json"), timeout=30) as answer:
            self._note(answer.headers)
            text = answer.read().decode()
        return json.loads(text) if answer.headers.get_content_type().endswith("json") else text

    def fill(self, path: str, chosen: Mapping[str, str]) -> tuple[str, str]:
        """Fill in a step of the form and press "next"; where that leads, and the VM that took it in. Raises HTTPError.

        Goes there, too.
        """
        page = Page(self.ask(path))
        where = self._submit(page.action, {**page.fields, **chosen, "go": "next"})
        vm = self.vm
        self.ask(where)
        return where, vm

    def _submit(self, action: str, fields: Mapping[str, str]) -> str:
        data = urllib.parse.urlencode(fields).encode()
        with pytest.raises(urllib.error.HTTPError) as answered:
            OPENER.open(self._request(action, data, "application/x-www-form-urlencoded"), timeout=30).close()
        with answered.value as answer:
            assert answer.code == 303, answer.read().decode()
            self._note(answer.headers)
            return str(answer.headers["Location"])

    def _request(self, path: str, data: bytes | None, kind: str) -> urllib.request.Request:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {"Cookie": cookies, "Origin": self.base} | ({} if data is None else {"Content-Type": kind})
        return urllib.request.Request(self.base + path, data, headers)

    def _note(self, headers: Message) -> None:
        for line in headers.get_all("Set-Cookie", []):
            self.cookies |= {name: it.value for name, it in http.cookies.SimpleCookie(line).items()}
        self.vm = headers["X-Luban-VM"]

    def ask_until(self, scene: LabView, path: str, vm: str, what: str) -> Any:
        """Ask until another VM than `vm` answers. What is in flight on a VM that dies may fail: httpd never retries."""

        def other() -> Any:
            try:
                found = self.ask(path)
            except (urllib.error.URLError, OSError):
                return None
            return found if self.vm != vm else None

        return scene.until(other, what)


def home_of(record: dict[str, Any]) -> dict[str, Any]:
    """What its owner wrote."""
    return {name: record[name] for name in HOME}


@pytest.fixture
def browser(lab: DataCentre, scene: LabView) -> Iterator[Browser]:
    """A visitor who has opened the first page."""
    it = Browser(lab.addresses.service)
    scene.until(lambda: it.ask("/readyz")["ready"], "the service is ready")
    it.ask("/")
    assert "luban_session" in it.cookies
    yield it
    lab.database.sql("DELETE FROM records WHERE owner <> ''")


def test_session_and_records_survive_the_vm_that_served_them(lab: DataCentre, scene: LabView, browser: Browser) -> None:
    answers = dict(SAMPLES[0].answers)
    record = browser.ask("/api/v1/records", {**HOME, "answers": answers})
    assert record["scores"]["total"] == pytest.approx(evaluate(catalogue(), answers).total.value, abs=0.05)
    path, creator = f"/api/v1/records/{record['id']}", browser.vm

    seen = browser.ask_until(scene, path, creator, "the other VM knows it too")
    assert (home_of(seen), seen["answers"]) == (HOME, answers)

    stranger = Browser(browser.base)
    stranger.ask("/")
    with pytest.raises(urllib.error.HTTPError) as refused:
        stranger.ask(path)
    with refused.value:
        assert refused.value.code == 404, "another's record"

    (victim,) = (vm for vm in scene.vms() if vm["metadata"]["name"] == creator)
    lab.pull_the_plug(victim["spec"]["host"], victim["metadata"]["uid"])
    assert home_of(browser.ask_until(scene, path, creator, "the record after its VM's death")) == HOME
    scene.until(lambda: scene.consistent(2), "a new VM takes its place")
    names = {vm["metadata"]["name"] for vm in scene.vms()}
    assert creator not in names
    (newcomer,) = names - {browser.vm} if browser.vm in names else (sorted(names)[0],)
    scene.until(
        lambda: home_of(browser.ask(path)) == HOME and browser.vm == newcomer, "the new VM knows session and record"
    )


def test_a_form_begun_on_a_vm_that_dies_is_finished_on_another(
    lab: DataCentre, scene: LabView, browser: Browser
) -> None:
    answers = dict(SAMPLES[0].answers)
    steps = {
        f"/evaluate/{part.id}": {one.id: answers.get(one.id, "") for one in part.indicators}
        for part in catalogue().parts
    }
    outside, *others = steps
    assert outside == "/evaluate/outside"
    assert len(others) == 2

    where, begun = browser.fill("/evaluate/home", HOME)
    assert where == outside
    scene.until(
        lambda: browser.fill(outside, steps[outside]) == (others[0], begun), "the same VM takes the second step"
    )
    (victim,) = (vm for vm in scene.vms() if vm["metadata"]["name"] == begun)
    lab.pull_the_plug(victim["spec"]["host"], victim["metadata"]["uid"])

    kept = Page(browser.ask_until(scene, outside, begun, "the form on the other VM"))
    survivor = browser.vm
    assert steps[outside].items() <= kept.fields.items()
    (_, first), (where, last) = [browser.fill(step, steps[step]) for step in others]
    assert first == survivor
    assert begun not in {first, last}

    result = Page(browser.ask(where))
    assert all(text in result.words for text in HOME.values()), "as it was written, and nothing of it is markup"
    record = browser.ask(f"/api/v1{where}")
    assert (home_of(record), record["answers"]) == (HOME, answers)
    listed = browser.ask("/records")
    assert HOME["name"] in Page(listed).words
    assert f'href="{where}"' in listed


def test_metrics_are_for_the_operator_and_not_for_clients(scene: LabView, browser: Browser) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        browser.ask("/metrics")
    with refused.value:
        assert (refused.value.code, refused.value.headers["X-Luban-VM"]) == (404, None), "httpd itself answers"
    for vm in scene.vms():
        assert "luban_app_active_sessions" in Browser(f"http://{vm['spec']['address']}:8080").ask("/metrics")
    assert browser.ask("/work?seconds=0")["vm"] == browser.vm, "the lab's VMs take part in experiments"


def test_without_its_database_a_vm_is_alive_but_not_ready(lab: DataCentre, scene: LabView, browser: Browser) -> None:
    before = {vm["metadata"]["name"] for vm in scene.vms()}
    lab.database.down()
    try:

        def refused() -> int:
            try:
                browser.ask("/api/v1/records")
            except urllib.error.HTTPError as error:
                with error:
                    return error.code
            return 200

        scene.until(lambda: refused() == 503, "503 instead of a traceback")
        assert browser.ask("/healthz") == "ok\n"
    finally:
        lab.database.up()
    scene.until(lambda: browser.ask("/readyz")["ready"], "the service finds its database again")
    assert {vm["metadata"]["name"] for vm in scene.vms()} == before, "a lost database must not replace the VMs"
