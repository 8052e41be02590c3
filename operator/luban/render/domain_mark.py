"""The mark in a domain's metadata: it says whose the domain is, and what cannot be seen from outside."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

from luban.api.names import METADATA_NAMESPACE
from luban.core.model import ClusterRef

METADATA_TAG = f"{{{METADATA_NAMESPACE}}}vm"
ET.register_namespace("luban", METADATA_NAMESPACE)


@dataclass(frozen=True)
class Mark:
    """Contents of the metadata element of one of our domains."""

    cluster: ClusterRef
    vm: str
    """Name of the LubanVM."""
    pool: str
    """Storage pool with its overlay and seed, so that an orphan's disks can be found."""
    image: str
    """Volume that its disk is a copy-on-write overlay of."""
    address: str = ""
    """Address planned beforehand (network type User); empty: none."""
    plane: str = ""
    """Control plane that made it: uid of its namespace kube-system. Empty: not known, as in earlier versions' marks."""


def mark_element(mark: Mark) -> ET.Element:
    """One flat element: libvirt strips namespace prefixes when it is asked for it, so children would be lost."""
    values = {
        "name": mark.vm,
        "namespace": mark.cluster.namespace,
        "cluster": mark.cluster.name,
        "uid": mark.cluster.uid,
        "pool": mark.pool,
        "image": mark.image,
        "address": mark.address,
        "plane": mark.plane,
    }
    return ET.Element(METADATA_TAG, {key: value for key, value in values.items() if value})


def parse_mark(xml: str) -> Mark | None:
    """Read the element back as virDomainGetMetadata returns it; None if it is not what we write."""
    try:
        element = ET.fromstring(xml)  # noqa: S314 - comes from libvirt, which has parsed and printed it itself
        return Mark(
            cluster=ClusterRef(element.attrib["namespace"], element.attrib["cluster"], element.get("uid", "")),
            vm=element.attrib["name"],
            pool=element.get("pool", ""),
            image=element.get("image", ""),
            address=element.get("address", ""),
            plane=element.get("plane", ""),
        )
    except (ET.ParseError, KeyError):
        return None
