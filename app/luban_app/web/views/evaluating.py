"""The evaluation form: a step for the home, one for each part; a draft is kept at every one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from luban_app.catalogue import Part
from luban_app.house import House, InputError
from luban_app.records import MAX_RECORDS_PER_OWNER, Draft, Home, Record, RecordNotFoundError, TooManyRecordsError
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
        draft = await self.house.draft(who.session)
        if part is None:
            return await self._home(request, who, draft, given)
        if draft is None:
            return redirect(forms.START)
        return await self._part(request, who, draft, part, given)

    async def _home(
        self, request: Request, who: Visitor, draft: Draft | None, given: Mapping[str, str] | None
    ) -> Response:
        if given is None:
            # Whoever finishes without a name is sent back here and told why.
            typed = forms.home_of(draft.home) if draft else {}
            faults = self._home_faults(typed) if "check" in request.query_params else {}
            return self._show_home(request, who, draft, typed, faults)
        go = given.get("go", "next")
        home = forms.read_home(self.house, given, complete=go == "next")
        if not isinstance(home, Home):
            return self._show_home(request, who, draft, given, home)
        await self.house.save_draft(who.session, replace(draft or Draft(home), home=home))
        return self._leave(forms.HOME, go)

    def _home_faults(self, typed: Mapping[str, str]) -> Mapping[str, InputError]:
        home = forms.read_home(self.house, typed, complete=True)
        return {} if isinstance(home, Home) else home

    async def _part(
        self, request: Request, who: Visitor, draft: Draft, part: Part, given: Mapping[str, str] | None
    ) -> Response:
        if given is None:
            return self._show_part(request, who, draft, part)
        found, faults = forms.read_part(self.house, part, given)
        draft = forms.with_part(draft, part, found)
        await self.house.save_draft(who.session, draft)
        if faults:
            return self._show_part(request, who, draft, part, wrong=frozenset(faults))
        go = given.get("go", "next")
        if go == "next" and forms.next_step(self.house.catalogue, part.id) is None:
            return await self._finish(request, who, draft, part)
        return self._leave(part.id, go)

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
        if not draft.home.name:
            return redirect(f"{forms.START}?check=1")
        try:
            record = await self._keep(who, draft)
        except TooManyRecordsError:
            t = Translator(language.negotiate(request))
            full = Problem("", t("problem.too-many", n=MAX_RECORDS_PER_OWNER))
            return self._show_part(request, who, draft, part, problems=[full])
        await self.house.drop_draft(who.session)
        return redirect(f"/records/{record.id}")

    async def _keep(self, who: Visitor, draft: Draft) -> Record:
        """A record that was deleted while it was being edited is made anew: nobody's work is lost."""
        if draft.record:
            try:
                return await self.house.update(who.session, draft.record, draft.home, draft.answers)
            except RecordNotFoundError:
                pass
        return await self.house.create(who.session, draft.home, draft.answers)

    async def discard(self, request: Request) -> Response:
        """Throw the form away, after asking."""
        given = await form(request) if request.method == "POST" else None
        who = await visitor(request)
        if given is not None:
            await self.house.drop_draft(who.session)
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
        )

    def _show_home(
        self,
        request: Request,
        who: Visitor,
        draft: Draft | None,
        typed: Mapping[str, str],
        faults: Mapping[str, InputError],
    ) -> Response:
        spoken = language.negotiate(request)
        t = Translator(spoken)
        messages = {name: error.message(spoken) for name, error in faults.items()}
        problems = [Problem(name, f"{t(f'field.{name}')}{t('colon')}{message}") for name, message in messages.items()]
        shown = draft or Draft(Home(""))
        return self.render.page(
            request,
            "start.html",
            who=who,
            status=422 if faults and request.method == "POST" else 200,
            here="evaluate",
            steps=forms.progress(self.house.catalogue, shown, spoken),
            step=forms.HOME,
            fields=forms.fields(typed, messages),
            next=self.house.catalogue.parts[0].names.get(spoken),
            problems=problems,
            editing=bool(shown.record),
            has_draft=draft is not None,
        )

    def _show_part(
        self,
        request: Request,
        who: Visitor,
        draft: Draft,
        part: Part,
        *,
        wrong: frozenset[str] = frozenset(),
        problems: list[Problem] | None = None,
    ) -> Response:
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
            status=422 if bad or problems else 200,
            here="evaluate",
            steps=forms.progress(catalogue, draft, spoken),
            step=part.id,
            number_of_step=forms.order(catalogue).index(part.id),
            part=part,
            name=draft.home.name or t("unnamed"),
            next=after.names.get(spoken) if after else "",
            answers=draft.answers,
            wrong=wrong,
            problems=[*bad, *(problems or ())],
            editing=bool(draft.record),
        )
