"""What would make an action do harm, though the catalogue has it and it fits its target.

Asked of every choice to act, whoever chose, before it becomes a proposal. Pure: it judges by the
facts that were read. Invariants: a fact that a check needs and nobody has read counts as harm; what
the gate, an action's planning or its precheck judges by the same facts is not judged here again
(docs/playbooks.md lists which layer holds which check).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tiphys.agents.findings import listing
from tiphys.agents.objects import dig
from tiphys.policies.model import Json, Target

NOT_ASKED_FOR: Final = {
    "restart-pod": {"drain_and_reset", "replace_node", "escalate"},
    "cordon-drain-node": {"nothing", "restart_application", "escalate"},
}
"""What the table of Xids may ask for that an action must not be put in the place of."""


class UnreadError(Exception):
    """A check needs a fact that nobody has read; the message names it."""


@dataclass(frozen=True)
class Proposed:
    """One action as it was chosen, on the facts."""

    action: str
    target: Target
    parameters: Mapping[str, Json]
    facts: Mapping[str, Json]

    def fact(self, path: str) -> Json:
        """Give a fact; raises `UnreadError`."""
        found = dig(dict(self.facts), *path.split("."))
        if found is None:
            raise UnreadError(path)
        return found

    def number(self, path: str) -> float:
        """Give a number; raises `UnreadError` where there is none."""
        found = self.fact(path)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise UnreadError(path)
        return found

    def text(self, path: str) -> str:
        """Give a text; raises `UnreadError` where there is none."""
        found = self.fact(path)
        if not isinstance(found, str):
            raise UnreadError(path)
        return found

    def knows(self, group: str) -> bool:
        """Tell whether there was anything of a group to read."""
        return bool(self.facts.get(group))

    def asks(self, name: str) -> float:
        """Give a number among the parameters; 0 where it is none, which the catalogue refuses."""
        found = self.parameters.get(name)
        return found if isinstance(found, int | float) else 0


Check = Callable[[Proposed], Iterator[str]]


def harm(proposed: Proposed) -> list[str]:
    """Say why doing it would do harm; empty: nothing that was read speaks against it.

    An action without an entry in `CHECKS` is refused: nobody has thought about it.
    """
    checks = CHECKS.get(proposed.action)
    if checks is None:
        return [f"nobody has said what would make {proposed.action} do harm"]
    found: list[str] = []
    for check in checks:
        try:
            found += check(proposed)
        except UnreadError as error:
            found.append(f"nobody has read {error}, without which it may do harm")
    return list(dict.fromkeys(found))


# --- of pods --------------------------------------------------------------------------------------


def _is_the_pod(it: Proposed) -> Iterator[str]:
    name = it.text("pod.name")
    if name != it.target.name:
        yield f"the facts are about pod {name}, not {it.target.name}"


def _pod_cannot_start_anew(it: Proposed) -> Iterator[str]:
    """A fresh pod of the same template would wait for the same thing."""
    trouble = it.text("pod.trouble")
    if trouble in {"image", "config"} and not _stale_revision(it):
        why = f"{_or(it, 'pod.waiting_reason')} {_or(it, 'pod.waiting_message')}".strip()
        yield f"a fresh pod would wait for the same {trouble} ({why})"
    if trouble == "unschedulable":
        yield "no node takes the pod, and a fresh one finds no more room"


def _stale_revision(it: Proposed) -> bool:
    """Whether all failing pods are of a revision that their StatefulSet does not want any more."""
    failing = it.number("pods.failing") if it.knows("pods") else 0
    return bool(failing) and it.number("pods.outdated_failing") == failing


def _only_replica(it: Proposed) -> Iterator[str]:
    """Ending the one pod that serves is an outage; more capacity comes first."""
    if not it.fact("pod.ready") or _or(it, "gpu.remedy") == "restart_application":
        return
    ready = it.number("pods.ready")
    if ready <= 1:
        yield f"{it.target.name} is the only pod that is ready: nothing would serve without it"


def _budget_of_pod(it: Proposed) -> Iterator[str]:
    """A deleted pod asks no disruption budget; one that is not ready takes nothing from it."""
    if it.fact("pod.ready") and it.fact("budget.present") and it.number("budget.allowed") < 1:
        yield f"disruption budget {it.text('budget.name')} allows no disruption now"


def _node_of_pod(it: Proposed) -> Iterator[str]:
    if not it.text("pod.node"):
        return
    node = it.text("node.name")
    if not it.fact("node.ready"):
        yield f"node {node} is not ready, so nobody would see the pod end"
    if it.fact("node.cordoned"):
        yield f"somebody has cordoned node {node}: what runs there is theirs to move"


def _operator_of_pod(it: Proposed) -> Iterator[str]:
    """Deleting a pod changes no field, so the gate's `field-owner` does not see whose it is."""
    operator = it.text("workload.operator") if it.knows("workload") else ""
    if operator:
        yield f"{operator} owns the workload: which of its pods may end is its operator's to say"


