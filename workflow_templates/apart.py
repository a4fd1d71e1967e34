"""Keeping the pods of an action that works on a node off that very node.

Invariants: a template of such an action is given the node's name and keeps its pods off it; a pod
of it that could run on the node that it is told to act on is not admitted; a step refuses a name
that is not its plan's. So what acts on a node never runs there, rollback included.
"""

from collections.abc import Sequence

from tiphys.policies.model import Json, Target
from tiphys.workflow_templates.action import Action
from tiphys.workflow_templates.boundary_policy import Rule, texts
from tiphys.workflow_templates.identities import account_name

NODE = "node"
"""The parameter of the Workflow; a step reads it as `TIPHYS_NODE`."""
VARIABLE = "TIPHYS_NODE"
NODE_KIND = ("v1", "Node")
_TERMS = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"


def works_there(action: Action) -> bool:
    """Whether an action's target is a node."""
    return NODE_KIND in action.kinds


def parameters(target: Target) -> dict[str, str]:
    """Give what a Workflow is given beside what all are."""
    return {NODE: target.name} if (target.api_version, target.kind) == NODE_KIND else {}


def affinity() -> dict[str, Json]:
    """Give the affinity of a template's pods; Argo fills in the node's name."""
    placeholder = f"{{{{workflow.parameters.{NODE}}}}}"
    elsewhere: Json = {"key": "metadata.name", "operator": "NotIn", "values": [placeholder]}
    terms: Json = [{"matchFields": [elsewhere]}]
    required: Json = {"nodeSelectorTerms": terms}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def _has(where: str) -> str:
    """Write in CEL that a spec has node selector terms at all."""
    parts = _TERMS.split(".")
    steps = [".".join([where, *parts[: n + 1]]) for n in range(len(parts))]
    return " && ".join(f"has({step})" for step in steps)


def _off(where: str, value: str) -> str:
    """Write in CEL that whatever term is chosen, the node of that name is not."""
    return f"""{where}.{_TERMS}.size() > 0 && {where}.{_TERMS}.all(t, has(t.matchFields)
        && t.matchFields.exists(f, f.key == 'metadata.name' && f.operator == 'NotIn'
        && {value} in f.values))"""


def template_rule(actions: Sequence[Action]) -> Rule:
    """Give what must hold of a WorkflowTemplate of such an action."""
    names = texts([action.name for action in actions if works_there(action)])
    placeholder = f"'{{{{workflow.parameters.{NODE}}}}}'"
    return Rule(
        f"""variables.gone || !(variables.action in {names})
            || ({_has("object.spec")} && {_off("object.spec", placeholder)}
            && variables.templates.all(t, !has(t.affinity)))""",
        "a template of an action on nodes keeps its pods off the node",
    )


def pod_rule(actions: Sequence[Action]) -> Rule:
    """Give what must hold of a pod of such an action, by its own variables."""
    accounts = texts([account_name(action) for action in actions if works_there(action)])
    named = f"e.name == '{VARIABLE}'"
    return Rule(
        f"""!variables.made || !has(object.spec.serviceAccountName)
            || !(object.spec.serviceAccountName in {accounts})
            || ({_has("object.spec")} && variables.each.exists(c, has(c.env)
            && c.env.exists(e, {named})) && variables.each.all(c, !has(c.env)
            || !c.env.exists(e, e.name == 'TIPHYS_PLAN') || (c.env.exists_one(e, {named})
            && c.env.exists(e, {named} && has(e.value) && e.value != ''
            && {_off("object.spec", "e.value")}))))""",
        "a pod that acts on a node does not run there",
    )
