"""The guest that has bonds: kernel, root disk and initrd, each built once and cached.

The root disk (Debian, Python, the node agent's libraries) takes a minute to make and rarely changes. What changes
often, the operator's own source and the programs of `inside/`, goes into the initrd, which takes a second.
"""

from __future__ import annotations

import importlib.util
import py_compile
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.bonds import disk
from lab.image import build, kernel, rootfs
from lab.image.commands import run
from lab.image.cpio import Archive
from lab.image.progress import Progress
from lab.paths import cache_dir

FORMAT = 1
"""Raise it when the way of building changes and neither scripts nor package lists tell."""

MODULES = ("virtio_pci", "virtio_blk", "ext4", "virtio_net", "virtio_console", "bonding", "sch_netem", "veth", "bridge")
"""Drivers that the guest loads, in this order, each after those that it depends on."""

PARAMETERS = {"bonding": "max_bonds=0"}
"""Parameters of drivers. Without this one `bonding` makes a bond0 of its own."""

PACKAGES = ("busybox-static", "iproute2", "iputils-ping", "python3", "usr-is-merged")
OPTIONS = tuple(
    f"--include={','.join(PACKAGES)}" if option.startswith("--include=") else option for option in rootfs.OPTIONS
)
"""mmdebstrap's options: those of the VMs' image with other packages."""

LIBRARIES = (
    "aiohttp",
    "click",
    "cronsim",
    "kubernetes",
    "prometheus-client",
    "pydantic",
    "PyYAML",
    "structlog",
    "tenacity",
)
"""What the node agent imports; the versions are those installed here."""

KEEP = 4
"""Initrds that stay in the cache (5 MB each)."""

CODE = "luban"
"""Folder of the initrd that the guest keeps in memory: `inside/` and the package `luban`."""

_TOP = Path(__file__).parents[2]
_OPERATOR = _TOP / "operator" / "luban"
_INSIDE = Path(__file__).parent / "inside"


@dataclass(frozen=True)
class GuestFiles:
    """What QEMU needs to start the guest."""

    kernel: Path
    """ELF kernel (or bzImage where lz4 is missing)"""
    initrd: Path
    """busybox, drivers, programs and the operator's source; not compressed"""
    disk: Path
    """raw ext4 root disk, mounted read-only"""


@dataclass(frozen=True)
class Keys:
    """Hashes of the inputs of each part."""

    kernel: str
    debian: str
    disk: str
    initrd: str

    @classmethod
    def of_inputs(cls) -> Keys:
        """The keys of what is in the source tree now."""
        linux = build._digest(FORMAT, kernel.PACKAGE, MODULES, PARAMETERS, shutil.which("lz4") is not None)
        debian = build._digest(FORMAT, rootfs.SUITE, OPTIONS)
        versions = rootfs.constraints(list(LIBRARIES))
        root = build._digest(debian, rootfs.PYTHON, versions, disk.SIZE, disk.HOSTS)
        code = build._digest(linux, debian, _precompiles(), build._contents(_OPERATOR), build._contents(_INSIDE))
        return cls(linux, debian, root, code)


def ensure_bond_guest(progress: Progress | None = None) -> GuestFiles:
    """The guest's files for the current source, built first if they are missing.

    One build runs at a time; a second caller waits for it and uses its result. Raises LabError naming the program that
    failed.
    """
    keys, parts = Keys.of_inputs(), cache_dir() / "bonds"
    files = GuestFiles(
        kernel=parts / f"kernel-{keys.kernel}" / "vmlinuz",
        initrd=parts / f"initrd-{keys.initrd}.img",
        disk=parts / f"root-{keys.disk}.ext4",
    )
    wanted = (files.kernel, files.initrd, files.disk)
    if all(path.exists() for path in wanted):
        return files
    progress = progress or Progress()
    with build._lock(cache_dir(), progress):
        if not all(path.exists() for path in wanted):
            _build(keys, files, progress)
    return files


