"""A third host at the other end of a cable: its libvirtd answers on TCP inside a network namespace of its own.

The cable can lose every packet for a while, in both directions, without a word to either side. 203.0.113.0/24 is for
documentation alone (RFC 5737).
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lab.hosts import ensure_lab_user
from lab.paths import LAB_USER
from lab.process import Daemon, wait_until

NAMESPACE = "luban-e2e"
NEAR, FAR = "lbn-near", "lbn-far"
HERE, THERE = "203.0.113.1", "203.0.113.2"
NOBODY = "02:00:00:00:00:01"
"""No station at the other end has this address: what is sent to it is lost."""
URI = f"qemu+tcp://{THERE}/session"
CONFIG = """\
listen_tls = 0
listen_tcp = 1
listen_addr = "203.0.113.2"
auth_tcp = "none"
"""


def ip(*command: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *command], check=True, timeout=10, capture_output=True)


class DistantHost:
    """Made by `distant_host`."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "distant"
        self._daemon = Daemon("libvirtd-distant", state)

    def up(self) -> None:
        """Lay the cable and start the daemon."""
        ip("netns", "add", NAMESPACE)
        ip("link", "add", NEAR, "type", "veth", "peer", "name", FAR, "netns", NAMESPACE)
        ip("address", "add", f"{HERE}/30", "dev", NEAR)
        ip("link", "set", NEAR, "up")
        ip("-n", NAMESPACE, "address", "add", f"{THERE}/30", "dev", FAR)
        ip("-n", NAMESPACE, "link", "set", FAR, "up")
        ip("-n", NAMESPACE, "link", "set", "lo", "up")
        self._start()

    def _start(self) -> None:
        ensure_lab_user()
        for name in ("run", "config", "cache", "data"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        config = self._folder / "libvirtd.conf"
        config.write_text(CONFIG)
        subprocess.run(["chown", "-R", LAB_USER, str(self._folder)], check=True, timeout=10)
        folders = {f"XDG_{kind.upper()}_HOME": str(self._folder / kind) for kind in ("config", "cache", "data")}
        environment = {"HOME": str(self._folder), "XDG_RUNTIME_DIR": str(self._folder / "run"), **folders}
        identity = ["setpriv", f"--reuid={LAB_USER}", f"--regid={LAB_USER}", "--clear-groups"]
        command = ["ip", "netns", "exec", NAMESPACE, *identity, "libvirtd", "--listen", "--config", str(config)]
        self._daemon.start(command, env=environment, cwd=self._folder)
        wait_until(self._answers, what=f"libvirtd on {THERE}", timeout=60.0)

    def _answers(self) -> bool:
        command = ["virsh", "-q", "-c", URI, "uri"]
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0

    def lose_packets(self) -> None:
        """From now on nothing arrives on either side."""
        ip("neighbour", "replace", THERE, "lladdr", NOBODY, "nud", "permanent", "dev", NEAR)
        ip("-n", NAMESPACE, "neighbour", "replace", HERE, "lladdr", NOBODY, "nud", "permanent", "dev", FAR)

    def find_packets(self) -> None:
        """Everything arrives again."""
        for where, address, device in (([], THERE, NEAR), (["-n", NAMESPACE], HERE, FAR)):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip(*where, "neighbour", "del", address, "dev", device)

    def down(self) -> None:
        """Take away what there is of it."""
        self._daemon.stop()
        for command in (["link", "del", NEAR], ["netns", "del", NAMESPACE]):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip(*command)


@contextlib.contextmanager
def distant_host(state: Path) -> Iterator[DistantHost]:
    """One for the block."""
    host = DistantHost(state)
    host.down()
    host.up()
    try:
        yield host
    finally:
        host.down()
