"""
What others have built on event streams works with those of this library.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from harness import SERVERS, Certificates, Server

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "examples"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize(
    ("name", "transport"),
    [
        ("hypercorn-asyncio", "streamable HTTP"),
        ("uvicorn-h11", "streamable HTTP"),
        # Not on hypercorn, which says with a traceback that the SDK answers a second time
        # when the client has left; it does so with sse-starlette too.
        ("uvicorn-h11", "SSE"),
    ],
)
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.real_time
async def test_mcp_sdk(name: str, transport: str, certificates: Certificates) -> None:
    seen: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    with Server(SERVERS[name], "served_mcp:app", certificates, folder=HERE) as server:
        url = f"http://127.0.0.1:{server.port}"
        client: Any
        if transport == "SSE":
            client = sse_client(f"{url}/sse")
        else:
            client = streamable_http_client(f"{url}/mcp")
        async with client as streams, ClientSession(*streams[:2]) as session:
            await session.initialize()
            tools = await session.list_tools()
            result = await session.call_tool(
                "add", {"a": 1, "b": 2}, progress_callback=on_progress
            )

        assert [tool.name for tool in tools.tools] == ["add"]
        assert result.structured_content == {"result": 3}
        assert seen == [1]
        output = server.take_output(until="is over.")
        assert "An EventSourceResponse of ours begins." in output


@pytest.fixture(params=["hypercorn-asyncio", "uvicorn-h11"])
def model(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[str]:
    app = "language_model.py" if request.param.startswith("hyper") else "language_model:app"
    with Server(SERVERS[request.param], app, certificates, folder=EXAMPLES) as server:
        yield f"http://127.0.0.1:{server.port}"


QUESTION: Any = [{"role": "user", "content": "Hello, you there"}]


def test_client_of_openai(model: str) -> None:
    with openai.OpenAI(base_url=f"{model}/v1", api_key="-", max_retries=0) as client:
        chunks = client.chat.completions.create(model="echo", messages=QUESTION, stream=True)
        tokens = [chunk.choices[0].delta.content for chunk in chunks]

        assert tokens == ["", "Hello,", " you", " there", None]
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="echo", messages=[], stream=True)


def test_client_of_anthropic(model: str) -> None:
    with (
        anthropic.Anthropic(base_url=model, api_key="-", max_retries=0) as client,
        client.messages.stream(model="echo", max_tokens=9, messages=QUESTION) as stream,
    ):
        tokens = list(stream.text_stream)
        message = stream.get_final_message()

    assert tokens == ["Hello,", " you", " there"]
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 3
