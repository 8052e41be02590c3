"""The longest name of a cluster leaves room for the names that are made of it."""

from __future__ import annotations

import re

from luban.api.crd import KINDS, definition
from luban.api.names import balancer_name
from luban.core.arrivals import NAME_DIGITS

LONGEST_LABEL = 63
"""Characters of a label's value, of a Service's name and of a host name."""


def longest_name() -> int:
    """Characters that the CRD allows a cluster's name."""
    cluster = definition(KINDS[0])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    (rule,) = cluster["x-kubernetes-validations"]
    found = re.search(r"metadata\.name\.size\(\) <= (\d+)", rule["rule"])
    assert found
    return int(found[1])


def test_names_made_of_the_longest_are_labels_too() -> None:
    name = "a" * longest_name()
    assert len(balancer_name(name, 999)) <= LONGEST_LABEL
    assert len(f"{name}-{'0' * NAME_DIGITS}") <= LONGEST_LABEL
