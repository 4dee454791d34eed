"""
A publisher in a process of its own: numbers, so many a second, until its input ends.

They take turns in two channels. It prints ``acknowledged N`` or ``refused N`` of each, and
repeats none. At last it publishes ``end`` in both, until that is acknowledged.
"""

import os
import sys

import anyio

from asgi_sse.channels import Broker, BrokerError

CHANNELS = "even", "odd"


async def publish(url: str, rate: float) -> None:
    async with Broker(url, history=int(os.environ["HISTORY"]), timeout=2) as broker:

        async def publish_one(name: str, data: str) -> bool:
            try:
                await broker.publish(name, data)
            except BrokerError:
                print("refused", data, flush=True)
                return False
            print("acknowledged", data, flush=True)
            return True

        async with anyio.create_task_group() as numbers:

            async def count() -> None:
                number = 0
                while True:
                    # Not cut short, or nobody would know what became of it.
                    with anyio.CancelScope(shield=True):
                        await publish_one(CHANNELS[number % 2], str(number))
                    number += 1
                    await anyio.sleep(1 / rate)

            numbers.start_soon(count)
            await anyio.to_thread.run_sync(sys.stdin.read)
            numbers.cancel_scope.cancel()
        for name in CHANNELS:
            while not await publish_one(name, f"end of {name}"):  # noqa: ASYNC110
                await anyio.sleep(0.1)


if __name__ == "__main__":
    anyio.run(publish, sys.argv[1], float(sys.argv[2]))
