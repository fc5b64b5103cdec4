"""The parts of the service, each ignorant of the others above it.

To read the whole, begin at the top level: `app.py` (what is put together), `proxy_request.py` (a request's life), then

    routes.py       the table of paths; guard.py: what is around every request: its id, its failure, its entry
    browsers.py     which web pages may call, and what their browsers are told
    serving.py      the operations, with callers.py (who sent it) and passes.py (tokens of our own making)
    delivery.py     answers on the wire; heartbeat.py: keeping who waits alive; sse.py: server-sent events
    entry.py        a request under way and over; journal.py: its line on disk, and the log's; logfile.py: their files
    dialects/       what callers speak: pure translation; forwarding.py: what passes byte for byte
    lanes.py        an upstream with its accounts, limits and line
    request.py      one request in the line; fair_queue.py: who waits, in the order of order.py
    estimate.py     how long the wait will be; promises.py: places kept for the refused
    limits/         pace, concurrency and pauses of one account: the promise, and local.py, one process's way to keep it
    upstream.py     the HTTP client of connectors, with the send gate
    credentials.py  what else connectors are made of: tokens.py, tls.py, once.py (one run for all), rules.py (checks)
    connector.py    the contract of a connector and its loader; threads.py: plain functions beside the loop
    settings.py     every knob; errors.py: every way to fail; clock.py: the time that tests can hold

Imports go downwards only:
    app -> {proxy_request, serving, routes, guard} ->
    {lanes, limits, request, fair_queue, order, estimate, promises, callers, passes, browsers, upstream, dialects,
    delivery, heartbeat, sse, credentials, tokens, tls, once, rules, entry, journal, logfile} ->
    {connector, forwarding, settings, errors, clock, threads}
Connectors import only {upstream, sse, limits, credentials, tokens, tls, once, rules} and the lowest rung; nobody
imports a connector but `proxy_request.py`. The emulator imports nothing of ours.
"""
