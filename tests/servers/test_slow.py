"""
Of a thousand clients of one channel a hundred never read, and the others do not notice.
"""

from asgi_sse.parser import EventStreamParser
from slow import Crowd

ROUNDS, EVENTS, SIZE = 10, 50, 1000
# By then the server can send no more to those who do not read.
STUCK = 4


def test_who_never_reads_costs_the_others_nothing() -> None:
    with Crowd("hypercorn", reading=900, silent=100, send_timeout=5) as crowd:
        before = crowd.statistics()
        for count in range(1, ROUNDS + 1):
            # No reader is closed, and no more is published before each has got all.
            crowd.publish(EVENTS, SIZE)
            if count == STUCK:
                stuck = crowd.statistics()
        after = crowd.statistics()
        crowd.wait_until_given_up()
        expected = bytes(crowd.readers[0].body)
        silent = [client.drain() for client in crowd.silent]

    assert before["subscribers"] == 1000
    assert all(client.body == expected for client in crowd.readers)
    ids = [event.id or "" for event in EventStreamParser().feed(expected)]
    assert [int(id.rpartition("-")[2]) for id in ids] == [*range(1, ROUNDS * EVENTS + 1)]
    # They were given up, and have the beginning of what the others have.
    assert all(expected.startswith(body) and len(body) < len(expected) for body in silent)
    # Half of what 100 queues would have grown by since.
    more = 100 * (ROUNDS - STUCK) * EVENTS * SIZE / 2
    assert after["memory"] - stuck["memory"] < more
