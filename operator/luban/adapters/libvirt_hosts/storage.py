"""libvirt storage: base images, overlays, seeds. Only through the pool's API, so a remote host works like a local one.

Blocking; the functions are steps of a lane's jobs.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import libvirt
import structlog

from luban.adapters.libvirt_hosts.errors import (
    doing,
    exists_already,
    find,
    image_not_found,
    pool_full,
    pool_not_found,
    pool_vanished,
    vms_volume,
)
from luban.adapters.libvirt_hosts.session import Session
from luban.adapters.libvirt_hosts.undo import Undo
from luban.api.names import VM_VOLUME
from luban.render.seed import SEED_LABEL
from luban.render.volume_xml import overlay_xml, seed_xml

log = structlog.get_logger(__name__)

POOL_PATIENCE = 180.0
"""Seconds for which a domain is kept whose pool is missing: somebody may be about to define it anew, and then nobody
would know of the disk."""
UPLOAD_CHUNK = 256 * 1024
"""Bytes of a volume sent in one piece: libvirt's own limit for one message of a stream."""


@dataclass(frozen=True)
class BaseImage:
    """A volume that overlays are made of."""

    path: str
    format: str
    capacity: int
    """Size of the disk that it holds, in bytes."""


def overlay_name(uuid: str) -> str:
    """The overlay's volume, as Machine.overlay_volume: found by the uuid alone when the Machine is gone."""
    return f"luban-{uuid}.qcow2"


def seed_name(uuid: str) -> str:
    """The seed's volume, as Machine.seed_volume."""
    return f"luban-{uuid}-seed.iso"


class Pool:
    """A storage pool of a host."""

    def __init__(self, session: Session, name: str) -> None:
        """Raises PoolNotFound if it is missing or stopped."""
        self._session = session
        self._host = session.host
        self.name = name
        found = find(session.connection.storagePoolLookupByName, name)
        if found is None or not found.isActive():
            raise pool_not_found(self._host, name, inactive=found is not None)
        self._pool = found

    def refresh(self) -> None:
        """Have libvirt look at the pool's folder again: its figures and list are as old as the last look."""
        try:
            self._pool.refresh(0)
        except libvirt.libvirtError:
            # Refused while a volume is being made, which does no harm. When it fails libvirt stops the pool.
            if not self._pool.isActive():
                with doing(self._host, f"start storage pool {self.name!r} again after a failed refresh"):
                    self._pool.create(0)

    def require_space(self, needed: int) -> None:
        """Raises StoragePoolFull if fewer than `needed` bytes are free as of the last refresh."""
        available = self._pool.info()[3]
        if available < needed:
            raise pool_full(self._host, self.name, available=available, needed=needed)

    def path_of(self, volume: str) -> str:
        """Path of a volume on the host. Raises ImageNotFound, VolumeRefused."""
        path: str = self._source(volume)[0].path()
        return path

    def base_image(self, volume: str) -> BaseImage:
        """What an overlay needs to know of its base. Raises ImageNotFound, VolumeRefused."""
        found, description = self._source(volume)
        format_ = description.find("target/format")
        type_ = format_.get("type", "raw") if format_ is not None else "raw"
        return BaseImage(path=found.path(), format=type_, capacity=found.info()[1])

    def ensure_overlay(self, name: str, base: BaseImage, size: int, undo: Undo) -> str:
        """Path of the overlay `name`; made if it is missing, kept as it is otherwise."""
        existing = find(self._pool.storageVolLookupByName, name)
        if existing is None:
            xml = overlay_xml(name, capacity=max(size, base.capacity), base_path=base.path, base_format=base.format)
            existing = self._create(xml, name, undo)
        path: str = existing.path()
        return path

    def make_seed(self, name: str, documents: Mapping[str, bytes], undo: Undo) -> str:
        """Path of a freshly made cloud-init seed: an older one may have been left half written."""
        self.delete(name)
        image = seed_image(documents)
        volume = self._create(seed_xml(name, size=len(image)), name, undo)
        with doing(self._host, f"upload {name} to storage pool {self.name!r}"):
            self._upload(volume, image)
        path: str = volume.path()
        return path

    def delete(self, name: str) -> None:
        """Delete a volume; no error if there is none."""
        volume = find(self._pool.storageVolLookupByName, name)
        if volume is not None:
            with doing(self._host, f"delete volume {name} of storage pool {self.name!r}"):
                find(volume.delete, 0)

    def _source(self, name: str) -> tuple[libvirt.virStorageVol, ET.Element]:
        """A volume that VMs may be made from, and its description. Never one that was made for a VM, under whatever
        name the pool knows it."""
        self._refuse_ours(name, name)
        found = self._volume(name)
        description = ET.fromstring(found.XMLDesc(0))  # noqa: S314 - printed by libvirt
        for other in (found.key(), found.path(), description.findtext("backingStore/path") or ""):
            self._refuse_ours(name, other.rpartition("/")[2])
        return found, description

    def _refuse_ours(self, volume: str, name: str) -> None:
        if re.match(VM_VOLUME, name):
            raise vms_volume(self._host, self.name, volume, name)

    def _volume(self, name: str) -> libvirt.virStorageVol:
        found = find(self._pool.storageVolLookupByName, name)
        if found is None:
            # It may have been copied into the folder without libvirt's knowledge.
            self.refresh()
            found = find(self._pool.storageVolLookupByName, name)
        if found is None:
            raise image_not_found(self._host, self.name, name)
        return found

    def _create(self, xml: str, name: str, undo: Undo) -> libvirt.virStorageVol:
        free = self._pool.info()[3]
        with doing(self._host, f"make volume {name} in storage pool {self.name!r} ({free} bytes free)"):
            try:
                volume = self._pool.createXML(xml, 0)
            except libvirt.libvirtError as error:
                if not exists_already(error):
                    raise
                return self._pool.storageVolLookupByName(name)
        undo.add(f"volume {name}", lambda: volume.delete(0))
        return volume

    def _upload(self, volume: libvirt.virStorageVol, content: bytes) -> None:
        stream = self._session.connection.newStream(0)
        try:
            volume.upload(stream, 0, len(content), 0)
            for start in range(0, len(content), UPLOAD_CHUNK):
                self._session.proceed()
                _send_all(stream, content[start : start + UPLOAD_CHUNK])
            stream.finish()
        except BaseException:
            with suppress(libvirt.libvirtError):
                stream.abort()
            raise


