"""What admission checks of the writes of an action that replaces a node's machine. Pure.

The node's own writes are guarded as those of every action that closes nodes, except that a node
which an earlier run has closed may be taken over. Of machines only a deletion is allowed.
"""

from tiphys.workflow_templates.action import Guard
from tiphys.workflow_templates.node_guards import CLOSING, NODES, TERMS
from tiphys.workflow_templates.node_guards import GUARDS as OF_NODES
from tiphys.workflow_templates.phases import BACK, ONCE

__all__ = ["GUARDS", "TERMS"]
_MACHINES = "cluster.x-k8s.io/machines"
GUARDS = (
    *(guard for guard in OF_NODES if guard.message != CLOSING),
    Guard(
        NODES,
        f"""variables.closed
            ? ({ONCE} && (!variables.wasClosed || variables.stands))
            || (variables.wasClosed && {BACK})
            : (variables.wasClosed && {BACK})""",
        "an open node, or one that a run has closed, is closed; only that run opens it again",
    ),
    Guard(
        _MACHINES,
        """has(request.options.preconditions) && has(request.options.preconditions.uid)""",
        "a machine is deleted by its uid only",
    ),
    Guard(
        _MACHINES,
        """has(oldObject.metadata.ownerReferences)
           && oldObject.metadata.ownerReferences.exists(o, has(o.controller) && o.controller
           && o.kind == 'MachineSet' && o.apiVersion.startsWith('cluster.x-k8s.io/'))""",
        "only a machine of a MachineSet, which makes another, is deleted",
    ),
    Guard(
        _MACHINES,
        """!has(oldObject.metadata.labels)
           || !('cluster.x-k8s.io/control-plane' in oldObject.metadata.labels)""",
        "a machine of the control plane is left alone",
    ),
    Guard(
        _MACHINES,
        """!has(oldObject.metadata.annotations)
           || !('cluster.x-k8s.io/paused' in oldObject.metadata.annotations
           || 'tiphys.io/hands-off' in oldObject.metadata.annotations)""",
        "a machine that is paused or to be left alone stays",
    ),
)
