"""What operators set: what it may be, how one process keeps to it on a held clock, and how it outlives the process."""

import asyncio
import json
import os
import stat
from itertools import pairwise
from pathlib import Path

import pytest
from held import HeldClock
from hypothesis import given
from hypothesis import strategies as st

from proxy.audit import MOST, TAIL, FileAudit, MemoryAudit
from proxy.limits import Usage
from proxy.limits.kept import LimitsFile
from proxy.limits.local import LEAD, Ceiling, LocalLimits, LocalPermit
from proxy.limits.making import limits_of
from proxy.limits.overrides import FIELDS, Override, as_json, changed, checked, in_force, of_json
from proxy.settings import Settings, SettingsError

#: Seconds by which rounding may bring two sends closer.
ROUNDING = 1e-9


def of(value: float) -> Override:
    return Override(value, 1.0, "me")


# ---- What may be set ----


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rpm", 0),
        ("rpm", 0.001),
        ("rpm", 1_000_000),
        ("concurrency", 0),
        ("concurrency", 7),
        ("timeout", 0.1),
        ("timeout", 86_400),
        ("queue_size", 1),
        ("paused", True),
        ("paused", False),
    ],
)
def test_each_field_takes_what_it_is_for(field, value):
    assert checked(field, value) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("rpm", value) for value in (-1, float("nan"), float("inf"), True, "60", [], 1e-300, 1e300, 10**400)),
        *(("concurrency", value) for value in (-1, 1.5, 2.0, False, "3", {}, 10**30)),
        *(("timeout", value) for value in (0, -1, float("nan"), True, "1", 86_401)),
        *(("queue_size", value) for value in (0, -5, 1.5, True, "9", 10**9)),
        *(("paused", value) for value in (0, 1, "true", [])),
    ],
)
def test_what_a_field_cannot_be_is_refused_with_its_name(field, value):
    with pytest.raises(ValueError, match=f'"{field}" must be '):
        checked(field, value)


def test_an_unknown_field_is_told_those_there_are():
    with pytest.raises(ValueError, match='unknown field "rps": there are rpm, concurrency'):
        checked("rps", 1)


def test_what_holds_is_what_operators_set_else_the_setting():
    """0 is no limit, in either."""
    overrides = changed({"rpm": of(5)}, {"rpm": of(60), "concurrency": of(0), "timeout": None})
    assert (in_force(overrides, "rpm", 600), in_force(overrides, "concurrency", 3)) == (60, None)
    assert (in_force(overrides, "timeout", 30.0), in_force(overrides, "queue_size", 0)) == (30.0, None)


@given(st.sampled_from([*FIELDS]), st.integers(1, 999), st.floats(0, 2e9), st.text())
def test_an_override_is_the_same_after_its_way_through_json(field, value, since, by):
    override = Override(value == 1 if field == "paused" else value, since, by.encode(errors="replace").decode())
    assert of_json(field, json.loads(as_json(override))) == override


@pytest.mark.parametrize("told", [None, 5, [], {}, {"value": 5}, {"value": -5, "since": 1, "by": "me"}])
def test_what_is_no_override_is_not_taken_for_one(told):
    with pytest.raises(ValueError, match='"rpm" must be'):
        of_json("rpm", told)


# ---- One process, on a held clock ----


class Story:
    """Calls go out as they may, while operators change their minds."""

    steps = st.one_of(
        st.tuples(st.sampled_from(["call", "leave", "again", "end", "fail", "pause", "resume"]), st.integers(0, 9)),
        st.tuples(st.sampled_from(["rpm"]), st.sampled_from([0, 0.5, 60, 600, 6000])),
        st.tuples(st.sampled_from(["concurrency"]), st.integers(0, 4)),
        st.tuples(st.just("forward"), st.floats(0, 3)),
    )

    def __init__(self, clock: HeldClock, limits: LocalLimits) -> None:
        self.clock, self.limits = clock, limits
        self.last = -float("inf")
        self.sent = 0
        self.permits: list[LocalPermit] = []
        self.running: list[asyncio.Task[None]] = []

    async def step(self, name: str, number: float) -> None:
        if name == "forward":
            await self.clock.forward(number)
        elif name in ("rpm", "concurrency"):
            await self.limits.override({name: of(number)})
        elif name in ("pause", "resume"):
            await self.limits.override({"paused": of(True) if name == "pause" else None})
        elif name == "call":
            self.running.append(asyncio.create_task(self.call()))
        elif name == "leave" and self.running:
            self.running.pop(int(number) % len(self.running)).cancel()
        elif self.permits:
            self.of_a_call(name, self.permits[int(number) % len(self.permits)])
        await self.clock.settle()

    def of_a_call(self, name: str, permit: LocalPermit) -> None:
        if name == "again":
            self.running.append(asyncio.create_task(permit.gate()))
        elif name == "fail":
            permit.throttled(None)
        elif name == "end":
            self.permits.remove(permit)
            permit.settle(Usage())
            permit.release()

    async def call(self) -> None:
        before = self.limits.state()
        permit = await self.limits.acquire()
        permit.on_sent = self.note_sent
        try:
            assert before.in_flight >= 0
            await permit.gate()
        except BaseException:
            permit.release()
            raise
        self.permits.append(permit)

    def note_sent(self) -> None:
        """It goes out: nothing that holds at this moment may be against it."""
        now, state = self.clock.now(), self.limits.state()
        assert not state.is_held
        assert not state.paused
        assert now - self.last >= self.limits.interval - ROUNDING
        self.last = now
        self.sent += 1