def _send_all(stream: libvirt.virStream, chunk: bytes) -> None:
    while chunk:
        chunk = chunk[stream.send(chunk) :]


def seed_image(documents: Mapping[str, bytes]) -> bytes:
    """An ISO 9660 image with Rock Ridge and Joliet names, which every guest reads, of the given files."""
    # Here, for it takes some MiB that an operator without cloud-init need not have.
    import pycdlib

    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=SEED_LABEL)
    for index, (name, content) in enumerate(documents.items()):
        iso.add_fp(io.BytesIO(content), len(content), f"/FILE{index}.;1", rr_name=name, joliet_path=f"/{name}")
    image = io.BytesIO()
    iso.write_fp(image)
    iso.close()
    return image.getvalue()


class MissingPools:
    """Pools of one host that were missing when something was to be deleted from them. For several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}

    def is_back(self, pool: str) -> None:
        """It is there."""
        self._since.pop(pool, None)

    def is_given_up(self, pool: str) -> bool:
        """Whether a pool that is missing now has been for so long that it counts as gone for good."""
        now = self._clock()
        return now - self._since.setdefault(pool, now) >= POOL_PATIENCE


def require_pool(session: Session, pool: str, domain: str, missing: MissingPools) -> None:
    """Raises TemporaryError PoolNotFound while a domain must be kept for its pool's sake."""
    if find(session.connection.storagePoolLookupByName, pool) is not None:
        missing.is_back(pool)
    elif not missing.is_given_up(pool):
        raise pool_vanished(session.host, pool, domain, POOL_PATIENCE)


def delete_volumes(session: Session, pool: str, uuid: str) -> None:
    """Delete what belongs to one VM from a pool. No error for what is gone, the pool included."""
    found = find(session.connection.storagePoolLookupByName, pool)
    if found is None:
        log.warning("no such pool, its volumes count as gone", host=session.host.name, pool=pool, domain=uuid)
        return
    opened = Pool(session, pool)
    for name in (overlay_name(uuid), seed_name(uuid)):
        opened.delete(name)
