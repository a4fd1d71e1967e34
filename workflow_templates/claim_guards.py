"""What a change of a claim may be, in the words of admission. Pure.

The bounds are those that planning keeps to (`expand_volume`); a test holds the two against each
other. A run raises once; what it did afterwards is a mark alone, since nothing makes a volume small
again.
"""

from tiphys.workflow_templates.action import Guard
from tiphys.workflow_templates.mark import ANNOTATION, Trace
from tiphys.workflow_templates.template_guards import NOTES, metadata_guards

FACTOR = 2
"""How many times its present size a claim may ask for."""
MOST_GIB = 16_384
_CLAIMS = "/persistentvolumeclaims"

_NOTED = f"'{ANNOTATION}' in variables.noted ? 'tiphys-' + variables.noted['{ANNOTATION}'] : ''"
_MARK = f"'{ANNOTATION}' in variables.notes ? 'tiphys-' + variables.notes['{ANNOTATION}'] : ''"
_HAS = "has(oldObject.status) && has(oldObject.status.capacity) && "
_CAPACITY = f"""({_HAS}'storage' in oldObject.status.capacity
    ? quantity(oldObject.status.capacity.storage) : quantity('0'))"""
TERMS = (
    *NOTES,
    ("asked", "quantity(oldObject.spec.resources.requests.storage)"),
    ("asks", "quantity(object.spec.resources.requests.storage)"),
    ("has", _CAPACITY),
    ("size", "variables.asked.compareTo(variables.has) > 0 ? variables.asked : variables.has"),
    ("begun", f"({_NOTED}).startsWith(variables.run + '.')"),
    ("raises", f"({_MARK}) == variables.run + '.{Trace.ACT}'"),
)
_DOUBLE = "variables.size" + ".add(variables.size)" * (FACTOR - 1)
GUARDS = (
    Guard(
        _CLAIMS,
        """object.spec.all(k, k == 'resources' || (k in oldObject.spec
           && object.spec[k] == oldObject.spec[k]))
           && oldObject.spec.all(k, k in object.spec)
           && object.spec.resources.all(k, k == 'requests' || (k in oldObject.spec.resources
           && object.spec.resources[k] == oldObject.spec.resources[k]))
           && oldObject.spec.resources.all(k, k in object.spec.resources)
           && object.spec.resources.requests.all(k, k == 'storage'
           || (k in oldObject.spec.resources.requests
           && object.spec.resources.requests[k] == oldObject.spec.resources.requests[k]))
           && oldObject.spec.resources.requests.all(k, k in object.spec.resources.requests)""",
        "of the claim only the storage that it asks for changes",
    ),
    *metadata_guards(_CLAIMS),
    Guard(
        _CLAIMS,
        f"""variables.asks.compareTo(variables.asked) == 0
            || (variables.raises && !variables.begun
            && variables.asks.compareTo(variables.asked) > 0
            && variables.asks.compareTo({_DOUBLE}) <= 0
            && variables.asks.compareTo(quantity('{MOST_GIB}Gi')) <= 0)""",
        f"a run raises a claim once, to at most {FACTOR} times its size and {MOST_GIB} GiB",
    ),
)
