"""The pages' own style and script, under addresses that name their content: a browser may keep them for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_FOLDER = Path(__file__).with_name("static")
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOR_EVER = "public, max-age=31536000, immutable"
_HASH_LENGTH = 12

PATH = "/static/{name}"


@dataclass(frozen=True)
class Asset:
    """One file, with the name it is served under."""

    name: str
    content: bytes
    media_type: str


@cache
def _assets() -> Mapping[str, Asset]:
    """Plain file name -> asset."""
    found = {}
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:_HASH_LENGTH]
            found[path.name] = Asset(f"{path.stem}.{digest}{path.suffix}", content, _TYPES[path.suffix])
    return found


@cache
def _by_name() -> Mapping[str, Asset]:
    return {asset.name: asset for asset in _assets().values()}


def address(name: str) -> str:
    """Where the file called `name` is served. Raises KeyError if there is none."""
    return PATH.format(name=_assets()[name].name)


async def static(request: Request) -> Response:
    """Answer with a file; for ever only if the content is the one that the name means.

    While VMs are replaced, a page of the new version may ask a VM of the old one: it gets what there is, unkept.
    """
    name: str = request.path_params["name"]
    if asset := _by_name().get(name):
        return Response(asset.content, media_type=asset.media_type, headers={"Cache-Control": _FOR_EVER})
    stem, _, rest = name.partition(".")
    asset = _assets().get(f"{stem}.{rest.rpartition('.')[2]}")
    if asset is None:
        raise HTTPException(404)
    return Response(asset.content, media_type=asset.media_type, headers={"Cache-Control": "no-store"})
