"""
The comments of an event stream.
"""

__all__ = ["Comments"]


class Comments:
    """
    The lines of an event stream that a client throws away.
    """

    def __init__(self) -> None:
        self.comments: list[str] = []
        self._line = b""

    def feed(self, body: bytes) -> None:
        # A CR at the very end may be half of a CRLF: it stays for the next time. An
        # empty line between the halves would do no harm, being no comment.
        *lines, self._line = (
            (self._line + body).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        )
        self.comments += [
            line[1:].removeprefix(b" ").decode(errors="replace")
            for line in lines
            if line.startswith(b":")
        ]