def _build(keys: Keys, files: GuestFiles, progress: Progress) -> None:
    parts = files.disk.parent
    build._part(files.kernel.parent, _fetch_kernel, "kernel and bond drivers", progress)
    debian = build._part(parts / f"debian-{keys.debian}.tar", _debootstrap, "Debian root file system", progress)
    if not files.disk.exists():
        packages = parts / f"packages-{keys.disk}"
        build._part(packages, lambda it: rootfs.install_packages(list(LIBRARIES), it), "Python packages", progress)
        build._part(files.disk, lambda it: disk.assemble(debian, packages, it), "root disk with bonds", progress)
        shutil.rmtree(packages)
        files.disk.chmod(0o444)
    busybox = build._busybox(debian)
    modules = files.kernel.parent / "modules"
    build._part(
        files.initrd, lambda it: it.write_bytes(_initrd(busybox, modules)), "initrd with the operator's code", progress
    )
    _remove_old(parts)


def _debootstrap(target: Path) -> None:
    run(["mmdebstrap", *OPTIONS, rootfs.SUITE, str(target), *map(str, rootfs._apt_sources())])


def _fetch_kernel(target: Path) -> None:
    """Put `vmlinuz` and `modules/NN-name.ko` into the new folder `target`."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        unpacked = Path(scratch) / "unpacked"
        run(["dpkg-deb", "--extract", str(kernel._download(Path(scratch))), str(unpacked)])
        image = next((unpacked / "boot").glob("vmlinuz-*"))
        release = image.name.removeprefix("vmlinuz-")
        root = next(path for path in (unpacked / "lib/modules", unpacked / "usr/lib/modules") if path.is_dir())
        target.mkdir()
        (target / "vmlinuz").write_bytes(kernel.uncompressed(image.read_bytes()))
        kernel._copy_modules(kernel.load_order(root / release, MODULES), target / "modules")


def _initrd(busybox: bytes, modules: Path) -> bytes:
    """The archive's bytes. Not compressed: unpacking costs an emulated processor more than reading does."""
    archive = Archive()
    for folder in ("bin", "dev", "m", "proc", "root", CODE):
        archive.folder(folder)
    # The kernel opens it for the first process before that can mount /dev.
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", busybox, executable=True)
    archive.link("bin/sh", "busybox")
    for module in sorted(modules.glob("*.ko")):
        archive.file(f"m/{module.name}", module.read_bytes())
    parameters = "".join(f"{name} {value}\n" for name, value in PARAMETERS.items())
    archive.file("m/parameters", parameters.encode())
    archive.file("init", (_INSIDE / "init").read_bytes(), executable=True)
    _add_code(archive)
    return archive.finish()


def _add_code(archive: Archive) -> None:
    folders: set[str] = set()
    for name, content in (*_compiled(_INSIDE, f"{CODE}/inside"), *_compiled(_OPERATOR, f"{CODE}/luban")):
        for parent in reversed(Path(name).parents):
            if str(parent) not in {".", CODE, *folders}:
                archive.folder(str(parent))
                folders.add(str(parent))
        archive.file(name, content)


def _precompiles() -> bool:
    """Whether the Python that runs here can compile for the guest's."""
    return f"{sys.version_info.major}.{sys.version_info.minor}" == rootfs.PYTHON


def _compiled(folder: Path, place: str) -> Iterator[tuple[str, bytes]]:
    """Files of a source folder below `place`, each with its compiled form where we can make it.

    "Unchecked": no look at the sources at each import.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for source in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            name = f"{place}/{source.relative_to(folder)}"
            yield name, source.read_bytes()
            if source.suffix == ".py" and _precompiles():
                target = Path(scratch) / "one.pyc"
                mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
                py_compile.compile(str(source), str(target), f"/run/{name}", doraise=True, invalidation_mode=mode)
                yield importlib.util.cache_from_source(name), target.read_bytes()


def _remove_old(parts: Path) -> None:
    """Remove all but the newest initrds: each change of the operator makes one."""
    # A file that another process removes meanwhile is not an error.
    newest = sorted(parts.glob("initrd-*.img"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in newest[KEEP:]:
        path.unlink(missing_ok=True)
