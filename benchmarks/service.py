"""Our service with exactly these settings, whatever stands in the environment: `python -m benchmarks.service JSON`.

`python -m benchmarks.service JSON LEASE`: the same with jobs that are claimed for LEASE seconds.
"""

import asyncio
import json
import logging
import sys

import app
from proxy.jobs import runner
from proxy.settings import Settings

if __name__ == "__main__":
    settings = Settings(**json.loads(sys.argv[1]))
    for lease in map(float, sys.argv[2:]):
        runner.LEASE, runner.RENEWAL = lease, lease / 3
    logging.basicConfig(level=settings.log_level)
    app.raise_open_files(settings.ext_queue_size)
    asyncio.run(app.run(settings))
