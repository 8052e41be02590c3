"""Builds the guest image: `python -m lab.image.build`.

The result is `<cache>/images/<key>/` with `luban-web.qcow2`, `vmlinuz` and `initrd.img`; the key is a hash of all
inputs, so an image that exists is never built again. Its slow parts have keys of their own: a change of the web service
alone costs seconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from lab.image import disk, initrd, kernel, rootfs
from lab.image.progress import Progress
from lab.paths import cache_dir
from lab.process import LabError

FORMAT = 1
"""Raise it when the way of building changes and neither scripts nor package lists tell."""

DISK = "luban-web.qcow2"
KERNEL = "vmlinuz"
INITRD = "initrd.img"
FILES = (DISK, KERNEL, INITRD)

_HERE = Path(__file__).parent
_TOP = _HERE.parents[1]
_APP = _TOP / "app" / "luban_app"
_GUEST = _HERE / "guest"
_KEY_LENGTH = 16

KEEP = 4
"""Images that stay in the cache (180 MB each)."""


def _digest(*parts: object) -> str:
    text = json.dumps([FORMAT, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]


def _contents(folder: Path) -> dict[str, str]:
    """Hash of each file of a source folder by its name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


@dataclass(frozen=True)
class Keys:
    """Hashes of the inputs of each part and of the whole."""

    debian: str
    kernel: str
    packages: str
    image: str

    @classmethod
    def of_inputs(cls) -> Keys:
        """The keys of what is in the source tree now."""
        debian = _digest(rootfs.SUITE, rootfs.OPTIONS)
        linux = _digest(kernel.PACKAGE, kernel.MODULES, shutil.which("lz4") is not None)
        needed = rootfs.requirements(_TOP / "pyproject.toml")
        packages = _digest(rootfs.PYTHON, needed, rootfs.constraints(needed))
        image = _digest(debian, linux, packages, disk.SIZE, _contents(_APP), _contents(_GUEST))
        return cls(debian, linux, packages, image)


def image_folder() -> Path:
    """Where the image of the current inputs is, or would be."""
    return cache_dir() / "images" / Keys.of_inputs().image


def ensure_image(progress: Progress | None = None) -> Path:
    """The folder of the current image, built first if it is missing.

    One build runs at a time; a second caller waits for it and uses its result. Raises LabError naming the program that
    failed.
    """
    keys = Keys.of_inputs()
    folder = cache_dir() / "images" / keys.image
    if folder.is_dir():
        return folder
    progress = progress or Progress()
    with _lock(cache_dir(), progress):
        if not folder.is_dir():
            _build(keys, folder, progress)
    return folder


@contextmanager
def _lock(folder: Path, progress: Progress) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "image.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress.step("waiting for another build"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _atomic(target: Path) -> Iterator[Path]:
    """A path to write a file or folder to; it becomes `target` in one step if the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as scratch:
        draft = Path(scratch) / target.name
        yield draft
        draft.rename(target)


def _part(target: Path, make: Callable[[Path], object], what: str, progress: Progress) -> Path:
    if not target.exists():
        with progress.step(what), _atomic(target) as draft:
            make(draft)
    return target


def _build(keys: Keys, folder: Path, progress: Progress) -> None:
    parts = cache_dir() / "guest"
    debian = _part(parts / f"debian-{keys.debian}.tar", rootfs.debootstrap, "Debian root file system", progress)
    linux = _part(parts / f"kernel-{keys.kernel}", kernel.fetch, "kernel and drivers", progress)
    needed = rootfs.requirements(_TOP / "pyproject.toml")
    packages = _part(
        parts / f"packages-{keys.packages}",
        lambda target: rootfs.install_packages(needed, target),
        "Python packages",
        progress,
    )
    with progress.step("root disk"), _atomic(folder) as draft:
        draft.mkdir()
        shutil.copyfile(linux / "vmlinuz", draft / KERNEL)
        (draft / INITRD).write_bytes(initrd.build(_GUEST / "initrd-init", _busybox(debian), linux / "modules" / "root"))
        disk.assemble(
            disk.Parts(
                rootfs=str(debian),
                modules=str(linux / "modules"),
                packages=str(packages),
                app=str(_APP),
                guest=str(_GUEST),
                target=str(draft / DISK),
            )
        )
        # Overlays refer to it: nobody may change it, not even by a slip of the hand.
        for name in FILES:
            (draft / name).chmod(0o444)
    (folder / "build.json").write_text(json.dumps(progress.seconds))
    _prune(folder.parent)


def _prune(images: Path) -> None:
    """Remove all but the newest images. Hosts that still use an older one have it in their pool."""
    by_age = sorted(images.glob("[!.]*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in by_age[KEEP:]:
        shutil.rmtree(old, ignore_errors=True)


def _busybox(debian: Path) -> bytes:
    """The static busybox out of the root file system."""
    with tarfile.open(debian) as archive:
        for name in ("./bin/busybox", "./usr/bin/busybox"):
            try:
                member = archive.extractfile(name)
            except KeyError:
                continue
            if member is not None:
                return member.read()
    raise LabError(f"{debian}: has no busybox")


@click.command()
def main() -> None:
    """Build the guest image unless it exists, and print its folder."""
    try:
        folder = ensure_image()
    except LabError as error:
        raise click.ClickException(str(error)) from error
    for name in FILES:
        print(f"{(folder / name).stat().st_size / 2**20:7.1f} MiB  {name}", file=sys.stderr)
    print(folder)


if __name__ == "__main__":
    main()
