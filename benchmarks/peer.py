"""OpenAI's chat completions, beside the nearest peer: `python -m benchmarks.peer`.

Plain answers and streams of 20 chunks by turns, on one upstream; CPU time is the number to trust, it does not suffer
when others use the machine. Then what a waiting request weighs, where both let one call at a time go. Then 20 requests
at once, both without a setting, to an API that takes one call at a time.
"""

import json
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from benchmarks.gpt2giga import NAME, NotInstalled, gpt2giga, program
from benchmarks.load import BROKEN, Load
from benchmarks.processes import Process, calling, run_load, server, service, upstream
from benchmarks.report import Check, Report, Size, Table, command, ratios, spread
from benchmarks.throughput import CONNECTIONS, Rounds
from benchmarks.upstream import CHUNKS
from benchmarks.waiting import OTHER_FILES

PATH = "/v1/chat/completions"
#: Streams at once. Each takes a tenth of a second, however fast its proxy is: fewer would leave ours idle.
STREAMS = 128
MESSAGES = [
    {"role": "system", "content": "Ты робот киска, на все вопросы отвечай мяу-мяу"},
    {"role": "user", "content": "Привет, как дела? Расскажи, что нового в мире, и не забудь про погоду."},
]
PLAIN = json.dumps({"model": "GigaChat-2", "messages": MESSAGES, "max_tokens": 2000}, ensure_ascii=False)
STREAM = json.dumps({**json.loads(PLAIN), "stream": True}, ensure_ascii=False)
#: How many come at once to an API that takes one at a time, slowly enough that all meet.
BURST = 20
ONE_AT_A_TIME = ("-m", "emulator", "--port", "0", "--concurrency", "1", "--latency", "0.1", "--chunk-delay", "0.04")
#: Seconds that pass before anybody who waits is answered.
FOREVER = 1e6
#: Seconds that everybody may need to come in, and the share of a core below which a process has taken them all in.
ARRIVAL = 120.0
AT_REST = 0.1

#: Starts a proxy before an API.
Start = Callable[..., AbstractContextManager[Process]]


@dataclass
class Found:
    """What is measured of one of the two.

    `idle` is MB, `waiting` KB a waiting request. `refused` and `broken` are how many of BURST plain requests got a 429,
    and how many of BURST streams were refused or ended in an error.
    """

    plain: Rounds = field(default_factory=Rounds)
    streams: Rounds = field(default_factory=Rounds)
    idle: float = 0.0
    waiting: float = 0.0
    refused: int = 0
    broken: int = 0


def run(size: Size) -> Report:
    try:
        peer = partial(gpt2giga, program())
    except NotInstalled as reason:
        title = f"nothing is compared: {NAME} cannot be installed"
        return Report("peer", [], [Table(title, ("what pip says",), [(str(reason),)])])
    return compared(peer, size)


def compared(peer: Start, size: Size) -> Report:
    callers = min(int(size.pick(1000, 300, 20)), resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OTHER_FILES)
    ours, theirs = Found(), Found()
    with upstream() as api, service(api) as proxy, peer(api) as other:
        race([(proxy, ours), (other, theirs)], int(size.pick(7, 2, 1)), size.pick(3, 2, 0.3))
    with upstream(FOREVER) as api:
        with service(api, ext_max_requests=1, resp_timeout=FOREVER, exp_resp_timeout=FOREVER) as proxy:
            weigh(proxy, ours, callers)
        with peer(api, GPT2GIGA_MODEL_MAX_CONNECTIONS_DEFAULT="1", GIGACHAT_TIMEOUT=str(FOREVER)) as other:
            weigh(other, theirs, callers)
    with server(*ONE_AT_A_TIME) as api:
        oauth = "/api/v2/oauth"
        with service(api, ext_max_requests=1, gigachat_auth_url=api.url + oauth) as proxy:
            burst(proxy, ours)
        with peer(api, oauth=oauth) as other:
            burst(other, theirs)
    return report(ours, theirs, callers)


