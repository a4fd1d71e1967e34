"""What a change of one container's memory may be, in the words of admission. Pure.

The bounds are those that planning keeps to (`raise_memory_limit`); a test holds the two against
each other. The run's own mark, as it was, tells raising from putting back; an undo lowers what
another run, whose mark still stands there, has raised.
"""

from tiphys.workflow_templates.action import Guard
from tiphys.workflow_templates.phases import AGAIN, BACK, ONCE, PHASES, UNDO
from tiphys.workflow_templates.template_guards import NOTES, workload_guards

FACTOR = 2
"""How many times the present limit the new one may be."""
MOST_MIB = 65_536

TERMS = (
    *NOTES,
    ("fresh", "object.spec.template.spec"),
    ("prior", "oldObject.spec.template.spec"),
    *PHASES,
)


def _has(container: str, field: str) -> str:
    """Say that a container has a limit, or a request, of memory."""
    resources = f"{container}.resources"
    return f"has({resources}) && has({resources}.{field}) && 'memory' in {resources}.{field}"


def _kept(field: str) -> str:
    """Say that only the memory differs in the limits, or the requests, of `c` and `p`."""
    new, old = f"c.resources.{field}", f"p.resources.{field}"
    return f"""has({new}) == has({old}) && (!has({new})
        || ({new}.all(k, k in {old} && (k == 'memory' || {new}[k] == {old}[k]))
        && {old}.all(k, k in {new})))"""


_SAME = f"""c.all(k, k == 'resources' || (k in p && c[k] == p[k])) && p.all(k, k in c)
    && (!has(c.resources) || (c.resources.all(k, k in ['limits', 'requests']
    || (k in p.resources && c.resources[k] == p.resources[k]))
    && p.resources.all(k, k in c.resources) && {_kept("limits")} && {_kept("requests")}))"""
"""That container `c` is `p` but for its memory."""
_NEW, _OLD = "quantity(c.resources.limits.memory)", "quantity(p.resources.limits.memory)"


def _within(small: str, large: str) -> str:
    """Say that a limit is more than another, and at most `FACTOR` times as much."""
    times = small + f".add({small})" * (FACTOR - 1)
    return f"{large}.compareTo({small}) > 0 && {large}.compareTo({times}) <= 0"


_LIMITED = f"{_has('c', 'limits')} && {_has('p', 'limits')}"
_BOUNDED = f"""!({_LIMITED}) || {_NEW}.compareTo({_OLD}) == 0
    || (({ONCE} || {AGAIN}) && {_within(_OLD, _NEW)}
    && {_NEW}.compareTo(quantity('{MOST_MIB}Mi')) <= 0)
    || (({BACK} || {UNDO}) && {_within(_NEW, _OLD)})"""
_FOLLOWS = f"""!({_has("c", "requests")} && {_has("p", "requests")})
    || c.resources.requests.memory == p.resources.requests.memory
    || ({_LIMITED} && quantity(p.resources.requests.memory).compareTo({_OLD}) == 0
    && quantity(c.resources.requests.memory).compareTo({_NEW}) == 0)"""


def _each(condition: str) -> str:
    """Ask of every container, with the one of that name before."""
    return f"""variables.fresh.containers.all(c,
        variables.prior.containers.all(p, p.name != c.name || ({condition})))"""


def guards(resource: str) -> tuple[Guard, ...]:
    """Let a write change the memory of one container within its bounds, and the run's mark."""
    return (
        *workload_guards(resource),
        Guard(
            resource,
            f"""object.spec.template.metadata == oldObject.spec.template.metadata
                && variables.fresh.all(k, k == 'containers'
                || (k in variables.prior && variables.fresh[k] == variables.prior[k]))
                && variables.prior.all(k, k in variables.fresh)
                && variables.fresh.containers.map(c, c.name)
                == variables.prior.containers.map(p, p.name)
                && {_each(_SAME)}""",
            "of the pod template only memory changes",
        ),
        Guard(
            resource,
            """size(variables.fresh.containers.filter(c, variables.prior.containers.exists(p,
               p.name == c.name && p != c))) <= 1""",
            "one container changes",
        ),
        Guard(
            resource,
            _each(_BOUNDED),
            f"a run raises a limit once, to at most {FACTOR} times as much and {MOST_MIB} MiB,"
            " or puts it back",
        ),
        Guard(
            resource,
            _each(_FOLLOWS),
            "a request changes only where it equals the limit, and with it",
        ),
    )
