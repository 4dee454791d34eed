"""
Django's middleware leaves a stream alone that is compressed already.
"""

from collections.abc import AsyncIterator

import pytest
from django.conf import settings  # type: ignore[import-untyped]
from django.http import StreamingHttpResponse  # type: ignore[import-untyped]
from django.middleware.gzip import GZipMiddleware  # type: ignore[import-untyped]
from django.test import RequestFactory  # type: ignore[import-untyped]

from asgi_sse import EventStream
from asgi_sse.testing import connect


async def source() -> AsyncIterator[str]:
    """
    Tell one thing.
    """
    yield "x" * 600


@pytest.mark.parametrize("compress", [True, False])
async def test_djangos_middleware_compresses_no_second_time(compress: bool) -> None:
    """
    Of a stream that is not, it would make a gzip file for each chunk, and browsers read one.
    """
    if not settings.configured:
        settings.configure()
    accept = {"Accept-Encoding": "gzip"}
    async with connect(EventStream(source, compress=compress), headers=accept) as stream:
        await stream.wait_closed()

        async def chunks() -> AsyncIterator[bytes]:
            for chunk in stream.chunks:
                yield chunk.body

        response = StreamingHttpResponse(chunks(), headers=dict(stream.headers))
        request = RequestFactory().get("/", headers=accept)
        passed = GZipMiddleware(lambda _: response)(request)

        assert passed["Content-Encoding"] == "gzip"
        body = b"".join([chunk async for chunk in passed])
        assert (body == stream.body) is compress
