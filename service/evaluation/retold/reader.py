"""From a retold case to the facts that playbooks decide on, and a list of what was not understood.

Invariants: a symptom follows from what is said, by `readings.yaml`, and nothing but the table
knows one; what is denied supports none; groups that nobody tells of stay empty.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from tiphys.agents.kubectl import GROUPS
from tiphys.agents.symptoms import SYMPTOMS, told
from tiphys.policies.model import Json
from tiphys.service.evaluation.retold import (
    gpus,
    limits,
    numbers,
    replicas,
    stories,
    suspects,
    timeline,
    tone,
)
from tiphys.service.evaluation.retold.rules import Rule, Told, rule
from tiphys.service.evaluation.retold.words import Item, read_item, table

_SUBJECTS: Final = (
    "deployment",
    "service",
    "statefulset",
    "daemonset",
    "workload",
    "app",
    "job_name",
    "pod",
)
_LIMIT: Final = re.compile(r"limit\D{0,12}(\d{1,6}) ?(mi|mib|mb|gi|gib|gb)")
_ROLES: Final = {"node": "node", "pod": "pod"}
"""What a name is of that a label gives; the evidence is read with `this node` in its place."""
_LABELS: Final = {
    "#names_pod": ("pod",),
    "#of_node": ("node", "instance", "hostname", "Hostname"),
    "#of_claim": ("persistentvolumeclaim", "pvc", "claim", "volume"),
}
"""What a label of the alert says of its subject."""
_NODE_TROUBLE: Final = {"node_ill", "node_gone", "many_nodes_ill", "node_in_work"}


@dataclass(frozen=True)
class Reading:
    """What a retold case says."""

    facts: Mapping[str, Json]
    not_understood: Sequence[str]
    """Statements in which nothing was recognised."""
    newest_release: str
    """The time of day of the newest release of the alert's own workload, or empty."""
    likely: Mapping[str, Json]
    """The facts with no symptoms but those of the story that stands out, if one does."""
    told: stories.Weighed | None
    """What the evidence tells by weight; None where the table of Xids speaks."""


@cache
def _rules() -> Mapping[str, Sequence[Rule]]:
    written = table("readings.yaml")["symptoms"]
    return {name: [rule(line) for line in lines] for name, lines in written.items()}


def read(alert: str, labels: Mapping[str, str], evidence: Sequence[Mapping[str, str]]) -> Reading:
    """Read a case: the alert's name, its labels, and items of `kind`, `q` and `a`."""
    names = {labels[key]: role for key, role in _ROLES.items() if len(labels.get(key, "")) > 2}
    items = [read_item(e.get("kind", ""), e.get("q", ""), e.get("a", ""), names) for e in evidence]
    subject = next((labels[k].lower() for k in _SUBJECTS if labels.get(k)), "")
    gpu, symptoms = gpus.gpu_facts(items, labels)
    said = _told(alert, labels, items, subject)
    symptoms |= _symptoms(said)
    facts: dict[str, Json] = {group: {} for group in GROUPS}
    facts |= _plain_facts(alert, labels, items)
    facts["gpu"] = gpu
    facts["symptoms"] = told(dict.fromkeys(symptoms, True))
    said.scopes["case"][0].update(f"={name}" for name in symptoms)
    # What the table of Xids says is not weighed against words.
    weighed = None if gpu else stories.weighed(said)
    tells = weighed.story.tells if weighed and weighed.story else ()
    return Reading(
        facts,
        [s.text for i in items for s in i.statements if not s.said and not s.denied],
        timeline.newest_release(items, subject),
        {**facts, "symptoms": told(dict.fromkeys(tells, True))},
        weighed,
    )


def _told(alert: str, labels: Mapping[str, str], items: Sequence[Item], subject: str) -> Told:
    marked = limits.marks_of(items)
    each = [numbers.marks_of(item) for item in items]
    whole: set[str] = marked.union(*each) | timeline.marks_of(items, subject)
    whole |= {mark for mark, named in _LABELS.items() if any(labels.get(k) for k in named)}
    whole |= timeline.window_marks(items) | tone.marks_of(items)
    whole |= {"#twice_harmless"} if numbers.twice_harmless(each) else set()
    whole |= suspects.marks_of(items, subject)
    whole |= {"#budget_binds"} if numbers.budget_binds(items) else set()
    whole.add(f"#severity_{labels.get('severity', '')}")
    called = read_item("", "", re.sub(r"([a-z])([A-Z])", r"\1 \2", alert)).said
    whole |= {f"#alert_{concept}" for concept in called}
    scopes = {
        "item": [item.said | marks for item, marks in zip(items, each, strict=True)],
        "statement": [s.said for item in items for s in item.statements],
        "case": [whole.union(*(item.said for item in items))],
        "alert": [called],
        "severity": [{labels.get("severity", "")}],
    }
    return Told(scopes, {c for item in items for s in item.statements for c in s.denied})


def _symptoms(said: Told) -> set[str]:
    found: set[str] = set()
    for name, rules in _rules().items():
        if name not in SYMPTOMS:
            raise KeyError(name)
        if any(map(said.holds, rules)):
            found.add(name)
    if not found & _NODE_TROUBLE and "pressure" not in said.scopes["case"][0]:
        # What was decisive is told; a node in trouble would be.
        found.add("node_sound")
    if "many_nodes_ill" not in found and "no_room" not in found:
        found.add("others_sound")
    return found


def _plain_facts(alert: str, labels: Mapping[str, str], items: Sequence[Item]) -> dict[str, Json]:
    """Give what labels and numbers tell; nothing of the cluster is made up."""
    every = " ".join(item.answer for item in items)
    severity = labels.get("severity", "warning")
    facts: dict[str, Json] = {
        "alert": {"name": alert, "names": [alert], "count": 1, "severity": severity,
                  "labels": {**labels, "alertname": alert}},
        "resolution": {"found": True, "ambiguous": False, "candidates": [], "missing": []},
        "setting": {"configmap": "", "key": "", "before": ""},
        "workload": _workload(every, items),
        "pool": {"wanted": replicas.wanted_now(every) + 1},
        "attempts": {"count": 0, "last_action": "", "last_outcome": ""},
        "metrics": {}, "analysis": {"changes": []}, "gathered": {},
    }  # fmt: skip
    if limit := _LIMIT.search(every):
        factor = 1024 if limit[2].startswith("g") else 1
        facts["memory"] = {
            "container": labels.get("container", ""),
            "limit_mib": int(limit[1]) * factor,
        }
    return facts


def _workload(every: str, items: Sequence[Item]) -> dict[str, Json]:
    found: dict[str, Json] = {"replicas": replicas.wanted_now(every)}
    if before := replicas.before(items):
        found["replicas_before"] = before
    return found
