"""
The document that FastAPI makes is OpenAPI 3.2, and its schemas fit what is sent.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import jsonschema  # type: ignore[import-untyped]
import openapi_spec_validator
from fastapi import FastAPI
from pydantic import BaseModel

from asgi_sse.fastapi import EventSourceResponse, EventStreamRoute, EventType, LastEventID


class Tick(BaseModel):
    n: int


class Trade(BaseModel):
    price: float


app = FastAPI()
# FastAPI writes what 3.2 has brought, and calls it 3.1.
app.openapi_version = "3.2.0"
app.router.route_class = EventStreamRoute


@app.get("/ticks", response_class=EventSourceResponse)
async def ticks(last: LastEventID) -> AsyncIterator[Tick]:
    yield Tick(n=1)


@app.post("/all/{room}", response_class=EventSourceResponse, status_code=201)
async def everything(
    room: int, tick: Tick
) -> AsyncIterator[Tick | Annotated[Trade, EventType("trade")] | int]:
    yield tick


def test_document_is_valid() -> None:
    document: Any = app.openapi()

    openapi_spec_validator.validate(document)
    content = document["paths"]["/all/{room}"]["post"]["responses"]["201"]["content"]
    assert list(content["text/event-stream"]) == ["itemSchema"]


def test_an_event_fits_one_of_the_schemas() -> None:
    document: Any = app.openapi()
    content = document["paths"]["/all/{room}"]["post"]["responses"]["201"]["content"]
    schema = content["text/event-stream"]["itemSchema"]
    validator = jsonschema.Draft202012Validator({**document, **schema})

    assert validator.is_valid({"event": "Tick", "data": '{"n":1}', "id": "1"})
    assert validator.is_valid({"event": "trade", "data": '{"price":1.5}'})
    assert validator.is_valid({"data": "1", "retry": 5})
    assert not validator.is_valid({"event": "Trade", "data": '{"price":1.5}'})
    assert not validator.is_valid({"event": "Tick"})
