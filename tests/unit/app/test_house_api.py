"""The JSON API on SQLite: what it promises, whose records are whose, and what it makes of abuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from luban_app.api.models import Problem
from luban_app.catalogue import catalogue
from luban_app.frame.middleware import Frame
from luban_app.frame.routes import create_app
from luban_app.house import assembly
from luban_app.house.assembly import HouseApp, Settings
from luban_app.house.records import MAX_RECORDS_PER_OWNER, NOTES_LENGTH, StoreUnavailableError
from luban_app.house.samples import SAMPLES
from luban_app.store.engine import parse_url, sqlite_url

ROOT = "/api/v1"
GOOD: dict[str, Any] = {"name": "Garden flat", "answers": {"pylon": "none", "light": "fair"}}
PROBLEM = "application/problem+json"


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[HouseApp]:
    made = assembly.build("vm-1", Settings(sqlite_url(tmp_path)))
    yield made
    await made.store.close()


@pytest.fixture
def app(made: HouseApp) -> Frame:
    return create_app("vm-1", extension=made.extension)


def client_of(app: Frame) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://vm")


@pytest.fixture
async def client(app: Frame) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def refused(answer: httpx.Response, status: int, *, field: str = "", code: str = "") -> dict[str, Any]:
    """The problem in an answer, which has to be one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem: dict[str, Any] = answer.json()
    assert set(problem) <= set(Problem.__struct_fields__)
    assert problem["status"] == status
    assert problem.get("field", "") == field
    assert not code or problem["code"] == code
    assert "Traceback" not in answer.text
    return problem


