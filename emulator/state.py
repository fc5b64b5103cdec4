"""Everything the emulator remembers, in one place; tests read and change it here."""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import Any

from emulator.accounts import Accounts
from emulator.calls import Calls
from emulator.faults import Faults
from emulator.options import Options
from emulator.shelves import Assistant, Batch, File, Shelf, Thread
from emulator.tokens import Tokens

MAX_SESSIONS = 10_000


class State:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.calls = Calls()
        self.accounts = Accounts()
        self.tokens = Tokens()
        self.faults = Faults()
        self.files: Shelf[File] = Shelf("No such file")
        self.assistants: Shelf[Assistant] = Shelf("No such assistant")
        self.threads: Shelf[Thread] = Shelf("No such thread")
        self.batches: Shelf[Batch] = Shelf("Batch task not found")
        self.random = random.Random(0)
        self._sessions: OrderedDict[str, int] = OrderedDict()

    def __repr__(self) -> str:
        return f"<State: {self.accounts.in_flight} in flight, {self.calls!r}>"

    def change(self, **changes: Any) -> None:
        """Change options while calls go on. Raises ValueError for an unknown name or a wrong value."""
        self.options = self.options.changed(changes)

    def cached_tokens(self, session: str | None, prompt_tokens: int) -> int:
        """How many tokens of a prompt are in the cache: those of the session's last prompt."""
        if not session:
            return 0
        cached = self._sessions.pop(session, 0)
        self._sessions[session] = prompt_tokens
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return min(cached, prompt_tokens)

    def clear_counters(self) -> None:
        """Count from nothing again; what is in flight stays so."""
        self.calls.count = self.tokens.request_count = 0
        self.accounts.accepted = self.accounts.refused = 0
        self.accounts.peak = self.accounts.in_flight

    def counters(self) -> dict[str, Any]:
        """What `/_emulator/state` shows."""
        return {
            "calls": self.calls.count,
            "token_requests": self.tokens.request_count,
            "tokens": self.tokens.live(),
            "in_flight": self.accounts.in_flight,
            "peak_in_flight": self.accounts.peak,
            "accepted": self.accounts.accepted,
            "refused": self.accounts.refused,
            "faults_waiting": len(self.faults.waiting),
        }
