"""What admission checks of the writes to a pool and to its machines. Pure.

A size changes through `scale` alone, in small steps that the bounds of `pools.within` allow, in the
run's own name. Of a machine only its place in the queue of those that go changes.
"""

from tiphys.workflow_templates.action import Guard
from tiphys.workflow_templates.cluster_api import DELETE_FIRST
from tiphys.workflow_templates.mark import ANNOTATION
from tiphys.workflow_templates.pools import SHARE, STEP
from tiphys.workflow_templates.template_guards import MARKS

SCALE = "cluster.x-k8s.io/machinedeployments/scale"
MACHINES = "cluster.x-k8s.io/machines"
_FREE = [ANNOTATION, DELETE_FIRST]
_NEW, _OLD = "object.spec.replicas", "oldObject.spec.replicas"
GUARDS = (
    Guard(
        SCALE,
        """has(request.options.fieldManager)
           && request.options.fieldManager in [variables.run, variables.run + '.undone',
           variables.run + '.back']""",
        "the field manager is the run: it is the mark of who set the size",
    ),
    Guard(
        SCALE,
        f"""({_NEW} - {_OLD} <= {STEP} && {_OLD} - {_NEW} <= {STEP})
            || ({_NEW} > {_OLD} ? ({_NEW} - {_OLD}) * {SHARE} <= {_NEW}
            : ({_OLD} - {_NEW}) * {SHARE} <= {_OLD})""",
        f"at most {STEP} machines at a time, or one in {SHARE}",
    ),
    Guard(
        MACHINES,
        """object.spec == oldObject.spec""",
        "what a machine is does not change",
    ),
    Guard(
        MACHINES,
        f"""oldObject.metadata.all(k, k in object.metadata) && object.metadata.all(k,
            k in ['annotations', 'managedFields', 'resourceVersion', 'generation']
            || (k in oldObject.metadata && object.metadata[k] == oldObject.metadata[k]))
            && variables.noted.all(k, k in {_FREE} || k in variables.notes)
            && variables.notes.all(k, k in {_FREE} || (k in variables.noted
            && variables.notes[k] == variables.noted[k]))""",
        "of a machine only the run's mark and its turn to go change",
    ),
    Guard(
        MACHINES,
        f"""'{ANNOTATION}' in variables.notes && {MARKS}.exists(ending,
            'tiphys-' + variables.notes['{ANNOTATION}'] == variables.run + ending)""",
        "every change bears the mark of its run",
    ),
)
"""They need `template_guards.NOTES` among the terms."""
