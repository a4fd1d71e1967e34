"""What a person needs to put a frozen target right by hand: before, now, the difference, commands.

The agents read what stands there now, with their read-only credentials, and lay it down as evidence
(`read_damage`); from that and the plan the page is made (`repair_of`). Invariants: a value that
looks like a secret is neither kept nor shown; a command is one line of printable ASCII, whatever
the names and values are, and fails where the object is another or a value has moved since.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import cast

from pydantic import ValidationError

from tiphys.agents.notebook import Notebook, make_evidence
from tiphys.agents.objects import uid_of
from tiphys.agents.plan_secrets import secrets_in
from tiphys.agents.ports import ClusterReader, UnansweredError
from tiphys.policies.model import (
    Change,
    Evidence,
    Json,
    Noun,
    Object,
    ObjectReference,
    Plan,
    Source,
)
from tiphys.policies.plan import canonical, workflow_name
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.pointers import at, equal

HIDDEN = "[hidden: it looks like a secret]"
LARGEST = 4_096
"""Bytes of a value now that are kept."""
QUESTION = "what stands where the rollback did not hold of "


class Stands(StrEnum):
    """What a field is now."""

    BEFORE = "as before the run"
    LEFT = "as the run left it"
    OTHER = "something else: somebody has changed it since"
    GONE = "the object is gone"
    UNREAD = "it could not be read"


class Seen(Noun):
    """One field as it was read now."""

    now: Json
    stands: Stands
    exact: bool
    """`now` is the value itself: nothing was hidden or left out."""


class Damage(Noun):
    """What was read: one entry for each change of the plan that can be put back, in its order."""

    run: str
    fields: tuple[Seen, ...]
    marks: dict[str, str]
    """By uid: the unfinished mark of the run that an object bears."""


class Field(Noun):
    """One field for the eyes of whoever repairs it."""

    place: str
    """The object, where it is not the target, and the JSON pointer."""
    before: Json
    left: Json
    """What the run had set."""
    now: Json
    stands: Stands
    difference: str
    """From what it was before to what it is now; empty where that is the same."""


class Repair(Noun):
    """Everything to repair it by hand."""

    run: str
    target: str
    uid: str
    read_at: str
    fields: tuple[Field, ...]
    commands: tuple[str, ...]
    """In order, for a person's own kubectl; then `tiphys release`."""
    notes: tuple[str, ...]


# --- reading --------------------------------------------------------------------------------------


async def read_damage(cluster: ClusterReader, plan: Plan, book: Notebook) -> Evidence:
    """Read every object of a plan and say what stands there; what does not answer is said too."""
    live: dict[ObjectReference, Object | UnansweredError | None] = {}
    for ref in _objects(plan):
        try:
            found = await cluster.get(ref.api_version, ref.kind, ref.namespace, ref.name)
            live[ref] = found if found is not None and uid_of(found) == ref.uid else None
        except UnansweredError as error:
            live[ref] = error
    back = _put_back(plan)
    seen = tuple(_seen(change, live[_of(plan, change)]) for change in back)
    ours = workflow_name(plan).removeprefix("tiphys-")
    marks: dict[str, str] = {}
    for ref, thing in live.items():
        text = "" if thing is None or isinstance(thing, UnansweredError) else _annotated(thing)
        if text.startswith(f"{ours}.") and text.rpartition(".")[2] in mark.UNFINISHED:
            marks[ref.uid] = text
    damage = Damage(run=workflow_name(plan), fields=seen, marks=marks)
    away = [f"{ref}: {e}" for ref, e in live.items() if isinstance(e, UnansweredError)]
    told = (cast("Json", damage.model_dump(mode="json")), _summary(damage, back, away))
    question = f"{QUESTION}{damage.run}"
    return make_evidence(Source.KUBERNETES, question, book.now(), told, whole=True)


def _annotated(thing: Object) -> str:
    return mark.by_annotation(thing)


def _summary(damage: Damage, back: Sequence[Change], away: Sequence[str]) -> str:
    wrong = [
        change.place
        for change, seen in zip(back, damage.fields, strict=True)
        if seen.stands is not Stands.BEFORE
    ]
    if away:
        return f"not everything could be read: {'; '.join(away)}"
    if not wrong:
        return f"every field that {damage.run} changed is as before"
    places = ", ".join(wrong[:5])
    return f"{len(wrong)} of {len(back)} fields are not as before {damage.run}: {places}"


def _seen(change: Change, thing: Object | UnansweredError | None) -> Seen:
    if isinstance(thing, UnansweredError):
        return Seen(now=None, stands=Stands.UNREAD, exact=False)
    if thing is None:
        return Seen(now=None, stands=Stands.GONE, exact=False)
    now = at(thing, change.path)
    stands = Stands.OTHER
    if equal(now, change.present):
        stands = Stands.BEFORE
    elif equal(now, change.intended):
        stands = Stands.LEFT
    read = Change(path=change.path, present=now, intended=None)
    if stands is Stands.OTHER and secrets_in([read], thing):
        return Seen(now=HIDDEN, stands=stands, exact=False)
    size = len(canonical(now))
    if size > LARGEST:
        return Seen(now=f"[{size} bytes]", stands=stands, exact=False)
    return Seen(now=now, stands=stands, exact=True)


