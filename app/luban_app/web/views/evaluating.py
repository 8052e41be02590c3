"""The evaluation form: a step for the home, one for each part; a draft is kept at every one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from luban_app.catalogue import Part
from luban_app.house.records import (
    FULL_SECONDS,
    MAX_RECORDS_PER_OWNER,
    Draft,
    DraftConflictError,
    DraftEndedError,
    Home,
    Query,
    StoreFullError,
    TooManyRecordsError,
    UnnamedDraftError,
)
from luban_app.house.service import House, InputError, new_draft
from luban_app.security import Visitor, form, visitor
from luban_app.web import forms, language
from luban_app.web.forms import Problem
from luban_app.web.language import Translator
from luban_app.web.render import Renderer, redirect


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
            # For the page that says why it was not taken, should that be so.
            language.prefer(request, given.get("go", "").removeprefix(forms.LANGUAGE))
            if part is None:
                return await self._take_home(request, who, sent, given)
            return await self._take_part(request, who, sent, part, given)
        draft = await self.house.draft(who.session)
        if part is None:
            return self._show_home(request, who, draft)
        return await self._none_open(who) if draft is None else self._show_part(request, who, draft, part)

    async def _none_open(self, who: Visitor) -> Response:
        """Where a part's page leads without a form: most likely it was finished, and the browser went back."""
        newest = (await self.house.find(who.session, Query(size=1))).records
        return redirect("/records" if newest and not newest[0].sample else forms.START)

    async def _take_home(self, request: Request, who: Visitor, sent: str, given: Mapping[str, str]) -> Response:
        go = given.get("go", "next")
        home = forms.read_home(self.house, given, complete=go == "next")
        if not isinstance(home, Home):
            return await self._show_sent_home(request, who, sent, given, faults=home)
        try:
            await self._keep_home(who, sent, given, home, forms.leads_to(self.house.catalogue, forms.HOME, go))
        except DraftEndedError as ended:
            kept = forms.home_of(ended.record.home)
            if all(kept[name] == text for name, text in forms.changed_texts(given, home).items()):
                # The button was pressed twice.
                return redirect(f"/records/{ended.record.id}")
            problem = self._ended(request, ended)
        except DraftConflictError:
            problem = await self._replaced(request, who)
        except StoreFullError:
            problem = Problem("", Translator(language.negotiate(request))("problem.store-full"))
            answer = await self._show_sent_home(request, who, sent, given, problem=problem, status=503)
            answer.headers["Retry-After"] = str(FULL_SECONDS)
            return answer
        else:
            return self._leave(forms.HOME, go)
        return await self._show_sent_home(request, who, sent, given, problem=problem, status=409)

    async def _keep_home(self, who: Visitor, sent: str, given: Mapping[str, str], home: Home, step: str) -> None:
        if forms.NEW_FIELD in given:
            try:
                await self.house.begin(who.session, sent or new_draft(), home, step)
            except DraftConflictError:
                # Sent twice: if it is the same form, this is what it should begin with.
                await self.house.save_home(who.session, sent, forms.home_of(home), step)
            return
        await self.house.save_home(who.session, sent, forms.changed_texts(given, home), step)

    def _home_faults(self, typed: Mapping[str, str]) -> Mapping[str, InputError]:
        home = forms.read_home(self.house, typed, complete=True)
        return {} if isinstance(home, Home) else home

    async def _take_part(
        self, request: Request, who: Visitor, sent: str, part: Part, given: Mapping[str, str]
    ) -> Response:
        found, faults = forms.read_part(self.house, part, given)
        asked = forms.changed_indicators(given, part, faults)
        answers = {indicator: option for indicator, option in found.items() if indicator in asked}
        go = given.get("go", "next")
        step = part.id if faults else forms.leads_to(self.house.catalogue, part.id, go)
        try:
            draft = await self.house.save_answers(who.session, sent, asked, answers, step)
        except DraftEndedError as ended:
            if not faults and all(found.get(it) == ended.record.answers.get(it) for it in asked):
                # The button was pressed twice.
                return redirect(f"/records/{ended.record.id}")
            problem = self._ended(request, ended)
        except DraftConflictError:
            problem = await self._replaced(request, who)
        else:
            if faults:
                return self._show_part(request, who, draft, part, wrong=frozenset(faults), status=422)
            if go == "next" and forms.next_step(self.house.catalogue, part.id) is None:
                return await self._finish(request, who, draft, part)
            return self._leave(part.id, go)
        shown = Draft(Home(""), found, id=sent)
        return self._show_part(request, who, shown, part, problem=problem, status=409, was=given.get(forms.WAS_FIELD))

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
        """Where the button leads."""
        if go == forms.LATER:
            return redirect("/")
        address = forms.address(forms.leads_to(self.house.catalogue, step, go))
        chosen = language.known(go.removeprefix(forms.LANGUAGE))
        return redirect(f"{address}?{language.PARAMETER}={chosen}" if chosen else address)

    async def _finish(self, request: Request, who: Visitor, draft: Draft, part: Part) -> Response:
        try:
            record = await self.house.finish(who.session, draft.id)
        except UnnamedDraftError:
            return redirect(f"{forms.START}?check=1")
        except DraftEndedError as ended:
            return redirect(f"/records/{ended.record.id}")
        except DraftConflictError:
            problem = await self._replaced(request, who)
            return self._show_part(request, who, draft, part, problem=problem, status=409)
        except TooManyRecordsError:
            t = Translator(language.negotiate(request))
            problem = Problem("", t("problem.too-many", n=MAX_RECORDS_PER_OWNER), "/records")
            return self._show_part(request, who, draft, part, problem=problem, status=422)
        return redirect(f"/records/{record.id}")

    async def discard(self, request: Request) -> Response:
        """Throw the form away, after asking."""
        given = await form(request) if request.method == "POST" else None
        who = await visitor(request)
        if given is not None:
            sent = forms.draft_of(given)
            if sent is None:
                raise HTTPException(400)
            await self.house.drop_draft(who.session, sent)
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

    def _show_home(self, request: Request, who: Visitor, draft: Draft | None) -> Response:
        """The first step of the form that is open, or of one that is to begin."""
        shown = draft or Draft(Home(""), id=new_draft())
        typed = forms.home_of(shown.home)
        # Whoever finishes without a name is sent back here and told why.
        faults = self._home_faults(typed) if "check" in request.query_params else {}
        return self._home_page(
            request, who, shown, typed, faults=faults, new=draft is None, was=forms.was_home(shown.home)
        )

    async def _show_sent_home(
        self,
        request: Request,
        who: Visitor,
        sent: str,
        given: Mapping[str, str],
        *,
        faults: Mapping[str, InputError] | None = None,
        problem: Problem | None = None,
        status: int = 422,
    ) -> Response:
        """The first step as it was sent, and why it was not taken."""
        draft = await self.house.draft(who.session)
        return self._home_page(
            request,
            who,
            draft if draft and draft.id == sent else Draft(Home(""), id=sent),
            given,
            faults=faults or {},
            problem=problem,
            new=forms.NEW_FIELD in given,
            was=given.get(forms.WAS_FIELD, ""),
            status=status,
        )

    def _home_page(
        self,
        request: Request,
        who: Visitor,
        draft: Draft,
        typed: Mapping[str, str],
        *,
        faults: Mapping[str, InputError],
        new: bool,
        was: str,
        problem: Problem | None = None,
        status: int = 200,
    ) -> Response:
        spoken = language.negotiate(request)
        t = Translator(spoken)
        messages = {name: error.message(spoken) for name, error in faults.items()}
        told = [Problem(name, f"{t(f'field.{name}')}{t('colon')}{message}") for name, message in messages.items()]
        return self.render.page(
            request,
            "start.html",
            who=who,
            status=status,
            here="evaluate",
            steps=forms.progress(self.house.catalogue, draft, spoken),
            step=forms.HOME,
            fields=forms.fields(typed, messages),
            next=self.house.catalogue.parts[0].names.get(spoken),
            problems=[*told, problem] if problem else told,
            conflict=status in {HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE},
            editing=bool(draft.record),
            draft=draft.id,
            was=was,
            new=new,
            refused=status != HTTPStatus.OK,
            has_draft=not new and status == HTTPStatus.OK,
        )

    def _show_part(
        self,
        request: Request,
        who: Visitor,
        draft: Draft,
        part: Part,
        *,
        wrong: frozenset[str] = frozenset(),
        problem: Problem | None = None,
        was: str | None = None,
        status: int = 200,
    ) -> Response:
        """A part's step; `wrong` are the indicators whose answers are no options, `was` what the page showed before."""
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
            status=status,
            here="evaluate",
            steps=forms.progress(catalogue, draft, spoken),
            step=part.id,
            number_of_step=forms.order(catalogue).index(part.id),
            part=part,
            name=draft.home.name or t("unnamed"),
            next=after.names.get(spoken) if after else "",
            answers=draft.answers,
            wrong=wrong,
            problems=[*bad, problem] if problem else bad,
            conflict=status == HTTPStatus.CONFLICT,
            editing=bool(draft.record),
            draft=draft.id,
            was=forms.was_answers(part, draft.answers) if was is None else was,
        )
