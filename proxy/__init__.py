"""The parts of the service, each ignorant of the others above it.

To read the whole, begin at the top level: `app.py` (what is put together; of it what serves requests:
`application.py`), `proxy_request.py` (a request's life), then

    routes.py       the table of paths; guard.py: what is around every request: its id, its failure, its entry
    browsers.py     which web pages may call, and what their browsers are told
    openai_edge.py  the operations for OpenAI's clients; completions.py: their chats, with all the calls that one takes;
                    attachments.py: what they bring along; merging.py: several at once
    serving.py      the other operations; reception.py: who asks, and its way into the line; callers.py: who sent it;
                    passes.py: tokens of our own making
    delivery.py     answers on the wire; heartbeat.py: keeping who waits alive; sse.py: server-sent events
    info.py         what lanes tell of themselves and of their models
    entry.py        a request under way and over; journal.py: its line on disk, and the log's; logfile.py: their files
    tracing.py      what is told of a request to whoever follows it from service to service: nobody, unless asked for;
                    spans.py: requests as OpenTelemetry's spans, collector.py: where those go
    watching.py     what those ask who watch over the service: readiness.py: does it serve; metrics.py: what is counted,
                    series.py: how Prometheus reads it, scrape.py: all of it, with a look at what is there now
    dashboard.py    the page that shows it, and what it is told: overview.py, with what happened of late: recent.py
    openapi/        the description of all routes; docs.py: the page that shows it; pages.py: both pages' files
    admins.py       who is the operator
    steering.py     operators change limits: effect.py: what comes of it, audit.py: who did; steered.py: what they
                    change of a line; steering_edge.py: the operations of /limits and /queue
    belongings.py   whose files and batches a request names, and its answer; owners.py: who owns what, and its file
    attachments.py  pictures and files that requests bring along, as files of the API's; api_files.py: the calls for it;
                    sniffing.py: what a file is by its first bytes
    fetching.py     downloads of what callers name; public_hosts.py: which hosts callers may make us call
    dialects/       what callers speak: pure translation; forwarding.py: what passes byte for byte
    jobs/           work that outlives its caller: the promise of its store, and the engines that keep it, sqlite/ (one
                    process) and redis/ (many); runner.py runs it, run.py: one of them under way, ledger.py: what the
                    store is told of it, recording.py takes down how it is answered
    work.py         jobs in this service; accepting.py: requests that become jobs; jobs_edge.py: the operations of
                    /jobs; durable.py: what stands around operations that can be jobs; replay.py: jobs run as requests
                    from within; webhooks.py: telling callers' servers that jobs have ended
    batching.py     batches: files of requests become jobs, their answers become files; batches_edge.py: the operations
                    for OpenAI's clients; kept_files.py: the files, forms.py: how they come in
    idempotency.py  requests that come again; following.py: callers who wait for the answer of a job
    operators/      the command line of those who run the service: what is there, and what is to become of it
    lanes.py        an upstream's account with its limits and its line, and which of them serves whom
    passed.py       credentials that callers bring along; line.py: what the edge needs of a line
    request.py      one request in the line; fair_queue.py: who waits, in the order of order.py; attempt.py: its calls
    places.py       who stands where in a line, for those who look on
    estimate.py     how long the wait will be; promises.py: places kept for the refused
    limits/         pace, concurrency and pauses of one account: the promise; local.py keeps it in one process,
                    shared.py and its parts keep it in many, through Redis; making.py chooses; overrides.py: what
                    operators set in place of the settings; fleet.py: the replicas, for who looks on
    upstream.py     the HTTP client of connectors, with the send gate; retry_after.py: the pauses that APIs ask for
    outbound.py     the HTTP proxy that stands on the way out to an API, if any
    credentials.py  what else connectors are made of: tokens.py, tls.py, once.py (one run for all), rules.py (checks),
                    models.py (what an API offers)
    connector.py    the contract of a connector and its loader; threads.py: plain functions beside the loop
    settings.py     every knob (knob.py: what one is, values.py: what it may be), gathered from sources.py (env files,
                    the environment) and command_line.py; gpt2giga.py: what there is for those who come from it
    errors.py       every way to fail; clock.py: the time that tests can hold; expiring.py; known.py: what was found out

Imports go downwards only:
    app -> {proxy_request, application, serving, openai_edge, batches_edge, jobs_edge, steering_edge, routes, guard,
    replay, operators} ->
    {lanes, line, places, steered, steering, effect, audit, info, limits, request, attempt, fair_queue, order,
    estimate, promises, reception, callers, passes, browsers, upstream, outbound, dialects, delivery, heartbeat, sse,
    credentials, tokens, tls, once, rules, models, retry_after, entry, journal, logfile, dashboard, overview, recent,
    pages, docs, openapi, watching, readiness, metrics, series, scrape, admins, belongings, owners, attachments,
    api_files, sniffing, fetching, public_hosts, completions, merging, jobs, work, accepting, batching, kept_files,
    forms, durable, idempotency, following, webhooks, tracing, spans, collector} ->
    {connector, forwarding, passed, settings, knob, values, sources, command_line, gpt2giga, errors, clock, expiring,
    known, threads}
Connectors import only {upstream, outbound, sse, limits, credentials, tokens, tls, once, rules, models} and the lowest
rung; nobody imports a connector but `proxy_request.py`. The emulator imports nothing of ours.
"""
