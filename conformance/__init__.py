"""Whether a connector keeps what `docs/connectors.md` promises for it: a suite that any author can use.

    make new-connector NAME=my_api           writes a starting point, with its test
    make check-connector CONNECTOR=my_api    lists the promises, kept and broken

The connector is loaded as the service loads it and called through the service's own border, `proxy.connector`, on a
scripted API on this machine: nothing leaves it. To read the whole, begin with

    suite.py        the run: load, script, one promise after the other
    promises.py     what a promise is, and what it has at hand
    alone.py        promises about importing, kept in a process of its own: newborn.py
    words.py        promises about validate_data and get_info
    calls.py        promises about request_api: the answer, the errors
    streams.py      promises about stream_api
    leaving.py      promises about start, stop and callers who leave
    declaration.py  what the author declares: CHECK
    scripted.py     the API that says what the script says
    fence.py        nothing goes out of this machine
    report.py       the list that people read
    new.py          the starting point, from the files in starting_point/
"""

from conformance.report import BrokenPromises, Report, Verdict
from conformance.suite import check

__all__ = ["BrokenPromises", "Report", "Verdict", "check"]
