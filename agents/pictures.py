"""What an incident has in common with others of the same cause, without names and numbers.

Three grains. The `group`: the gravest alert, the kind of object and what holds its pods up. The
`cause`: also the other alerts, what was tried, and what the programs themselves say, stripped of
all that varies. The `picture`: also every fact that is yes or no, some or none, or a word from a
closed list. Incidents with the same cause share one investigation; only with the same picture does
an answer hold for another incident.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tiphys.agents.answers import Option
from tiphys.agents.objects import dig, mapping, text
from tiphys.agents.on_call import firing
from tiphys.agents.pod_facts import Trouble
from tiphys.agents.ports import Findings
from tiphys.agents.redact import abstract
from tiphys.policies.model import Json
from tiphys.policies.plan import digest

MAX_WORDS: Final = 24
"""Of one spoken line."""
_TELLING: Final = (
    Trouble.IMAGE, Trouble.CONFIG, Trouble.OUT_OF_MEMORY, Trouble.CRASH, Trouble.UNSCHEDULABLE,
    Trouble.UNREADY, Trouble.STARTING,
)  # fmt: skip
_SPOKEN: Final = (
    ("pod", "waiting_message"), ("pod", "scheduling_message"), ("job", "failed_message"),
    ("node", "message"),
)  # fmt: skip
_WORDS_KEPT: Final = {
    "last_action", "last_outcome", "ended_because", "phase", "trouble", "waiting_reason",
    "controlled_by", "reason", "failed_because", "progressing_reason", "remedy", "kind", "codes",
    "changed", "pressures", "problems", "taints", "seen",
}  # fmt: skip
"""Facts whose words come from a closed list of Kubernetes', NVIDIA's or our own."""
_LEFT_OUT: Final = {"alert", "metrics", "analysis", "events", "namespace", "gathered"}
"""Groups of facts that tell one incident from the next and not one cause from another."""
_TURNS: Final = {Trouble.CRASH.value, Trouble.OUT_OF_MEMORY.value}
"""Troubles in which a container runs and waits by turns, within seconds."""
_OF_A_TURN: Final = {"running", "waiting_reason", "waiting_message"}
_TROUBLED: Final = re.compile(
    r"(?i)error|fatal|panic|exception|denied|refused|fail|cannot|unable|timed? ?out|not found|"
    r"no such|killed|invalid|missing|exceeded|unauthorized|forbidden"
)
_NAMELIKE: Final = re.compile(r"\S*[0-9/.:@=_\"'`<>\\-]\S*")
"""What holds a value in a sentence: digits, paths, addresses, images, quoted words."""


@dataclass(frozen=True)
class Likeness:
    """What an incident looks like, in three grains."""

    group: str
    cause: str
    picture: str


def likeness(findings: Findings, offered: Sequence[Option]) -> Likeness:
    """Tell what the incident has in common with others."""
    facts, own = _steady(dict(findings.facts)), _own_names(findings)
    alerts = firing(findings.case)
    kinds: list[Json] = [f"{role} {t.kind}" for role, t in sorted(findings.targets.items())]
    group: list[Json] = [
        alerts[0].name if alerts else "",
        text(facts, "workload", "kind"),
        _trouble(facts),
        text(facts, "gpu", "remedy"),
    ]
    cause: list[Json] = [
        *group,
        [*sorted({alert.name for alert in alerts})],
        dig(facts, "attempts", "last_action"),
        dig(facts, "attempts", "last_outcome"),
        text(facts, "pod", "waiting_reason"),
        text(facts, "job", "failed_because"),
        *(_stripped(text(facts, *path), own) for path in _SPOKEN),
        _signature(dig(facts, "pod", "log_tail"), own),
    ]
    told = {key: value for key, value in facts.items() if key not in _LEFT_OUT}
    actions: list[Json] = [[option.action.name, *option.roles] for option in offered]
    picture: list[Json] = [*cause, kinds, actions, _shape(told, own)]
    return Likeness(digest(group), digest(cause), digest(picture))


def _steady(facts: dict[str, Json]) -> dict[str, Json]:
    """Leave out what a crash loop shows of the turn it is in: its repeat is no other cause."""
    pod = mapping(facts, "pod")
    if text(facts, "pod", "trouble") not in _TURNS:
        return facts
    return {**facts, "pod": {k: v for k, v in pod.items() if k not in _OF_A_TURN}}


def _trouble(facts: dict[str, Json]) -> str:
    """Name what holds the pods up, the most telling first."""
    pods = mapping(facts, "pods")
    counted = (t.value for t in _TELLING if isinstance(n := pods.get(t.value), int) and n > 0)
    return next(counted, text(facts, "pod", "trouble"))


def _own_names(findings: Findings) -> frozenset[str]:
    """Give every name that belongs to this incident alone."""
    names = {findings.case.cluster}
    for target in findings.targets.values():
        names |= {target.name, target.namespace}
    for alert in findings.case.alerts:
        names |= {value for key, value in alert.labels.items() if key != "alertname"}
    for path in (("pod", "container"), ("memory", "container"), ("pool", "name")):
        names.add(text(dict(findings.facts), *path))
    return frozenset(name.lower() for name in names if name)


def _stripped(line: str, own: frozenset[str]) -> str:
    """Leave the plain words of a sentence: no names, numbers, addresses, paths or values."""
    plain = _NAMELIKE.sub("*", abstract(line)[:2_000]).lower()
    kept = [word.strip(",;()[]{}!?") for word in plain.split()]
    return " ".join(word for word in kept if word and word != "*" and word not in own)[:400]


def _signature(log: Json, own: frozenset[str]) -> str:
    """Give the stripped line of trouble that a log repeats most."""
    lines = [one for one in log if isinstance(one, str)] if isinstance(log, list) else []
    told = Counter(_stripped(line, own) for line in lines if _TROUBLED.search(line))
    return min(told, key=lambda words: (-told[words], words), default="")


def _shape(value: Json, own: frozenset[str], key: str = "") -> Json:
    """Turn numbers into some or none, and sentences into their plain words."""
    if isinstance(value, dict):
        return {name: _shape(item, own, name) for name, item in sorted(value.items())}
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return (value > 0) - (value < 0)
    if isinstance(value, str):
        return value if key in _WORDS_KEPT else _stripped(value, own)
    if key in _WORDS_KEPT:
        return [*sorted(str(one) for one in value)]
    return bool(value)