@given(
    rpm=st.sampled_from([None, 0.5, 60, 6000]), concurrency=st.none() | st.integers(1, 3), steps=st.lists(Story.steps)
)
def test_whatever_is_changed_when_each_send_keeps_to_what_holds_then(rpm, concurrency, steps):
    """And when all is taken back and all have left, nothing is taken, and the settings hold."""

    async def told() -> None:
        clock = HeldClock()
        limits = LocalLimits(rpm=rpm, concurrency=concurrency, clock=clock)
        story = Story(clock, limits)
        for step in steps:
            await story.step(*step)
        for task in story.running:
            task.cancel()
        await asyncio.gather(*story.running, return_exceptions=True)
        for permit in story.permits:
            permit.release()
        await limits.override(dict.fromkeys(FIELDS))
        state = limits.state()
        assert (state.rpm, state.concurrency, state.in_flight, state.is_held) == (rpm, concurrency, 0, False)

    asyncio.run(told())


@given(rpm=st.sampled_from([None, 60]), steps=st.lists(Story.steps))
def test_whoever_waits_goes_in_the_end(rpm, steps):
    """When it is resumed, and nothing is bounded, nobody is left behind."""

    async def told() -> None:
        clock = HeldClock()
        limits = LocalLimits(rpm=rpm, concurrency=2, clock=clock)
        story = Story(clock, limits)
        for step in steps:
            await story.step(*step)
        await limits.override({"rpm": of(6000), "concurrency": of(0), "paused": None})
        for permit in [*story.permits]:
            permit.release()
        story.permits.clear()
        end = clock.now() + 3600
        while not all(task.done() for task in story.running) and clock.now() < end:
            await clock.forward(1)
            for permit in [*story.permits]:
                permit.release()
            story.permits.clear()
        await asyncio.gather(*story.running)

    asyncio.run(told())


async def test_a_call_goes_at_the_new_slot_to_the_moment():
    """Neither before it nor after it, whether the pace has become faster or slower."""
    clock = HeldClock()
    limits = LocalLimits(rpm=60, clock=clock)
    sent: list[float] = []

    async def call() -> None:
        permit = await limits.acquire()
        await permit.gate()
        sent.append(clock.now())
        permit.release()

    calling = [asyncio.create_task(call()) for _ in range(5)]
    await clock.forward(0.5)
    await limits.override({"rpm": of(120)})
    await clock.forward(0.6)
    await limits.override({"rpm": of(20)})
    await clock.forward(10)
    await asyncio.gather(*calling)
    assert [later - earlier for earlier, later in pairwise(sent)] == pytest.approx([0.5, 0.5, 3, 3])


async def test_those_who_were_let_off_for_slots_of_an_old_pace_do_not_hold_up_the_new_one():
    """The dispatcher counts on their way to the gate what they take there, and no more."""
    clock = HeldClock()
    limits = LocalLimits(rpm=1, clock=clock)
    (await limits.acquire()).mark_sent()
    slow = await clock.wait_for(limits.acquire())
    await limits.override({"rpm": of(600)})
    assert limits.state().next_send <= 0.1 + LEAD
    await slow.gate()
    assert limits.state().next_send == pytest.approx(0.1)


@given(st.lists(st.sampled_from(["good", "cut"]) | st.integers(0, 6)), st.integers(0, 6))
def test_what_may_be_in_flight_is_never_above_what_is_set(outcomes, setting):
    ceiling = Ceiling(setting)
    for now, outcome in enumerate(outcomes):
        if outcome == "good":
            ceiling.succeeded()
        elif outcome == "cut":
            ceiling.cut(5, now, sent_at=None)
        else:
            ceiling.setting = outcome or None
        assert ceiling.allowed is None or 1 <= ceiling.allowed <= (ceiling.setting or 1000)


# ---- Over a restart ----


@pytest.fixture
def file(tmp_path: Path) -> LimitsFile:
    return LimitsFile(tmp_path / "limits.json")


