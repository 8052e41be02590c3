"""An Apache httpd of our own: its files and its process.

httpd finds its slots by name in a hosts file of ours (through slot_names.c, loaded into httpd alone), so that pointing
a slot at another VM needs neither root nor a reload. It runs in a session of its own and outlives the agent, which
finds it again by its pid file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import structlog

from luban.errors import ConfigurationRefused, FolderUnusable, PermanentError, TemporaryError
from luban.render.httpd import ERROR_LOG, PID_FILE

log = structlog.get_logger(__name__)

SLOT_NAMES = Path(__file__).with_name(f"_slot_names{sysconfig.get_config_var('EXT_SUFFIX')}")
"""Compiled slot_names.c, which is where the package was installed."""
BINARIES = ("apache2", "httpd", "/usr/sbin/apache2", "/usr/sbin/httpd", "/usr/local/apache2/bin/httpd")
COMMAND_SECONDS = 30.0
"""Longest run of `apache2 -t` or `-k graceful`; on an idle machine 0.1 s."""
TERMINATE_SECONDS = 5.0
POLL_SECONDS = 0.02
LOG_BYTES = 8 << 20
"""A log that grew past this is emptied."""
READ_BYTES = 8 << 20
"""Of a log that grew further while nobody read it, only the last so many are read."""
STDERR_LOG = "stderr.log"
_LONGEST_WORDS = 2000
_GRAVE = re.compile(r"^\[[^]]*\] \[\w*:(error|crit|alert|emerg)\]")


def find_httpd(given: str = "") -> str:
    """Path of the httpd program: the given one, or the first of the usual ones. Raises PermanentError."""
    for candidate in (given,) if given else BINARIES:
        if path := shutil.which(candidate):
            return path
    raise PermanentError("HttpdNotFound", f"no httpd at {given or ', '.join(BINARIES)}: install apache2-bin")


class Outliving(subprocess.Popen[bytes]):
    """A program that may run on when we let go of it, as an httpd does until the next agent adopts it.

    Popen takes that for an oversight, and warns whenever the garbage is collected.
    """

    def __del__(self) -> None:
        if self._child_created and self.poll() is None:  # type: ignore[attr-defined]
            self.returncode = 0


class Httpd:
    """One httpd with its folder, whose path has neither spaces nor colons (see luban.render.httpd.Runtime).

    The folder must be accessible to httpd's children (user nobody, if we are root).
    """

    def __init__(self, binary: str, folder: Path) -> None:
        self.folder = folder
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._adopted: int | None = None
        self._log_mark = 0

    @property
    def config(self) -> Path:
        """The configuration that httpd reads when it starts and on a graceful restart."""
        return self.folder / "httpd.conf"

    @property
    def hosts(self) -> Path:
        """Where the slots' names point."""
        return self.folder / "hosts"

    @property
    def pid(self) -> int | None:
        """Process id of the running httpd, else None."""
        if self._process is not None:
            # Our own child is known without a look at /proc, where it has no arguments in the moment of its start.
            return self._process.pid if self._process.poll() is None else None
        return self._adopted if self._adopted is not None and self._is_ours(self._adopted) else None

    def adopt(self) -> bool:
        """Find an httpd that an earlier agent started. True if there is one."""
        try:
            pid = int((self.folder / PID_FILE).read_text())
        except (FileNotFoundError, ValueError):
            return False
        self._adopted = pid if self._is_ours(pid) else None
        return self._adopted is not None

    def write_hosts(self, addresses: Mapping[str, str]) -> None:
        """Point host names at IP addresses. Running children follow within a second."""
        _replace(self.hosts, "".join(f"{address} {name}\n" for name, address in addresses.items()), mode=0o644)

    def write_config(self, text: str) -> None:
        """Replace the configuration file. httpd does not look at it before it starts or is told to."""
        _replace(self.config, text, mode=0o600)

    async def check(self, text: str) -> None:
        """Let httpd check a configuration. Raises ConfigurationRefused with httpd's own words."""
        candidate = self.folder / "candidate.conf"
        _replace(candidate, text, mode=0o600)
        code, words = await self._run("-t", "-f", str(candidate))
        if "cannot be preloaded" in words:
            raise PermanentError("SlotNamesMissing", f"httpd cannot load {SLOT_NAMES.name}: install luban-cloud again")
        if code != 0:
            raise ConfigurationRefused("HttpdRefused", words.replace(str(candidate), "httpd.conf"))

    async def start(self) -> None:
        """Start httpd with the configuration file as it is; children of an httpd that died are ended first."""
        await self._end_leftovers()
        self._mark_log()
        self._spawn()

    def _spawn(self) -> None:
        errors = self.folder / STDERR_LOG
        try:
            with errors.open("wb") as file:
                self._process = Outliving(
                    [self._binary, "-f", str(self.config), "-DFOREGROUND"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=file,
                    env=self._environment(),
                    cwd=self.folder,
                    umask=0o077,
                    start_new_session=True,
                )
        except OSError as error:
            raise TemporaryError("HttpdNotStarted", f"{self._binary} cannot be started: {error}") from error
        self._adopted = None

    async def graceful(self) -> None:
        """Let httpd read the configuration again. Raises ConfigurationRefused; httpd then runs on as it was."""
        self._mark_log()
        # Not a bare SIGUSR1: with a bad configuration that ends httpd.
        code, words = await self._run("-f", str(self.config), "-k", "graceful")
        if code != 0:
            raise ConfigurationRefused("HttpdRefused", words)

    async def make_room(self, most: int) -> int:
        """End the oldest children until `most` are left; how many were ended.

        Those of earlier configurations stay for as long as a request of theirs lasts, a WebSocket for days; when they
        hold all places that httpd has for children, it serves nobody after a graceful restart.
        """
        children = sorted(_children(self.pid), key=_started) if self.pid else []
        surplus = children[: max(0, len(children) - most)]
        for pid in surplus:
            _signal(pid, signal.SIGKILL)
            try:
                await asyncio.wait_for(_ended(pid), TERMINATE_SECONDS)
            except TimeoutError as error:
                raise TemporaryError("HttpdHangs", f"a child of httpd, process {pid}, does not end") from error
        return len(surplus)

    async def stop(self, patience: float) -> None:
        """Stop accepting, let requests in flight end for `patience` seconds, then insist."""
        for number, seconds in ((signal.SIGWINCH, patience), (signal.SIGTERM, TERMINATE_SECONDS)):
            if (pid := self.pid) is not None:
                _signal(pid, number)
                await self.wait(seconds)
        await self._end_leftovers()

    async def wait(self, timeout: float | None = None) -> bool:
        """Return when httpd has ended (True) or after `timeout` seconds (False)."""
        if (pid := self.pid) is None:
            return True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_ended(pid), timeout)
        return self.pid is None

    def last_words(self) -> str:
        """What httpd complained of since it was last started or told to read its configuration again."""
        logged = _read_from(self.folder / ERROR_LOG, self._log_mark).splitlines()
        words = [line.partition(": ")[2] for line in logged if _GRAVE.search(line)]
        return "\n".join((_read_from(self.folder / STDERR_LOG, 0), *words)).strip()[-_LONGEST_WORDS:]

    def _mark_log(self) -> None:
        log_file = self.folder / ERROR_LOG
        self._log_mark = log_file.stat().st_size if log_file.exists() else 0

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "LD_PRELOAD": str(self._library()), "LUBAN_SLOT_HOSTS": str(self.hosts)}

    def _library(self) -> Path:
        """A name for the library that LD_PRELOAD can hold: where we are installed, there may be spaces and colons."""
        link = self.folder / "slot_names.so"
        if not link.is_symlink() or link.readlink() != SLOT_NAMES:
            link.unlink(missing_ok=True)
            link.symlink_to(SLOT_NAMES)
        return link

    async def _run(self, *arguments: str) -> tuple[int, str]:
        """Run the program once; its exit code and what it printed."""
        try:
            process = await asyncio.create_subprocess_exec(
                self._binary,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environment(),
                cwd=self.folder,
            )
        except OSError as error:
            raise TemporaryError("HttpdNotStarted", f"{self._binary} cannot be started: {error}") from error
        try:
            output, _ = await asyncio.wait_for(process.communicate(), COMMAND_SECONDS)
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise TemporaryError("HttpdHangs", f"{self._binary} {' '.join(arguments)} does not end") from error
        return process.returncode or 0, output.decode(errors="replace").strip()[-_LONGEST_WORDS:]

    def _is_ours(self, pid: int) -> bool:
        """Whether a process is an httpd with our configuration file; a pid alone may be someone else's by now.

        So may the file: `tail -f` and editors are given it as httpd is.
        """
        try:
            program, *arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        given = (b"-f", os.fsencode(self.config)) in pairwise(arguments)
        return given and (_name(program) in self._names() or _name(_executable(pid)) in self._names())

    def _names(self) -> set[bytes]:
        """What the program of an httpd of ours may be called: as we call it, and as it is called where that leads."""
        paths = (self._binary, os.path.realpath(self._binary), *BINARIES)
        return {_name(os.fsencode(path)) for path in paths}

    async def _end_leftovers(self) -> None:
        """End children whose parent was killed: they would hold the port, and serve with an old state.

        They listen to no other signal: only their parent can ask them to finish. Raises TemporaryError if one stays.
        """
        deadline = asyncio.get_running_loop().time() + TERMINATE_SECONDS
        while leftovers := [pid for pid in _processes() if self._is_ours(pid)]:
            for pid in leftovers:
                _signal(pid, signal.SIGKILL)
            if self._process is not None:
                self._process.poll()
            if asyncio.get_running_loop().time() >= deadline:
                raise TemporaryError("HttpdHangs", f"an earlier httpd, process {leftovers[0]}, does not end")
            await asyncio.sleep(POLL_SECONDS)


