"""The initial RAM disk: busybox, the root disk's drivers, and a script that mounts the disk and hands over."""

from __future__ import annotations

from pathlib import Path

from lab.image.cpio import Archive


def build(script: Path, busybox: bytes, modules: Path) -> bytes:
    """The archive's bytes. `modules` is the folder of the drivers to load, named in their order.

    It is not compressed: unpacking costs an emulated processor more than QEMU needs to read two megabytes.
    """
    archive = Archive()
    for folder in ("bin", "dev", "m", "proc", "root"):
        archive.folder(folder)
    # The kernel opens it for the first process before that can mount /dev.
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", busybox, executable=True)
    archive.link("bin/sh", "busybox")
    for module in sorted(modules.glob("*.ko")):
        archive.file(f"m/{module.name}", module.read_bytes())
    archive.file("init", script.read_bytes(), executable=True)
    return archive.finish()
