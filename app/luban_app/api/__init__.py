"""The JSON API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from luban_app.api import document
from luban_app.api.handlers import JSON, Handlers
from luban_app.house.service import House

PREFIX = "/api"
ROOT = "/api/v1"
Page = Callable[[Request, Mapping[str, Any]], Response]
"""Makes the page that shows the OpenAPI document to people."""
_KEEP = {"Cache-Control": "public, max-age=300"}


class Api:
    """The routes under /api."""

    def __init__(self, house: House, page: Page) -> None:
        self._show = page
        do = Handlers(house)
        one = f"{ROOT}/records/{{record}}"
        self._operations: list[BaseRoute] = [
            Route(f"{ROOT}/catalogue", do.catalogue),
            Route(f"{ROOT}/evaluate", do.evaluate, methods=["POST"]),
            Route(f"{ROOT}/records", do.find),
            Route(f"{ROOT}/records", do.create, methods=["POST"]),
            Route(one, do.read),
            Route(one, do.replace, methods=["PUT"]),
            Route(one, do.delete, methods=["DELETE"]),
            Route(f"{ROOT}/compare", do.compare),
            Route(f"{ROOT}/ruler", do.ruler),
            Route(f"{ROOT}/export.csv", do.export),
        ]

    def routes(self) -> list[BaseRoute]:
        """All of them, with the API's own description."""
        return [
            *self._operations,
            Route(f"{PREFIX}/openapi.json", self._openapi),
            Route(PREFIX, self._page),
        ]

    @cached_property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return document.document(self._operations)

    async def _openapi(self, _request: Request) -> Response:
        """The OpenAPI document."""
        return Response(msgspec.json.encode(self.document), 200, _KEEP, JSON)

    async def _page(self, request: Request) -> Response:
        """The document for people."""
        return self._show(request, self.document)
