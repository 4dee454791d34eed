"""
A publisher in a process of its own: numbers, so many a second, until its input ends.

It prints ``acknowledged N`` or ``refused N`` of each, and repeats none. At last it publishes
``end``, until that is acknowledged.
"""

import os
import sys

import anyio

from asgi_sse.channels import Broker, BrokerError


async def publish(url: str, rate: float) -> None:
    async with Broker(url, history=int(os.environ["HISTORY"]), timeout=2) as broker:

        async def publish_one(data: str) -> bool:
            try:
                await broker.publish("news", data)
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
                        await publish_one(str(number))
                    number += 1
                    await anyio.sleep(1 / rate)

            numbers.start_soon(count)
            await anyio.to_thread.run_sync(sys.stdin.read)
            numbers.cancel_scope.cancel()
        while not await publish_one("end"):  # noqa: ASYNC110 - there is nothing to wait for
            await anyio.sleep(0.1)


if __name__ == "__main__":
    anyio.run(publish, sys.argv[1], float(sys.argv[2]))
