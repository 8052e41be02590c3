"""Two KVM hosts on one machine: each a libvirt session daemon of its own, with its own folders, socket and pool.

A libvirtd started by root is always the one system instance and ignores the folders it is given, so root runs these as
the ordinary user `LAB_USER`. The virtual machines are QEMU processes of that user without KVM; they go on when their
daemon is stopped or killed, and it finds them again when it is started.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lab.image.build import FILES, ensure_image
from lab.paths import LAB_USER, Layout
from lab.process import Daemon, LabError, wait_until

HOST_NAMES = ("host-b", "host-c")
POOL = "default"
START_SECONDS = 60.0
"""The first start of a daemon asks QEMU for all that it can do; on a busy machine that takes a while."""

STOP_SECONDS = 15.0

_SOCKET_PATH_LIMIT = 107
"""Longest path of a Unix socket (sun_path without its final zero)."""

_LONGEST_BELOW_CONFIG = len("/libvirt/qemu/channel/target/domain-99999-" + "n" * 20 + "/org.qemu.guest_agent.0")
"""The longest socket path that libvirt 9 makes below XDG_CONFIG_HOME; it cuts the domain's name to 20 characters."""

_QEMU_CONF = """\
# No virtlogd: QEMU writes its own logs and needs no further daemon.
stdio_handler = "file"
# Ordinary users cannot change labels or cgroups.
security_driver = "none"
cgroup_controllers = [ ]
"""

_LIBVIRTD_CONF = """\
# The domains of a lab are many and their owner is one program: one slow call must not keep the others waiting.
max_client_requests = 20
max_workers = 30
log_level = 3
log_outputs = "3:stderr"
"""

_POOL_XML = "<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"


