"""
Server-sent events for every ASGI server and framework.
"""

from ._event import ServerSentEvent
from ._request import Refused, Request
from ._shutdown import drain
from ._stream import EventStream, event_stream

__version__ = "0.1.0"

__all__ = ["EventStream", "Refused", "Request", "ServerSentEvent", "drain", "event_stream"]
