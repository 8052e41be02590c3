"""A QEMU guest with two bonds that are joined by two cables, and what can happen to the cables.

```
main namespace      eth0   10.0.2.15, to the host (QEMU's user-mode network; no route leads further)
                    bond0  10.9.0.1 = eth1 + eth2
                                       |      |      cable 1, cable 2
namespace `far`     bond1  10.9.0.2 = eth3 + eth4
```

Emulated (TCG) on purpose: it needs neither KVM nor any right, and it is the same everywhere.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from lab.bonds.clock import ClockMap
from lab.bonds.disk import API_SERVER, GATEWAY
from lab.bonds.image import GuestFiles
from lab.bonds.qmp import Monitor
from lab.bonds.relay import Relay
from lab.bonds.rpc import Channel, Finished, GuestProcess, Line
from lab.bonds.settings import (
    FAR,
    FAR_ADDRESS,
    FAR_NETNS,
    FAR_PORTS,
    NEAR,
    NEAR_ADDRESS,
    NEAR_PORTS,
    BondSettings,
    creation,
    removal,
)
from lab.process import POLL_SECONDS, LabError, wait_until

BOOT_SECONDS = 120.0
"""Generous: 5 s on an idle machine, but it may share its cores with anything."""

STOP_SECONDS = 5.0
MEMORY = "512M"
CABLES = (1, 2)
KERNEL_COMMAND_LINE = (
    "console=ttyS0 quiet panic=-1 acpi=noirq init_on_alloc=0 cryptomgr.notests mitigations=off"
    " tsc=reliable no_timer_check net.ifnames=0 ipv6.disable=1"
)
PYTHON = ("/usr/bin/python3", "-I", "-S")
INSIDE = "/run/luban/inside"
PROGRAM_PATH = "/run/luban:/opt/luban"


class Fault(StrEnum):
    """What can be wrong with a cable."""

    PULLED = "pulled"
    """both ends lose their carrier"""
    ONE_END = "one-end"
    """the near end loses its carrier, the far end does not see it"""
    SILENT = "silent"
    """both carriers stay, and every packet is lost"""


class BondGuest:
    """One guest. Use it as a context manager: `with BondGuest(ensure_bond_guest()) as guest:` boots it.

    Threads may share it. It ends with the program that started it, whatever becomes of that.
    """

    def __init__(self, files: GuestFiles) -> None:
        self.files = files
        self.boot_seconds = 0.0
        self.clock = ClockMap(self._look_at_clock)
        self.settings: BondSettings | None = None
        """How the bonds are set up now."""
        self._process: subprocess.Popen[bytes] | None = None
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> BondGuest:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Boot it; returns when it answers. Raises LabError with its console's last lines if it does not."""
        begun = time.monotonic()
        console = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="luban-bonds-"))) / "console"
        ours, theirs = zip(*(socket.socketpair() for _ in range(2)), strict=True)
        monitor_fd, channel_fd = (end.fileno() for end in theirs)
        command = _qemu(self.files, console, monitor_fd, channel_fd)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(monitor_fd, channel_fd),
            )
        except FileNotFoundError as error:
            raise LabError(f"{command[0]}: not installed") from error
        finally:
            for end in theirs:
                end.close()
        self.monitor, self.channel = Monitor(ours[0]), Channel(ours[1])
        try:
            self.monitor.open()
            wait_until(self._has_booted, what="the guest with bonds", timeout=BOOT_SECONDS)
            self.clock.look()
        except LabError as error:
            said = self._last_words(console)
            self.stop()
            raise LabError(f"{error}; it said:\n{said}") from error
        self.boot_seconds = time.monotonic() - begun

    def stop(self) -> None:
        """End it."""
        if self._process is None:
            return
        self.channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.terminate()
            self._process.wait(STOP_SECONDS)
        self._process.kill()
        self._process.wait()
        if self._process.stderr:
            self._process.stderr.close()
        self.monitor.close()
        self._process = None
        self._cleanup.close()

    # What runs in it

    def run(
        self,
        *argv: str,
        stdin: str = "",
        timeout: float = 10.0,
        netns: str | None = None,
        user: int | None = None,
    ) -> Finished:
        """Run a program to its end. `netns` is None or `far`. Raises LabError if it fails or takes too long."""
        done = self.channel.run(argv, stdin=stdin, timeout=timeout, netns=netns, user=user)
        if done.code:
            raise LabError(f"{' '.join(argv)} in the guest: status {done.code}: {done.stderr or done.stdout}")
        return done

    def spawn(
        self,
        *argv: str,
        netns: str | None = None,
        user: int | None = None,
        on_line: Line | None = None,
    ) -> GuestProcess:
        """Start a program; its lines come as it prints them."""
        return self.channel.spawn(argv, netns=netns, user=user, on_line=on_line)

    def spawn_program(
        self, name: str, *arguments: str, netns: str | None = None, on_line: Line | None = None
    ) -> GuestProcess:
        """Start one of the programs of `inside/`."""
        return self.spawn(*PYTHON, f"{INSIDE}/{name}.py", *arguments, netns=netns, on_line=on_line)

    def spawn_luban(self, *arguments: str, user: int | None = None, on_line: Line | None = None) -> GuestProcess:
        """Start `luban ARGUMENTS`, the operator's own command, as root or as a user without any capability."""
        return self.spawn("/usr/bin/python3", "-m", "luban", *arguments, user=user, on_line=on_line)

    def links(self, netns: str | None = None) -> list[dict[str, Any]]:
        """What `ip -d -j link` tells."""
        found: list[dict[str, Any]] = json.loads(self.run("ip", "-d", "-j", "link", netns=netns).stdout)
        return found

    # Its bonds and cables

    def configure(self, settings: BondSettings) -> None:
        """Make both bonds anew, with all cables whole. Returns at once: see `carries`."""
        self.restore_all()
        for netns, name, ports, address in (
            (None, NEAR, NEAR_PORTS, NEAR_ADDRESS),
            (FAR_NETNS, FAR, FAR_PORTS, FAR_ADDRESS),
        ):
            lines = removal(name, ports) if self.settings else self._move(netns, ports)
            self._ip(netns, [*lines, *creation(name, ports, address, settings)])
        self.settings = settings

    def carries(self) -> bool:
        """Whether a packet crosses from bond to bond and back now."""
        return self.channel.run(["ping", "-n", "-q", "-c1", "-W1", "-I", NEAR_ADDRESS, FAR_ADDRESS]).code == 0

    def break_cable(self, cable: int, fault: Fault) -> tuple[float, float]:
        """Do something to cable 1 or 2; returns our monotonic clock before and after QEMU did it."""
        return self._timed(lambda: self._break(cable, fault))

    def restore_cable(self, cable: int) -> tuple[float, float]:
        """Make a cable whole again, whatever it had; returns our monotonic clock before and after."""
        return self._timed(lambda: self._restore(cable))

    def restore_all(self) -> None:
        """Make every cable whole."""
        for cable in CABLES:
            self._restore(cable)

    # Ways between it and the host

    def relay_to(self, address: str, port: int) -> Relay:
        """A way for the guest to a server on one of our loopback addresses; it ends with the guest."""
        return self._cleanup.enter_context(Relay((address, port)))

    def api_server_url(self, relay: Relay) -> str:
        """URL of an API server behind a relay; its name is in every API server's certificate."""
        return f"https://{API_SERVER}:{relay.port}"

    def forward(self, port: int) -> int:
        """Make a TCP port of the guest reachable on 127.0.0.1; returns the port there."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            free: int = probe.getsockname()[1]
        said = self.monitor.human(f"hostfwd_add host tcp:127.0.0.1:{free}-:{port}")
        if said.strip():
            raise LabError(f"QEMU cannot forward port {port}: {said.strip()}")
        return free

    # Details

    def _has_booted(self) -> bool:
        if self._process is None or self._process.poll() is not None or self.channel.closed.is_set():
            raise LabError("the guest with bonds ended while it booted")
        return self.channel.ready.is_set()

    def _last_words(self, console: Path) -> str:
        if self._process is None:
            return ""
        self._process.kill()
        said = self._process.stderr.read().decode(errors="replace") if self._process.stderr else ""
        shown = console.read_text(errors="replace") if console.exists() else ""
        return "\n".join([*said.splitlines()[-5:], *shown.splitlines()[-15:]])

    def _look_at_clock(self) -> tuple[float, float, float]:
        return self.channel.clock()

    def _ip(self, netns: str | None, lines: Sequence[str]) -> None:
        self.run("ip", *(("-n", netns) if netns else ()), "-batch", "-", stdin="\n".join([*lines, ""]))

    def _move(self, netns: str | None, ports: Sequence[str]) -> list[str]:
        """Put ports into their namespace, the first time; nothing remains to be done in that namespace."""
        if netns:
            self._ip(None, [f"link set {port} netns {netns}" for port in ports])
        return []

    def _timed(self, action: Callable[[], None]) -> tuple[float, float]:
        before = time.monotonic()
        action()
        return before, time.monotonic()

    def _break(self, cable: int, fault: Fault) -> None:
        near, far = NEAR_PORTS[cable - 1], FAR_PORTS[cable - 1]
        if fault is Fault.SILENT:
            self._add_silence(cable)
            return
        for port in (near, far) if fault is Fault.PULLED else (near,):
            self.monitor.execute("set_link", name=port, up=False)

    def _restore(self, cable: int) -> None:
        with contextlib.suppress(LabError):
            self.monitor.execute("object-del", id=f"silence{cable}")
        for port in (NEAR_PORTS[cable - 1], FAR_PORTS[cable - 1]):
            self.monitor.execute("set_link", name=port, up=True)

    def _add_silence(self, cable: int) -> None:
        arguments = {"qom-type": "filter-redirector", "id": f"silence{cable}", "netdev": f"cable{cable}-near"}
        self.monitor.execute("object-add", **arguments, queue="all", outdev=f"void{cable}")


def wait_for_traffic(guest: BondGuest, *, timeout: float = 30.0) -> float:
    """Seconds until a packet crosses the bonds. Raises LabError."""
    begun = time.monotonic()
    while not guest.carries():
        if time.monotonic() - begun > timeout:
            raise LabError(f"no packet crosses the bonds after {timeout:g} s")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - begun


def _qemu(files: GuestFiles, console: Path, monitor_fd: int, channel_fd: int) -> list[str]:
    command = [
        *("qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", "-cpu", "max", "-m", MEMORY),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{console}"),
        *("-kernel", str(files.kernel), "-initrd", str(files.initrd), "-append", KERNEL_COMMAND_LINE),
        *("-drive", f"file={files.disk},if=none,id=root,format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=root"),
        *("-chardev", f"socket,id=monitor,fd={monitor_fd}", "-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"socket,id=rpc,fd={channel_fd}", "-device", "virtio-serial-pci"),
        *("-device", "virtserialport,chardev=rpc,name=luban.rpc"),
        *("-netdev", f"user,id=host,ipv6=off,host={GATEWAY}", "-device", "virtio-net-pci,netdev=host,romfile="),
    ]
    # The kernel names NICs in the order in which they come here: eth0 above, then these.
    ends = [(f"cable{cable}-{side}", cable) for side in ("near", "far") for cable in CABLES]
    for (name, cable), port in zip(ends, (*NEAR_PORTS, *FAR_PORTS), strict=True):
        # Without a speed LACP never aggregates ports.
        device = f"virtio-net-pci,id={port},netdev={name},speed=1000,duplex=full,romfile="
        command += ["-netdev", f"hubport,id={name},hubid={cable}", "-device", device]
    for cable in CABLES:
        command += ["-chardev", f"null,id=void{cable}"]
    return command
