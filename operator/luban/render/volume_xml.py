"""libvirt storage volume XML: a VM's overlay and its seed. https://libvirt.org/formatstorage.html"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from luban.render.xml_tree import child, document


def _volume(name: str, capacity: int, format_: str) -> ET.Element:
    root = ET.Element("volume", type="file")
    child(root, "name", name)
    child(root, "capacity", str(capacity), unit="bytes")
    child(child(root, "target"), "format", type=format_)
    return root


def overlay_xml(name: str, *, capacity: int, base_path: str, base_format: str) -> str:
    """A qcow2 volume of `capacity` bytes that holds only what differs from the base image."""
    root = _volume(name, capacity, "qcow2")
    backing = child(root, "backingStore")
    child(backing, "path", base_path)
    child(backing, "format", type=base_format)
    return document(root)


def seed_xml(name: str, *, size: int) -> str:
    """A raw volume of `size` bytes for an image that is uploaded afterwards."""
    return document(_volume(name, size, "raw"))