class LogTail:
    """Reads what was appended to a log since the last time, and keeps the log from growing without bound."""

    def __init__(self, path: Path, *, from_start: bool = False) -> None:
        self._path = path
        self._offset = 0 if from_start or not path.exists() else path.stat().st_size
        self._rest = b""

    def lines(self) -> list[str]:
        """Complete new lines, those within the last READ_BYTES. Raises FolderUnusable."""
        try:
            with self._path.open("r+b") as file:
                fresh = self._fresh(file)
                if self._offset > LOG_BYTES:
                    # httpd appends: after this it goes on at the beginning.
                    file.truncate(0)
                    self._offset = 0
        except FileNotFoundError:
            return []
        except OSError as error:
            raise folder_unusable(self._path, error) from error
        *complete, self._rest = (self._rest + fresh).split(b"\n")
        return [line.decode(errors="replace") for line in complete]

    def _fresh(self, file: BinaryIO) -> bytes:
        """What was appended, from the beginning of a line on if it is too much to read all."""
        size = file.seek(0, os.SEEK_END)
        if size < self._offset:
            # Somebody else has emptied it.
            self._offset, self._rest = 0, b""
        skipped = size - self._offset > READ_BYTES
        self._offset = size - READ_BYTES if skipped else self._offset
        file.seek(self._offset)
        data = file.read(size - self._offset)
        self._offset += len(data)
        if not skipped:
            return data
        log.warning("the beginning of a log is passed over", file=str(self._path))
        self._rest = b""
        return data.partition(b"\n")[2]