async def keep(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await client.post(f"{ROOT}/records", json=GOOD | changes)
    assert answer.status_code == 201, answer.text
    record: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"{ROOT}/records/{record['id']}"
    return record


# What it does.


async def test_the_catalogue_is_given_in_each_language(client: httpx.AsyncClient) -> None:
    for language in ("zh-TW", "en"):
        answer = await client.get(f"{ROOT}/catalogue", params={"language": language})
        given = answer.json()
        indicators = [one for part in given["parts"] for group in part["groups"] for one in group["indicators"]]
        assert [one["id"] for one in indicators] == [one.id for one in catalogue().indicators]
        assert "max-age" in answer.headers["cache-control"]
        assert "set-cookie" not in answer.headers
    refused(await client.get(f"{ROOT}/catalogue?language=fr"), 422, field="language", code="one-of")


async def test_evaluating_keeps_nothing_and_starts_no_session(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{ROOT}/evaluate?language=en", json={"answers": dict(SAMPLES[1].answers)})
    found = answer.json()
    assert [part["part"] for part in found["parts"]] == ["outside", "building", "inside"]
    assert 0 <= found["total"]["value"] <= 100
    assert len(found["worst"]) == len(found["best"]) == 3
    assert all(one["remedy"] and one["contribution"] < 0 for one in found["worst"])
    assert "set-cookie" not in answer.headers
    nothing = (await client.post(f"{ROOT}/evaluate", json={"answers": {}})).json()
    assert nothing["total"] == {"value": None, "answered": 0, "asked": len(catalogue().indicators), "share": 0.0}


async def test_a_record_is_kept_read_replaced_and_deleted(client: httpx.AsyncClient) -> None:
    made = await keep(client)
    path = f"{ROOT}/records/{made['id']}"
    assert (await client.get(path)).json() == made
    assert not made["sample"]
    assert made["scores"]["building"] is None
    changed = await client.put(path, json={"name": "Renamed", "notes": "a\r\nb"})
    assert changed.status_code == 200
    assert (changed.json()["name"], changed.json()["notes"], changed.json()["answers"]) == ("Renamed", "a\nb", {})
    assert changed.json()["created"] == made["created"]
    gone = await client.delete(path)
    assert (gone.status_code, gone.content) == (204, b"")
    refused(await client.get(path), 404, code="no-record")


async def test_records_are_listed_searched_sorted_and_paged(client: httpx.AsyncClient) -> None:
    for name in ("甲 house", "乙 house", "丙 home"):
        await keep(client, name=name)
    found = (await client.get(f"{ROOT}/records", params={"text": "HOUSE", "sort": "name", "size": 1, "page": 2})).json()
    assert (found["total"], found["page"], found["pages"]) == (2, 2, 2)
    everything = (await client.get(f"{ROOT}/records")).json()
    assert everything["total"] == 3 + len(SAMPLES)
    assert everything["records"][0]["name"] == "丙 home"
    refused(await client.get(f"{ROOT}/records?sort=owner"), 422, field="sort", code="one-of")
    refused(await client.get(f"{ROOT}/records?page=-1"), 422, field="page")


async def test_the_samples_can_be_compared_by_anybody(client: httpx.AsyncClient) -> None:
    ids = ",".join(sample.id for sample in SAMPLES)
    found = (await client.get(f"{ROOT}/compare", params={"records": ids, "language": "en"})).json()
    assert [home["record"]["name"] for home in found["homes"]] == [sample.names.en for sample in SAMPLES]
    first, second = (home["record"]["scores"] for home in found["homes"])
    assert first["outside"] == second["outside"]
    assert first["inside"] != second["inside"]
    refused(await client.get(f"{ROOT}/compare?records="), 422, field="records")
    refused(await client.get(f"{ROOT}/compare?records=a,b"), 404)


async def test_the_ruler_reads_a_door(client: httpx.AsyncClient) -> None:
    read = (await client.get(f"{ROOT}/ruler?cm=88.5&language=en")).json()
    assert (read["character"], read["name"], read["auspicious"], read["length"]) == ("財", "Wealth", True, "42.9")
    unlucky = (await client.get(f"{ROOT}/ruler?cm=6&length=43.2")).json()
    assert not unlucky["auspicious"]
    assert len(unlucky["suggestions"]) == 2
    for typed in ("88,5", "88.5 cm", "88.5公分"):
        answer = await client.get(f"{ROOT}/ruler", params={"cm": typed, "language": "en"})
        assert (answer.status_code, answer.json()) == (200, read), typed
    refused(await client.get(f"{ROOT}/ruler"), 422, field="cm", code="required")
    for typed, code in {"wide": "centimetres", "-5": "centimetres-range", "9" * 40: "centimetres-range"}.items():
        refused(await client.get(f"{ROOT}/ruler", params={"cm": typed}), 422, field="cm", code=code)
    refused(await client.get(f"{ROOT}/ruler?cm=88&length=5"), 422, field="length", code="length-range")


async def test_the_table_is_a_download(client: httpx.AsyncClient) -> None:
    await keep(client, name="=1+1")
    answer = await client.get(f"{ROOT}/export.csv?language=en")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    assert answer.headers["cache-control"] == "no-store"
    assert "\n'=1+1," in answer.text


async def test_the_document_describes_every_operation(client: httpx.AsyncClient) -> None:
    document = (await client.get("/api/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    operations = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert len(operations) == 10
    assert ("put", f"{ROOT}/records/{{record}}") in operations
    references = set(_references(document))
    assert {one.removeprefix("#/components/schemas/") for one in references} <= set(document["components"]["schemas"])
    page = await client.get("/api")
    assert all(path.replace("{", "{") in page.text for _, path in operations)
    assert 'src="//' not in page.text
    assert "http://" not in page.text


def _references(node: Any) -> Any:
    if isinstance(node, dict):
        yield from ([node["$ref"]] if isinstance(node.get("$ref"), str) else [])
        for value in node.values():
            yield from _references(value)
    if isinstance(node, list):
        for value in node:
            yield from _references(value)


# Whose records.


async def test_anothers_record_is_not_there(app: Frame) -> None:
    async with client_of(app) as ana, client_of(app) as ben:
        hers = await keep(ana)
        path = f"{ROOT}/records/{hers['id']}"
        for answer in (
            await ben.get(path),
            await ben.put(path, json=GOOD),
            await ben.delete(path),
            await ben.get(f"{ROOT}/compare?records={hers['id']},{SAMPLES[0].id}"),
        ):
            refused(answer, 404, code="no-record")
        assert (await ben.get(f"{ROOT}/records?text=garden")).json()["total"] == 0
        assert "Garden" not in (await ben.get(f"{ROOT}/export.csv")).text
        assert (await ana.get(path)).json() == hers


async def test_samples_cannot_be_changed(client: httpx.AsyncClient) -> None:
    path = f"{ROOT}/records/{SAMPLES[0].id}"
    before = (await client.get(path)).json()
    assert before["sample"]
    refused(await client.put(path, json=GOOD), 404)
    refused(await client.delete(path), 404)
    assert (await client.get(path)).json() == before


async def test_an_answer_never_tells_the_session(client: httpx.AsyncClient) -> None:
    await keep(client)
    session = client.cookies["luban_session"].partition(".")[0]
    for path in ("records", "export.csv", f"compare?records={SAMPLES[0].id},{SAMPLES[1].id}"):
        assert session not in (await client.get(f"{ROOT}/{path}")).text


async def test_a_session_has_so_many_records_and_no_more(client: httpx.AsyncClient) -> None:
    for _ in range(MAX_RECORDS_PER_OWNER):
        await keep(client)
    problem = refused(await client.post(f"{ROOT}/records", json=GOOD), 409, code="too-many-records")
    assert str(MAX_RECORDS_PER_OWNER) in problem["detail"]


# Abuse.


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1,", b"nul", b"\xff\xfe", b'{"name": "\xff"}', b'{"name": "\\ud800"}', b'{"name": "a\nb"}', b"NaN",
     b'{"name":"a"} {"name":"b"}', b"[" * 60_000, b'{"name":' * 8_000, b"\xef\xbb\xbf{}"],
)  # fmt: skip
async def test_what_is_not_json_is_a_bad_request(client: httpx.AsyncClient, body: bytes) -> None:
    for method, path in (("POST", "records"), ("PUT", "records/x"), ("POST", "evaluate")):
        answer = await client.request(
            method, f"{ROOT}/{path}", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in {400, 422}, answer.text
        refused(answer, answer.status_code, field=answer.json().get("field", ""))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        (None, "body"),
        ("text", "body"),
        ({}, "body"),
        ({"name": None}, "name"),
        ({"name": 5}, "name"),
        ({"name": ["x"]}, "name"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "x" * 81}, "name"),
        ({"name": "x", "address": "x" * 201}, "address"),
        ({"name": "x", "notes": "x" * (NOTES_LENGTH + 1)}, "notes"),
        ({"name": "x", "notes": "\x1b"}, "notes"),
        ({"name": "x", "owner": "y"}, "body"),
        ({"name": "x", "scores": {"total": 100}}, "body"),
        ({"name": "x", "answers": []}, "answers"),
        ({"name": "x", "answers": {"pylon": 1}}, "answers[...]"),
        ({"name": "x", "answers": {"pylon": "nosuch"}}, "pylon"),
        ({"name": "x", "answers": {"nosuch": "none"}}, "nosuch"),
        ({"name": "x", "answers": {"__proto__": "none"}}, "__proto__"),
        ({"name": "x", "answers": {f"i{number}": "x" for number in range(2_000)}}, "answers"),
    ],
)
async def test_what_is_wrong_is_named(client: httpx.AsyncClient, body: Any, field: str) -> None:
    sent: dict[str, Any] = {"content": json.dumps(body), "headers": {"Content-Type": "application/json"}}
    refused(await client.post(f"{ROOT}/records", **sent), 422, field=field)
    refused(await client.put(f"{ROOT}/records/x", **sent), 422, field=field)
    assert (await client.get(f"{ROOT}/records")).json()["total"] == len(SAMPLES)


