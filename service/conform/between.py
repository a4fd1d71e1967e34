"""What is proven of an action by coming between its steps' requests, see `tap`.

Somebody writes after the step has looked; its rollback begins; an answer is lost; time runs out.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from tiphys.service.conform.properties import (
    ACT,
    PRECHECK,
    PUT_BACK,
    ROLLBACK,
    Property,
    acted,
    hold,
    planned,
    same,
    settled,
    words,
)
from tiphys.service.conform.snapshot import take
from tiphys.service.conform.steps import Said, Steps
from tiphys.service.conform.tap import Asked, HeldUpError, Reply, Tap, tapped
from tiphys.service.conform.trial import Disturb, Stage, Trial
from tiphys.service.conform.wire import Json, Wire
from tiphys.workflow_templates.action import Result
from tiphys.workflow_templates.catalogue import find

_ON_ITS_WAY = 1.5
"""Seconds that a write is held up; less than a step waits for its answer."""
_TRIES = 4
Prove = Callable[[Stage, Trial], None]
_DONE_ONCE = {Result.ACTED, Result.ALREADY_DONE}


def between(trial: Trial) -> Iterator[Property]:
    """Give what is proven of a trial's action in this way, in the table's order."""
    for name, prove in _named(trial):
        yield Property(name, partial(_in_time, prove))


def _named(trial: Trial) -> Iterator[tuple[str, Prove]]:
    yield "fences every write", _fences
    if trial.meddle:
        yield "writes over nothing that changed since it looked", _changed
        if find(trial.action).reversible:
            yield "sees that what it put back stays", _does_not_stay
    yield "touches nothing that took the object's name", _replaced
    yield "does not act once its rollback has begun", _rolled_back
    yield "rolls back a write that was on its way", _on_its_way
    yield "does not write when time ran out as it looked", _late
    for name, disturb in trial.halfway.items():
        yield f"writes nothing more once {name}", partial(_stops, disturb=disturb)
    if trial.halfway:
        yield "writes nothing more once its time is over", _out_of_time
    yield "goes on after conflicts and lost answers", _troubled
    yield "acts once when it looked before the other acted", _looked_before


def _in_time(prove: Prove, stage: Stage, trial: Trial) -> None:
    """Try again where this machine was too slow to come between."""
    for _ in range(_TRIES):
        with suppress(HeldUpError):
            prove(stage, trial)
            return
        stage = Stage(stage.world, stage.action)
    prove(stage, trial)


class _Once:
    """Does something when the first request of a kind comes, and never again."""

    def __init__(self, which: Callable[[Asked], bool], what: Callable[[Asked], Any]) -> None:
        self._which, self._what = which, what
        self._lock = threading.Lock()
        self.done = False

    def come(self, asked: Asked) -> None:
        with self._lock:
            if self.done or not self._which(asked):
                return
            self.done = True
        self._what(asked)

    def leave(self, asked: Asked) -> bool:
        self.come(asked)
        return True


def _writes(asked: Asked) -> bool:
    return asked.writes


def _steps(stage: Stage, plan: Any, tap: Tap, **how: Any) -> Steps:
    return Steps(stage.world, plan, url=tap.url, **how)


# --- fences ---------------------------------------------------------------------------------------


def _fences(stage: Stage, trial: Trial) -> None:
    """Every write names the object that was read and the run: in act, and in rollback."""
    _, plan, _ = planned(stage, trial)
    with tapped(stage.wire) as tap:
        steps = _steps(stage, plan, tap)
        acted(steps)
        hold(tap.writes, "act wrote nothing")
        before = len(tap.writes)
        said = steps.run(ROLLBACK)
        hold(said.result in PUT_BACK, f"rollback: {words(said)}")
        undone = len(tap.writes) > before
        hold(undone or not find(trial.action).reversible, "rollback wrote nothing")
        for one in tap.writes:
            why = _unfenced(one)
            hold(not why, f"{one.method} {one.path} {why}")


def _unfenced(write: Asked) -> str:
    """Say what a write lacks; an empty string when the API server can refuse it."""
    body = write.body
    if write.method == "DELETE":
        return "" if _precondition(body) else "names no uid"
    if write.method == "POST":
        evicts = write.path.endswith("/eviction")
        fine = not evicts or _precondition((body or {}).get("deleteOptions"))
        return "" if fine else "names no uid in its deleteOptions"
    if not write.manager.startswith("tiphys-"):
        return "does not name the run as its field manager"
    if isinstance(body, list):
        return _untested(body)
    meta = (body or {}).get("metadata") or {}
    lacks = [key for key in ("uid", "resourceVersion") if not meta.get(key)]
    return f"does not say {' and '.join(lacks)}" if lacks else ""


def _precondition(options: Json | None) -> bool:
    return bool(((options or {}).get("preconditions") or {}).get("uid"))


def _untested(patch: list[Json]) -> str:
    """A JSON patch tests the uid, and the version or each value that it replaces."""
    tests = {one["path"] for one in patch if one["op"] == "test"}
    if "/metadata/uid" not in tests:
        return "does not test the uid"
    changed = [one["path"] for one in patch if one["op"] in {"replace", "remove"}]
    bare = [path for path in changed if path not in tests]
    if "/metadata/resourceVersion" in tests:
        return ""
    return f"tests neither the version nor {', '.join(bare)}" if bare or len(tests) < 2 else ""


# --- somebody writes ------------------------------------------------------------------------------


def _changed(stage: Stage, trial: Trial) -> None:
    target, plan, _ = planned(stage, trial)
    meddle = trial.clash or trial.meddle
    assert meddle
    with tapped(stage.wire) as tap:
        once = _Once(_writes, lambda _: meddle(stage, target))
        tap.before = once.come
        said = _steps(stage, plan, tap).run(ACT)
        hold(once.done, f"act did not write: {words(said)}")
    hold(said.result is Result.REFUSED, f"act: {words(said)}")
    between = settled(stage)
    back = Steps(stage.world, plan).run(ROLLBACK)
    fine = {Result.NOTHING_CHANGED, Result.NOT_OURS}
    hold(back.result in fine, f"rollback: {words(back)}")
    same(between, settled(stage), children=True)


def _does_not_stay(stage: Stage, trial: Trial) -> None:
    target, plan, _ = planned(stage, trial)
    meddle = trial.clash or trial.meddle
    assert meddle
    acted(Steps(stage.world, plan))
    with tapped(stage.wire) as tap:
        tap.after = _Once(_writes, lambda _: meddle(stage, target)).leave
        said = _steps(stage, plan, tap).run(ROLLBACK)
    hold(said.result in {Result.NOT_UNDONE, Result.NOT_OURS}, f"rollback: {words(said)}")


def _replaced(stage: Stage, trial: Trial) -> None:
    """Another object of that name comes between the look and the write, and after the act."""
    _, plan, _ = planned(stage, trial)
    with tapped(stage.wire) as tap:
        copies: list[Json] = []
        once = _Once(_writes, lambda one: copies.append(_take_over(stage, one.object_path)))
        tap.before = once.come
        said = _steps(stage, plan, tap).run(ACT)
    hold(copies, f"act did not write: {words(said)}")
    path = next(one.object_path for one in tap.writes)
    several = len(plan.changes) > 1
    hold(several or said.result is not Result.ACTED, f"act: {words(said)}")
    for step in (PRECHECK, ACT, ROLLBACK):
        _untouched(stage.wire, path, copies[0])
        if step is not PRECHECK or not several:
            said = Steps(stage.world, plan).run(step)
        hold(said.result is not Result.UNDONE, f"{step}: {words(said)}")
    _untouched(stage.wire, path, copies[0])


def _take_over(stage: Stage, path: str) -> Json:
    """Delete an object, and make another of its name that nobody owns."""
    wire = stage.wire
    old = wire.get(path)
    wire.wipe(path)
    uid = old["metadata"]["uid"]

    def freed() -> bool:
        found = wire.find(path)
        return found is None or found["metadata"]["uid"] != uid

    stage.world.until("its name is free", freed)
    meta = {k: v for k, v in old["metadata"].items() if k in {"name", "namespace"}}
    spec = {k: v for k, v in old.get("spec", {}).items() if k != "nodeName"}
    if "selector" in spec and "jobs" in path.split("/"):
        spec = {k: v for k, v in spec.items() if k != "selector"}
        spec["template"]["metadata"]["labels"] = {}
    body = {**old, "metadata": meta, "spec": spec}
    body.pop("status", None)
    return wire.want("POST", path.rpartition("/")[0], body)


def _untouched(wire: Wire, path: str, copy: Json) -> None:
    now = wire.find(path)
    fine = now is not None and now["metadata"]["uid"] == copy["metadata"]["uid"]
    hold(fine and "deletionTimestamp" not in (now or {})["metadata"], f"{path} was deleted")
    notes = ((now or {})["metadata"].get("annotations") or {}).keys()
    hold("tiphys.io/run" not in notes, f"{path} bears the run's mark")


# --- its rollback begins --------------------------------------------------------------------------


def _rolled_back(stage: Stage, trial: Trial) -> None:
    _, plan, before = planned(stage, trial)
    ends: list[Said] = []
    with tapped(stage.wire) as tap:
        again = Steps(stage.world, plan)
        once = _Once(lambda one: one.claims, lambda _: ends.append(again.run(ROLLBACK)))
        tap.before = once.come
        said = _steps(stage, plan, tap).run(ACT)
    hold(ends, f"act did not claim: {words(said)}")
    hold(ends[0].result is Result.NOTHING_CHANGED, f"rollback: {words(ends[0])}")
    hold(said.result is Result.REFUSED, f"act: {words(said)}")
    hold(not tap.writes, "act wrote after its rollback had begun")
    same(before, take(stage.wire, stage.namespace), children=True)


def _on_its_way(stage: Stage, trial: Trial) -> None:
    _, plan, before = planned(stage, trial)
    ends: list[Said] = []
    again = Steps(stage.world, plan)
    rollback = threading.Thread(target=lambda: ends.append(again.run(ROLLBACK)))

    def hold_up(_: Asked) -> None:
        rollback.start()
        time.sleep(_ON_ITS_WAY)

    with tapped(stage.wire) as tap:
        once = _Once(_writes, hold_up)
        tap.before = once.come
        said = _steps(stage, plan, tap).run(ACT)
        hold(once.done, f"act did not write: {words(said)}")
        rollback.join()
    hold(ends and ends[0].result in PUT_BACK, f"rollback: {', '.join(map(words, ends))}")
    if find(trial.action).reversible:
        same(before, settled(stage))


# --- between two writes ---------------------------------------------------------------------------


def _stops(stage: Stage, trial: Trial, *, disturb: Disturb) -> None:
    target, plan, _ = planned(stage, trial)
    with tapped(stage.wire) as tap:
        once = _Once(_writes, lambda _: disturb(stage, target))
        tap.after = once.leave
        said = _steps(stage, plan, tap).run(ACT)
        hold(once.done, f"act did not write: {words(said)}")
    _stopped(tap, said)


def _out_of_time(stage: Stage, trial: Trial) -> None:
    """Hold up its first request, and the answer to its first write until its time is over."""
    _, plan, _ = planned(stage, trial)
    seconds = 6.0
    with tapped(stage.wire) as tap:
        over = time.monotonic() + seconds + 0.5
        tap.before = _Once(lambda _: True, lambda _: time.sleep(seconds / 3)).come
        wait = _Once(_writes, lambda _: time.sleep(max(0.0, over - time.monotonic())))
        tap.after = wait.leave
        said = _steps(stage, plan, tap, seconds=seconds).run(ACT)
    if not wait.done:
        raise HeldUpError(f"it did not begin within {seconds:.0f} s")
    _stopped(tap, said)


def _stopped(tap: Tap, said: Said) -> None:
    hold(said.result in {Result.CRASHED, Result.REFUSED}, f"act: {words(said)}")
    hold(len(tap.writes) == 1, f"it wrote {len(tap.writes)} times")


# --- time, and lost answers -----------------------------------------------------------------------


def _late(stage: Stage, trial: Trial) -> None:
    _, plan, before = planned(stage, trial)
    seconds = 3.0
    with tapped(stage.wire) as tap:
        tap.before = _Once(lambda _: True, lambda _: time.sleep(seconds + 0.5)).come
        said = _steps(stage, plan, tap, seconds=seconds).run(ACT)
    hold(said.result is Result.REFUSED, f"act: {words(said)}")
    hold(not tap.writes, "it wrote after notAfter")
    same(before, take(stage.wire, stage.namespace), children=True)


def _troubled(stage: Stage, trial: Trial) -> None:
    """Of its first writes none is done: a conflict, a busy server, words without sense."""
    _, plan, _ = planned(stage, trial)
    replies = [Reply(409), Reply(429), Reply(503), Reply(200, b"sense")]
    writes = 0

    def come(asked: Asked) -> Reply | None:
        nonlocal writes
        if not asked.writes:
            return None
        writes += 1
        return replies[writes - 1] if writes <= len(replies) else None

    def leave(asked: Asked) -> bool:
        """Lose the answer to the first write that is done."""
        return not asked.writes or writes > len(replies) + 1

    with tapped(stage.wire) as tap:
        tap.before, tap.after = come, leave
        said = _steps(stage, plan, tap).run(ACT)
    hold(said.result in _DONE_ONCE, f"act: {words(said)}")
    hold(writes > len(replies), f"it gave up after {writes} writes")
    back = Steps(stage.world, plan).run(ROLLBACK)
    hold(back.result in PUT_BACK, f"rollback: {words(back)}")


def _looked_before(stage: Stage, trial: Trial) -> None:
    """The answer to its first look is held back until the same act, started twice, has acted."""
    _, plan, _ = planned(stage, trial)
    ends: list[Said] = []
    again = Steps(stage.world, plan)
    with tapped(stage.wire) as tap:
        tap.after = _Once(lambda one: not one.of_event, lambda _: ends.append(again.run(ACT))).leave
        said = _steps(stage, plan, tap).run(ACT)
    hold(ends and ends[0].result is Result.ACTED, f"the other: {', '.join(map(words, ends))}")
    hold(said.result in _DONE_ONCE, f"act: {words(said)}")