def _paused(it: Proposed) -> Iterator[str]:
    """Planning refuses a changed template then, but no other change."""
    if it.knows("workload") and it.fact("workload.paused"):
        yield f"somebody paused the rollouts of {it.text('workload.name')} and is at work there"


def _other_remedy(it: Proposed) -> Iterator[str]:
    """What an Xid asks for is told by NVIDIA's table, by no one else."""
    remedy = _or(it, "gpu.remedy")
    if remedy in NOT_ASKED_FOR.get(it.action, ()):
        yield f"NVIDIA's table asks for something else ({remedy.replace('_', ' ')})"


# --- of rollouts ----------------------------------------------------------------------------------


def _pods_cannot_start_anew(it: Proposed) -> Iterator[str]:
    """Every pod is replaced, and the first fresh one would wait for the same."""
    for trouble, words in (
        ("image", "the image of {} pods cannot be pulled"),
        ("config", "the container of {} pods cannot be created"),
        ("unschedulable", "no node takes {} of its pods"),
    ):
        count = it.number(f"pods.{trouble}")
        if count:
            yield f"{words.format(f'{count:g}')}: fresh ones would wait for the same"


def _budget_of_rollout(it: Proposed) -> Iterator[str]:
    """A rollout asks no disruption budget: it goes by its own strategy."""
    if not it.fact("budget.present"):
        return
    wanted, pods = it.number("budget.wanted"), it.number("workload.replicas")
    takes = it.number("workload.rollout_takes")
    if pods - takes < wanted:
        yield (
            f"its rollout may take {takes:g} of {pods:g} pods away at once, and disruption budget "
            f"{it.text('budget.name')} wants {wanted:g} healthy"
        )


def _only_replica_of_rollout(it: Proposed) -> Iterator[str]:
    """With more than one replica the gate's `blast-radius` says how many a rollout may take."""
    takes, ready = it.number("workload.rollout_takes"), it.number("pods.ready")
    if ready and takes and it.number("workload.replicas") <= 1:
        yield "its rollout ends the only pod that is ready before a fresh one is"


def _shared_trouble(it: Proposed) -> Iterator[str]:
    """Where what was started since is no better, what ails the pods is outside them."""
    if it.number("pods.failing") and not it.number("pods.ready_since"):
        yield (
            "no pod that was started since the trouble began is ready: fresh ones would not be "
            "either, and all would begin at once"
        )


def _nothing_served_before(it: Proposed) -> Iterator[str]:
    if not it.fact("rollout.previous_healthy"):
        yield "nobody has seen the revision before it serve"


