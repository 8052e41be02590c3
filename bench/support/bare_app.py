"""The baseline of the `app` bench: Starlette and one SQLAlchemy insert, with nothing around them.

It parses the same JSON and inserts the same row into the same table, in a thread, and answers with the row's id.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvicorn
from sqlalchemy import insert
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from luban_app.store.engine import open_engine, sqlite_url
from luban_app.store.schema import metadata, records


def application(folder: Path) -> Starlette:
    """The application, with its database in `folder`."""
    engine = open_engine(sqlite_url(folder))
    metadata.create_all(engine)
    threads = ThreadPoolExecutor(1)

    def keep(row: dict[str, object]) -> None:
        with engine.begin() as connection:
            connection.execute(insert(records), row)

    async def create(request: Request) -> JSONResponse:
        sent = await request.json()
        now = time.time_ns() // 1000
        row = {
            "id": secrets.token_urlsafe(12),
            "owner": "bench",
            "name": sent["name"],
            "address": sent["address"],
            "notes": sent["notes"],
            "name_key": sent["name"],
            "search_key": sent["name"] + sent["address"] + sent["notes"],
            "answers": json.dumps(sent["answers"]),
            "outside": 50.0,
            "building": 50.0,
            "inside": 50.0,
            "total": 50.0,
            "created": now,
            "updated": now,
        }
        await asyncio.get_running_loop().run_in_executor(threads, keep, row)
        return JSONResponse({"id": row["id"]}, 201)

    async def healthy(_request: Request) -> JSONResponse:
        return JSONResponse({})

    routes = [Route("/api/v1/records", create, methods=["POST"]), Route("/readyz", healthy)]
    return Starlette(routes=routes)


if __name__ == "__main__":
    uvicorn.run(
        application(Path(sys.argv[1])),
        port=int(sys.argv[2]),
        loop="asyncio",
        http="h11",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
    )