def ensure_lab_user() -> None:
    """Create `LAB_USER`, without a login, if we are root and it is missing. An ordinary user needs no other."""
    if os.geteuid() != 0:
        return
    try:
        pwd.getpwnam(LAB_USER)
    except KeyError:
        command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        # Its real folders come with each lab (HOME, XDG_*): the one in the password file is never used.
        done = subprocess.run(
            [*command, "--home-dir", "/nonexistent", LAB_USER], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise LabError(f"cannot create the user {LAB_USER}: {done.stderr.strip()}") from None


@contextlib.contextmanager
def connection(uri: str) -> Iterator[Any]:
    """A libvirt connection for the block."""
    import libvirt

    # libvirt prints every error to standard error unless told otherwise, also those that we expect.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    opened = libvirt.open(uri)
    try:
        yield opened
    finally:
        opened.close()


@dataclass(frozen=True)
class KvmHost:
    """One host: the daemon, its folders below `<state>/hosts/<name>`, and its domains."""

    name: str
    state: Path
    user: str | None

    @property
    def folder(self) -> Path:
        """All that belongs to this host but its log."""
        return self.state / "hosts" / self.name

    @property
    def daemon(self) -> Daemon:
        """Its libvirtd."""
        return Daemon(f"libvirtd-{self.name}", self.state)

    @property
    def images(self) -> Path:
        """Folder of the pool `default`: the base image, its kernel and initrd, and the overlays of the domains."""
        return self.folder / "images"

    @property
    def socket(self) -> Path:
        """The daemon's socket."""
        return self.folder / "run" / "libvirt" / "libvirt-sock"

    @property
    def uri(self) -> str:
        """libvirt connection URI. Works for root as well as for the user of the daemon."""
        return f"qemu+unix:///session?socket={quote(str(self.socket))}"

    @property
    def config(self) -> Path:
        """XDG_CONFIG_HOME: the real folder, or a short link to it where libvirt's socket paths would get too long."""
        real = self.folder / "config"
        if len(str(real)) + _LONGEST_BELOW_CONFIG <= _SOCKET_PATH_LIMIT:
            return real
        owner = hashlib.sha256(str(real).encode()).hexdigest()[:8]
        # Root's place is not cleared of old files while the lab runs, as a temporary folder may be.
        return Path("/run" if self.user else tempfile.gettempdir()) / f"lv-{owner}"

    def environment(self) -> dict[str, str]:
        """What tells the daemon to use this host's folders."""
        return {
            "HOME": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            "XDG_CONFIG_HOME": str(self.config),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "XDG_DATA_HOME": str(self.folder / "data"),
        }

    def start(self) -> None:
        """Start the daemon unless it runs, and wait until it answers. Domains that still run are found again."""
        ensure_lab_user()
        self._prepare()
        conf = self.config / "libvirt" / "libvirtd.conf"
        self.daemon.start(["libvirtd", "--config", str(conf)], env=self.environment(), cwd=self.folder, user=self.user)
        try:
            wait_until(self._answers, what=f"libvirtd of {self.name}", timeout=START_SECONDS)
        except LabError as error:
            raise LabError(f"{error}; it said:\n{self.daemon.tail()}") from error

    def cut_power(self) -> None:
        """End the daemon and every domain at once, as when the machine loses its power."""
        self.daemon.kill(signal.SIGKILL)
        self.daemon.stop()
        self._end_domains(signal.SIGKILL)

    def shut_down(self) -> None:
        """End every domain, then the daemon (a stopped one, too)."""
        self.daemon.kill(signal.SIGCONT)
        self._end_domains(signal.SIGTERM)
        self.daemon.stop(timeout=STOP_SECONDS)

    def qemu_pids(self) -> list[int]:
        """Pids of the QEMU processes of this host's domains."""
        pids = []
        for file in (self.folder / "run" / "libvirt" / "qemu" / "run").glob("*.pid"):
            # The file goes away with its domain.
            with contextlib.suppress(OSError, ValueError):
                pid = int(file.read_text())
                if self._is_domain(pid, file.stem):
                    pids.append(pid)
        return pids

    def place_image(self, image: Path) -> None:
        """Put the base image with its kernel into the pool.

        Hard links (copies across file systems): the pool stays whole when the cache is cleared, and libvirt sees
        ordinary files. An overlay is worthless on another base, so the files stay while any domain is defined.
        """
        with connection(self.uri) as host:
            if all(_same(image / name, self.images / name) for name in FILES):
                return
            if host.listAllDomains():
                print(f"{self.name}: keeps its older guest image as long as it has domains", file=sys.stderr)
                return
            for name in FILES:
                _link(image / name, self.images / name)
            host.storagePoolLookupByName(POOL).refresh()

    def ensure_pool(self) -> None:
        """Define and start the pool `default`; it starts by itself afterwards."""
        with connection(self.uri) as host:
            pools = {pool.name(): pool for pool in host.listAllStoragePools()}
            xml = _POOL_XML.format(name=POOL, path=self.images)
            pool = pools.get(POOL) or host.storagePoolDefineXML(xml)
            pool.setAutostart(True)
            if not pool.isActive():
                pool.create()

    def _answers(self) -> bool:
        if self.daemon.pid() is None:
            raise LabError(f"libvirtd of {self.name} ended at once")
        import libvirt

        try:
            with connection(self.uri) as host:
                return bool(host.getLibVersion())
        except libvirt.libvirtError:
            return False

    def _prepare(self) -> None:
        folders = {"images": 0o755, "run": 0o700, "config/libvirt": 0o700, "cache": 0o700, "data": 0o700}
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, mode in folders.items():
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            (self.folder / name).chmod(mode)
        conf = self.folder / "config" / "libvirt"
        (conf / "qemu.conf").write_text(_QEMU_CONF)
        (conf / "libvirtd.conf").write_text(_LIBVIRTD_CONF)
        self._link_logs()
        self._link_config()
        if self.user:
            for path in [self.folder, *self.folder.iterdir(), *self.folder.glob("config/**/")]:
                shutil.chown(path, self.user, self.user)

    def _link_logs(self) -> None:
        """QEMU's logs belong with the others; libvirt wants them below XDG_CACHE_HOME."""
        logs = self.state / "log" / self.name
        logs.mkdir(parents=True, exist_ok=True)
        wanted = self.folder / "cache" / "libvirt" / "qemu" / "log"
        wanted.parent.mkdir(parents=True, exist_ok=True)
        if not wanted.is_symlink():
            wanted.symlink_to(logs)
        if self.user:
            for path in (logs, wanted.parent, wanted.parent.parent):
                shutil.chown(path, self.user, self.user)

    def _link_config(self) -> None:
        real = self.folder / "config"
        if self.config == real or (self.config.is_symlink() and self.config.readlink() == real):
            return
        self.config.unlink(missing_ok=True)
        self.config.symlink_to(real)

    def _is_domain(self, pid: int, name: str) -> bool:
        """Whether `pid` still is the QEMU of domain `name` (pids are used again)."""
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return any(word.startswith(f"guest={name},".encode()) for word in command)

    def _end_domains(self, number: signal.Signals) -> None:
        for pid in self.qemu_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        try:
            wait_until(lambda: not self.qemu_pids(), what=f"end of domains of {self.name}", timeout=STOP_SECONDS)
        except LabError:
            for pid in self.qemu_pids():
                os.kill(pid, signal.SIGKILL)


def _same(one: Path, other: Path) -> bool:
    try:
        a, b = one.stat(), other.stat()
    except FileNotFoundError:
        return False
    # A copy across file systems keeps size and time.
    return (a.st_ino, a.st_dev) == (b.st_ino, b.st_dev) or (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)


def _link(source: Path, target: Path) -> None:
    draft = target.with_name(f".{target.name}.new")
    draft.unlink(missing_ok=True)
    try:
        os.link(source, draft)
    except OSError:
        shutil.copy2(source, draft)
    draft.replace(target)


class KvmHosts:
    """The two hosts of one lab."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def up(self) -> None:
        """Start both hosts, each with the current guest image in its pool `default`.

        Builds the image if it is missing. Raises LabError if a daemon does not answer, with what it said last.
        """
        image = ensure_image()
        for host in self._hosts():
            host.start()
            host.ensure_pool()
            host.place_image(image)

    def down(self) -> None:
        """End all domains and both daemons. What is defined stays defined, as after a power cut."""
        for host in self._hosts():
            host.shut_down()

    def destroy(self) -> None:
        """`down`, and remove all that the hosts kept: definitions, overlays, settings. Logs stay."""
        self.down()
        for host in self._hosts():
            if host.config != host.folder / "config":
                host.config.unlink(missing_ok=True)
            shutil.rmtree(host.folder, ignore_errors=True)

    def uris(self) -> dict[str, str]:
        """libvirt connection URIs by host name."""
        return {host.name: host.uri for host in self._hosts()}

    def start(self, name: str) -> None:
        """Start the daemon of one host and wait until it answers; its domains go on as they were."""
        self.host(name).start()

    def stop(self, name: str) -> None:
        """End the daemon of one host in order; its domains go on."""
        self.host(name).daemon.stop(timeout=STOP_SECONDS)

    def kill(self, name: str) -> None:
        """Kill the daemon of one host (SIGKILL); its domains go on."""
        self.host(name).daemon.kill(signal.SIGKILL)
        self.host(name).daemon.stop()

    def freeze(self, name: str) -> None:
        """Let the daemon of one host hang (SIGSTOP) until `thaw`; its domains go on."""
        self.host(name).daemon.kill(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let a frozen daemon go on."""
        self.host(name).daemon.kill(signal.SIGCONT)

    def cut_power(self, name: str) -> None:
        """End the daemon of one host and all its domains at once."""
        self.host(name).cut_power()

    def host(self, name: str) -> KvmHost:
        """One host by its name. Raises LabError for a name that is not in `HOST_NAMES`."""
        if name not in HOST_NAMES:
            raise LabError(f"{name}: no such host (there are {', '.join(HOST_NAMES)})")
        return KvmHost(name=name, state=self._layout.state, user=LAB_USER if os.geteuid() == 0 else None)

    def _hosts(self) -> list[KvmHost]:
        return [self.host(name) for name in HOST_NAMES]
