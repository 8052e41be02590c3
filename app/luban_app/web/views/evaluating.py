"""The evaluation form: a step for the home, one for each part; a draft is kept at every one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from luban_app.catalogue import Part
from luban_app.house import House, InputError, new_draft
from luban_app.records import (
    MAX_RECORDS_PER_OWNER,
    Draft,
    DraftConflictError,
    DraftEndedError,
    Home,
    StoreFullError,
    TooManyRecordsError,
    UnnamedDraftError,
)
from luban_app.security import Visitor, form, visitor
from luban_app.web import forms, language
from luban_app.web.forms import Problem
from luban_app.web.language import Translator
from luban_app.web.render import Renderer, redirect

_LANGUAGE = "lang-"
"""How a button says that it switches the language: the step is saved before."""


@dataclass(frozen=True)
class EvaluatingViews:
    """Handlers of the form."""

    house: House
    render: Renderer

    async def resume(self, request: Request) -> Response:
        """Go on where the form was left."""
        who = await visitor(request)
        return redirect(forms.address(forms.resume_at(self.house.catalogue, await self.house.draft(who.session))))

    async def step(self, request: Request) -> Response:
        """Show a step, or take it in and go where the button says."""
        step: str = request.path_params["step"]
        if step not in forms.order(self.house.catalogue):
            raise HTTPException(404)
        part = forms.part_of(self.house.catalogue, step)
        given = await form(request) if request.method == "POST" else None
        who = await visitor(request)
        if given is not None:
            sent = forms.draft_of(given)
            if sent is None:
                raise HTTPException(400)
            if part is None:
                return await self._take_home(request, who, sent, given)
            return await self._take_part(request, who, sent, part, given)
        draft = await self.house.draft(who.session)
        if part is None:
            return self._begin(request, who, draft)
        return redirect(forms.START) if draft is None else self._show_part(request, who, draft, part)

    def _begin(self, request: Request, who: Visitor, draft: Draft | None) -> Response:
        typed = forms.home_of(draft.home) if draft else {}
        # Whoever finishes without a name is sent back here and told why.
        faults = self._home_faults(typed) if "check" in request.query_params else {}
        shown = draft or Draft(Home(""), id=new_draft())
        return self._show_home(request, who, shown, typed, messages=self._told(request, faults))

    async def _take_home(self, request: Request, who: Visitor, sent: str, given: Mapping[str, str]) -> Response:
        go = given.get("go", "next")
        home = forms.read_home(self.house, given, complete=go == "next")
        if not isinstance(home, Home):
            draft = await self.house.draft(who.session)
            shown = draft if draft and draft.id == sent else Draft(Home(""), id=sent)
            return self._show_home(request, who, shown, given, messages=self._told(request, home), status=422)
        try:
            # A page without an id can only come from a program: it begins a form as a browser does.
            await self.house.save_home(who.session, sent or new_draft(), home)
        except DraftEndedError as ended:
            if ended.record.home == home:
                return redirect(f"/records/{ended.record.id}")
            problem = self._ended(request, ended)
        except DraftConflictError:
            problem = await self._replaced(request, who)
        else:
            return self._leave(forms.HOME, go)
        return self._show_home(request, who, Draft(Home(""), id=sent), given, problems=[problem], status=409)

    def _home_faults(self, typed: Mapping[str, str]) -> Mapping[str, InputError]:
        home = forms.read_home(self.house, typed, complete=True)
        return {} if isinstance(home, Home) else home

    def _told(self, request: Request, faults: Mapping[str, InputError]) -> dict[str, str]:
        """The faults in words, by field."""
        spoken = language.negotiate(request)
        return {name: error.message(spoken) for name, error in faults.items()}

    async def _take_part(
        self, request: Request, who: Visitor, sent: str, part: Part, given: Mapping[str, str]
    ) -> Response:
        found, faults = forms.read_part(self.house, part, given)
        try:
            draft = await self.house.save_part(who.session, sent, part, found)
        except DraftEndedError as ended:
            if not faults and self._same(part, found, ended.record.answers):
                # The button was pressed twice.
                return redirect(f"/records/{ended.record.id}")
            problem = self._ended(request, ended)
        except DraftConflictError:
            problem = await self._replaced(request, who)
        else:
            if faults:
                return self._show_part(request, who, draft, part, wrong=frozenset(faults))
            go = given.get("go", "next")
            if go == "next" and forms.next_step(self.house.catalogue, part.id) is None:
                return await self._finish(request, who, draft, part)
            return self._leave(part.id, go)
        return self._show_part(request, who, Draft(Home(""), found, id=sent), part, problems=[problem], status=409)

    def _same(self, part: Part, found: Mapping[str, str], kept: Mapping[str, str]) -> bool:
        """Whether the answers to one part are those that are kept."""
        return all(found.get(indicator.id) == kept.get(indicator.id) for indicator in part.indicators)

    def _ended(self, request: Request, ended: DraftEndedError) -> Problem:
        message = Translator(language.negotiate(request))("problem.ended", name=ended.record.home.name)
        return Problem("", message, f"/records/{ended.record.id}")

    async def _replaced(self, request: Request, who: Visitor) -> Problem:
        """Another window threw the form away, and may have begun another one."""
        t = Translator(language.negotiate(request))
        there = await self.house.draft(who.session)
        if there is None:
            return Problem("", t("problem.discarded"), forms.START)
        return Problem("", t("problem.replaced", name=there.home.name or t("unnamed")), "/evaluate")

    def _leave(self, step: str, go: str) -> Response:
        """Where the button leads; a value that no button has leads on."""
        catalogue = self.house.catalogue
        if go.startswith(_LANGUAGE) and (chosen := language.known(go.removeprefix(_LANGUAGE))):
            return redirect(f"{forms.address(step)}?{language.PARAMETER}={chosen}")
        if go == "later":
            return redirect("/")
        if go == "back":
            return redirect(forms.address(forms.previous_step(catalogue, step)))
        if go in forms.order(catalogue):
            return redirect(forms.address(go))
        return redirect(forms.address(forms.next_step(catalogue, step) or step))

    async def _finish(self, request: Request, who: Visitor, draft: Draft, part: Part) -> Response:
        t = Translator(language.negotiate(request))
        status = 422
        try:
            record = await self.house.finish(who.session, draft.id)
        except UnnamedDraftError:
            return redirect(f"{forms.START}?check=1")
        except DraftEndedError as ended:
            return redirect(f"/records/{ended.record.id}")
        except DraftConflictError:
            status, problem = 409, await self._replaced(request, who)
        except TooManyRecordsError:
            problem = Problem("", t("problem.too-many", n=MAX_RECORDS_PER_OWNER), "/records")
        except StoreFullError:
            status, problem = 503, Problem("", t("problem.store-full"))
        else:
            return redirect(f"/records/{record.id}")
        return self._show_part(request, who, draft, part, problems=[problem], status=status)

    async def discard(self, request: Request) -> Response:
        """Throw the form away, after asking."""
        given = await form(request) if request.method == "POST" else None
        who = await visitor(request)
        if given is not None:
            await self.house.drop_draft(who.session, forms.draft_of(given) or "")
            return redirect(forms.START)
        draft = await self.house.draft(who.session)
        if draft is None:
            return redirect(forms.START)
        t = Translator(language.negotiate(request))
        return self.render.page(
            request,
            "confirm.html",
            who=who,
            here="evaluate",
            title=t("discard.title"),
            text=t("discard.text", name=draft.home.name or t("unnamed")),
            yes=t("discard.yes"),
            no=t("discard.no"),
            action="/evaluate/discard",
            back="/evaluate",
            draft=draft.id,
        )

    def _show_home(
        self,
        request: Request,
        who: Visitor,
        draft: Draft,
        typed: Mapping[str, str],
        *,
        messages: Mapping[str, str] | None = None,
        problems: Sequence[Problem] = (),
        status: int = 200,
    ) -> Response:
        """The first step; `messages` is what is wrong with the fields."""
        spoken = language.negotiate(request)
        t = Translator(spoken)
        told = messages or {}
        faults = [Problem(name, f"{t(f'field.{name}')}{t('colon')}{message}") for name, message in told.items()]
        return self.render.page(
            request,
            "start.html",
            who=who,
            status=status,
            here="evaluate",
            steps=forms.progress(self.house.catalogue, draft, spoken),
            step=forms.HOME,
            fields=forms.fields(typed, told),
            next=self.house.catalogue.parts[0].names.get(spoken),
            problems=[*faults, *problems],
            editing=bool(draft.record),
            draft=draft.id,
            has_draft=draft != Draft(Home(""), id=draft.id),
        )

    def _show_part(
        self,
        request: Request,
        who: Visitor,
        draft: Draft,
        part: Part,
        *,
        wrong: frozenset[str] = frozenset(),
        problems: Sequence[Problem] = (),
        status: int = 200,
    ) -> Response:
        """A part's step; `wrong` are the indicators whose answers are no options."""
        spoken = language.negotiate(request)
        t = Translator(spoken)
        catalogue = self.house.catalogue
        names = {indicator.id: indicator.names.get(spoken) for indicator in part.indicators}
        bad = [Problem(name, t("problem.option-of", field=names[name])) for name in names if name in wrong]
        after = forms.part_of(catalogue, forms.next_step(catalogue, part.id) or "")
        return self.render.page(
            request,
            "step.html",
            who=who,
            status=HTTPStatus.UNPROCESSABLE_ENTITY if bad else status,
            here="evaluate",
            steps=forms.progress(catalogue, draft, spoken),
            step=part.id,
            number_of_step=forms.order(catalogue).index(part.id),
            part=part,
            name=draft.home.name or t("unnamed"),
            next=after.names.get(spoken) if after else "",
            answers=draft.answers,
            wrong=wrong,
            problems=[*bad, *problems],
            editing=bool(draft.record),
            draft=draft.id,
        )
