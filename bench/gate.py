"""How long the gate takes to answer, with the built-in rules alone and with 200 custom ones.

Prints absolute milliseconds for orientation and the ratio against the built-in rules of the same
run. The request is a large one: 20 pieces of evidence, 10 alerts, 20 labels.
"""

import statistics
import time
from typing import NamedTuple

from tiphys.policies.gate import judge
from tiphys.policies.parse import MAX_CUSTOM, parse
from tiphys.policies.policy import Policy
from tiphys.policies.policy_cases import CaseEntry, PolicyCase, case_of

ROUNDS = 2_000
HEAD = "format: tiphys/policy/v1\nname: bench\nversion: 1\nrules: {autonomy: {default: auto}}\n"
EXPRESSIONS = (
    'now.weekday < 6 || action.risk == "low" || now.hour > %d',
    'target.namespace != "team-%d" || target.labels["label-3"] == "value-3"',
    'alert.severity != "critical" || incident.opened_minutes_ago < 60 + %d',
    'alerts.all(a, a.labels.team == "web" || a.name != "Alert%d")',
    "evidence.exists(e, e.cited && e.age_seconds <= 10 + %d)",
    'changes.all(c, c.path.startsWith("/spec/") && c.intended != %d)',
    'target.name.matches("^[a-z-]{1,40}$") && history.open_runs_in_cluster < 9 + %d',
    "parameters.replicas < 50 + %d && has(target.labels.app) && size(target.owners) == 0",
)


def policy_of(custom: int) -> Policy:
    """Give a policy with so many rules of its own, all of which hold."""
    rules = [
        {"name": f"rule-{at}", "expression": EXPRESSIONS[at % len(EXPRESSIONS)] % at}
        for at in range(custom)
    ]
    entries = "".join(
        f"  - name: {rule['name']}\n    expression: '{rule['expression']}'\n    message: no\n"
        for rule in rules
    )
    return parse(HEAD + ("custom:\n" + entries if entries else ""), "bench.yaml")


def request_for(policy: Policy) -> PolicyCase:
    """Give the large request."""
    labels = {"app": "web", **{f"label-{at}": f"value-{at}" for at in range(20)}}
    shared = {"team": "web", "namespace": "shop"}
    request = {
        "target": {"namespace": "shop", "labels": labels},
        "parameters": {"replicas": 4},
        "evidence": [{"age_seconds": at} for at in range(20)],
        "alerts": [
            {"name": f"Alert{at}", "severity": "warning", "labels": {**shared, "pod": f"web-{at}"}}
            for at in range(10)
        ],
    }
    return case_of(CaseEntry.model_validate({"name": "large", "request": request}), policy)


class Measured(NamedTuple):
    """One answer of the gate, in milliseconds."""

    p50: float
    p99: float
    cpu_p50: float
    cpu_p99: float


def measured(policy: Policy) -> Measured:
    """Ask many times; processor time is what a busy machine does not spoil."""
    case = request_for(policy)
    wall: list[float] = []
    cpu: list[float] = []
    for _ in range(ROUNDS):
        began, worked = time.perf_counter(), time.thread_time()
        judgement = judge(case.proposal, case.facts, policy, case.at)
        wall.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.thread_time() - worked))
        assert judgement.allowed, judgement.denials
    cuts, work = statistics.quantiles(wall, n=100), statistics.quantiles(cpu, n=100)
    return Measured(cuts[49], cuts[98], work[49], work[98])


def said(found: Measured) -> str:
    """Say it."""
    cpu = f"processor time {found.cpu_p50:.2f} and {found.cpu_p99:.2f} ms"
    return f"p50 {found.p50:.2f} ms, p99 {found.p99:.2f} ms ({cpu})"


def main() -> None:
    """Print both, and how long such a policy takes to read."""
    began = time.perf_counter()
    full = policy_of(MAX_CUSTOM)
    read = 1000 * (time.perf_counter() - began)
    bare, custom = measured(policy_of(0)), measured(full)
    print(f"built-in rules alone: {said(bare)}")
    print(f"with {MAX_CUSTOM} custom rules: {said(custom)}; aim: p99 2 ms")
    print(f"  = {custom.cpu_p50 / bare.cpu_p50:.1f} times the built-in rules' processor time")
    print(f"to read and compile them: {read:.0f} ms")


if __name__ == "__main__":
    main()
