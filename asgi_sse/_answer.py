"""
What a function says that is asked for yes or no.
"""

from __future__ import annotations

from inspect import iscoroutine


def check_bool(name: str, answer: object) -> bool:
    """
    Return the answer of the user's function *name*.

    Raises:
        TypeError: It is not a bool: a coroutine, above all, which would be a yes to all.

    """
    if isinstance(answer, bool):
        return answer
    if iscoroutine(answer):
        answer.close()
    raise TypeError(f"{name} must return a bool (got {answer!r:.100})")
