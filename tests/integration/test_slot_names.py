"""The library that tells httpd where its slots are, loaded into a program with many threads as httpd is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from luban.adapters.apache_httpd.process import SLOT_NAMES

pytestmark = pytest.mark.integration

# More names than libnss_wrapper, which was here before, had room for.
NAMES = 80
THREADS = 16
LOOKUPS = 400
"""By each thread: a few seconds of this are enough for a segmentation fault with libnss_wrapper."""
READER = """
import json, os, socket, sys, threading
names, threads, lookups = map(int, sys.argv[1:])
wrong = []
def look(first):
    for number in range(lookups):
        index = 1 + (first + number) % names
        name = f"s{index:03d}.slot.invalid"
        try:
            found = {answer[4][0] for answer in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)}
        except OSError as error:
            found = {repr(error)}
        if len(found) != 1 or not all(one.startswith("127.0.") and one.endswith(f".{index}") for one in found):
            wrong.append([name, sorted(found)])
all_threads = [threading.Thread(target=look, args=(first,)) for first in range(threads)]
for thread in all_threads: thread.start()
for thread in all_threads: thread.join()
json.dump(wrong, sys.stdout)
"""
ASK = """
import json, socket, sys
def one(name):
    try:
        return sorted({answer[4][0] for answer in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)})
    except socket.gaierror as error:
        return "not found" if error.errno == socket.EAI_NONAME else repr(error)
json.dump({name: one(name) for name in sys.argv[1:]}, sys.stdout)
"""


def write(hosts: Path, generation: int) -> None:
    fresh = hosts.with_name("fresh")
    fresh.write_text("".join(f"127.0.{generation % 250}.{n} s{n:03d}.slot.invalid\n" for n in range(1, NAMES + 1)))
    fresh.replace(hosts)


def environment(hosts: Path) -> dict[str, str]:
    return {**os.environ, "LD_PRELOAD": str(SLOT_NAMES), "LUBAN_SLOT_HOSTS": str(hosts)}


def ask(hosts: Path, *names: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", ASK, *names], env=environment(hosts), capture_output=True, check=True, text=True
    )
    assert done.stderr == ""
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_many_threads_always_find_every_slot_while_the_file_changes(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    write(hosts, 0)
    arguments = [sys.executable, "-c", READER, *map(str, (NAMES, THREADS, LOOKUPS))]
    with subprocess.Popen(arguments, env=environment(hosts), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
        generation = 0
        while reader.poll() is None:
            generation += 1
            write(hosts, generation)
        output, errors = reader.communicate()
    assert reader.returncode == 0
    assert errors == b""
    assert json.loads(output) == []
    assert generation > NAMES, "the file did not change often enough for this to mean anything"


def test_a_slot_that_the_file_does_not_hold_is_not_found_and_other_names_are_libcs(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.3.4 s001.slot.invalid\n::1 s002.slot.invalid\n\nnonsense\n127.0.0.9 localhost\n")
    assert ask(hosts, "s001.slot.invalid", "s002.slot.invalid", "s003.slot.invalid", "127.0.5.6") == {
        "s001.slot.invalid": ["127.0.3.4"],
        "s002.slot.invalid": ["::1"],
        "s003.slot.invalid": "not found",
        "127.0.5.6": ["127.0.5.6"],
    }
    assert "127.0.0.9" not in ask(hosts, "localhost")["localhost"]  # type: ignore[operator]


def test_a_long_line_harms_nothing(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{'1' * 5000} {'s' * 5000}\n127.0.3.4 s001.slot.invalid\n")
    assert ask(hosts, "s001.slot.invalid") == {"s001.slot.invalid": ["127.0.3.4"]}
