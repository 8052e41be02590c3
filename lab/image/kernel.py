"""The guest's kernel and the few drivers that it needs, out of Debian's package for virtual machines."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from lab.image.commands import run
from lab.process import LabError

PACKAGE = "linux-image-cloud-amd64"
MODULES = {
    "root": ("virtio_pci", "virtio_blk", "ext4"),
    "net": ("virtio_net",),
    "button": ("evdev", "button"),
    "guest": ("virtio_balloon", "virtio_rng", "virtio_console"),
    "seed": ("isofs",),
}
"""Drivers by the moment when the guest loads them; `root` comes first, in the initrd."""

_SIGNATURE_MARK = b"~Module signature appended~\n"
_SIGNATURE_INFO_SIZE = 12
_LZ4_LEGACY_MAGIC = b"\x02\x21\x4c\x18"
_ELF_MAGIC = b"\x7fELF"


def fetch(target: Path) -> str:
    """Put `vmlinuz` and `modules/<group>/NN-name.ko` into the new folder `target`; returns the kernel's release.

    NN is the order in which the group's modules load, each after those that it depends on.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        unpacked = Path(scratch) / "unpacked"
        run(["dpkg-deb", "--extract", str(_download(Path(scratch))), str(unpacked)])
        image = next((unpacked / "boot").glob("vmlinuz-*"))
        release = image.name.removeprefix("vmlinuz-")
        root = next(path for path in (unpacked / "lib/modules", unpacked / "usr/lib/modules") if path.is_dir())
        target.mkdir()
        (target / "vmlinuz").write_bytes(uncompressed(image.read_bytes()))
        loaded: set[str] = set()
        for group, names in MODULES.items():
            files = [path for path in load_order(root / release, names) if module_name(path) not in loaded]
            loaded.update(map(module_name, files))
            _copy_modules(files, target / "modules" / group)
        return release


def _copy_modules(files: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, path in enumerate(files):
        (folder / f"{number:02d}-{module_name(path)}.ko").write_bytes(unsigned(path.read_bytes()))


def _download(folder: Path) -> Path:
    """The package that the meta-package stands for now, from the machine's own apt sources."""
    depends = re.search(r"Depends: (linux-image-\S+)", run(["apt-cache", "depends", PACKAGE]))
    if depends is None:
        raise LabError(f"{PACKAGE}: apt knows no such package (the guest image needs Debian's apt sources)")
    # As root, apt would drop to a user that cannot write here, and warn.
    run(["apt-get", "-o", "APT::Sandbox::User=root", "download", depends[1]], cwd=folder)
    return next(folder.glob("*.deb"))


def uncompressed(image: bytes) -> bytes:
    """The ELF kernel inside a bzImage, if it is packed with LZ4 (Debian's is); else the image itself.

    QEMU boots the ELF file through its PVH entry point, so the guest need not unpack 50 MB on an emulated processor.
    Both forms boot. Offsets: Documentation/arch/x86/boot.rst of the Linux sources.
    """
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    lz4 = shutil.which("lz4")
    if lz4 is None or not payload.startswith(_LZ4_LEGACY_MAGIC):
        return image
    # The payload's last four bytes are its unpacked size, which is not part of the LZ4 format.
    done = subprocess.run([lz4, "-dc"], input=payload[:-4], capture_output=True, check=False)
    return done.stdout if done.stdout.startswith(_ELF_MAGIC) else image


def module_name(path: Path) -> str:
    """A module's name as the kernel spells it."""
    return path.name.split(".")[0].replace("-", "_")


def unsigned(module: bytes) -> bytes:
    """A module without the signature at its end: checking it costs the guest time and protects nothing here."""
    if not module.endswith(_SIGNATURE_MARK):
        return module
    end = len(module) - len(_SIGNATURE_MARK)
    size = int.from_bytes(module[end - 4 : end], "big")
    return module[: end - _SIGNATURE_INFO_SIZE - size]


def depends_on(module: bytes) -> list[str]:
    """The modules that a module names in its own information section."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return [name.replace("-", "_") for name in found[1].decode().split(",") if name] if found else []


def load_order(folder: Path, wanted: tuple[str, ...]) -> list[Path]:
    """Files of `wanted` and all that they need, in an order in which they load. Built-in ones are left out.

    Raises LabError for a module that the kernel does not have at all.
    """
    files = {module_name(path): path for path in folder.rglob("*.ko")}
    built_in = {module_name(Path(line)) for line in (folder / "modules.builtin").read_text().splitlines()}
    ordered: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in ordered or name in built_in:
            return
        if name not in files:
            raise LabError(f"kernel {folder.name} has no module {name}")
        for needed in depends_on(files[name].read_bytes()):
            add(needed)
        ordered[name] = files[name]

    for name in wanted:
        add(name)
    return list(ordered.values())
