"""Facts about a GPU: what NVIDIA's table asks for after its Xids, and which pod used it. Pure.

Invariants: whatever cannot be told makes `unclear`, which goes to a human; a stronger remedy is
never hidden by a device that goes by two names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from tiphys.agents.gpu_labels import Named, code_of, device_of, user_of
from tiphys.agents.objects import instant, items, name_of, text
from tiphys.agents.pod_facts import gpus_of, minutes_between
from tiphys.agents.xid_history import Log, Occurrence, read_code
from tiphys.policies.model import Alert, Json, Object
from tiphys.policies.xid import CATALOGUE, Device, Finding, Remedy, XidEvent, device_name, judge

NOT_NAMED: Final = "not-named"
"""Stands for the device of an alert that names a code and no device."""
_ENDED = {"Succeeded", "Failed"}


@dataclass(frozen=True)
class Seen:
    """What was read about one node's GPUs."""

    node: str
    metrics: Sequence[Occurrence]
    log: Log
    devices: Sequence[Named]
    """Those that Prometheus knows."""
    pods: Sequence[Object]
    """The node's pods."""
    exporters: Sequence[str] = ()
    """The addresses that told Prometheus of its GPUs at one time; more than one is a doubt."""


def gpu_facts(alerts: Sequence[Alert], seen: Seen, now: datetime) -> dict[str, Json]:
    """Give the facts that the alerts' devices ask for, or why they are unclear."""
    every = [*seen.metrics, *_matched(seen)]
    wanted = _wanted(alerts, seen.devices)
    told = _told(alerts, seen, wanted, every)
    every = _without_echoes([*every, *told])
    findings = judge(one.event for one in every)
    mine = {d: f for d, f in findings.items() if wanted is None or d.gpu in wanted}
    if not mine:
        about = ", ".join(sorted(wanted or ())) or "any GPU"
        return unclear(seen.node, f"nothing tells of an Xid of {about} on node {seen.node}")
    device, strongest = max(mine.items(), key=lambda one: one[1].remedy)
    asking = [
        one
        for one in every
        if mine.get(_device(one)) is not None
        and mine[_device(one)].remedy is strongest.remedy
        and one.event.xid in mine[_device(one)].codes
    ]
    why = _unclear(strongest, findings, mine, seen) or _unbelieved(strongest, asking, told, seen)
    users = _users(asking, alerts, seen.pods)
    last = max(asking, key=lambda one: one.event.at)
    codes: list[Json] = [*strongest.codes]
    every_code: list[Json] = [*sorted({o.event.xid for o in every if _device(o) == device})]
    return {
        "node": seen.node,
        "device": device.gpu,
        "remedy": strongest.remedy.name.lower(),
        "reason": strongest.reason,
        "codes": codes,
        "seen": every_code,
        "advice": advice(strongest.codes),
        "minutes": minutes_between(last.event.at, now),
        "dated": last.dated,
        "ill": sum(f.remedy is not Remedy.NOTHING for f in mine.values()),
        "users": len(users),
        "user": _place(users[0]) if len(users) == 1 else "",
        "restarted": len(users) == 1 and _restarted(users[0], last),
        "unclear": why,
    }


def unclear(node: str, why: str) -> dict[str, Json]:
    """Give the facts where no remedy can be told."""
    empty: list[Json] = []
    return {
        "node": node, "device": "", "remedy": "", "reason": "", "codes": empty, "seen": empty,
        "advice": "", "minutes": -1.0, "dated": False, "ill": 0, "users": 0, "user": "",
        "restarted": False, "unclear": why,
    }  # fmt: skip


def advice(codes: Sequence[int]) -> str:
    """Quote what NVIDIA's catalogue says to do at once and then."""
    said: list[str] = []
    for code in codes:
        row = CATALOGUE.get(code)
        if row is None:
            said.append(f"Xid {code}: not in the catalogue")
            continue
        later = f", then {row.investigatory}" if row.investigatory else ""
        said.append(f"Xid {code} {row.mnemonic}: {row.immediate or 'no action named'}{later}")
    return "; ".join(said)


def pod_in_question(facts: Mapping[str, Json]) -> dict[str, str]:
    """Give the labels that name the one pod that used the GPU; empty where there is no such."""
    namespace, _, pod = str(facts.get("user", "")).partition("/")
    return {"namespace": namespace, "pod": pod} if pod else {}


# --- devices ------------------------------------------------------------------------------------


def _device(one: Occurrence) -> Device:
    return Device(one.event.node, one.event.gpu)


def _matched(seen: Seen) -> list[Occurrence]:
    """Give the kernel's occurrences; it names PCI addresses, which Prometheus may not.

    Where the node has one GPU, and that is known by its UUID, there is no choice.
    """
    names = {named.name for named in seen.devices}
    logged = {one.event.gpu for one in seen.log.found}
    alone = len(names) == 1 and len(logged) == 1 and all(not d.pci for d in seen.devices)
    if not alone:
        return [*seen.log.found]
    (name,) = names
    return [
        Occurrence(o.event.model_copy(update={"gpu": name}), o.since, o.user, o.dated)
        for o in seen.log.found
    ]


