"""Hosts without QEMU: real libvirtd processes whose test driver holds the domains.

The test driver's state belongs to the process, and goes with the last connection to it: a host keeps one open.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libvirt

from lab.process import Daemon, wait_until

START_SECONDS = 30.0
ORDINARY_USER = "daemon"
"""A libvirtd started by root would be the system's own instance; as anybody else it keeps to the folders given."""
XDG = ("RUNTIME", "CONFIG", "CACHE", "DATA")
POOL = "default-pool"
"""That of the test driver: 100 GiB, of which nothing is ever used."""


@dataclass
class SimulatedHost:
    """A libvirtd in a folder of its own."""

    name: str
    folder: Path
    """Made if it is missing; whoever runs the daemon must get there."""
    _kept: list[Any] = field(default_factory=list)

    @property
    def daemon(self) -> Daemon:
        """Its process."""
        return Daemon(self.name, self.folder)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / "runtime" / "libvirt" / "libvirt-sock"

    @property
    def uri(self) -> str:
        """URI of its test driver."""
        return f"test+unix:///default?socket={self.socket}"

    @property
    def kept(self) -> Any:
        """The connection that keeps the simulated state."""
        return self._kept[0]

    def begin(self) -> None:
        """Start the process; `answer` waits for it."""
        user = ORDINARY_USER if os.geteuid() == 0 else None
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        env = {"HOME": str(self.folder)}
        for name in XDG:
            private = self.folder / name.lower()
            private.mkdir(mode=0o700)
            env[f"XDG_{name}_{'DIR' if name == 'RUNTIME' else 'HOME'}"] = str(private)
            if user:
                shutil.chown(private, user, user)
        self.daemon.start(["libvirtd"], env=env, user=user)

    def answer(self) -> None:
        """Return when it answers. Nothing is there then: the test driver begins with a domain of its own."""
        wait_until(self.socket.exists, what=f"libvirtd {self.name}", timeout=START_SECONDS)
        self._kept.append(libvirt.open(self.uri))
        for domain in self.kept.listAllDomains():
            domain.destroy()
            domain.undefine()

    def add_image(self, name: str) -> None:
        """A base image that overlays can be made of."""
        self.kept.storagePoolLookupByName(POOL).createXML(
            f"<volume><name>{name}</name><capacity>1048576</capacity><target><format type='qcow2'/></target></volume>",
            0,
        )

    def end(self) -> None:
        """Stop the process; its folder stays."""
        while self._kept:
            self._kept.pop().close()
        self.daemon.stop()
