"""A process that takes jobs in and runs them until it is killed: `python victim.py PLACE`.

What it writes down is true before it is written: `added ID`, `began ID` before a run, `acked ID NONCE` after it.
"""

import asyncio
import os
import sys
from itertools import count
from pathlib import Path
from uuid import uuid4

from proxy.jobs import Answer, Job, JobStore, Kind
from proxy.jobs.store import opened

#: Adds that are under way at once, and jobs that are run at once.
ADDING, RUNNING = 10, 4
#: Seconds.
LEASE = 0.5


def tell(*words: str) -> None:
    os.write(1, (" ".join(words) + "\n").encode())


async def add(jobs: JobStore, most: int) -> None:
    for number in count():
        if number % 3 == 2:
            told = [Job(caller="ann", operation="chat", dialect="openai") for _ in range(5)]
            await jobs.add(*told)
        else:
            told = [(await jobs.find_or_add(Job(caller="ann", key=uuid4().hex, operation="x", dialect="y"))).job]
        for job in told:
            tell("added", job.id)
        if number >= most:
            return


async def run(jobs: JobStore) -> None:
    with jobs.news(Kind.LIVE.topic) as news:
        while True:
            claimed = await jobs.claim(Kind.LIVE, 1, LEASE)
            if not claimed.jobs:
                await news.next(claimed.again)
            for job in claimed.jobs:
                nonce = uuid4().hex
                tell("began", job.id)
                await asyncio.sleep(0)
                if await jobs.ack(job.claim, Answer(200, "text/plain", nonce.encode())):
                    tell("acked", job.id, nonce)


async def main(place: str) -> None:
    async with opened(place if "://" in place else Path(place)) as store:
        adding = [add(store.jobs, 40) for _ in range(ADDING)]
        await asyncio.gather(*adding, *[run(store.jobs) for _ in range(RUNNING)])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