async def test_ten_thousand_indicators_are_too_much(client: httpx.AsyncClient) -> None:
    body = {"answers": {f"indicator-{number}": "none" for number in range(10_000)}}
    refused(await client.post(f"{ROOT}/evaluate", json=body), 413)
    refused(await client.post(f"{ROOT}/records", json=body | {"name": "x"}), 413)


@pytest.mark.parametrize("field", ["name", "address", "notes"])
async def test_a_megabyte_in_a_field_is_too_much(client: httpx.AsyncClient, field: str) -> None:
    refused(await client.post(f"{ROOT}/records", json=GOOD | {field: "x" * 1_000_000}), 413)
    refused(await client.put(f"{ROOT}/records/x", json=GOOD | {field: "家" * 1_000_000}), 413)


@pytest.mark.parametrize(
    "text",
    ["<script>alert(1)</script>", "'; DROP TABLE records; --", '" OR ""="', "%00", "{{7*7}}", "${jndi:ldap://x}",
     "../../etc/passwd", "🏠" * 40, "\\x00", "$1 %s :name ?"],
)  # fmt: skip
async def test_html_and_sql_are_only_text(client: httpx.AsyncClient, text: str) -> None:
    made = await keep(client, name=text, address=text, notes=text)
    assert (made["name"], made["address"], made["notes"]) == (text, text, text)
    found = (await client.get(f"{ROOT}/records", params={"text": text})).json()
    assert [record["id"] for record in found["records"]] == [made["id"]]
    for parameter in ("sort", "order", "page", "size", "language"):
        refused(await client.get(f"{ROOT}/records", params={parameter: text}), 422, field=parameter)
    refused(await client.get(f"{ROOT}/records/{text.replace('/', '')}"), 404)
    refused(await client.post(f"{ROOT}/evaluate", json={"answers": {text: "x"}}), 422, field=text)
    refused(await client.get(f"{ROOT}/ruler", params={"cm": text}), 422, field="cm")


