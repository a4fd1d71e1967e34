"""What a change of a ConfigMap may be, in the words of admission; and who says which values. Pure.

The API server has no policy file. So whoever owns the ConfigMap says it on the object: the label
that opts it in, and for each key an annotation that lists its values, one a line. Planning keeps to
the same list, and a test holds the two against each other. It is symmetrical, since what act
changes must be open to rollback too: the value that is there must be listed as well.
"""

from tiphys.policies.model import Object
from tiphys.workflow_templates import template_guards
from tiphys.workflow_templates.action import Guard
from tiphys.workflow_templates.phases import AGAIN, BACK, ONCE, PHASES, UNDO
from tiphys.workflow_templates.pointers import at, escape

VALUES = "values.tiphys.io"
"""The annotation `values.tiphys.io/<key>` lists the values that the key may have, one a line."""
OPT_IN = "tiphys.io/heal"
"""The ConfigMap's own label, `enabled`: its namespace's does not speak for it."""
RESOURCE = "/configmaps"

TERMS = (
    *template_guards.NOTES,
    *PHASES,
    ("data", "has(object.data) ? object.data : {}"),
    ("former", "has(oldObject.data) ? oldObject.data : {}"),
)
_CHANGED = """variables.data.all(k, !(k in variables.former)
    || variables.data[k] == variables.former[k] || ({condition}))"""
_LISTED = f"""'{VALUES}/' + k in variables.noted
    && variables.data[k] != '' && variables.former[k] != ''
    && variables.data[k] in variables.noted['{VALUES}/' + k].split('\\n')
    && variables.former[k] in variables.noted['{VALUES}/' + k].split('\\n')"""


def listed(config_map: Object, key: str) -> list[str]:
    """Give the values that the ConfigMap's owner lists for a key; none where there is no list."""
    words = at(config_map, f"/metadata/annotations/{escape(f'{VALUES}/{key}')}")
    return [line for line in str(words or "").split("\n") if line]


def opted_in(config_map: Object) -> bool:
    """Say whether the ConfigMap itself opted in."""
    return at(config_map, f"/metadata/labels/{escape(OPT_IN)}") == "enabled"


GUARDS = (
    Guard(
        RESOURCE,
        f"""has(oldObject.metadata.labels) && '{OPT_IN}' in oldObject.metadata.labels
            && oldObject.metadata.labels['{OPT_IN}'] == 'enabled'""",
        f"the ConfigMap itself bears the label {OPT_IN}=enabled",
    ),
    Guard(
        RESOURCE,
        """has(object.binaryData) == has(oldObject.binaryData)
           && (!has(object.binaryData) || object.binaryData == oldObject.binaryData)
           && has(object.immutable) == has(oldObject.immutable)
           && (!has(object.immutable) || object.immutable == oldObject.immutable)
           && variables.data.all(k, k in variables.former)
           && variables.former.all(k, k in variables.data)
           && size(variables.data.filter(k, k in variables.former
           && variables.data[k] != variables.former[k])) <= 1""",
        "the value of one key of data changes, and nothing else",
    ),
    Guard(
        RESOURCE,
        _CHANGED.format(condition=_LISTED),
        f"a key moves between values that the annotation {VALUES}/<key> lists",
    ),
    Guard(
        RESOURCE,
        _CHANGED.format(condition=" || ".join((ONCE, BACK, UNDO, AGAIN))),
        "a run sets a value once, or puts it back",
    ),
    *template_guards.metadata_guards(RESOURCE),
)
