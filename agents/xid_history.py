"""Which Xids a node's GPUs had, from Prometheus' history and from the events of the kernel's log.

dcgm-exporter's gauge keeps the last code until the exporter or the driver starts anew (NVIDIA/DCGM
issue 277): an Xid is a change of it, and the same code twice in a row is not seen there. The count
of its window (`DCGM_EXP_XID_ERRORS_COUNT`) and the kernel's log show that.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from tiphys.agents.gpu_labels import code_of, device_of, user_of
from tiphys.agents.objects import instant, text, whole
from tiphys.agents.ports import Series
from tiphys.policies.model import Object
from tiphys.policies.xid import RECOVERY_ACTION_CHANGED, REPEATS, Recovery, XidEvent

LINE: Final = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9A-Fa-f:.]{7,16})\): (\d{1,6})([^\n]*)")
"""The driver's line, such as `NVRM: Xid (PCI:0000:3b:00): 79, pid=1, name=x, GPU has fallen…`."""
_CHANGED = re.compile(r" to \S+ \(([^)]*)\)")
_COMBINED = "(combined from similar events)"
_UNREADABLE = -1
"""Stands for a code that is no number: the catalogue has no answer for it."""


@dataclass(frozen=True)
class Occurrence:
    """One Xid, and what is known around it."""

    event: XidEvent
    since: datetime
    """It happened after this and not after `event.at`."""
    user: tuple[str, str] | None = None
    """Namespace and name of the pod that used the GPU then."""
    dated: bool = True
    """False: it was there already when what is known begins."""


class Log(NamedTuple):
    """What the node's events tell."""

    found: Sequence[Occurrence]
    unclear: Sequence[str]
    """Why events may hide an Xid, as sentences."""


def from_metrics(
    gauge: Sequence[Series], counts: Sequence[Series], node: str, began: float
) -> list[Occurrence]:
    """Give the Xids that Prometheus' history shows; `began`: unix seconds of its first instant."""
    found: list[Occurrence] = []
    for device, several in _by_device(gauge).items():
        found += _changes(device, several, node)
    for device, several in _by_device(counts).items():
        by_code: defaultdict[str, list[Series]] = defaultdict(list)
        for series in several:
            by_code[code_of(series.labels)].append(series)
        for written, same in by_code.items():
            found += _rises((device, read_code(written)), same, node, began)
    return found


def exporters(several: Sequence[Series]) -> list[str]:
    """Give the addresses that told of any device at one and the same time, where they are several.

    `instance` is what Prometheus scraped. One exporter after the other is a restart and no doubt.
    """
    at_once: defaultdict[float, set[str]] = defaultdict(set)
    for series in several:
        address = series.labels.get("instance", "").rpartition(":")[0]
        for at, value in series.points:
            if math.isfinite(value):
                at_once[at].add(address or series.labels.get("instance", ""))
    doubted = [found for found in at_once.values() if len(found) > 1]
    return sorted({address for found in doubted for address in found})


def read_code(written: str) -> int:
    """Read a code from a label; what is no number becomes one that the catalogue does not have."""
    return int(written) if re.fullmatch(r"\d{1,6}", written) else _UNREADABLE


def _by_device(several: Sequence[Series]) -> Mapping[str, list[Series]]:
    found: defaultdict[str, list[Series]] = defaultdict(list)
    for series in several:
        named = device_of(series.labels)
        if named is not None and named.name:
            found[named.name].append(series)
    return found


def _timeline(several: Sequence[Series]) -> Iterator[tuple[float, float, Mapping[str, str]]]:
    """Join what one device was told under changing labels: the pod that uses it is one of them."""
    at_once: dict[float, tuple[float, Mapping[str, str]]] = {}
    for series in several:
        for at, value in series.points:
            if math.isfinite(value) and value >= at_once.get(at, (-math.inf, {}))[0]:
                at_once[at] = value, series.labels
    for at in sorted(at_once):
        yield at, *at_once[at]


def _changes(device: str, several: Sequence[Series], node: str) -> Iterator[Occurrence]:
    last, before, former = 0.0, -math.inf, None
    for at, value, labels in _timeline(several):
        user = user_of(labels)
        if value not in {last, 0.0}:
            code = int(value) if float(value).is_integer() else _UNREADABLE
            event = XidEvent(at=_time(at), node=node, gpu=device, xid=code)
            yield _seen(event, before, user or former)
        last, before, former = value, at, user


def _rises(
    what: tuple[str, int], several: Sequence[Series], node: str, began: float
) -> Iterator[Occurrence]:
    # Without an Xid in its window there is no such series: its beginning is a rise, too.
    last, before = 0.0, began
    for at, value, labels in _timeline(several):
        if value > last:
            event = XidEvent(at=_time(at), node=node, gpu=what[0], xid=what[1])
            yield _seen(event, before if at > began else -math.inf, user_of(labels))
        last, before = value, at


def _seen(event: XidEvent, before: float, user: tuple[str, str] | None) -> Occurrence:
    dated = math.isfinite(before)
    return Occurrence(event, _time(before) if dated else event.at, user, dated)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


# --- the kernel's log ---------------------------------------------------------------------------


def from_events(events: Sequence[Object], node: str) -> Log:
    """Give the Xids that events on a node tell, such as node-problem-detector's.

    Kubernetes counts equal events in one, with the first and the last time alone.
    """
    found: list[Occurrence] = []
    unclear: list[str] = []
    for event in events:
        message = text(event, "message")
        lines = LINE.findall(message)
        first, last, count = _times(event)
        if not lines or first is None or last is None:
            continue
        if _COMBINED in message and count > 1:
            unclear.append(f"{count} kernel messages of node {node} were combined into one event")
        for pci, code, more in lines:
            times = dict.fromkeys((first, last))
            found += [_logged(node, pci, int(code), more, at) for at in times]
            repeat = REPEATS.get(int(code))
            if repeat and count > 2 and last - first >= repeat.apart * (repeat.times - 1):
                minutes = (last - first) // timedelta(minutes=1)
                unclear.append(f"Xid {code} was logged {count} times in {minutes} min: when?")
    return Log(found, unclear)


def _logged(node: str, pci: str, code: int, more: str, at: datetime) -> Occurrence:
    recovery = None
    if code == RECOVERY_ACTION_CHANGED and (told := _CHANGED.search(more)):
        recovery = next((one for one in Recovery if one.value == told[1]), None)
    event = XidEvent(at=at, node=node, gpu=pci, xid=code, recovery=recovery)
    return Occurrence(event, at - timedelta(seconds=1))


def _times(event: Object) -> tuple[datetime | None, datetime | None, int]:
    """Give the first and the last time, and how often."""
    began = instant(event, "firstTimestamp") or instant(event, "eventTime")
    began = began or instant(event, "metadata", "creationTimestamp")
    ended = instant(event, "lastTimestamp") or instant(event, "series", "lastObservedTime")
    count = max(whole(event, "count", default=1), whole(event, "series", "count", default=1))
    return began, ended or began, count


def since_boot(found: Sequence[Occurrence], events: Sequence[Object]) -> list[Occurrence]:
    """Leave out what a reboot has answered; what counts by repeats goes on counting."""
    boots = [_times(e)[1] for e in events if text(e, "reason") == "Rebooted"]
    booted = max((at for at in boots if at is not None), default=None)
    return [
        one for one in found if booted is None or one.event.at >= booted or one.event.xid in REPEATS
    ]