def _wanted(alerts: Sequence[Alert], devices: Sequence[Named]) -> set[str] | None:
    """Give the names of the devices that the alerts speak of; None for all of the node's."""
    found: set[str] = set()
    for alert in alerts:
        named = device_of(alert.labels)
        if named is None:
            return None
        same = [d for d in devices if _agrees(d, named)]
        if not same and not named.name:
            return None
        found |= {d.name for d in same} or {named.name}
    return found


def _agrees(known: Named, named: Named) -> bool:
    if named.uuid and known.uuid:
        return named.uuid == known.uuid
    if named.pci and known.pci:
        return device_name(named.pci) == device_name(known.pci)
    return bool(named.number) and named.number == known.number


def _told(
    alerts: Sequence[Alert], seen: Seen, wanted: set[str] | None, known: Sequence[Occurrence]
) -> list[Occurrence]:
    """Give what the alerts' own labels tell, where nothing else has told it."""
    codes = {one.event.xid for one in known if wanted is None or one.event.gpu in wanted}
    found: list[Occurrence] = []
    for alert in alerts:
        written = code_of(alert.labels)
        if not written or written == "0" or read_code(written) in codes:
            continue
        named = _wanted([alert], seen.devices) or {NOT_NAMED}
        event = XidEvent(at=alert.starts_at, node=seen.node, gpu=min(named), xid=read_code(written))
        since = alert.starts_at - timedelta(minutes=10)
        found.append(Occurrence(event, since, user_of(alert.labels)))
    return found


def _unclear(
    strongest: Finding,
    findings: Mapping[Device, Finding],
    mine: Mapping[Device, Finding],
    seen: Seen,
) -> str:
    """Say why the remedy may be too weak; empty where it is not."""
    if strongest.remedy >= Remedy.ESCALATE:
        return ""
    if seen.log.unclear and strongest.remedy <= Remedy.RESTART_APPLICATION:
        return "; ".join(dict.fromkeys(seen.log.unclear))
    by_uuid = any(":" not in device.gpu for device in mine)
    addresses = {device_name(d.pci) for d in seen.devices if d.pci}
    strange = [
        finding
        for device, finding in findings.items()
        if device not in mine and ":" in device.gpu and device.gpu not in addresses
    ]
    stronger = [f for f in strange if f.remedy > strongest.remedy]
    if by_uuid and stronger:
        worst = max(stronger, key=lambda f: f.remedy)
        return f"the kernel tells of a GPU that may be the same one: {worst.reason}"
    return ""


def _unbelieved(
    strongest: Finding, asking: Sequence[Occurrence], told: Sequence[Occurrence], seen: Seen
) -> str:
    """Say why nothing is done on this word alone; empty where the node itself gave it.

    Whoever can write an alert or export a metric can name another's node: see
    docs/hostile-evidence.md.
    """
    if strongest.remedy in {Remedy.NOTHING, Remedy.ESCALATE}:
        return ""
    if all(one in told for one in asking):
        return (
            f"only the alert's own labels tell of it ({strongest.reason}): neither Prometheus' "
            f"series of the GPUs of node {seen.node} nor the node's events do"
        )
    if len(seen.exporters) > 1 and not any(one in seen.log.found for one in asking):
        named = ", ".join(seen.exporters[:5])
        return (
            f"several exporters tell of the GPUs of node {seen.node} at one time ({named}), the "
            f"node's events do not, and nobody knows which is its own: {strongest.reason}"
        )
    return ""


def _without_echoes(found: Sequence[Occurrence]) -> list[Occurrence]:
    """Leave out what a gauge has kept from before, where the same Xid has a time of its own."""
    dated = {(one.event.gpu, one.event.xid) for one in found if one.dated}
    return [one for one in found if one.dated or (one.event.gpu, one.event.xid) not in dated]


# --- who used it --------------------------------------------------------------------------------


def _users(
    asking: Sequence[Occurrence], alerts: Sequence[Alert], pods: Sequence[Object]
) -> list[Object]:
    """Give the living pods that used the GPUs; without a name, every pod of the node with one."""
    living = [p for p in pods if gpus_of(p) and text(p, "status", "phase") not in _ENDED
              and not text(p, "metadata", "deletionTimestamp")]  # fmt: skip
    named = {o.user for o in asking if o.user} | {
        user for a in alerts if device_of(a.labels) and (user := user_of(a.labels))
    }
    own = {(text(p, "metadata", "namespace"), name_of(p)) for p in pods if not gpus_of(p)}
    named -= own
    if not named:
        return living
    return [p for p in living if (text(p, "metadata", "namespace"), name_of(p)) in named]


def _place(pod: Object) -> str:
    return f"{text(pod, 'metadata', 'namespace')}/{name_of(pod)}"


def _restarted(pod: Object, last: Occurrence) -> bool:
    """Tell whether every container has begun anew since the Xid, by itself or by somebody."""
    statuses = items(pod, "status", "containerStatuses")
    return bool(statuses) and all(_anew(one, last) for one in statuses)


def _anew(status: Object, last: Occurrence) -> bool:
    never = datetime.min.replace(tzinfo=UTC)
    began = instant(status, "state", "running", "startedAt") or never
    ended = instant(status, "lastState", "terminated", "finishedAt") or never
    return began > last.event.at or ended > last.since
