"""The indicators by which a house is judged: data in YAML beside this file, read and checked once."""

from luban_app.catalogue.loader import catalogue, read
from luban_app.catalogue.model import (
    LANGUAGES,
    Catalogue,
    Group,
    Indicator,
    Language,
    Option,
    Part,
    Source,
    Text,
)
from luban_app.catalogue.nodes import CatalogueError, Fault

__all__ = [
    "LANGUAGES",
    "Catalogue",
    "CatalogueError",
    "Fault",
    "Group",
    "Indicator",
    "Language",
    "Option",
    "Part",
    "Source",
    "Text",
    "catalogue",
    "read",
]
