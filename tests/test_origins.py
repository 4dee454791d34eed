from collections.abc import AsyncIterator
from typing import Any

import pytest

from asgi_sse import EventStream, Refused
from asgi_sse._headers import RawHeader
from asgi_sse._origins import Origins, is_preflight
from asgi_sse.testing import Stream, connect

SHOP = "https://shop.example"


async def source() -> AsyncIterator[str]:
    """
    Tell one thing.
    """
    yield "a"


def cors(stream: Stream) -> dict[str, str]:
    """
    Return what a response says about other origins.
    """
    return {
        name: value
        for name, value in stream.headers.items()
        if name.startswith("access-control-") or name == "vary"
    }


def refused(error: type[Exception], **options: Any) -> str:
    with pytest.raises(error) as caught:
        EventStream(source, **options)
    return str(caught.value)


ALLOWED = {
    "access-control-allow-origin": SHOP,
    "access-control-expose-headers": "retry-after",
    "vary": "Origin",
}


@pytest.mark.parametrize("allow", [[SHOP], {SHOP}, (SHOP, "http://a"), lambda o: o == SHOP])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_an_allowed_origin_may_read_every_answer(allow: Any, method: str) -> None:
    app = EventStream(source, allow_origins=allow)
    async with connect(app, method=method, headers={"Origin": SHOP}) as stream:
        await stream.read()

        assert cors(stream) == ALLOWED


@pytest.mark.parametrize(
    "origin",
    [
        "https://shop.example.evil.example",
        "https://shop.example:8443",
        "http://shop.example",
        "null",
        "*",
        "",
    ],
)
async def test_another_origin_gets_the_stream_and_no_permission(origin: str) -> None:
    app = EventStream(source, allow_origins=[SHOP], allow_credentials=True)
    async with connect(app, headers={"Origin": origin}) as stream:
        assert await stream.read() == b":\n\ndata: a\n\n"
        assert cors(stream) == {"vary": "Origin"}


async def test_who_is_of_this_origin_names_none() -> None:
    async with connect(EventStream(source, allow_origins=[SHOP])) as stream:
        assert cors(stream) == {"vary": "Origin"}


async def test_nothing_is_said_by_default() -> None:
    async with connect(EventStream(source), headers={"Origin": SHOP}) as stream:
        assert cors(stream) == {}
    async with connect(EventStream(source), method="OPTIONS", headers={"Origin": SHOP}) as stream:
        assert stream.status == 405


async def test_credentials_are_allowed_where_they_are_wanted() -> None:
    app = EventStream(source, allow_origins=[SHOP], allow_credentials=True)
    async with connect(app, headers={"Origin": SHOP}) as stream:
        assert cors(stream) == ALLOWED | {"access-control-allow-credentials": "true"}


@pytest.mark.parametrize("allow", ["*", ["*"], [SHOP, "*"]])
async def test_any_origin_may_read_what_is_for_everybody(allow: Any) -> None:
    async with connect(EventStream(source, allow_origins=allow)) as stream:
        assert cors(stream) == {
            "access-control-allow-origin": "*",
            "access-control-expose-headers": "retry-after",
        }
    message = refused(ValueError, allow_origins=allow, allow_credentials=True)

    assert "Did you forget to list the origins?" in message


async def test_a_refusal_may_be_read_too() -> None:
    async def refusing() -> Any:
        raise Refused(401)

    app = EventStream(refusing, allow_origins=[SHOP])
    async with connect(app, headers={"Origin": SHOP}) as stream:
        assert stream.status == 401
        assert cors(stream) == ALLOWED


async def test_headers_of_the_caller_are_said_once() -> None:
    headers = {"Access-Control-Allow-Origin": "*", "Vary": "Cookie"}
    app = EventStream(source, allow_origins=[SHOP], headers=headers)
    async with connect(app, headers={"Origin": SHOP}) as stream:
        assert cors(stream) == ALLOWED | {"vary": "Cookie, Origin"}
        assert stream.headers.get_all("access-control-allow-origin") == [SHOP]


async def test_what_the_caller_lets_pages_read_stays() -> None:
    headers = {"Access-Control-Expose-Headers": "X-Mine"}
    app = EventStream(source, allow_origins="*", headers=headers)
    async with connect(app) as stream:
        exposed = stream.headers.get_all("access-control-expose-headers")

        assert exposed == ["X-Mine", "retry-after"]


# Preflight

ASKS = {
    "Origin": SHOP,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type, x-token",
}


async def test_a_preflight_allows_the_methods_and_what_is_asked_for() -> None:
    app = EventStream(source, methods=["POST"], allow_origins=[SHOP], allow_credentials=True)
    async with connect(app, method="OPTIONS", headers=ASKS) as stream:
        await stream.wait_closed()

        assert stream.status == 204
        assert stream.body == b""
        assert cors(stream) == ALLOWED | {
            "access-control-allow-credentials": "true",
            "access-control-allow-methods": "POST",
            "access-control-allow-headers": "content-type, x-token",
            "access-control-max-age": "600",
        }