def _not_killed_for_memory(it: Proposed) -> Iterator[str]:
    if not it.knows("memory"):
        yield "no single container was killed at its memory limit within the hour"
        return
    killed = it.text("memory.container")
    if killed != it.parameters.get("container"):
        yield f"it is container {killed} that was killed at its memory limit"
    if it.fact("memory.raised_lately"):
        yield f"the limit of {killed} was raised within a week: it looks like a leak"


# --- of replicas, volumes, nodes ------------------------------------------------------------------


def _scaling(it: Proposed) -> Iterator[str]:
    wanted, present = it.asks("replicas"), it.number("workload.replicas")
    if wanted > present:
        yield from _pods_cannot_start_anew(it)
        return
    if wanted < 1:
        yield "nothing would serve"
    if it.fact("budget.present") and wanted < it.number("budget.wanted"):
        name, least = it.text("budget.name"), it.number("budget.wanted")
        yield f"disruption budget {name} wants {least:g} healthy pods"


def _evidence_of_more(it: Proposed) -> Iterator[str]:
    """What goes on must not lose its traces."""
    if it.number("garbage.own_limit"):
        yield "pods went over their own limit, and so will the next ones: those are evidence"
    if ill := listing(it.fact("garbage.ill_nodes")):
        yield f"nodes that ended pods are still ill ({ill}): those pods are evidence"


def _grown_lately(it: Proposed) -> Iterator[str]:
    if it.fact("volume.raised_lately"):
        yield "the volume was made larger within a week: what fills it must be found"


def _common_cause(it: Proposed) -> Iterator[str]:
    """One node after the other would leave no room; an Xid tells of this node alone."""
    if _or(it, "gpu.remedy") in {"drain_and_reset", "replace_node"}:
        return
    if others := listing(it.fact("node.others_ill")):
        yield f"{others} have the same trouble: it has a common cause, and draining mends none"


def _replaced_by_table(it: Proposed) -> Iterator[str]:
    """A model may name any code; the machine goes only for what was seen."""
    if it.text("gpu.remedy") != "replace_node":
        yield "nothing that was seen asks for another machine"
    for name, path in (("device", "gpu.device"), ("xids", "gpu.codes")):
        if it.parameters.get(name) != it.fact(path):
            yield f"its {name} are not what was seen ({_shown(it.fact(path))})"


def _more_machines_than_needed(it: Proposed) -> Iterator[str]:
    size, wanted = it.asks("replicas"), it.number("pool.wanted")
    if size <= it.number("pool.machines"):
        yield "it would take machines away, and what runs there with them"
    elif size > wanted:
        yield f"the pods that wait need {wanted:g} machines, not {size:g}"


def _or(it: Proposed, path: str) -> str:
    """Give a text that may be missing where its group is empty."""
    found = dig(dict(it.facts), *path.split("."))
    return found if isinstance(found, str) else ""


def _shown(value: Json) -> str:
    return listing(value) if isinstance(value, list) else str(value)


_ROLLOUT: Final = (_pods_cannot_start_anew, _only_replica_of_rollout, _budget_of_rollout)
CHECKS: Final[Mapping[str, tuple[Check, ...]]] = {
    "cordon-drain-node": (_other_remedy, _common_cause),
    "delete-failed-job": (),
    "delete-failed-pods": (_evidence_of_more,),
    "expand-volume": (_grown_lately,),
    "raise-memory-limit": (_not_killed_for_memory, *_ROLLOUT),
    "replace-gpu-node": (_replaced_by_table,),
    "restart-pod": (
        _is_the_pod,
        _pod_cannot_start_anew,
        _only_replica,
        _budget_of_pod,
        _node_of_pod,
        _operator_of_pod,
        _paused,
        _other_remedy,
    ),
    "rollout-restart": (*_ROLLOUT, _shared_trouble),
    "rollout-undo": (_nothing_served_before,),
    "scale-gpu-pool": (_more_machines_than_needed,),
    "scale-workload": (_paused, _scaling),
    "update-config": _ROLLOUT,
}
"""What is asked of each action; none of it may be left out for a new one."""
