"""The programs of the control plane: found ready-made, or built once from Go modules and kept in the cache.

Building takes minutes, so what is built is keyed by the pinned versions alone and shared by all labs of a
machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.paths import cache_dir
from lab.process import LabError

Progress = Callable[[str], None]
"""Takes one line for the person who waits."""

PROGRESS_SECONDS = 5.0
LOG_LINES = 20
OLDEST_KUBERNETES = (1, 33)
OLDEST_ETCD = (3, 5)
GO_PLACES = ("/usr/local/go/bin/go", "/usr/lib/go/bin/go")
"""Where Go is when it is installed but not on PATH."""
REMEDY = (
    "install Go 1.24 or newer, or point KUBEBUILDER_ASSETS to a folder with "
    "kube-apiserver (1.33 or newer), kubectl (at most one minor version apart) and etcd (3.5 or newer)"
)


@dataclass(frozen=True)
class Binaries:
    """Paths of the programs that make and drive a control plane."""

    kube_apiserver: Path
    kubectl: Path
    etcd: Path


@dataclass(frozen=True)
class GoModule:
    """A folder with go.mod and go.sum that pins one upstream module, and the programs built from it."""

    folder: Path
    upstream: str
    """Path of the pinned module."""
    programs: Mapping[str, str]
    """Name of a program -> its main package."""
    stamp: str | None = None
    """Package whose variables say the version; None where the source says it itself."""

    @property
    def version(self) -> str:
        """The pinned version, as v1.2.3."""
        line = rf"^(?:require)?\s*{re.escape(self.upstream)} (v\S+)"
        found = re.search(line, self._go_mod, re.MULTILINE)
        if found is None:
            raise LabError(f"{self.folder / 'go.mod'} does not require {self.upstream}")
        return found.group(1)

    @property
    def oldest_go(self) -> tuple[int, int]:
        """The oldest Go that go.mod allows."""
        return _first_version(self._go_mod.partition("\ngo ")[2]) or (1, 0)

    @property
    def linker_flags(self) -> str:
        """No symbol table (nobody debugs these), and the version that the program says of itself."""
        flags = ["-s", "-w"]
        if self.stamp:
            major, minor = self.version.removeprefix("v").split(".")[:2]
            values = {"gitVersion": self.version, "gitMajor": major, "gitMinor": minor}
            flags += [f"-X {self.stamp}.{name}={value}" for name, value in values.items()]
        return " ".join(flags)

    @property
    def key(self) -> str:
        """Name of its folder in the cache; changes with what is pinned and with nothing else."""
        pinned = (self.folder / "go.mod").read_bytes() + (self.folder / "go.sum").read_bytes()
        how = f"{self.linker_flags} {platform.system()} {platform.machine()}".encode()
        return f"{self.folder.name}-{self.version}-{hashlib.sha256(pinned + how).hexdigest()[:12]}"

    @functools.cached_property
    def _go_mod(self) -> str:
        return (self.folder / "go.mod").read_text()


HERE = Path(__file__).resolve().parent
KUBERNETES = GoModule(
    folder=HERE / "kubernetes",
    upstream="k8s.io/kubernetes",
    programs={
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    },
    stamp="k8s.io/component-base/version",
)
ETCD = GoModule(
    folder=HERE / "etcd",
    upstream="go.etcd.io/etcd/server/v3",
    programs={"etcd": "go.etcd.io/etcd/server/v3"},
)


def ensure_binaries(progress: Progress) -> Binaries:
    """Return the programs, building what is missing.

    Ready-made ones (KUBEBUILDER_ASSETS, then PATH) are taken only if all three are there and new enough.
    A build takes minutes and tells `progress` every few seconds. Raises LabError with the remedy if Go is
    missing or too old, and with the end of the log if a build fails.
    """
    if ready := _ready_made(progress):
        return ready
    etcd = ensure_built(ETCD, progress)
    kubernetes = ensure_built(KUBERNETES, progress)
    return Binaries(kubernetes / "kube-apiserver", kubernetes / "kubectl", etcd / "etcd")


def ensure_built(module: GoModule, progress: Progress) -> Path:
    """Return the cache folder with the programs of `module`, building them first if they are not there."""
    target = cache_dir() / "bin" / module.key
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.with_name(f"{target.name}.lock"), progress):
        if not target.is_dir():
            _build(module, target, progress)
    return target


def _ready_made(progress: Progress) -> Binaries | None:
    """The programs of KUBEBUILDER_ASSETS and PATH, if all are there and fit together."""
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    search = os.pathsep.join(filter(None, (assets, os.environ.get("PATH", ""))))
    found = {name: shutil.which(name, path=search) for name in ("kube-apiserver", "kubectl", "etcd")}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        problem: str | None = f"no {', no '.join(missing)} there or on PATH"
    else:
        binaries = Binaries(*(Path(path) for path in found.values() if path))
        problem = _misfit(binaries)
        if problem is None:
            return binaries
    if assets:
        progress(f"KUBEBUILDER_ASSETS is not used: {problem}")
    return None


def _misfit(binaries: Binaries) -> str | None:
    """What keeps these programs from being used, or None."""
    server = _version_of(binaries.kube_apiserver, "--version")
    etcd = _version_of(binaries.etcd, "--version")
    client = _version_of(binaries.kubectl, "version", "--client")
    if server < OLDEST_KUBERNETES:
        return f"{binaries.kube_apiserver} is older than {OLDEST_KUBERNETES[0]}.{OLDEST_KUBERNETES[1]}"
    if etcd < OLDEST_ETCD:
        return f"{binaries.etcd} is older than {OLDEST_ETCD[0]}.{OLDEST_ETCD[1]}"
    if client[0] != server[0] or abs(client[1] - server[1]) > 1:
        return f"{binaries.kubectl} is more than one minor version apart from {binaries.kube_apiserver}"
    return None


def _version_of(program: Path, *arguments: str) -> tuple[int, int]:
    """Major and minor version that a program says of itself; (0, 0) if it does not run or says none."""
    try:
        said = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    return _first_version(said.stdout) or (0, 0)


def _first_version(text: str) -> tuple[int, int] | None:
    """The first 1.2 or 1.2.3 in a text."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found.group(1)), int(found.group(2))) if found else None


