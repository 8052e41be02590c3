"""One record: its scores, why they are so, and what its owner may do with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from luban_app.catalogue import Group, Indicator, Language, Part, Text
from luban_app.house.records import Draft, DraftConflictError, Record
from luban_app.house.scoring import Evaluation, Finding, Score
from luban_app.house.service import House
from luban_app.security import Visitor, form, visitor
from luban_app.web import forms, language
from luban_app.web.language import Translator
from luban_app.web.render import Renderer, redirect


@dataclass(frozen=True)
class GroupAnswers:
    """What was answered in one group."""

    names: Text
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class PartAnswers:
    """One part of the result: `open` is what nobody answered."""

    part: Part
    score: Score
    groups: tuple[GroupAnswers, ...]
    open: tuple[Indicator, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that was answered."""
        return tuple(finding for group in self.groups for finding in group.findings)


@dataclass(frozen=True)
class Working:
    """A line of the working: the sums that a score is made of."""

    name: str
    weighted: int
    weights: int
    value: float | None


def parts_of(house: House, answers: Mapping[str, str], evaluation: Evaluation) -> list[PartAnswers]:
    """The answers part by part, in the catalogue's order."""
    return [_part(part, answers, evaluation.part(part.id)) for part in house.catalogue.parts]


def _part(part: Part, answers: Mapping[str, str], score: Score) -> PartAnswers:
    groups = tuple(_group(group, answers) for group in part.groups)
    unanswered = tuple(indicator for indicator in part.indicators if indicator.id not in answers)
    return PartAnswers(part, score, groups, unanswered)


def _group(group: Group, answers: Mapping[str, str]) -> GroupAnswers:
    found = []
    for indicator in group.indicators:
        option = indicator.option(answers.get(indicator.id, ""))
        if option is not None:
            found.append(Finding(indicator, option))
    return GroupAnswers(group.names, tuple(found))


def working(parts: list[PartAnswers], evaluation: Evaluation, spoken: Language) -> list[Working]:
    """The sums behind each part's score and the total's."""
    lines = [_sums(part.part.names.get(spoken), part.findings, part.score) for part in parts]
    everything = tuple(finding for part in parts for finding in part.findings)
    return [*lines, _sums(Translator(spoken)("total"), everything, evaluation.total)]


def _sums(name: str, findings: tuple[Finding, ...], score: Score) -> Working:
    weighted = sum(finding.contribution for finding in findings)
    weights = sum(finding.indicator.weight for finding in findings)
    return Working(name, weighted, weights, score.value)


def _agreed(given: Mapping[str, str] | None, draft: Draft) -> bool:
    """Whether the visitor was asked about this very form, and said yes."""
    return given is not None and given.get("sure") == "yes" and forms.draft_of(given) == draft.id


@dataclass(frozen=True)
class ResultViews:
    """Handlers of a record's own pages."""

    house: House
    render: Renderer

    async def show(self, request: Request) -> Response:
        """The result."""
        who = await visitor(request)
        record = await self.house.get(who.session, request.path_params["record"])
        spoken = language.negotiate(request)
        answers = self.house.known(record.answers)
        evaluation = self.house.evaluate(answers)
        parts = parts_of(self.house, answers, evaluation)
        return self.render.page(
            request,
            "result.html",
            who=who,
            here="records",
            record=self.house.localized(record, spoken),
            evaluation=evaluation,
            parts=parts,
            working=working(parts, evaluation, spoken),
            unknown=len(record.answers) - len(answers),
        )

    async def edit(self, request: Request) -> Response:
        """Make the record the session's draft. A draft of something else is thrown away only after asking."""
        given = await form(request) if request.method == "POST" else None
        who = await visitor(request)
        record = await self._own(who, request.path_params["record"])
        draft = await self.house.draft(who.session)
        if draft is not None and draft.record != record.id and not _agreed(given, draft):
            return self._ask_to_replace(request, who, record, draft)
        if given is None:
            return redirect(f"/records/{record.id}")
        if draft is None or draft.record != record.id:
            try:
                await self.house.edit(who.session, record, instead_of=draft.id if draft else None)
            except DraftConflictError:
                # Another window was quicker: look again at what would be thrown away.
                return redirect(f"/records/{record.id}/edit")
        return redirect(forms.START)

    async def delete(self, request: Request) -> Response:
        """Delete the record, after asking."""
        given = await form(request) if request.method == "POST" else None
        who = await visitor(request)
        record = await self._own(who, request.path_params["record"])
        if given is not None:
            await self.house.delete(who.session, record.id)
            return redirect("/records")
        t = Translator(language.negotiate(request))
        return self.render.page(
            request,
            "confirm.html",
            who=who,
            here="records",
            title=t("delete.title", name=record.home.name),
            text=t("delete.text"),
            yes=t("delete.yes"),
            no=t("delete.no"),
            action=f"/records/{record.id}/delete",
            back=f"/records/{record.id}",
        )

    async def _own(self, who: Visitor, record_id: str) -> Record:
        """A record that the visitor may change. Samples are nobody's: for changing, they are not there."""
        record = await self.house.get(who.session, record_id)
        if record.sample:
            raise HTTPException(404)
        return record

    def _ask_to_replace(self, request: Request, who: Visitor, record: Record, draft: Draft) -> Response:
        t = Translator(language.negotiate(request))
        return self.render.page(
            request,
            "confirm.html",
            who=who,
            here="records",
            title=t("replace.title"),
            text=t("replace.text", name=draft.home.name or t("unnamed")),
            yes=t("replace.yes"),
            no=t("discard.no"),
            action=f"/records/{record.id}/edit",
            back="/evaluate",
            draft=draft.id,
        )
