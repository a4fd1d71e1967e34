"""What tells a run's own write from an equal one by somebody else, or by nobody.

Three traces, because Argo may run a step again and people may write in between:

- the mark on the target: annotation `tiphys.io/run` = `<digest>.act`, `.kept` (verified) or
  `.undone`, set in the same write as the values; where only `/scale` may be written, the field
  manager that owns the replicas (`tiphys-<digest>`, `tiphys-<digest>.undone`), which the API
  server keeps without a time, so that the claim says how old it is;
- the claim: an Event `tiphys-<digest>.act`, made before the first write, with the target's
  generation, so that a mark that somebody removed is missed and the run never acts a second time;
- the closed door: an Event `tiphys-<digest>.undone`, made before rollback looks; act refuses then.

Events outlive `notAfter` (the API server keeps them for an hour by default).
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

from tiphys.policies.model import Json, Object, Target
from tiphys.workflow_templates.action import Run
from tiphys.workflow_templates.cluster import ClusterError, Exists, Gone
from tiphys.workflow_templates.pointers import at, escape

ANNOTATION = "tiphys.io/run"
POINTER = f"/metadata/annotations/{escape(ANNOTATION)}"
GENERATION = "tiphys.io/generation"
LONGEST_RUN = timedelta(hours=1)
"""How long a field manager counts as a run that may still be under way, from its claim on."""


class Trace(StrEnum):
    """The endings of a mark and of the Events' names."""

    ACT = "act"
    KEPT = "kept"
    UNDONE = "undone"


class Standing(StrEnum):
    """What the target says of this run."""

    UNTOUCHED = "untouched"
    OURS = "ours"
    UNDONE = "undone"
    ANOTHERS = "anothers"
    """Another run's unfinished mark: that run saw no unfinished mark of ours."""
    LOST = "lost"
    """This run claimed the target; the mark is not there and the target has moved since."""


# --- the mark on an object: pure ----------------------------------------------------------------


def by_annotation(target: Object) -> str:
    """Read the mark of a target that may be patched; empty without one."""
    return str(at(target, POINTER) or "")


def by_manager(target: Object) -> str:
    """Read the mark from who owns `spec.replicas`; empty unless one run alone owns them."""
    entries = cast("list[dict[str, Any]]", at(target, "/metadata/managedFields") or [])
    owners = [e for e in entries if at(e, "/fieldsV1/f:spec/f:replicas") is not None]
    if len(owners) != 1 or not str(owners[0].get("manager")).startswith("tiphys-"):
        return ""
    run, _, ending = str(owners[0]["manager"]).removeprefix("tiphys-").partition(".")
    return f"{run}.{ending or Trace.ACT}"


def unfinished(target: Object) -> str | None:
    """Give the digest of the run whose unfinished mark the target bears, or None.

    A field manager cannot say that its run has ended: see `may_be_under_way`.
    """
    for text in (by_annotation(target), by_manager(target)):
        if text.endswith(f".{Trace.ACT}"):
            return text.removesuffix(f".{Trace.ACT}")
    return None


def may_be_under_way(target: Object, digest: str, claim: Object | None, now: datetime) -> bool:
    """Judge an unfinished mark by its run's claim, an Event `tiphys-<digest>.act` or None.

    An annotation stays until the run, or a human, says how it ended. A field manager stays for
    ever: it counts while the claim that came before it is there and younger than `LONGEST_RUN`.
    """
    if by_annotation(target) == f"{digest}.{Trace.ACT}":
        return True
    if claim is None:
        return False
    began = at(claim, "/firstTimestamp") or at(claim, "/metadata/creationTimestamp")
    return now - datetime.fromisoformat(str(began)) <= LONGEST_RUN


def annotating(target: Object, text: str) -> list[Json]:
    """Give the JSON patch operations that set the annotation."""
    operations: list[Json] = []
    if at(target, "/metadata/annotations") is None:
        operations.append({"op": "add", "path": "/metadata/annotations", "value": {}})
    return [*operations, {"op": "add", "path": POINTER, "value": text}]


# --- the Events ---------------------------------------------------------------------------------


def standing(run: Run, target: Object, text: str) -> Standing:
    """Judge a target by its mark `text`, and by the claim where the mark is silent."""
    digest, _, ending = text.rpartition(".")
    if digest == run.digest:
        return Standing.UNDONE if ending == Trace.UNDONE else Standing.OURS
    if ending == Trace.ACT and not found(run, digest, Trace.KEPT):
        theirs = _event(run, digest, Trace.ACT)
        if may_be_under_way(target, digest, theirs, run.now()):
            return Standing.ANOTHERS
    claimed = _event(run, run.digest, Trace.ACT)
    if claimed is None or at(claimed, f"/metadata/annotations/{escape(GENERATION)}") == _generation(
        target
    ):
        return Standing.UNTOUCHED
    return Standing.LOST


def found(run: Run, digest: str, trace: Trace) -> bool:
    """Say whether a run left this Event."""
    return _event(run, digest, trace) is not None


def claim(run: Run, target: Object) -> bool:
    """Leave the claim before the first write; False when rollback has closed the door."""
    _leave(run, Trace.ACT, f"acts: {run.plan.action}", _generation(target))
    return not found(run, run.digest, Trace.UNDONE)


def close_door(run: Run) -> None:
    """Leave the Event after which act of this run refuses; rollback does it before it looks."""
    _leave(run, Trace.UNDONE, "ends: rollback looks at what is to be put back", "")


def keep(run: Run) -> None:
    """Note that the change was verified; as good as it goes, since nothing depends on it."""
    try:
        _leave(run, Trace.KEPT, "was verified", "")
    except ClusterError:
        return


def tell(run: Run, reason: str, message: str) -> None:
    """Leave an Event for people on the target, after the mark; as good as it goes."""
    try:
        run.cluster.create_event(_body(run, f"{run.digest}.{reason.lower()}", reason, message))
    except ClusterError:
        return


def _leave(run: Run, trace: Trace, message: str, generation: str) -> None:
    name = f"{run.digest}.{trace}"
    event = _body(run, name, f"Tiphys{trace.capitalize()}", f"Run tiphys-{run.digest} {message}")
    if generation:
        cast("dict[str, Json]", event["metadata"])["annotations"] = {GENERATION: generation}
    try:
        run.cluster.create_event(event)
    except Exists:
        return


def _event(run: Run, digest: str, trace: Trace) -> Object | None:
    try:
        return run.cluster.get("v1", "Event", run.plan.target.namespace, f"tiphys-{digest}.{trace}")
    except Gone:
        return None


def _generation(target: Object) -> str:
    return str(at(target, "/metadata/generation") or "")


def _body(run: Run, name: str, reason: str, message: str) -> dict[str, Json]:
    moment = run.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    target = run.plan.target
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"tiphys-{name}", "namespace": target.namespace},
        "involvedObject": _reference(target),
        "reason": reason,
        "message": message,
        "type": "Normal",
        "source": {"component": "tiphys"},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


def _reference(target: Target) -> Json:
    fields: Mapping[str, str] = {
        "apiVersion": target.api_version,
        "kind": target.kind,
        "namespace": target.namespace,
        "name": target.name,
        "uid": target.uid,
    }
    return {**fields}
