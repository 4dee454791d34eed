"""
Asking, from time to time, whether a client may still read.
"""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from inspect import isawaitable

from anyio import get_cancelled_exc_class
from anyio.lowlevel import RunVar

from ._event import ServerSentEvent
from ._options import Revalidate
from ._request import Request
from ._runtime import Entry, Runtime, Task

logger = logging.getLogger("asgi_sse")

# So many questions are open at once in an event loop. Whoever answers them is asked by
# every stream, and is to notice that there are some, not that there are 10,000. So a round
# of N streams takes no less than N / 100 times what an answer takes.
_MOST_AT_ONCE = 100

# An answer takes no longer, in seconds, nor longer than until the next question would be
# due; or it is none.
_LATEST_ANSWER = 10.0

# A stream goes on without an answer, and ends at the third one that is missing. Ended at
# the first, all clients would come back at once to a database that is down, and an
# EventSource that then gets a 500 never returns; never ended, who breaks the database
# reads on for ever.
_MOST_UNANSWERED = 3


class Revalidation:
    """
    The questions about one stream, one after the other.

    Args:
        runtime: Of the event loop.
        ask: What is asked.
        every: How many seconds lie between two questions, at most, unless too many others
            have theirs open.
        request: What it is asked with.
        name: What the source is called in a log.
        revoke: Called when the answer is no, with the last event to send, if any.

    """

    __slots__ = (
        "_ask",
        "_context",
        "_entry",
        "_every",
        "_name",
        "_over",
        "_questions",
        "_request",
        "_revoke",
        "_runtime",
        "_task",
        "_unanswered",
    )

    def __init__(
        self,
        runtime: Runtime,
        ask: Revalidate,
        every: float,
        request: Request,
        name: str,
        revoke: Callable[[ServerSentEvent | None], None],
    ) -> None:
        self._runtime = runtime
        self._ask = ask
        self._every = every
        self._request = request
        self._name = name
        self._revoke = revoke
        self._questions = _current_questions()
        # The callbacks of the ticker are called in anybody's context.
        self._context = copy_context()
        self._task: Task | None = None
        self._unanswered = 0
        self._over = False
        # However many streams come at once, their questions are spread from the beginning.
        first = runtime.now() + every * random.uniform(0.25, 1)
        self._entry: Entry = runtime.ticker.add(first, self._due)

    def discard(self) -> None:
        """
        Ask no more, and do not wait for an answer.
        """
        self._over = True
        self._runtime.ticker.discard(self._entry)
        self._let_go()

    @property
    def over(self) -> bool:
        """
        Whether nobody wants to know any more.
        """
        return self._over

    def begin(self) -> None:
        """
        Ask, now that it is this stream's turn.
        """
        self._task = self._context.run(self._runtime.spawn, self._question, f"{self._name} asks")
        self._wake_in(min(self._every, _LATEST_ANSWER))

    def _wake_in(self, seconds: float) -> None:
        self._runtime.ticker.discard(self._entry)
        self._entry = self._runtime.ticker.add(self._runtime.now() + seconds, self._due)

    def _due(self, _: float) -> float:
        if self._task is None:
            self._questions.add(self)
        else:
            self._let_go()
            self._take(TimeoutError("There was no answer in time."))
        return math.inf

    def _let_go(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            self._questions.remove()

    async def _question(self) -> None:
        task = self._task
        if task is None:
            return  # It was let go before it began.
        answer: object
        try:
            answer = self._ask(self._request)
            if isawaitable(answer):
                answer = await answer
        except get_cancelled_exc_class():
            return
        except Exception as exc:  # noqa: BLE001 - it is logged
            answer = exc
        # Or it comes too late, from one that swallows its cancellation.
        if self._task is task:
            self._task = None
            self._questions.remove()
            self._take(answer)

    def _take(self, answer: object) -> None:
        if answer is False or isinstance(answer, ServerSentEvent):
            self._revoke(answer or None)
            return
        if answer is True:
            self._unanswered = 0
            self._questions.note_answer(self._name)
        else:
            if not isinstance(answer, Exception):
                answer = TypeError(
                    f"revalidate must return a bool or a ServerSentEvent (got {answer!r:.100})"
                )
            self._unanswered += 1
            self._questions.note_failure(self._name, answer)
            if self._unanswered == _MOST_UNANSWERED:
                self._revoke(None)
                return
        self._wake_in(self._every * random.uniform(0.9, 1))


class _Questions:
    """
    Whose turn it is to ask, among the streams of one event loop.
    """

    def __init__(self) -> None:
        self._open = 0
        self._waiting: deque[Revalidation] = deque()
        # Whose source got no answer when it last asked: that is told once, not for each
        # stream. By name: what is asked may be a closure of each response, or unhashable.
        self._failing: set[str] = set()

    def add(self, revalidation: Revalidation) -> None:
        """
        Let one ask, now or when others have their answer.
        """
        self._waiting.append(revalidation)
        self._go_on()

    def remove(self) -> None:
        """
        Make room for another one.
        """
        self._open -= 1
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and self._open < _MOST_AT_ONCE:
            revalidation = self._waiting.popleft()
            if not revalidation.over:
                self._open += 1
                revalidation.begin()

    def note_answer(self, name: str) -> None:
        """
        Note that there is an answer to be had.
        """
        self._failing.discard(name)

    def note_failure(self, name: str, exc: Exception) -> None:
        """
        Log that there was none, if there was one before.
        """
        if name not in self._failing:
            self._failing.add(name)
            logger.error(
                "revalidate of %s gives no answer; streams end at the third one that is missing",
                name,
                exc_info=exc,
            )


_questions: RunVar[_Questions] = RunVar("asgi_sse_questions")


def _current_questions() -> _Questions:
    try:
        return _questions.get()
    except LookupError:
        questions = _Questions()
        _questions.set(questions)
        return questions
