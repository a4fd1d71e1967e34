"""One record of the audit and how an export is verified: offline, without a database.

Invariant: a record's hash covers its predecessor's, so an edit, a deletion, an insertion or a
reordering breaks the chain at the first bad record.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pydantic import ValidationError

from tiphys.policies.model import Json, Noun
from tiphys.policies.plan import canonical

GENESIS = "0" * 64
"""What the first record names as its predecessor."""


class AuditEvent(StrEnum):
    """Everything that is ever recorded."""

    ALERT_ENDED = "alert_ended"
    ALERT_NOTED = "alert_noted"
    ALERT_OPENED = "alert_opened"
    APPROVAL_GIVEN = "approval_given"
    APPROVAL_REFUSED = "approval_refused"
    APPROVAL_VOID = "approval_void"
    BREAKER_RESET = "breaker_reset"
    BREAKER_TRIPPED = "breaker_tripped"
    BREAK_GLASS = "break_glass"
    BREAK_GLASS_REVIEWED = "break_glass_reviewed"
    CHAT_REFUSED = "chat_refused"
    DECIDED = "decided"
    EVIDENCE_GATHERED = "evidence_gathered"
    INCIDENT_MOVED = "incident_moved"
    INCIDENT_OPENED = "incident_opened"
    INCIDENT_PARKED = "incident_parked"
    JUDGED = "judged"
    LAUNCH_INTENDED = "launch_intended"
    PAGED = "paged"
    PAUSED = "paused"
    PLANNED = "planned"
    RESUMED = "resumed"
    RUN_ASKED = "run_asked"
    RUN_ENDED = "run_ended"
    RUN_STEP = "run_step"
    RUN_STOP_ASKED = "run_stop_asked"
    SERVICE_STARTED = "service_started"
    SERVICE_STOPPED = "service_stopped"
    STOP_ENGAGED = "stop_engaged"
    STOP_RELEASED = "stop_released"
    TARGET_FROZEN = "target_frozen"
    TARGET_UNFROZEN = "target_unfrozen"
    UNDO_ASKED = "undo_asked"
    WORKFLOW_CREATED = "workflow_created"


class Record(Noun):
    """One line of the record, as it is exported."""

    seq: int
    at: str
    event: str
    incident_id: str | None
    actor: str
    body: Json
    previous: str
    hash: str

    def computed_hash(self) -> str:
        """Give the hash this record must bear."""
        return record_hash(self.model_dump(exclude={"hash"}))


def record_hash(fields: Json) -> str:
    """Hash a record's fields, `hash` left out, as 64 hex digits."""
    return hashlib.sha256(canonical(fields)).hexdigest()


@dataclass(frozen=True)
class Verification:
    """What reading an export found."""

    records: int
    head: str
    """Hash of the last good record."""
    problem: str | None
    """The first bad record and what is wrong with it, or None."""


def verify(lines: Iterable[str]) -> Verification:
    """Check an export line by line, offline; stops at the first bad record."""
    count, head = 0, GENESIS
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = _parse(line)
            problem = _problem(record, expected=count + 1, previous=head)
        except (ValueError, RecursionError) as error:
            return Verification(count, head, f"line {number} is not a record: {_first(error)}")
        if problem:
            return Verification(count, head, f"record {record.seq} (line {number}) {problem}")
        count, head = record.seq, record.hash
    return Verification(count, head, None if count else "there is no record in it")


def _parse(line: str) -> Record:
    """Read a line strictly: what two readers could read differently is no record."""
    fields = json.loads(line, object_pairs_hook=_once)
    return Record.model_validate(fields, strict=True)


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _first(error: Exception) -> str:
    return str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error)


def _problem(record: Record, *, expected: int, previous: str) -> str | None:
    if record.seq != expected:
        return f"stands where record {expected} should: one is missing, added or moved"
    if record.previous != previous:
        return "does not follow the record before it: one was removed, replaced or moved"
    if record.computed_hash() != record.hash:
        return "was changed after it was written: its hash does not fit its content"
    return None
