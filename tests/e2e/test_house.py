"""The house evaluation through Apache httpd while VMs come and go: sessions and records survive the VM that served."""

from __future__ import annotations

import http.cookies
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from lab.datacentre import DataCentre
from luban_app.catalogue import catalogue
from luban_app.samples import SAMPLES
from luban_app.scoring import evaluate
from tests.e2e.scene import Scene

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

HOME = {"name": "山腳的家", "address": "Hill Road 5", "notes": "<b>quiet</b>"}


@dataclass
class Browser:
    """One visitor: keeps its cookies, and notes which VM answered."""

    base: str
    cookies: dict[str, str] = field(default_factory=dict)
    vm: str = ""

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """GET, or POST of a JSON body, like the pages' own script; returns the answer's JSON. Raises HTTPError."""
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()), "Origin": self.base}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        request = urllib.request.Request(self.base + path, data, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            for line in answer.headers.get_all("Set-Cookie", []):
                self.cookies |= {name: it.value for name, it in http.cookies.SimpleCookie(line).items()}
            self.vm = answer.headers["X-Luban-VM"]
            text = answer.read().decode()
        return json.loads(text) if answer.headers.get_content_type().endswith("json") else text

    def ask_until(self, scene: Scene, path: str, vm: str, what: str) -> Any:
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
def browser(lab: DataCentre, scene: Scene) -> Iterator[Browser]:
    """A visitor who has opened the first page."""
    it = Browser(lab.addresses.service)
    scene.until(lambda: it.ask("/readyz")["ready"], "the service is ready")
    it.ask("/")
    assert "luban_session" in it.cookies
    yield it
    lab.database.sql("DELETE FROM records WHERE owner <> ''")


def test_session_and_records_survive_the_vm_that_served_them(lab: DataCentre, scene: Scene, browser: Browser) -> None:
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


def test_without_its_database_a_vm_is_alive_but_not_ready(lab: DataCentre, scene: Scene, browser: Browser) -> None:
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