async def test_what_was_set_is_there_at_the_next_start_of_one_process(tmp_path):
    """By account, for a lane of another account has other limits."""
    settings = Settings()
    async with limits_of(settings, tmp_path) as engine:
        one, other = (engine.limits(name, rpm=600, concurrency=3) for name in ("one", "other"))
        assert await one.override({"rpm": of(60), "paused": of(True)}) == ""
        assert await other.override({"timeout": of(5)}) == ""
        assert await other.override({"timeout": None}) == ""
        assert engine.limits("one", rpm=600, concurrency=3).overrides == one.overrides  # a lane that comes back
    async with limits_of(settings, tmp_path) as engine:
        again = engine.limits("one", rpm=600, concurrency=3)
        assert again.overrides == {"rpm": of(60), "paused": of(True)}
        assert again.state().rpm == 60 and again.state().is_held
        assert engine.limits("other", rpm=600, concurrency=3).overrides == {}
    assert [*json.loads((tmp_path / "limits.json").read_text())] == ["one"]


async def test_the_file_is_its_owners_alone(file, tmp_path):
    """Also where another one was left half written with wider rights."""
    leftover = tmp_path / "limits.json.new"
    leftover.write_text("half a fi")
    leftover.chmod(0o666)
    assert await file.keep("one", {"rpm": of(60)}) == ""
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["limits.json"]


async def test_changes_of_two_accounts_at_once_are_both_kept(file):
    await asyncio.gather(*(file.keep(str(number), {"rpm": of(number)}) for number in range(1, 20)))
    assert {account: fields["rpm"].value for account, fields in file.read().items()} == {
        str(number): number for number in range(1, 20)
    }


async def test_a_file_that_cannot_be_written_costs_the_next_start_not_the_change(tmp_path):
    """Whoever pauses in need has paused, and is told that it will not last."""
    (tmp_path / "limits.json.new").mkdir()
    async with limits_of(Settings(), tmp_path) as engine:
        limits = engine.limits("one", rpm=600, concurrency=None)
        assert "Is a directory" in await limits.override({"paused": of(True)})
        assert limits.state().is_held


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"{",
        b"[]",
        b'{"one": 5}',
        b'{"one": {"rps": {"value": 5, "since": 1, "by": "me"}}}',
        b'{"one": {"rpm": {"value": -5, "since": 1, "by": "me"}}}',
        b'{"one": {"rpm": 5}}',
        b"\xff",
    ],
)
async def test_a_file_that_is_wrong_stops_the_start_and_is_not_written_over(told, file, tmp_path):
    """Nobody can know what it was to say, and it may have been to pause."""
    file.path.write_bytes(told)
    with pytest.raises(SettingsError, match=r"limits.json is wrong: .*Mend it, or delete it"):
        async with limits_of(Settings(), tmp_path):
            pass
    assert "is wrong" in await file.keep("one", {"rpm": of(60)})
    assert file.path.read_bytes() == told


async def test_without_a_folder_changes_last_as_long_as_the_process(tmp_path):
    async with limits_of(Settings()) as engine:
        limits = engine.limits("one", rpm=600, concurrency=None)
        assert "no folder" in await limits.override({"rpm": of(60)})
        assert engine.limits("one", rpm=600, concurrency=None).state().rpm == 60


# ---- The record ----


async def test_the_record_tells_the_newest_first(tmp_path):
    for audit in (MemoryAudit(), FileAudit(tmp_path / "audit.jsonl")):
        await audit.note([{"field": "rpm"}, {"field": "paused"}])
        await audit.note([{"field": "timeout"}])
        assert [entry["field"] for entry in await audit.newest(9)] == ["timeout", "paused", "rpm"]
        assert await audit.newest(1) == [{"field": "timeout"}]
        assert await audit.newest(0) == []


async def test_a_record_in_memory_is_bounded():
    audit = MemoryAudit()
    await audit.note([{"number": number} for number in range(MOST + 5)])
    assert [entry["number"] for entry in await audit.newest(MOST + 5)] == [*range(MOST + 4, 4, -1)]


async def test_the_records_file_is_its_owners_alone_and_outlives_the_process(tmp_path):
    path = tmp_path / "audit.jsonl"
    await FileAudit(path).note([{"field": "rpm"}])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await FileAudit(path).newest(5) == [{"field": "rpm"}]


async def test_of_a_long_record_the_end_is_read(tmp_path):
    """Whole lines of it; whatever somebody else wrote there is left out."""
    path = tmp_path / "audit.jsonl"
    with path.open("wb") as file:
        file.write(b'{"old": "' + b"x" * TAIL + b'"}\n' + b"no json\n[]\n" + b'{"field": "rpm"}\n')
    assert await FileAudit(path).newest(MOST) == [{"field": "rpm"}]


async def test_a_record_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    path = tmp_path / "audit.jsonl"
    path.mkdir()
    await FileAudit(path).note([{"field": "rpm"}])
    assert "this log alone has the change" in caplog.text
    assert await FileAudit(path).newest(5) == []
    assert os.listdir(path) == []
