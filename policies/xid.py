"""What a GPU needs after the Xid errors that its driver has logged: by table, never by a model.

The table is NVIDIA's catalogue, `xid.csv` beside this file, read once when this module is imported.
Invariants: the order of events does not matter, one more event never weakens a device's remedy, no
device's events count for another, and what the table does not know goes to a human.
"""

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from importlib.resources import files
from typing import Annotated, Final, NamedTuple

from pydantic import AfterValidator, Field

from tiphys.policies.model import Instant, Noun

_PCI: Final = re.compile(
    r"(?:pci:)?(?:(?:0{4})?([0-9a-f]{4}):)?([0-9a-f]{2}):([0-9a-f]{2})(?:\.[0-9a-f])?"
)


class Remedy(IntEnum):
    """What is done about a device, from the weakest on; a stronger one supersedes a weaker."""

    NOTHING = 0
    RESTART_APPLICATION = 1
    DRAIN_AND_RESET = 2
    """Drain the node of what uses the GPU, and reset the GPU."""
    REPLACE_NODE = 3
    """Drain the node and take another machine; it stands for NVIDIA's reboots too."""
    ESCALATE = 4
    """A human decides: the table has no answer, or the answer is a person's work."""


class Bucket(StrEnum):
    """The catalogue's words for an immediate action; empty where it names none."""

    NONE = ""
    CHECK_MECHANICALS = "CHECK_MECHANICALS"
    CHECK_UVM = "CHECK_UVM"
    CONTACT_SUPPORT = "CONTACT_SUPPORT"
    IGNORE = "IGNORE"
    RESET_GPU = "RESET_GPU"
    RESTART_APP = "RESTART_APP"
    RESTART_BM = "RESTART_BM"
    RESTART_VM = "RESTART_VM"
    UPDATE_SWFW = "UPDATE_SWFW"
    WORKFLOW_NVLINK5_ERR = "WORKFLOW_NVLINK5_ERR"
    WORKFLOW_NVLINK_ERR = "WORKFLOW_NVLINK_ERR"
    WORKFLOW_XID_45 = "WORKFLOW_XID_45"
    WORKFLOW_XID_48 = "WORKFLOW_XID_48"
    XID_154 = "XID_154"


REMEDIES: Final[Mapping[Bucket, Remedy]] = {
    Bucket.NONE: Remedy.ESCALATE,
    Bucket.CHECK_MECHANICALS: Remedy.ESCALATE,
    Bucket.CHECK_UVM: Remedy.ESCALATE,
    Bucket.CONTACT_SUPPORT: Remedy.ESCALATE,
    Bucket.IGNORE: Remedy.NOTHING,
    Bucket.RESET_GPU: Remedy.DRAIN_AND_RESET,
    Bucket.RESTART_APP: Remedy.RESTART_APPLICATION,
    # In a pool of machines a fresh one is the reboot.
    Bucket.RESTART_BM: Remedy.REPLACE_NODE,
    Bucket.RESTART_VM: Remedy.REPLACE_NODE,
    Bucket.UPDATE_SWFW: Remedy.ESCALATE,
    # Its answer depends on registers that the event's number does not tell.
    Bucket.WORKFLOW_NVLINK5_ERR: Remedy.ESCALATE,
    # The catalogue's trigger conditions: a reset or a reboot is needed to clear it.
    Bucket.WORKFLOW_NVLINK_ERR: Remedy.DRAIN_AND_RESET,
    # The driver has torn down an application that ended or was ended: nothing is left to restart,
    # and what ended it has an Xid of its own.
    Bucket.WORKFLOW_XID_45: Remedy.NOTHING,
    # The catalogue's trigger conditions: a reset or a reboot is needed to clear it.
    Bucket.WORKFLOW_XID_48: Remedy.DRAIN_AND_RESET,
    # Without its text, which names the recovery, it asks for one that nobody knows.
    Bucket.XID_154: Remedy.ESCALATE,
}
"""What each immediate action of the catalogue is in a cluster."""

_DETAILS_OF: Final[Mapping[int, int]] = {171: 48, 172: 48}
"""Codes that the catalogue describes as additional to another, and names no action for."""
RECOVERY_ACTION_CHANGED: Final = 154


class Recovery(StrEnum):
    """What Xid 154 says that the driver asks for, in the driver's words."""

    NONE = "None"
    DRAIN_P2P = "Drain P2P"
    DRAIN_AND_RESET = "Drain and Reset"
    GPU_RESET = "GPU Reset Required"
    NODE_REBOOT = "Node Reboot Required"


_RECOVERIES: Final[Mapping[Recovery, Remedy]] = {
    Recovery.NONE: Remedy.NOTHING,
    Recovery.DRAIN_P2P: Remedy.ESCALATE,
    Recovery.DRAIN_AND_RESET: Remedy.DRAIN_AND_RESET,
    Recovery.GPU_RESET: Remedy.DRAIN_AND_RESET,
    Recovery.NODE_REBOOT: Remedy.REPLACE_NODE,
}


