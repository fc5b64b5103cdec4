"""Accounts and their limits: calls in flight and an even pace, as the real API counts them, per account."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from emulator.calls import Call
from emulator.options import Options


@dataclass(slots=True)
class Account:
    """One credential's generation calls. `accepted_ns` is the arrival of the last accepted one."""

    name: str
    in_flight: int = 0
    accepted_ns: int = 0

    def has_room(self, options: Options) -> bool:
        """Is the call that has just come in within the limit?"""
        return not options.concurrency or self.in_flight <= options.concurrency

    def is_in_pace(self, call: Call, options: Options) -> bool:
        if not options.pace or not self.accepted_ns:
            return True
        gap = (call.arrived_ns - self.accepted_ns) / 1e9
        return gap >= options.pace - options.pace_tolerance


class Accounts:
    """All accounts, and the sums over them."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self.in_flight = 0
        self.peak = 0
        self.accepted = 0
        self.refused = 0

    @contextmanager
    def entered(self, call: Call, options: Options) -> Iterator[bool]:
        """Count a generation call as in flight; yields whether the limits accept it."""
        account = self._accounts.setdefault(call.account, Account(call.account))
        account.in_flight += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        call.in_flight = self.in_flight
        try:
            yield self._accepts(account, call, options)
        finally:
            account.in_flight -= 1
            self.in_flight -= 1

    def _accepts(self, account: Account, call: Call, options: Options) -> bool:
        if not (account.has_room(options) and account.is_in_pace(call, options)):
            self.refused += 1
            return False
        account.accepted_ns = call.arrived_ns
        self.accepted += 1
        return True
