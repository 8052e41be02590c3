"""Pages that are for reading: the first one, the glossary, about, the Luban ruler, and errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from luban_app.house.ruler import LENGTH_NOTE, VARIANT_LENGTHS_CM, Reading
from luban_app.house.ruler_signs import CHARACTERS
from luban_app.house.samples import SAMPLES
from luban_app.house.service import House, InputError
from luban_app.security import AWAY_DAYS, visitor
from luban_app.web import charts, language
from luban_app.web.forms import Problem
from luban_app.web.language import Translator, words
from luban_app.web.render import Renderer

_TYPED = 40
"""Characters of a measure that are shown again in its field."""


@dataclass(frozen=True)
class ReadingViews:
    """Handlers of these pages."""

    house: House
    render: Renderer

    async def home(self, request: Request) -> Response:
        """The first page."""
        who = await visitor(request)
        return self.render.page(
            request,
            "home.html",
            who=who,
            draft=await self.house.draft(who.session),
            parts=self.house.catalogue.parts,
            indicators=len(self.house.catalogue.indicators),
            samples=SAMPLES,
            signs=CHARACTERS,
        )

    async def glossary(self, request: Request) -> Response:
        """All indicators with their sources."""
        catalogue = self.house.catalogue
        return self.render.page(
            request,
            "glossary.html",
            here="glossary",
            parts=catalogue.parts,
            indicators=len(catalogue.indicators),
            sources=list(catalogue.sources.values()),
        )

    async def about(self, request: Request) -> Response:
        """What the service is and what it does not claim."""
        return self.render.page(request, "about.html", here="about", days=AWAY_DAYS)

    async def ruler(self, request: Request) -> Response:
        """The Luban ruler: a measure in the address gives a reading."""
        query = request.query_params
        own = query.get("own", "").strip()
        cm, chosen = query.get("cm", ""), query.get("length", "") or str(self.house.ruler_length)
        wrong: dict[str, str] = {}
        reading: Reading | None = None
        if "cm" in query:
            try:
                reading = self.house.measure(cm, own or chosen)
            except InputError as error:
                wrong[error.field] = error.message(language.negotiate(request))
        return self.render.page(
            request,
            "ruler.html",
            here="ruler",
            status=422 if wrong else 200,
            cm=cm[:_TYPED],
            own=own[:_TYPED],
            chosen=chosen,
            lengths=sorted({*VARIANT_LENGTHS_CM, self.house.ruler_length}),
            length_note=LENGTH_NOTE,
            reading=reading,
            rows=charts.strip(reading) if reading else (),
            wrong=wrong,
            problems=self._ruler_problems(request, wrong),
        )

    def _ruler_problems(self, request: Request, wrong: Mapping[str, str]) -> list[Problem]:
        t = Translator(language.negotiate(request))
        labels = {"cm": t("ruler.measure"), "length": t("ruler.length")}
        return [Problem(name, f"{labels.get(name, name)}{t('colon')}{message}") for name, message in wrong.items()]

    def error(self, request: Request, status: int) -> Response:
        """The page of an error. It needs no database, and says nothing about how the service is made."""
        shown = status if f"error.{status}.title" in words() else (500 if status >= 500 else 400)
        return self.render.page(request, "error.html", status=status, number_of_error=status, code=shown)