async def test_a_function_is_asked_once_for_each_request() -> None:
    asked = []

    def allow(origin: str) -> bool:
        asked.append(origin)
        return True

    app = EventStream(source, methods=["POST"], allow_origins=allow)
    async with connect(app, method="OPTIONS", headers=ASKS) as stream:
        assert stream.status == 204
        assert stream.headers["access-control-allow-origin"] == SHOP

    assert asked == [SHOP]


async def coroutine_function(_: str) -> bool:
    return False


@pytest.mark.parametrize("allow", [coroutine_function, lambda _: None, lambda _: "yes"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_what_is_neither_yes_nor_no_allows_nobody(allow: Any, method: str) -> None:
    """
    A coroutine that nobody awaits is true.
    """
    app = EventStream(source, allow_origins=allow)
    with pytest.raises(TypeError, match="allow_origins must return a bool"):
        async with connect(app, method=method, headers=ASKS) as stream:
            await stream.read()


async def test_a_preflight_of_another_origin_is_refused() -> None:
    app = EventStream(source, methods=["POST"], allow_origins=[SHOP])
    async with connect(app, method="OPTIONS", headers=ASKS | {"Origin": "https://e"}) as stream:
        assert stream.status == 403
        assert cors(stream) == {"vary": "Origin"}


@pytest.mark.parametrize("asked", ["", "a b", "a,,b", "x\xe4", "x:y", "a," * 4096 + "a"])
async def test_a_preflight_sends_no_garbage_back(asked: str) -> None:
    headers = ASKS | {"Access-Control-Request-Headers": asked}
    app = EventStream(source, allow_origins="*")
    async with connect(app, method="OPTIONS", headers=headers) as stream:
        assert stream.status == 204
        assert stream.headers["access-control-allow-methods"] == "GET"
        # Spaces may be anywhere in it.
        assert stream.headers.get("access-control-allow-headers") == (
            "ab" if asked == "a b" else None
        )


async def test_options_without_a_question_is_a_method_like_others() -> None:
    app = EventStream(source, allow_origins=[SHOP], methods=["OPTIONS"])
    async with connect(app, method="OPTIONS", headers={"Origin": SHOP}) as stream:
        assert await stream.read() == b":\n\ndata: a\n\n"


def test_a_preflight_has_both_headers() -> None:
    origin = (b"Origin", b"x")
    method = (b"Access-Control-Request-Method", b"POST")

    assert is_preflight("OPTIONS", [origin, method])
    assert not is_preflight("OPTIONS", [origin])
    assert not is_preflight("POST", [origin, method])


@pytest.mark.parametrize(
    "headers",
    [
        [(b"origin", b"https://a\r\nx: y")],
        [(b"origin", b"https://\xff")],
        [(b"origin", b"https://a/b")],
        [(b"origin", b"https://a https://b")],
        [(b"origin", b"https://a"), (b"origin", b"https://a")],
        [],
    ],
)
def test_what_no_browser_sends_is_no_origin(headers: list[RawHeader]) -> None:
    def untouched(origin: str) -> bool:
        raise AssertionError(origin)

    origins = Origins(untouched, credentials=True, methods=["GET"])

    assert origins.headers(headers) == []


def test_only_a_function_may_allow_documents_without_an_origin() -> None:
    origins = Origins(lambda origin: origin == "null", credentials=False, methods=["GET"])

    assert origins.headers([(b"Origin", b"null")])[0] == (b"access-control-allow-origin", b"null")


# What is refused when it is made


@pytest.mark.parametrize("allow", [SHOP, "", b"*", 7, None, object()])
def test_origins_of_another_type_are_refused(allow: Any) -> None:
    assert refused(TypeError, allow_origins=allow) == (
        f"allow_origins must be a collection of origins, a function or '*' (got {allow!r})"
    )


def test_origins_are_str() -> None:
    assert refused(TypeError, allow_origins=[7]) == "allow_origins must hold str (got 7)"


@pytest.mark.parametrize(
    "origin",
    [
        f"{SHOP}/",
        "shop.example",
        "https://Shop.example",
        "https://*.example/",
        "https://a.example:443",
        "http://a:80",
        "http://[::1]:80",
        "null",
        "//a",
        "",
    ],
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    assert refused(ValueError, allow_origins=[origin]).endswith(f"(got {origin!r})")


@pytest.mark.parametrize(
    "origin", ["https://a:80", "http://a:443", "http://a:8080", "http://[::80]", "x://a:80"]
)
def test_ports_that_browsers_name_are_named(origin: str) -> None:
    EventStream(source, allow_origins=[origin])


def test_credentials_are_a_bool() -> None:
    message = refused(TypeError, allow_credentials=1)

    assert message == "allow_credentials must be a bool (got 1)"
