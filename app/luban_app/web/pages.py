"""The web pages: routes, and what becomes of errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from luban_app.house.service import House
from luban_app.web import assets
from luban_app.web.render import Renderer
from luban_app.web.views.evaluating import EvaluatingViews
from luban_app.web.views.listing import ListingViews
from luban_app.web.views.reading import ReadingViews
from luban_app.web.views.results import ResultViews


class Pages:
    """All pages of the service, as the VM called `vm` serves them."""

    def __init__(self, house: House, vm: str) -> None:
        self._render = render = Renderer(vm)
        self._reading = ReadingViews(house, render)
        self._evaluating = EvaluatingViews(house, render)
        self._results = ResultViews(house, render)
        self._listing = ListingViews(house, render)

    def error(self, request: Request, status: int) -> Response:
        """The page of an error, for whatever went wrong outside the pages too. Says nothing about the cause."""
        return self._reading.error(request, status)

    def programs(self, request: Request, document: Mapping[str, Any]) -> Response:
        """The API's description for people: what its OpenAPI document says."""
        return self._render.page(request, "api.html", document=document)

    def routes(self) -> Sequence[BaseRoute]:
        """Routes of all pages; the first one is at /."""
        both = ["GET", "POST"]
        return [
            Route("/", self._reading.home),
            Route("/evaluate", self._evaluating.resume),
            Route("/evaluate/discard", self._evaluating.discard, methods=both),
            Route("/evaluate/{step}", self._evaluating.step, methods=both),
            Route("/records", self._listing.index),
            Route("/records.csv", self._listing.table),
            Route("/compare", self._listing.compare),
            Route("/records/{record}", self._results.show),
            Route("/records/{record}/edit", self._results.edit, methods=both),
            Route("/records/{record}/delete", self._results.delete, methods=both),
            Route("/ruler", self._reading.ruler),
            Route("/glossary", self._reading.glossary),
            Route("/about", self._reading.about),
            Route(assets.PATH, assets.static),
        ]
