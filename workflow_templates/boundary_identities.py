"""What the API server lets our own identities write, however wide their Roles may be.

Invariants: the service's accounts write nothing but Workflows and the stop; an action's account
writes only with a token of a run's own pod, only what its action declares, only as its action's
guards allow, and only where people opted in; a run leaves Events in its own name only.
"""

from collections.abc import Sequence

from tiphys.workflow_templates import apart
from tiphys.workflow_templates.action import Action
from tiphys.workflow_templates.boundary_pods import POD
from tiphys.workflow_templates.boundary_policy import (
    ALL,
    PLACE,
    REVIEWS,
    WHAT,
    BoundarySettings,
    Match,
    Policy,
    Rule,
    flag,
    text,
    texts,
    user_is,
)
from tiphys.workflow_templates.identities import account_name
from tiphys.workflow_templates.mark import EVENTS_OF_NODES
from tiphys.workflow_templates.nodes import OPT_IN

_EVERYTHING = (Match("*", ("*/*",), ALL),)
_OPERATIONS = {
    "create": "CREATE", "delete": "DELETE", "patch": "UPDATE", "update": "UPDATE",
}  # fmt: skip
_REPORTS = ("CREATE argoproj.io/workflowtaskresults", "UPDATE argoproj.io/workflowtaskresults")
_RUN = (
    "run",
    """variables.pod.matches('^tiphys-[a-z2-7]{40}-.+$') ? variables.pod.substring(0, 47) : ''""",
)
"""The Workflow of the pod that the token is bound to."""


class UndeclaredVerbError(Exception):
    """An action declares a verb that the boundary cannot judge."""


def service(settings: BoundarySettings) -> Policy:
    """Hold the service's own accounts to what each of them is for.

    One process that plays all roles has one account: it may do what any of its roles may.
    """
    ours = texts((settings.launcher, settings.gateway, settings.agents))
    workflows = texts(("CREATE argoproj.io/workflows", "UPDATE argoproj.io/workflows"))
    return Policy(
        name="service",
        matches=_EVERYTHING,
        excludes=REVIEWS,
        conditions=(("ours", f"request.userInfo.username in {ours}"),),
        variables=(PLACE, WHAT),
        rules=(
            Rule(
                f"""({user_is(settings.launcher)} && variables.what in {workflows}
                    && variables.place == {text(settings.actions_namespace)})
                    || ({user_is(settings.gateway)} && variables.what == 'CREATE /configmaps'
                    && variables.place == {text(settings.stop_namespace)})""",
                "the launcher writes Workflows, the gateway the stop, the agents nothing",
            ),
        ),
    )


def acting(settings: BoundarySettings, actions: Sequence[Action]) -> Policy:
    """Hold every account of the actions' namespace to runs and to namespaces that opted in."""
    prefix = f"system:serviceaccount:{settings.actions_namespace}:"
    names = texts([f"{prefix}{account_name(action)}" for action in actions])
    own = texts(
        (
            settings.system_namespace,
            settings.actions_namespace,
            settings.stop_namespace,
            settings.argo_namespace,
        )
    )
    label = f"'{OPT_IN}' in variables.labels && variables.labels['{OPT_IN}'] == 'enabled'"
    return Policy(
        name="act",
        matches=_EVERYTHING,
        excludes=REVIEWS,
        conditions=(("acts", f"request.userInfo.username.startsWith({text(prefix)})"),),
        variables=(
            PLACE,
            WHAT,
            POD,
            _RUN,
            _reports(settings),
            _tells(settings, actions),
            _labels(settings),
        ),
        rules=(
            Rule(
                f"request.userInfo.username in {names}",
                "not the account of a catalogued action",
            ),
            Rule("variables.run != ''", "the token is not bound to the pod of a run"),
            Rule(
                f"""variables.reports || variables.tells
                    || (!(variables.place in {own}) && {label})""",
                "it did not opt in",
            ),
            Rule(
                """variables.what != 'CREATE /events'
                   || object.metadata.name.startsWith(variables.run + '.')""",
                "a run leaves Events in its own name only",
            ),
        ),
    )


def _reports(settings: BoundarySettings) -> tuple[str, str]:
    return (
        "reports",
        f"""variables.place == {text(settings.actions_namespace)}
            && variables.what in {texts(_REPORTS)}""",
    )


def _tells(settings: BoundarySettings, actions: Sequence[Action]) -> tuple[str, str]:
    """Say whether an action on nodes leaves an Event, where those of nodes are."""
    prefix = f"system:serviceaccount:{settings.actions_namespace}:"
    accounts = [f"{prefix}{account_name(one)}" for one in actions if apart.works_there(one)]
    return (
        "tells",
        f"""{flag(settings.node_actions)} && variables.place == {text(EVENTS_OF_NODES)}
            && variables.what == 'CREATE /events'
            && request.userInfo.username in {texts(accounts)}""",
    )


def _labels(settings: BoundarySettings) -> tuple[str, str]:
    """Give the labels of what can opt in: a namespace, or a node where that is switched on."""
    node = f"""{flag(settings.node_actions)} && request.operation == 'UPDATE'
        && request.resource.group == '' && request.resource.resource == 'nodes'
        && has(oldObject.metadata.labels)"""
    nodes = f"{node} ? oldObject.metadata.labels : {{}}"
    return (
        "labels",
        f"""variables.place != '' ? (namespaceObject != null
            && has(namespaceObject.metadata.labels) ? namespaceObject.metadata.labels : {{}})
            : ({nodes})""",
    )


def action(settings: BoundarySettings, one: Action) -> Policy:
    """Hold one action's account to what the action declares and guards."""
    user = f"system:serviceaccount:{settings.actions_namespace}:{account_name(one)}"
    declared = texts(("CREATE /events", *_REPORTS, *writes(one)))
    return Policy(
        name=f"act-{one.name}",
        matches=_EVERYTHING,
        excludes=REVIEWS,
        conditions=(("acts", user_is(user)),),
        variables=(WHAT, POD, _RUN, *one.terms),
        rules=(
            Rule(
                f"variables.what in {declared}",
                f"not a write that {one.name} declares",
            ),
            *(
                Rule(
                    f"!variables.what.endsWith(' {guard.resource}') || ({guard.expression})",
                    f"{guard.resource}: {guard.message}",
                )
                for guard in one.guards
            ),
        ),
    )


def writes(one: Action) -> list[str]:
    """Give what an action's rights let it write, such as `UPDATE apps/deployments`.

    Raises `UndeclaredVerbError` for a verb that is neither a read nor one of the four writes.
    """
    found: list[str] = []
    for right in one.rights:
        for verb in right.verbs:
            if verb in {"get", "list", "watch"}:
                continue
            if verb not in _OPERATIONS:
                raise UndeclaredVerbError(f"{one.name}: {verb} {right.resource}")
            found.append(f"{_OPERATIONS[verb]} {right.api_group}/{right.resource}")
    return sorted({*found})