@contextlib.contextmanager
def _lock(path: Path, progress: Progress) -> Iterator[None]:
    """Hold an exclusive lock on a file; the kernel releases it when its holder dies."""
    with path.open("w") as file:
        told = time.monotonic() - PROGRESS_SECONDS
        while not _try_lock(file.fileno()):
            if time.monotonic() - told >= PROGRESS_SECONDS:
                told = time.monotonic()
                progress("another run is building: waiting for it")
            time.sleep(0.2)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _build(module: GoModule, target: Path, progress: Progress) -> None:
    """Build all programs of `module` beside `target`, then give the folder its name in one step."""
    go = _find_go(module)
    for left_over in target.parent.glob(f".{target.name}.*"):
        shutil.rmtree(left_over)
    unfinished = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    # Labs of other users of this machine may use what is built; mkdtemp would keep it to its maker.
    unfinished.chmod(0o755)
    try:
        for program in module.programs:
            _compile(go, module, program, unfinished, progress)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _log_of(target.parent, module).unlink()


def _find_go(module: GoModule) -> Path:
    """A Go that can build `module`. Raises LabError naming the remedy if there is none."""
    seen = []
    for place in filter(None, (shutil.which("go"), *GO_PLACES)):
        if not Path(place).exists():
            continue
        # Asked inside the module's folder, a Go that may fetch newer toolchains names the one it would use.
        said = subprocess.run(
            [place, "env", "GOVERSION"],
            cwd=module.folder,
            env=_go_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        version = _first_version(said.stdout)
        if said.returncode == 0 and version and version >= module.oldest_go:
            return Path(place)
        seen.append(f"{place} ({said.stdout.strip() or said.stderr.strip()})")
    problem = f"Go is too old: {', '.join(seen)}" if seen else "Go is not installed"
    raise LabError(f"cannot build {', '.join(module.programs)}: {problem}. Remedy: {REMEDY}")


def _go_environment() -> dict[str, str]:
    """Our environment without what would change the result (own GOFLAGS, a workspace, a C compiler)."""
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}


def _log_of(folder: Path, module: GoModule) -> Path:
    return folder / f"{module.key}.log"


def _compile(go: Path, module: GoModule, program: str, folder: Path, progress: Progress) -> None:
    """Build one program into `folder`. Raises LabError with the end of the log if that fails."""
    log = _log_of(folder.parent, module)
    # -v lists each package when it is compiled: the only sign of progress that Go gives.
    options = ["-v", "-trimpath", "-mod=readonly", "-buildvcs=false", "-ldflags", module.linker_flags]
    with (
        log.open("wb") as output,
        _ended_with_us(
            subprocess.Popen(
                [go, "build", *options, "-o", folder / program, module.programs[program]],
                cwd=module.folder,
                env=_go_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        ) as process,
    ):
        code = _watch(process, f"building {program} {module.version}", log, progress)
    if code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
        raise LabError(f"building {program} {module.version} failed (log: {log}):\n{tail}\nRemedy: {REMEDY}")


@contextlib.contextmanager
def _ended_with_us(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process group that we started when we are interrupted, compilers included."""
    try:
        yield process
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise


def _watch(process: subprocess.Popen[bytes], what: str, log: Path, progress: Progress) -> int:
    """Wait for a build, with a line of progress every few seconds; returns its exit code."""
    started = time.monotonic()
    progress(f"{what} (takes minutes, once)")
    while True:
        try:
            code = process.wait(timeout=PROGRESS_SECONDS)
        except subprocess.TimeoutExpired:
            lines = log.read_text(errors="replace").splitlines()
            packages = sum(not line.startswith("go: ") for line in lines)
            progress(f"{what}: {time.monotonic() - started:.0f} s, {packages} packages compiled")
        else:
            progress(f"{what}: {'done' if code == 0 else 'failed'} after {time.monotonic() - started:.0f} s")
            return code