def race(entrants: Sequence[tuple[Process, Found]], rounds: int, seconds: float) -> None:
    """As many requests as they can take, by turns."""
    for process, _ in entrants:
        run_load(Load(process.url + PATH, CONNECTIONS, seconds / 3, body=PLAIN))  # warm
    for _ in range(rounds):
        for process, found in entrants:
            found.plain.add(process, Load(process.url + PATH, CONNECTIONS, seconds, body=PLAIN))
        for process, found in entrants:
            found.streams.add(process, Load(process.url + PATH, STREAMS, seconds, body=STREAM))


def weigh(process: Process, found: Found, callers: int) -> None:
    """With nobody, and with so many of whom one is in flight and the others wait."""
    settle(process)
    before, files = process.rss(), process.files()
    with calling(Load(process.url + PATH, callers, FOREVER, is_once=True, body=PLAIN)) as load:
        settle(process, files + callers)
        found.idle, found.waiting = before / 1024, (process.rss() - before) / callers
        if answers := load.stopped().answers:
            raise RuntimeError(f"not all of them waited: {answers}")


def settle(process: Process, files: int = 0) -> None:
    """Wait until it has so many files open and nothing to do."""
    deadline = time.monotonic() + ARRIVAL
    is_at_rest = False
    while not is_at_rest:
        if time.monotonic() > deadline:
            raise RuntimeError(f"it has {process.files()} of {files} files open, and does not come to rest")
        before = process.cpu()
        time.sleep(1)
        is_at_rest = process.files() >= files and process.cpu() - before < AT_REST


def burst(process: Process, found: Found) -> None:
    """Everybody at once, first for plain answers, then for streams."""
    plain, streams = (
        run_load(Load(process.url + PATH, BURST, ARRIVAL, is_once=True, body=body)).answers for body in (PLAIN, STREAM)
    )
    found.refused = plain.get("429", 0)
    found.broken = streams.get(BROKEN, 0) + streams.get("429", 0)


def report(ours: Found, theirs: Found, callers: int) -> Report:
    rows = [
        row(f"requests a second, {CONNECTIONS} at once", ours.plain.rate, theirs.plain.rate, ".0f"),
        row("CPU ms a request", ours.plain.cpu, theirs.plain.cpu),
        row(f"streams a second, {STREAMS} at once", ours.streams.rate, theirs.streams.rate, ".0f"),
        row("CPU ms a stream", ours.streams.cpu, theirs.streams.cpu),
        row(f"KB a request, {callers} waiting", [ours.waiting], [theirs.waiting]),
        row("MB idle", [ours.idle], [theirs.idle]),
        (f"429s to {BURST} at once", str(ours.refused), str(theirs.refused), "-"),
        (f"broken of {BURST} streams at once", str(ours.broken), str(theirs.broken), "-"),
    ]
    title = f"{PATH}, {len(ours.plain.rate)} alternating rounds: median (least-greatest)"
    return Report("peer", checks(ours, theirs), [Table(title, ("measure", "ours", NAME, "ours / the peer's"), rows)])


def checks(ours: Found, theirs: Found) -> list[Check]:
    def times(name: str, our: Sequence[float], their: Sequence[float]) -> Check:
        return Check(f"{name}, ours / the peer's", median(ratios(our, their)), least=5)

    return [
        times("requests a second", ours.plain.rate, theirs.plain.rate),
        times("requests a CPU second", theirs.plain.cpu, ours.plain.cpu),
        times(f"streams of {CHUNKS} chunks a second", ours.streams.rate, theirs.streams.rate),
        times(f"streams of {CHUNKS} chunks a CPU second", theirs.streams.cpu, ours.streams.cpu),
        Check("KB a waiting request, ours / the peer's", ours.waiting / theirs.waiting, most=0.5),
        Check(f"429s to {BURST} at once, ours", ours.refused, most=0),
        Check(f"429s to {BURST} at once, the peer's", theirs.refused),
    ]


def row(name: str, ours: Sequence[float], theirs: Sequence[float], form: str = ".3g") -> tuple[str, ...]:
    return name, spread(ours, form), spread(theirs, form), spread(ratios(ours, theirs))


if __name__ == "__main__":
    command(run)
