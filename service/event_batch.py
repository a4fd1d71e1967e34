"""What one post to the receiver carries: one event, or as many of the next as fit, in their order.

Sources: CloudEvents 1.0.2, HTTP binding, sections 3.2 "Structured Content Mode" and 3.3 "Batched
Content Mode"; its JSON format, section 4 "JSON Batch Format". Pure. Invariants: the same records
make the same bytes under the same id, and no others do; no batch is empty.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tiphys.service.cloud_event import cloud_event
from tiphys.service.records import Record

SINGLE: Final = "application/cloudevents+json; charset=utf-8"
BATCH: Final = "application/cloudevents-batch+json; charset=utf-8"
BATCH_BYTES: Final = 256 << 10
"""Of a batch's body; an event that is larger by itself goes in a batch of its own."""


@dataclass(frozen=True)
class Parcel:
    """One post: what is in it, and how it is sent."""

    records: Sequence[Record]
    """At least one."""
    body: bytes
    content_type: str
    id: str
    """The same over all attempts to post just these records."""


def single(record: Record, source: str) -> Parcel:
    """Make a post of one event, which is no batch."""
    return Parcel([record], cloud_event(record, source), SINGLE, record.hash)


def batch(records: Sequence[Record], source: str) -> Parcel:
    """Make a batch of the first of them, as many as fit, of at least one."""
    made = [cloud_event(records[0], source)]
    size = len(made[0]) + 2
    for record in records[1:]:
        event = cloud_event(record, source)
        size += len(event) + 1
        if size > BATCH_BYTES:
            break
        made.append(event)
    kept = records[: len(made)]
    name = hashlib.sha256(".".join(record.hash for record in kept).encode()).hexdigest()
    return Parcel(kept, b"[" + b",".join(made) + b"]", BATCH, name)
