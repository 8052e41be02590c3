"""The service proper, put together: house, API and pages as an extension of the frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy.engine import URL
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from luban_app import api, logs
from luban_app.api import problems
from luban_app.catalogue import catalogue
from luban_app.frame.routes import Extension
from luban_app.house import ruler
from luban_app.house.records import RecordNotFoundError, StoreFullError, StoreUnavailableError, TooManyRecordsError
from luban_app.house.service import House, InputError, sample_records
from luban_app.security import HEADERS, Guard
from luban_app.store.engine import explained
from luban_app.store.sql_store import SqlStore
from luban_app.web.pages import Pages

RETRY_SECONDS = 2.0
"""How long the service waits before it tries an unusable database again."""
MAINTENANCE_SECONDS = 3600.0
"""How often what is too old is forgotten."""
ERRORS = (
    HTTPException,
    InputError,
    RecordNotFoundError,
    StoreFullError,
    StoreUnavailableError,
    TooManyRecordsError,
    Exception,
)
"""What handlers may raise, and what is answered with an error page or a problem."""

_log = logs.get("luban_app.house")


@dataclass(frozen=True)
class Settings:
    """What the service is started with."""

    database: URL
    ruler_length: Decimal = ruler.DEFAULT_LENGTH_CM
    """Length in cm of the Luban ruler where nobody chooses one."""
    secure_cookie: bool = False
    """Mark the session's cookie Secure even if requests seem to come by plain HTTP."""


@dataclass(frozen=True)
class HouseApp:
    """The parts of the service, and the extension made of them."""

    house: House
    store: SqlStore
    guard: Guard
    routes: list[BaseRoute]
    error_page: Callable[[Request, int], Response]
    """The pages' answer to a request that ended with this status."""

    @property
    def extension(self) -> Extension:
        """For `create_app`."""
        return Extension(
            routes=self.routes,
            checks={"database": self.store.check},
            lifespan=self.lifespan,
            middleware=[Middleware(self.guard.wrap)],
            exception_handlers=dict.fromkeys(ERRORS, self.failed),
        )

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Prepare the database meanwhile: the process lives without it, and says that it is not ready."""
        maintenance = asyncio.create_task(self._maintain())
        try:
            yield
        finally:
            maintenance.cancel()
            with suppress(asyncio.CancelledError):
                await maintenance
            await self.store.close()

    async def _maintain(self) -> None:
        """Prepare the database, then keep it in order for as long as the service runs."""
        await self._prepare()
        # Once: where VMs have two versions of the catalogue, they must not undo each other's scores for ever.
        await self._with_retries(self._rescore)
        while True:
            await self._with_retries(self.house.prune)
            await asyncio.sleep(MAINTENANCE_SECONDS)

    async def _with_retries(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it, again and again while the database is away; any other trouble is told, and the service goes on."""
        while True:
            try:
                await work()
            except StoreUnavailableError as error:
                _log.warning("the database waits to be put in order", **explained(error))
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:  # noqa: BLE001 - see above
                _log.exception("the database could not be put in order")
                return
            else:
                return

    async def _rescore(self) -> None:
        """Lists are sorted by the scores that are kept: make those by other catalogues anew, each record once."""
        last: str | None = ""
        while last is not None:
            last = await self.house.rescore(last)

    async def _prepare(self) -> None:
        while True:
            try:
                await self.store.prepare()
            except StoreUnavailableError as error:
                _log.warning("the database is not usable yet", **explained(error))
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:  # noqa: BLE001 - see below
                # A migration that fails in whatever way leaves a service that is alive, not ready, and says why.
                _log.exception("the database could not be prepared")
                await asyncio.sleep(RETRY_SECONDS)
            else:
                _log.info("the database is ready")
                return

    async def failed(self, request: Request, error: Exception) -> Response:
        """Answer to an exception in the form that the address promises."""
        response = await self._error(request, error)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    async def _error(self, request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 405:
            error = HTTPException(405, error.detail, _allowed(self.routes, request) or error.headers)
        if isinstance(error, StoreUnavailableError):
            _log.warning("no database", path=request.url.path, **explained(error))
        problem = problems.problem_of(error)
        if _is_api(request.url.path):
            return problem
        page = self.error_page(request, problem.status_code)
        for name in {"allow", "retry-after"} & set(problem.headers):
            page.headers[name] = problem.headers[name]
        return page


def build(vm: str, settings: Settings) -> HouseApp:
    """Put the service together; connects to nothing yet. Raises CatalogueError and StoreUrlError."""
    indicators = catalogue()
    store = SqlStore(settings.database, sample_records(indicators))
    house = House(indicators, store, settings.ruler_length)
    pages = Pages(house, vm)
    return HouseApp(
        house=house,
        store=store,
        guard=Guard(store.secret, always_secure=settings.secure_cookie, touch=store.touch),
        routes=[*pages.routes(), *api.Api(house, pages.programs).routes()],
        error_page=pages.error,
    )


def _is_api(path: str) -> bool:
    return path == api.PREFIX or path.startswith(f"{api.PREFIX}/")


def _allowed(routes: list[BaseRoute], request: Request) -> dict[str, str]:
    """The Allow header with the methods of all routes of this path: each route alone knows only its own."""
    methods: set[str] = set()
    for route in routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return {"Allow": ", ".join(sorted(methods))} if methods else {}
