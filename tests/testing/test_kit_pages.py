"""
What the documentation tells people to copy is run as they would.
"""

import re
import shutil
import textwrap
from pathlib import Path

import pytest

from test_plugin import run

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("testing_*.py"))
PAGE = ROOT / "docs" / "testing.rst"
BLOCKS = [
    textwrap.dedent(block)
    for block in re.findall(
        r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", PAGE.read_text(encoding="utf-8")
    )
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_kit_examples(pytester: pytest.Pytester, example: Path) -> None:
    shutil.copy(example, pytester.path / f"test_{example.name}")

    result = run(pytester)

    assert result.ret == 0
    result.assert_outcomes(passed=2 * example.read_text().count("async def test_"))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n", 1)[0])
def test_kit_page(pytester: pytest.Pytester, block: str) -> None:
    # The app that the page speaks of is that of the first example.
    shutil.copy(EXAMPLES[0], pytester.path / "myapp.py")
    pytester.makeini("[pytest]\nanyio_mode = auto\nfilterwarnings = error")
    pytester.makepyfile(block)

    result = run(pytester)

    assert result.ret == (0 if "def test_" in block else 5)
