"""Where a run stands with an object, as admission reads it from the marks before and after. Pure.

https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

from tiphys.workflow_templates.mark import ANNOTATION, Trace

_NOTED = f"'{ANNOTATION}' in variables.noted ? 'tiphys-' + variables.noted['{ANNOTATION}'] : ''"
_MARK = f"'{ANNOTATION}' in variables.notes ? 'tiphys-' + variables.notes['{ANNOTATION}'] : ''"
_RUN = "variables.run + '"
PHASES = (
    ("acted", f"({_NOTED}) in [variables.run + '.{Trace.ACT}', variables.run + '.{Trace.KEPT}']"),
    ("returned", f"({_NOTED}) in [{_RUN}.{Trace.BACK}', {_RUN}.{Trace.STAYS}']"),
    ("ended", f"({_NOTED}) == variables.run + '.{Trace.UNDONE}'"),
    ("stands", f"({_NOTED}).endsWith('.{Trace.ACT}') || ({_NOTED}).endsWith('.{Trace.KEPT}')"),
    ("holds", f"({_NOTED}) in [{_RUN}.{Trace.ACT}', {_RUN}.{Trace.BACK}']"),
    ("acts", f"({_MARK}) == variables.run + '.{Trace.ACT}'"),
    ("returns", f"({_MARK}) == variables.run + '.{Trace.BACK}'"),
    ("keeps", f"({_MARK}) in [{_RUN}.{Trace.KEPT}', {_RUN}.{Trace.STAYS}']"),
    ("undoes", f"({_MARK}) == variables.run + '.{Trace.UNDONE}'"),
)
"""Terms for guards, beside `template_guards.NOTES`: had this run changed the object, put back what
another run had left there, or rolled that back; does what another run left still stand; and which
of these does this run do now?"""
_FRESH = "!variables.acted && !variables.returned && !variables.ended"
ONCE = f"(variables.acts && {_FRESH})"
BACK = "(variables.undoes && variables.acted)"
UNDO = f"(variables.returns && {_FRESH} && variables.stands)"
"""The undo of another run, which goes the way that a rollback goes."""
AGAIN = "(variables.undoes && variables.returned)"
"""The rollback of an undo, which goes the way that an act goes."""
VERIFIED = "(variables.keeps && variables.holds)"
"""A run notes that what it did was verified."""
