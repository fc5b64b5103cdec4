"""Small repeatable comparisons, each `python -m benchmarks.NAME [--quick]`; `python -m benchmarks` runs them all.

| program    | question                                                                                         |
|------------|--------------------------------------------------------------------------------------------------|
| throughput | what a request costs, beside a bare aiohttp pass-through without limits                          |
| pacing     | how near to the ideal rate the calls leave, judged on the upstream's clock                       |
| waiting    | what a waiting request weighs, beside a bare aiohttp server that merely waits                    |
| startup    | how long from the process's start to its first answer, and which imports that time goes to       |
| client     | what a call of a thousand queued ones costs its caller, beside GigaChat's own SDK                |
| sdk        | what the proxy adds to a call and to each chunk of a stream, beside the SDK straight at the API |
| peer       | what OpenAI's clients get of the proxy, beside gpt2giga on the same API                          |
| jobs       | how many durable jobs are accepted a second, beside bare commits of SQLite and plain requests   |
| jobs_kill  | what becomes of accepted jobs when the service is killed again and again, or one of its replicas |
| jobs_batch | how long live requests wait before a batch of 50,000 lines, and what such a batch weighs         |
| replicas   | how even one pace is that several replicas keep through Redis, also when one or Redis dies      |
| traced     | what traces of every request, or of one in a hundred, cost in throughput                         |

Everything runs on loopback, in processes of its own: the service (`service`), the comparisons (`bare`, `gpt2giga`),
the API (`upstream`) and the callers (`load`). Ratios are taken within one run, of alternating rounds, so that they hold
on any machine; absolute numbers hold for the machine they were measured on.
"""
