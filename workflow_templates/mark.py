"""What tells a run's own write from an equal one by somebody else, or by nobody.

Three traces, because Argo may run a step again and people may write in between:

- the mark on the target: annotation `tiphys.io/run` = `<digest>.act`, `.kept` (verified) or
  `.undone`, set in the same write as the values, and of an undo `.back`, `.stays` or `.undone`;
  where only `/scale` may be written, the field manager that owns the replicas (`tiphys-<digest>`,
  `tiphys-<digest>.undone`, `.back`), which the API server keeps without a time, so that the claim
  says how old it is;
- the claim: an Event `tiphys-<digest>.act`, made before the first write, with the generation of
  each object that will be written (of one that has none, its version), so that a mark that somebody
  removed is missed and the run never acts a second time;
- the closed door: an Event `tiphys-<digest>.undone`, made before rollback looks; act refuses then.

Events outlive `notAfter` (the API server keeps them for an hour by default).
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

from tiphys.policies.model import Json, Object, Target
from tiphys.policies.plan import digest as digest_of
from tiphys.workflow_templates.action import Run
from tiphys.workflow_templates.cluster import ClusterError, Exists, Gone
from tiphys.workflow_templates.pointers import at, escape

ANNOTATION = "tiphys.io/run"
POINTER = f"/metadata/annotations/{escape(ANNOTATION)}"
GENERATION = "tiphys.io/generation"
EVENTS_OF_NODES = "default"
"""Where the Events of what has no namespace are; the API server takes them nowhere else."""
LONGEST_RUN = timedelta(hours=1)
"""How long a field manager counts as a run that may still be under way, from its claim on."""


ACTED = "Acted"
"""The reason of the Event that a run leaves when its target is written. It may be missing; where it
is, a target without the mark is one that somebody has put back."""


class Trace(StrEnum):
    """The endings of a mark; those of the Events' names are ACT, KEPT and UNDONE.

    An undo's mark differs, so that admission can tell putting back from doing.
    """

    ACT = "act"
    KEPT = "kept"
    UNDONE = "undone"
    BACK = "back"
    """act of an undo: what another run left is put back."""
    STAYS = "stays"
    """An undo that was verified."""
    ENDS = "ends"
    """Never on an object: an Event before the one deletion of a run that nobody can take back."""


UNFINISHED = frozenset({Trace.ACT, Trace.BACK})
LEFT = frozenset({Trace.ACT, Trace.KEPT})
"""What a run that can be undone has left; one by field manager stays `act`."""


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
        run, _, ending = text.rpartition(".")
        if ending in UNFINISHED:
            return run
    return None


def left_by(run: str, text: str) -> bool:
    """Say whether a mark is the one that a run (its Workflow's name) left behind, not undone."""
    digest, _, ending = text.rpartition(".")
    return ending in LEFT and f"tiphys-{digest}" == run


def may_be_under_way(target: Object, digest: str, claim: Object | None, now: datetime) -> bool:
    """Judge an unfinished mark by its run's claim, an Event `tiphys-<digest>.act` or None.

    An annotation stays until the run, or a human, says how it ended. A field manager stays for
    ever: it counts while the claim that came before it is there and younger than `LONGEST_RUN`.
    """
    if by_annotation(target) in {f"{digest}.{ending}" for ending in UNFINISHED}:
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
    """Judge a target by its mark `text`, and by the claim where the mark is silent.

    What is gone is empty, and lost where it was claimed.
    """
    digest, _, ending = text.rpartition(".")
    if digest == run.digest:
        return Standing.UNDONE if ending == Trace.UNDONE else Standing.OURS
    left = run.plan.undoes is not None and left_by(run.plan.undoes, text)
    if ending in UNFINISHED and not left and not found(run, digest, Trace.KEPT):
        theirs = _event(run, digest, Trace.ACT)
        if may_be_under_way(target, digest, theirs, run.now()):
            return Standing.ANOTHERS
    claimed = _event(run, run.digest, Trace.ACT)
    if claimed is None:
        return Standing.UNTOUCHED
    if at(target, "/metadata/uid") == run.plan.target.uid and _event(run, run.digest, ACTED):
        return Standing.LOST
    notes = cast("dict[str, str]", at(claimed, "/metadata/annotations") or {})
    same = all(notes.get(key) == value for key, value in _generation(run, target).items())
    return Standing.UNTOUCHED if same else Standing.LOST


def under_another(run: Run, target: Object) -> bool:
    """Say whether another run has not finished with this target, whichever mark it left."""
    marks = (by_annotation(target), by_manager(target))
    return any(standing(run, target, text) is Standing.ANOTHERS for text in marks)


def found(run: Run, digest: str, trace: Trace) -> bool:
    """Say whether a run left this Event."""
    return _event(run, digest, trace) is not None


def claim(run: Run, *targets: Object) -> bool:
    """Leave the claim before the first write; False when rollback has closed the door.

    A run that writes several objects claims them all at once: of a second claim nothing is left.
    Of what it only deletes nothing is said.
    """
    notes = {key: value for one in targets for key, value in _generation(run, one).items()}
    _leave(run, Trace.ACT, f"acts: {run.plan.action}", notes)
    return not found(run, run.digest, Trace.UNDONE)


def commit(run: Run) -> bool:
    """Leave word before what cannot be taken back; False when rollback has closed the door."""
    _leave(run, Trace.ENDS, "is about to delete what cannot be brought back", {})
    return not found(run, run.digest, Trace.UNDONE)


def close_door(run: Run) -> None:
    """Leave the Event after which act of this run refuses; rollback does it before it looks."""
    _leave(run, Trace.UNDONE, "ends: rollback looks at what is to be put back", {})


def keep(run: Run) -> None:
    """Note that the change was verified; as good as it goes, since nothing depends on it."""
    try:
        _leave(run, Trace.KEPT, "was verified", {})
    except ClusterError:
        return


def tell(run: Run, reason: str, message: str) -> None:
    """Leave an Event for people on the target, after the mark; as good as it goes."""
    try:
        run.cluster.create_event(_body(run, f"{run.digest}.{reason.lower()}", reason, message))
    except ClusterError:
        return


def _leave(run: Run, trace: Trace, message: str, notes: Mapping[str, str]) -> None:
    name = f"{run.digest}.{trace}"
    event = _body(run, name, f"Tiphys{trace.capitalize()}", f"Run tiphys-{run.digest} {message}")
    if notes:
        cast("dict[str, Json]", event["metadata"])["annotations"] = {**notes}
    try:
        run.cluster.create_event(event)
    except Exists:
        return


def _event(run: Run, digest: str, ending: str) -> Object | None:
    name = f"tiphys-{digest}.{ending.lower()}"
    try:
        return run.cluster.get("v1", "Event", events_of(run.plan.target), name)
    except Gone:
        return None


def events_of(target: Target) -> str:
    """Give the namespace where a target's Events are."""
    return target.namespace or EVENTS_OF_NODES


def _generation(run: Run, target: Object) -> dict[str, str]:
    """Give what the claim says of an object, which moves with all that is not its status."""
    uid = str(at(target, "/metadata/uid"))
    key = GENERATION if uid == run.plan.target.uid else f"{GENERATION}.{uid}"
    return {key: _version(target)}


def _version(target: Object) -> str:
    """Give what moves whenever somebody writes more than the status.

    Nodes, ConfigMaps and volume claims have no generation: then it is what they are, and who wrote
    more than metadata last, so that a value that was put back is no longer the one that was seen.
    """
    counted = at(target, "/metadata/generation")
    if counted:
        return str(counted)
    writers = cast("list[dict[str, Any]]", at(target, "/metadata/managedFields") or [])
    told: Json = [
        [e.get("manager"), e.get("time")]
        for e in writers
        if not e.get("subresource") and set(e.get("fieldsV1") or {}) - {"f:metadata"}
    ]
    body = {k: v for k, v in target.items() if k not in {"metadata", "status"}}
    return digest_of([told, body])[:16]


def _body(run: Run, name: str, reason: str, message: str) -> dict[str, Json]:
    moment = run.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    target = run.plan.target
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"tiphys-{name}", "namespace": events_of(target)},
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