def _read_from(path: Path, offset: int) -> str:
    """Text of a file from an offset on, the last READ_BYTES at most; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(offset, file.seek(0, os.SEEK_END) - READ_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def folder_unusable(path: Path, error: OSError) -> FolderUnusable:
    """What to say when a file of ours cannot be written or read."""
    return FolderUnusable("FolderUnusable", f"{path}: {os.strerror(error.errno) if error.errno else error}")


def _replace(path: Path, text: str, *, mode: int) -> None:
    """Replace a file in one step. Not synced to disk: after a crash of the machine everything is made anew.

    Raises FolderUnusable, and the file is as it was.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_text(text)
        fresh.chmod(mode)
        fresh.replace(path)
    except OSError as error:
        raise folder_unusable(path, error) from error


def _processes() -> Iterable[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _children(parent: int) -> list[int]:
    """Processes whose parent is this one."""
    return [pid for pid in _processes() if (facts := _facts(pid)) and int(facts[1]) == parent]


def _started(pid: int) -> int:
    """When a process began, in ticks since the machine did. 0: it is gone."""
    return int(facts[19]) if (facts := _facts(pid)) else 0


def _facts(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the program's name; none: the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _name(program: bytes) -> bytes:
    """Name of a program without its folder; an upgrade puts a word behind the path of one that still runs."""
    return program.removesuffix(b" (deleted)").rpartition(b"/")[2]


def _executable(pid: int) -> bytes:
    """Path of a process's program; empty: it is gone, or not ours to look at."""
    try:
        return os.fsencode(Path(f"/proc/{pid}/exe").readlink())
    except OSError:
        return b""


def _signal(pid: int, number: signal.Signals) -> None:
    # Of one that is not ours to end the caller learns when it does not end.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


async def _ended(pid: int) -> None:
    """Return when a process, child of ours or not, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
