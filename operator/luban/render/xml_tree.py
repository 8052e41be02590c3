"""Small helpers over ElementTree, shared by the libvirt renderers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class CannotRenderError(ValueError):
    """What was asked for cannot be said in XML, or contradicts itself; the message says what to change."""


def clean(value: str, what: str) -> str:
    """The value itself, if XML 1.0 can hold it. Raises CannotRenderError naming `what`."""
    if _NOT_XML.search(value):
        raise CannotRenderError(f"{what} holds a control character: remove it")
    return value


def child(parent: ET.Element, tag: str, text: str = "", /, **attributes: str) -> ET.Element:
    """Append an element. Values are escaped by ElementTree; characters that XML cannot hold are refused."""
    element = ET.SubElement(parent, tag, {key: clean(value, tag) for key, value in attributes.items()})
    element.text = clean(text, tag) or None
    return element


def document(root: ET.Element) -> str:
    """The indented XML text of a tree, with a final newline."""
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"
