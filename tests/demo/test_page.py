import base64
import hashlib
import re

import pytest

from asgi_sse._demo.page import make_page


@pytest.fixture(scope="module")
def page() -> str:
    return make_page("Vitals")[0].decode()


def policy_of(title: str) -> dict[str, list[str]]:
    headers = dict(make_page(title)[1])
    directives = headers[b"content-security-policy"].decode().split("; ")
    return {name: values for name, *values in map(str.split, directives)}


def test_policy_allows_the_two_blocks_of_the_page_and_no_more(page: str) -> None:
    policy = policy_of("Vitals")

    assert policy["default-src"] == ["'none'"]
    for kind in ("script", "style"):
        [block] = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()

        assert policy[f"{kind}-src"] == [f"'sha256-{digest}'"]
    assert policy["connect-src"] == ["'self'"]


def test_policy_is_the_same_whatever_the_title() -> None:
    assert policy_of("a") == policy_of("<script>b</script>")


def test_title_is_escaped() -> None:
    body = make_page("<script>alert('1')</script> & $title")[0].decode()

    assert "<script>alert" not in body
    assert "<title>&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt; &amp; $title</title>" in body


def test_channels_are_values_and_no_markup() -> None:
    body = make_page("$channels", ["a", '"><b>'], publish=True)[0].decode()

    assert '<html lang="en" data-channels="[&quot;a&quot;, &quot;\\&quot;&gt;&lt;b&gt;' in body
    assert 'data-publish="true">' in body
    assert "<title>$channels</title>" in body


def test_page_fetches_nothing_from_elsewhere(page: str) -> None:
    # A namespace is a name, not an address.
    page = page.replace("http://www.w3.org/2000/svg", "")

    assert not re.findall(r"https?://|//[a-z]+\.", page)
    assert not re.findall(r"\b(?:src|@import|url\()", page)
    assert re.findall(r'href="(?!data:|#)', page) == []


def test_page_never_makes_markup_of_text(page: str) -> None:
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", page)
    assert not re.findall(r"\s(?:style|on[a-z]+)=", page)