def _put_back(plan: Plan) -> Sequence[Change]:
    return [change for change in plan.changes if change.path]


def _of(plan: Plan, change: Change) -> ObjectReference:
    target = plan.target
    return change.of or ObjectReference(
        api_version=target.api_version,
        kind=target.kind,
        namespace=target.namespace,
        name=target.name,
        uid=target.uid,
    )


def _objects(plan: Plan) -> Sequence[ObjectReference]:
    return list(dict.fromkeys(_of(plan, change) for change in _put_back(plan)))


# --- telling --------------------------------------------------------------------------------------


def repair_of(plan: Plan, evidence: Sequence[Evidence], owner_uid: str) -> Repair | None:
    """Make the page from what was read last; None where nothing of that run was.

    `owner_uid` is what the freeze is about.
    """
    name = workflow_name(plan)
    read = [one for one in evidence if one.question == f"{QUESTION}{name}"]
    if not read:
        return None
    try:
        damage = Damage.model_validate(read[-1].answer)
    except ValidationError:
        return None
    back = _put_back(plan)
    if len(back) != len(damage.fields):
        return None
    pairs = list(zip(back, damage.fields, strict=True))
    commands, notes = _commands(plan, pairs, damage.marks)
    release = f"tiphys release {shlex.quote(f'target:{owner_uid}')} --reason 'repaired by hand'"
    return Repair(
        run=name,
        target=str(plan.target),
        uid=plan.target.uid,
        read_at=read[-1].asked_at.isoformat(),
        fields=tuple(_field(change, seen) for change, seen in pairs),
        commands=(*commands, release),
        notes=tuple(notes),
    )


def _field(change: Change, seen: Seen) -> Field:
    same = seen.stands is Stands.BEFORE
    known = seen.stands not in {Stands.GONE, Stands.UNREAD}
    now = _written(seen.now) if known else seen.stands.value
    return Field(
        place=change.place,
        before=change.present,
        left=change.intended,
        now=seen.now,
        stands=seen.stands,
        difference="" if same else f"{_written(change.present)} -> {now}",
    )


def _written(value: Json) -> str:
    return "(nothing)" if value is None else json.dumps(value, sort_keys=True)


def _commands(
    plan: Plan, pairs: Sequence[tuple[Change, Seen]], marks: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Give one patch for each object that is not as before, and what to know about them."""
    commands: list[str] = []
    notes: list[str] = []
    for ref in _objects(plan):
        mine = [(change, seen) for change, seen in pairs if _of(plan, change) == ref]
        stands = {seen.stands for _, seen in mine}
        if Stands.GONE in stands:
            notes.append(f"{ref} is gone, or another object has its name: nothing to put back")
            continue
        if Stands.OTHER in stands:
            notes.append(f"somebody has changed {ref} since: ask them before you overwrite it")
        if Stands.UNREAD in stands:
            notes.append(f"{ref} could not be read: look at it first")
        operations = [
            {"op": "test", "path": "/metadata/uid", "value": ref.uid},
            *(one for pair in mine for one in _operations(*pair)),
            *_unmarked(marks.get(ref.uid, "")),
        ]
        if len(operations) > 1:
            commands.append(_patch(ref, cast("list[Json]", operations)))
    if any(not change.path for change in plan.changes):
        notes.append("what the run deleted is not brought back")
    return commands, notes


def _operations(change: Change, seen: Seen) -> list[dict[str, Json]]:
    """Put one field back, if it still is what was read."""
    if seen.stands is Stands.BEFORE:
        return []
    found: list[dict[str, Json]] = []
    if seen.exact and seen.now is not None:
        found.append({"op": "test", "path": change.path, "value": seen.now})
    if change.present is not None:
        # Also where there is something: `add` replaces it. Pointers never end in a list's index.
        return [*found, {"op": "add", "path": change.path, "value": change.present}]
    if seen.stands is Stands.UNREAD or seen.now is not None:
        found.append({"op": "remove", "path": change.path})
    return found


def _unmarked(text: str) -> list[dict[str, Json]]:
    """Take the run's mark off: as long as it is there, no action comes near."""
    if not text:
        return []
    test: dict[str, Json] = {"op": "test", "path": mark.POINTER, "value": text}
    return [test, {"op": "remove", "path": mark.POINTER}]


def _patch(ref: ObjectReference, operations: Sequence[Json]) -> str:
    """Write a command for a POSIX shell; JSON in ASCII has no control character and no newline."""
    group, _, version = ref.api_version.rpartition("/")
    kind = f"{ref.kind.lower()}.{version}.{group}" if group else ref.kind.lower()
    words = ["kubectl", "patch", kind]
    if ref.namespace:
        words.append(f"--namespace={ref.namespace}")
    body = json.dumps(list(operations), separators=(",", ":"))
    words += ["--type=json", f"--patch={body}", "--", ref.name]
    line = " ".join(map(shlex.quote, words))
    if not (line.isascii() and line.isprintable()):
        return f"# {ref.kind!a} with uid {ref.uid!a} has a name that no command is written for"
    return line
