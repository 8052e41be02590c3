"""A real server process with a new SQLite file, and Debian's Chromium before it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from luban_app.catalogue import Language
from tests.browser.browser import Visit

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = Path(os.environ.get("LUBAN_CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
VM = "vm-browser-test"
START_SECONDS = 30.0
CALL_MILLISECONDS = 15_000
WIDTHS = {390: 844, 1280: 800}
"""Widths of a phone and a desk, with the heights that go with them."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of its own."""
    folder = tmp_path_factory.mktemp("house")
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    database = f"sqlite:///{folder / 'luban.sqlite'}"
    command = [sys.executable, "-m", "luban_app", "--port", str(port), "--database-url", database]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "app"), "LUBAN_VM": VM}
    log = folder / "log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process:
        until = time.monotonic() + START_SECONDS
        while not _ready(address):
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                pytest.fail(f"the server does not get ready:\n{log.read_text()}")
            time.sleep(0.1)
        yield address
        process.terminate()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium with a new profile."""
    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM} is missing: apt-get install chromium fonts-noto-cjk")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture(params=["zh-TW", "en"])
def spoken(request: pytest.FixtureRequest) -> Language:
    """The language that the browser prefers."""
    language: Language = request.param
    return language


@pytest.fixture(params=list(WIDTHS))
def width(request: pytest.FixtureRequest) -> int:
    """The window's width in CSS pixels."""
    pixels: int = request.param
    return pixels


@pytest.fixture
def visit(browser: Browser, server: str, spoken: Language, width: int) -> Iterator[Visit]:
    """A visitor who was never here before, in either language, at either width."""
    with _visiting(browser, server, spoken, width) as one:
        yield one


@pytest.fixture
def reader(browser: Browser, server: str) -> Iterator[Visit]:
    """One English visitor with a phone, where language and width make no difference."""
    with _visiting(browser, server, "en", 390) as one:
        yield one


class _visiting:  # noqa: N801 - used as a function
    def __init__(self, browser: Browser, server: str, spoken: Language, width: int) -> None:
        self._context = browser.new_context(
            base_url=server,
            locale=spoken,
            viewport={"width": width, "height": WIDTHS[width]},
            has_touch=width < 600,
            timezone_id="Asia/Taipei",
            color_scheme="light",
            reduced_motion="reduce",
            accept_downloads=True,
        )
        self._context.set_default_timeout(CALL_MILLISECONDS)
        self._server = server
        self._spoken: Language = spoken
        self._width = width

    def __enter__(self) -> Visit:
        page: Page = self._context.new_page()
        return Visit(page, self._server, self._spoken, self._width)

    def __exit__(self, *_: object) -> None:
        self._context.close()
