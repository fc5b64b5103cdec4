"""A process that works on all batches of a store until it is killed: `python batch_victim.py PLACE`.

What it writes down is true before it is written: `began ID NONCE` before a line is answered with NONCE.
"""

import asyncio
import os
import sys
from uuid import uuid4

from proxy import batching
from proxy.batching import Batching
from proxy.jobs import Answer, Job, Kind, runner
from proxy.jobs.recording import Ended, Recording
from proxy.jobs.runner import Runner
from proxy.jobs.store import opened

#: Lines that are run at once.
RUNNING = 4


async def serve(job: Job, recording: Recording, on_call: object) -> Ended:
    nonce = uuid4().hex
    os.write(1, f"began {job.id} {nonce}\n".encode())
    await asyncio.sleep(0.001)
    return Ended(Answer(200, "application/json", f'"{nonce}"'.encode()), None)


async def main(place: str) -> None:
    runner.WAITING, runner.UNDER_WAY = RUNNING, dict.fromkeys(Kind, RUNNING)
    runner.LEASE, runner.RENEWAL = 0.5, 0.1
    batching.AT_ONCE, batching.SETTLING, batching.LOOK = 10, 0.01, 0.2
    async with opened(place) as store:
        work = Runner(store, serve, {"batch": Batching(store, longest=10_000, room=10_000).run})
        work.start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