class Repeat(NamedTuple):
    """How often a code that speaks of an application makes the device itself suspect."""

    times: int
    """Occurrences that count."""
    within: timedelta
    apart: timedelta
    """What follows an occurrence that counts sooner than this is the same occurrence: one fault
    is logged once for each unit of the GPU that saw it."""


REPEATS: Final[Mapping[int, Repeat]] = {
    code: Repeat(3, timedelta(hours=24), timedelta(minutes=10)) for code in (13, 31)
}
"""The catalogue calls both application faults that are rarely the hardware's; how often is too
often is our own measure. At the last count the next stronger remedy is due."""


class Row(NamedTuple):
    """One row of the catalogue."""

    code: int
    mnemonic: str
    immediate: Bucket
    investigatory: str
    remedy: Remedy


def device_name(name: str) -> str:
    """Write a PCI address in one way, whether the kernel, NVML or lspci wrote it."""
    lower = name.strip().lower()
    found = _PCI.fullmatch(lower)
    return f"{found[1] or '0000'}:{found[2]}:{found[3]}" if found else lower


class XidEvent(Noun):
    """One Xid that a driver logged."""

    at: Instant
    node: str = Field(min_length=1)
    gpu: Annotated[str, Field(min_length=1), AfterValidator(device_name)]
    """The GPU's UUID or its PCI address; one device must be named in one way throughout."""
    xid: int
    recovery: Recovery | None = None
    """With Xid 154: what it asks for, the last of the two in its text; None where not read."""


class Device(NamedTuple):
    """One GPU of one node."""

    node: str
    gpu: str


@dataclass(frozen=True)
class Finding:
    """What one device needs, and why."""

    remedy: Remedy
    reason: str
    """A sentence that names the codes which ask for the remedy."""
    codes: tuple[int, ...]
    """The codes that ask for it, ascending."""


def _read(text: str) -> dict[int, Row]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found: dict[int, Row] = {}
    for line in lines[1:]:
        number, mnemonic, immediate, investigatory = line.split(",")
        bucket = Bucket(immediate)
        row = Row(int(number), mnemonic, bucket, investigatory, REMEDIES[bucket])
        if row.code in found:
            raise ValueError(f"xid.csv has two rows for {row.code}")
        found[row.code] = row
    for code, whole in _DETAILS_OF.items():
        found[code] = found[code]._replace(remedy=found[whole].remedy)
    return found


CATALOGUE: Final[Mapping[int, Row]] = _read(
    files(__package__ or "").joinpath("xid.csv").read_text(encoding="utf-8")
)
"""The catalogue by code."""


def remedy_for(code: int, recovery: Recovery | None = None) -> Remedy:
    """Give what one Xid asks for by itself; a code that nobody knows escalates."""
    if code == RECOVERY_ACTION_CHANGED and recovery is not None:
        return _RECOVERIES[recovery]
    row = CATALOGUE.get(code)
    return row.remedy if row else Remedy.ESCALATE


def judge(events: Iterable[XidEvent]) -> Mapping[Device, Finding]:
    """Give each device's one remedy: the strongest that any of its events or repeats asks for."""
    of: defaultdict[Device, list[XidEvent]] = defaultdict(list)
    for event in events:
        of[Device(event.node, event.gpu)].append(event)
    return {device: _judge_one(device, of[device]) for device in sorted(of)}


def _judge_one(device: Device, events: Sequence[XidEvent]) -> Finding:
    times: defaultdict[int, list[datetime]] = defaultdict(list)
    asked: defaultdict[int, Remedy] = defaultdict(lambda: Remedy.NOTHING)
    for event in events:
        times[event.xid].append(event.at)
        asked[event.xid] = max(asked[event.xid], remedy_for(event.xid, event.recovery))
    words: dict[int, str] = {}
    for code in sorted(asked):
        row = CATALOGUE.get(code)
        words[code] = f"Xid {code} ({row.mnemonic if row else 'not in the catalogue'})"
        repeat = REPEATS.get(code)
        count = _occurrences(times[code], repeat) if repeat else 0
        if repeat and count >= repeat.times:
            asked[code] = Remedy(min(asked[code] + 1, Remedy.ESCALATE))
            hours = repeat.within.total_seconds() / 3600
            words[code] += f" {count} times in {hours:g} h: the device itself is suspect"
    strongest = max(asked.values())
    codes = tuple(code for code in sorted(asked) if asked[code] is strongest)
    verb = strongest.name.lower().replace("_", " ")
    why = "; ".join(words[code] for code in codes)
    return Finding(strongest, f"GPU {device.gpu} of node {device.node}: {verb}: {why}", codes)


def _occurrences(times: Sequence[datetime], repeat: Repeat) -> int:
    """Count the most occurrences, each `apart` from the one before, that one window holds."""
    ordered, most = sorted(times), 0
    for start, first in enumerate(ordered):
        end = bisect_right(ordered, first + repeat.within)
        count, here = 0, start
        while here < end:
            count += 1
            here = bisect_left(ordered, ordered[here] + repeat.apart)
        most = max(most, count)
    return most
