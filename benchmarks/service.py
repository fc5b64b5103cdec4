"""Our service with exactly these settings, whatever stands in the environment: `python -m benchmarks.service JSON`."""

import asyncio
import json
import logging
import sys

import app
from proxy.settings import Settings

if __name__ == "__main__":
    settings = Settings(**json.loads(sys.argv[1]))
    logging.basicConfig(level=settings.log_level)
    app.raise_open_files(settings.ext_queue_size)
    asyncio.run(app.run(settings))
