"""
From ``module:name`` to an ASGI application.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from typing import Any, Unpack

from .._options import OptionTypes
from .._stream import EventStream
from .site import App

__all__ = ["TargetError", "load_target"]


class TargetError(Exception):
    """
    There is no event stream at the target, for the reason it tells.
    """


def load_target(target: str, **options: Unpack[OptionTypes]) -> App:
    """
    Import what a target names, and make an event stream of it if it is not one yet.

    Modules are looked for in the current directory first.

    Args:
        target: ``module:name``, where the name may have dots. It is a source as
            :class:`EventStream` takes it, or an ASGI application.
        options: For the event stream that is made of a source.

    Raises:
        TargetError: There is no such module or name, it is neither, or it is an
            application, which has its options already, and some are given.

    """
    found = _import(target)
    if isinstance(found, EventStream) or _is_app(found):
        if options:
            names = " and ".join(options)
            raise TargetError(f"{target} is an application and has its own {names}")
        app: App = found
        return app
    try:
        return EventStream(found, **options)
    except (TypeError, ValueError) as error:
        raise TargetError(f"{target} cannot be served: {error}") from error


def _import(target: str) -> Any:
    module, colon, path = target.partition(":")
    if not (module and colon and path):
        raise TargetError(f"TARGET must be module:name or - (got {target!r})")
    if "/" in module or module.startswith(".") or module.endswith(".py"):
        raise TargetError(f"TARGET must name a module, like package.module (got {module!r})")
    # As for a script that is run.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # The module, or one that it imports.
        raise TargetError(f"{target} cannot be imported: {error}") from error
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise TargetError(f"{target} is not there: {error}") from error
    return found


def _is_app(found: Any) -> bool:
    """
    Whether it is called like an ASGI application, and not like a source.
    """
    try:
        bind = inspect.signature(found).bind
        bind("scope", "receive", "send")
    except (TypeError, ValueError):
        return False
    try:
        bind("request")
    except TypeError:
        return not isinstance(found, type)
    return False
