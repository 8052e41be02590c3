"""Templates into responses: what every page has, whatever it shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from luban_app.catalogue import Language, Text
from luban_app.house.ruler_signs import Character
from luban_app.security import CSRF_FIELD, Visitor
from luban_app.web import assets, charts, language
from luban_app.web.language import Translator
from luban_app.web.markup import Words, mark

NAVIGATION = (
    ("evaluate", "/evaluate"),
    ("records", "/records"),
    ("ruler", "/ruler"),
    ("glossary", "/glossary"),
    ("about", "/about"),
)

_MINUS = "\N{MINUS SIGN}"


def environment() -> Environment:
    """The templates: autoescape on, an undefined name is an error."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals.update(
        asset=assets.address,
        charts=charts,
        nav=NAVIGATION,
        number=number,
        signed_number=signed,
        percent=percent,
        decimal=decimal,
    )
    made.filters["han"] = _han
    return made


@pass_context
def _han(context: Context, text: str) -> Markup:
    """A filter for what comes from elsewhere than `t` and `txt`."""
    return mark(text, context["lang"])


def number(score: float) -> str:
    """A score as it is shown everywhere: one decimal."""
    return f"{score:.1f}"


def signed(value: int) -> str:
    """A whole number with its sign, minus as a minus."""
    return f"+{value}" if value > 0 else str(value).replace("-", _MINUS)


def percent(share: float) -> str:
    """A share of 0..1 in whole percent; never 100 % while something is missing."""
    return f"{int(share * 100)}%"


def decimal(cm: Fraction | Decimal) -> str:
    """A length in cm, exact to a ten-thousandth, without trailing zeros."""
    exact = Decimal(cm.numerator) / cm.denominator if isinstance(cm, Fraction) else cm
    return f"{exact.quantize(Decimal('0.0001')):f}".rstrip("0").rstrip(".")


def switch_address(request: Request, to: Language) -> str:
    """This page in the other language: the same address, asking for it. Never //host, which leads elsewhere."""
    path = "/" + request.url.path.lstrip("/\\")
    kept = [(name, value) for name, value in parse_qsl(request.url.query) if name != language.PARAMETER]
    return f"{path}?{urlencode([*kept, (language.PARAMETER, to)])}"


def remember(response: Response, chosen: Language) -> None:
    """Keep the language for the visits to come."""
    response.set_cookie(
        language.COOKIE, chosen, max_age=language.COOKIE_SECONDS, path="/", httponly=True, samesite="lax"
    )


def redirect(address: str) -> Response:
    """Go to `address` with a GET: a page that is reloaded does not send its form again."""
    return RedirectResponse(address, status_code=303)


@dataclass(frozen=True)
class Renderer:
    """Makes pages that are served by the VM `vm`."""

    vm: str
    environment: Environment = field(default_factory=environment)

    def page(
        self,
        request: Request,
        template: str,
        *,
        who: Visitor | None = None,
        status: int = 200,
        here: str = "",
        **values: object,
    ) -> Response:
        """A page in the visitor's language. `who` is needed by pages with a form; `here` is the main menu's entry."""
        spoken = language.negotiate(request)
        content = self.environment.get_template(template).render(
            **_words(spoken),
            switch=switch_address(request, language.other(spoken)),
            vm=self.vm,
            here=here,
            # The title is what a screen reader says first, and what the tab shows.
            faulty=status == HTTPStatus.UNPROCESSABLE_ENTITY or bool(values.get("problems")),
            csrf=who.csrf if who else "",
            csrf_name=CSRF_FIELD,
            **values,
        )
        response = HTMLResponse(content, status_code=status)
        response.headers["Content-Language"] = spoken
        response.headers["Vary"] = "Accept-Language, Cookie"
        # No proxy keeps what one visitor sees, and going back shows what is true now.
        response.headers["Cache-Control"] = "no-store" if who else "private, no-cache"
        if language.asked_for(request):
            remember(response, spoken)
        return response


def _words(spoken: Language) -> dict[str, object]:
    def plain(text: Text) -> str:
        return text.get(spoken)

    def marked(text: Text) -> Markup:
        return mark(text.get(spoken), spoken)

    def sign_name(sign: Character) -> str:
        return sign.name if spoken == "zh-TW" else f"{sign.name} ({sign.pinyin}, {sign.english})"

    return {
        "lang": spoken,
        "other": language.other(spoken),
        "t": Words(Translator(spoken)),
        "txt": marked,
        "plain": plain,
        "sign_name": sign_name,
    }
