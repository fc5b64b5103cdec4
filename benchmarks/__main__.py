"""`python -m benchmarks [--quick | --smoke]`: all of them, one after the other."""

from benchmarks import (
    client,
    jobs,
    jobs_batch,
    jobs_kill,
    pacing,
    peer,
    replicas,
    sdk,
    startup,
    throughput,
    traced,
    waiting,
    watched,
)
from benchmarks.report import command

if __name__ == "__main__":
    command(
        *(throughput.run, pacing.run, waiting.run, startup.run, client.run, sdk.run, peer.run),
        *(jobs.run, jobs_kill.run, jobs_batch.run, replicas.run, watched.run, traced.run),
    )
