"""What admission checks of a write to a node, with an action's own token. Pure.

Only `spec.unschedulable` changes, and the run's mark with it: closed under the mark of a run that
acts, opened again by the run whose mark is there, or by the undo of a run whose mark still stands.
Another action that closes nodes takes the same guards. That a node has to opt in, the boundary asks
of every action.
"""

from tiphys.workflow_templates.action import Guard
from tiphys.workflow_templates.nodes import CONTROL_PLANE
from tiphys.workflow_templates.phases import AGAIN, BACK, ONCE, PHASES, UNDO, VERIFIED
from tiphys.workflow_templates.template_guards import NOTES, metadata_guards

NODES = "/nodes"
EVICTION = "/pods/eviction"
_OPEN, _CLOSED = (
    f"has({where}.spec.unschedulable) && {where}.spec.unschedulable"
    for where in ("oldObject", "object")
)
TERMS = (
    *NOTES,
    ("closed", _CLOSED),
    ("wasClosed", _OPEN),
    *PHASES,
)
CLOSING = "a run closes an open node once, and only it or its undo opens it again"
GUARDS = (
    Guard(
        NODES,
        f"""!oldObject.metadata.labels.exists(k, k in {[*CONTROL_PLANE]})
            && (!has(oldObject.spec.taints)
            || !oldObject.spec.taints.exists(t, t.key in {[*CONTROL_PLANE]}))""",
        "a node of the control plane is left alone",
    ),
    Guard(
        NODES,
        """oldObject.spec.all(k, k == 'unschedulable' || k in object.spec)
           && object.spec.all(k, k == 'unschedulable'
           || (k in oldObject.spec && object.spec[k] == oldObject.spec[k]))""",
        "of the spec only unschedulable changes",
    ),
    metadata_guards(NODES)[0],
    Guard(
        NODES,
        f"""variables.closed == variables.wasClosed ? {VERIFIED}
            : (variables.closed ? {ONCE} || {AGAIN} : {BACK} || {UNDO})""",
        CLOSING,
    ),
    Guard(
        EVICTION,
        """has(object.deleteOptions) && has(object.deleteOptions.preconditions)
           && has(object.deleteOptions.preconditions.uid)
           && object.deleteOptions.preconditions.uid != ''""",
        "a pod is evicted by its uid only",
    ),
    Guard(
        EVICTION,
        """!has(object.deleteOptions) || object.deleteOptions.all(k,
           k in ['apiVersion', 'dryRun', 'kind', 'preconditions'])""",
        "a pod gets its time to end",
    ),
)
