"""Two sample flats, after the paper's example: two flats of the same kind on one campus.

What lies around them is the same, so their outside scores are equal; what tells them apart is their rooms. They are
in one building: of the building, only what depends on the flat itself differs (its plan and what lies below it).
The answers are made up for the example and describe no real home.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from luban_app.catalogue.model import Text


@dataclass(frozen=True)
class Sample:
    """An evaluation that ships with the service; `answers` are option ids by indicator id."""

    id: str
    names: Text
    notes: Text
    answers: Mapping[str, str]


_OUTSIDE = {
    "house-type": "walk-up",
    "backing": "partial",
    "bright-hall": "open",
    "dragon-tiger": "balanced",
    "gathering-wind": "fair",
    "slope": "level",
    "temple": "far",
    "burial-ground": "none",
    "hospital": "convenient",
    "derelict-and-dark": "lively",
    "pylon": "none",
    "fire-neighbour": "none",
    "noise": "busy",
    "pole-at-door": "tree",
    "water-course": "lake-in-front",
    "water-quality": "clear",
    "flood": "normal",
    "road-rush": "offset",
    "road-curve": "straight",
    "dead-end": "through",
    "flyover": "none",
}

# Left out on purpose: sitting-direction, so that the share answered is seen to be less than all.
_BUILDING = {
    "proportion": "even",
    "height-neighbours": "similar",
    "sky-cut": "none",
    "wall-blade": "far",
    "corner-facing": "offset",
    "glare": "brief",
    "main-entrance": "plain",
    "ramp": "none",
    "shared-spaces": "ordinary",
    "facade": "worn",
    "exposed-pipes": "some",
    "trees-and-vines": "lush",
}

_FLAT_A = {
    "missing-corners": "full",
    "ground-floor": "home",
    "piercing-hall": "none",
    "entry-hall": "simple",
    "door-to-door": "offset",
    "door-facing-stairs": "up",
    "corridor": "none",
    "toilet-centre": "open",
    "toilet-door": "wall",
    "bath-air": "window",
    "stove-and-sink": "counter",
    "stove-at-door": "hidden",
    "stove-support": "wall",
    "kitchen-air": "window",
    "beam-over-bed": "covered",
    "bed-head": "wall",
    "mirror-and-bed": "side",
    "door-and-bed": "diagonal",
    "sofa-back": "wall",
    "wealth-corner": "solid-bright",
    "desk": "side",
    "room-shape": "regular",
    "light": "fair",
    "airing": "cross",
    "damp": "trace",
}

_FLAT_B = {
    "missing-corners": "large",
    "ground-floor": "arcade",
    "piercing-hall": "window",
    "entry-hall": "none",
    "door-to-door": "rooms",
    "door-facing-stairs": "down",
    "corridor": "dark",
    "toilet-centre": "partly",
    "toilet-door": "bed",
    "bath-air": "fan",
    "stove-and-sink": "adjoining",
    "stove-at-door": "kitchen-only",
    "stove-support": "half",
    "kitchen-air": "hood",
    "beam-over-bed": "head",
    "bed-head": "window",
    "mirror-and-bed": "full",
    "door-and-bed": "body",
    "sofa-back": "passage",
    "wealth-corner": "window",
    "desk": "back-to-door",
    "room-shape": "one-slant",
    "light": "one-side",
    "airing": "one-side",
    "damp": "damp",
}

SAMPLES = (
    Sample(
        "campus-flat-a",
        Text("中興大學校區公寓 A（範例）", "Campus flat A, National Chung Hsing University (sample)"),
        Text(
            "假想的範例，非真實住宅。三樓公寓，格局方正，前後通風，臥室床頭靠實牆。外部環境與 B 屋相同，可與之比較。",
            "A made-up example, no real home. A flat on the third level with a regular plan, air from both sides "
            "and the bed against a solid wall. Its surroundings are those of flat B: compare the two.",
        ),
        MappingProxyType(_OUTSIDE | _BUILDING | _FLAT_A),
    ),
    Sample(
        "campus-flat-b",
        Text("中興大學校區公寓 B（範例）", "Campus flat B, National Chung Hsing University (sample)"),
        Text(
            "假想的範例，非真實住宅。同棟二樓公寓，樓下是騎樓，缺一角，大門直通落地窗，床在樑下。"
            "外部環境與 A 屋相同，差別在內部。",
            "A made-up example, no real home. A flat in the same building, just above the arcade, with a missing "
            "corner, a front door in line with a large window and the bed under a beam. Its surroundings are those of "
            "flat A; the rooms make the difference.",
        ),
        MappingProxyType(_OUTSIDE | _BUILDING | _FLAT_B),
    ),
)