@pytest.mark.parametrize(
    "path", ["/records/%00", "/records/%ff%fe", "/records/" + "x" * 5000, "/records/a%20b", "/nosuch"]
)
async def test_odd_addresses_are_not_found(client: httpx.AsyncClient, path: str) -> None:
    refused(await client.get(ROOT + path), 404)


@pytest.mark.parametrize("query", ["text=%00", "text=%ff", "text=%ed%a0%80", "page=" + "9" * 3000, "size=%00"])
async def test_odd_parameters_are_refused_or_harmless(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"{ROOT}/records?{query}")).status_code in {200, 422}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "records", "GET, HEAD, POST"),
        ("PATCH", "records/x", "DELETE, GET, HEAD, PUT"),
        ("GET", "evaluate", "POST"),
        ("POST", "catalogue", "GET, HEAD"),
        ("BREW", "ruler", "GET, HEAD"),
    ],
)
async def test_other_methods_are_refused_with_those_that_work(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await client.request(method, f"{ROOT}/{path}")
    refused(answer, 405)
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_a_form_of_another_site_cannot_pass_for_json(client: httpx.AsyncClient, kind: str) -> None:
    content = json.dumps(GOOD).encode()
    answer = await client.post(f"{ROOT}/records", content=content, headers={"Content-Type": kind})
    refused(answer, 415)


async def test_another_sites_page_changes_nothing(client: httpx.AsyncClient) -> None:
    made = await keep(client)
    path = f"{ROOT}/records/{made['id']}"
    for foreign in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        refused(await client.post(f"{ROOT}/records", json=GOOD, headers=foreign), 403)
        refused(await client.put(path, json=GOOD, headers=foreign), 403)
        refused(await client.delete(path, headers=foreign), 403)
    assert (await client.get(path)).json() == made


# Without its database.


async def test_without_a_database_the_service_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luban_app.store.sql_store.RETRY_SECONDS", 0.0)
    made = assembly.build("vm-1", Settings(parse_url("postgresql://luban:hunter2@127.0.0.1:1/house")))
    async with client_of(create_app("vm-1", extension=made.extension)) as client:
        assert (await client.get("/healthz")).status_code == 200
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "database" in ready.json()["failed"]
        for method, path, body in (
            ("GET", "records", None),
            ("POST", "records", GOOD),
            ("GET", f"compare?records={SAMPLES[0].id},{SAMPLES[1].id}", None),
            ("GET", "export.csv", None),
        ):
            answer = await client.request(method, f"{ROOT}/{path}", json=body)
            refused(answer, 503, code="unavailable")
            assert answer.headers["retry-after"]
            assert "hunter2" not in answer.text
        assert "hunter2" not in ready.text
        assert (await client.get("/nosuch")).status_code in {404, 503}
        for works in ("catalogue", "ruler?cm=88"):
            assert (await client.get(f"{ROOT}/{works}")).status_code == 200
        assert (await client.post(f"{ROOT}/evaluate", json={"answers": {}})).status_code == 200
    await made.store.close()


async def test_the_frames_own_routes_keep_their_methods(client: httpx.AsyncClient) -> None:
    answer = await client.post("/healthz")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


async def test_a_broken_handler_is_no_traceback(made: HouseApp, monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(*_: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(made.store, "find", breaks)
    async with client_of(create_app("vm-1", extension=made.extension)) as client:
        answer = await client.get(f"{ROOT}/records")
        refused(answer, 500)
        assert "secret detail" not in answer.text
        assert "content-security-policy" in answer.headers


async def test_a_migration_that_fails_is_tried_again(made: HouseApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luban_app.house.assembly.RETRY_SECONDS", 0.0)
    done, tries = asyncio.Event(), 0
    prepare = made.store.prepare

    async def breaks_twice() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise [StoreUnavailableError("away"), RuntimeError("broken on purpose")][tries - 1]
        await prepare()
        done.set()

    monkeypatch.setattr(made.store, "prepare", breaks_twice)
    async with made.lifespan(None), asyncio.timeout(30):  # type: ignore[arg-type]
        await done.wait()
        await made.store.check()


async def test_the_database_is_prepared_with_the_service_and_closed_with_it(tmp_path: Path) -> None:
    made = assembly.build("vm-1", Settings(sqlite_url(tmp_path)))
    async with made.lifespan(None):  # type: ignore[arg-type]
        await made.store.check()
    with pytest.raises((RuntimeError, StoreUnavailableError)):
        await made.store.check()
