"""The parts of the service, each ignorant of the others above it.

To read the whole, begin at the top level: `app.py` (what is put together), `proxy_request.py` (a request's life), then

    serving.py      the HTTP edge, with callers.py (who sent it), heartbeat.py (keeping it alive), routes.py (the table)
    dialects/       what callers speak: pure translation
    lanes.py        an upstream with its accounts, limits and line
    order.py        weighted fair order; estimate.py: how long the wait will be; promises.py: places kept
    limits/         pace, concurrency and pauses of one account: the promise, and local.py, one process's way to keep it
    upstream.py     the HTTP client of connectors, with the send gate; sse.py: server-sent events
    connector.py    the contract of a connector and its loader
    settings.py     every knob; errors.py: every way to fail; clock.py: the time that tests can hold

Imports go downwards only:
    app -> {proxy_request, serving, routes} -> {lanes, limits, order, estimate, promises, callers, upstream, dialects,
    heartbeat, sse} -> {connector, settings, errors, clock}
Connectors import only upstream, sse, limits and the lowest rung; nobody imports a connector but `proxy_request.py`.
"""
