"""A person's wish that an action is done: taken by the gateway, in an incident of its own.

Invariants: who may not act in the target's namespace is told that and no more, in every channel
here; what can never be is refused at once with a sentence, and no value that looks like a secret is
written anywhere; everything that the cluster says of it the agents, the gate and precheck see.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tiphys.agents.fitting import UnfitError, described, fitting
from tiphys.agents.plan_secrets import secrets_given
from tiphys.policies.correlation import RUN
from tiphys.policies.model import Incident, Json, Severity, Wish
from tiphys.policies.people import Person, PersonRole
from tiphys.service.errors import NotRunnableError
from tiphys.service.incidents import Asked
from tiphys.service.ledger import Ledger
from tiphys.service.people import demand
from tiphys.service.records import AuditEvent
from tiphys.workflow_templates.action import Action
from tiphys.workflow_templates.catalogue import UnknownActionError, every, find
from tiphys.workflow_templates.replace_gpu_node import ReplaceGpuNode

_OUTSIDE: Final = frozenset({"node"})
"""Kinds that are in no namespace."""
_KIND: Final = re.compile(r"[A-Za-z]{1,63}")
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")
_SETTING: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_-]{0,63})=(.*)", re.DOTALL)
_FORM: Final = (
    "a target is KIND/NAMESPACE/NAME, such as deployment/shop/cart, and for what is in no "
    "namespace KIND/NAME, such as node/worker-3"
)
_EVIDENCE: Final = {
    (ReplaceGpuNode.name, "xids"): (
        "xids are what a GPU's driver has logged, which only an alert's evidence can say: leave "
        "them out, you ask for it yourself"
    )
}
"""Parameters that nobody can know from anything but an alert."""


@dataclass(frozen=True)
class Named:
    """An object as somebody named it."""

    kind: str
    """In lower case."""
    namespace: str
    name: str


class Wishes:
    """Takes wishes."""

    def __init__(self, ledger: Ledger, cluster: str) -> None:
        self._ledger = ledger
        self._cluster = cluster

    async def ask(
        self,
        action: str,
        target: str,
        parameters: Mapping[str, Json],
        *,
        person: Person,
        reason: str,
    ) -> Incident:
        """Open an incident for one use of an action; a target is such as `deployment/shop/cart`.

        Raises `NotRunnableError`, `NotAllowedError`, `AskedAlreadyError`.
        """
        by, ledger = person.name, self._ledger
        found, named = _action(action), read_target(target)
        demand(person, PersonRole.OPERATOR, named.namespace)
        api_version, kind = _kind(found, named)
        wish = Wish(
            action=found.name,
            api_version=api_version,
            kind=kind,
            namespace=named.namespace,
            name=named.name,
            parameters=_parameters(found, parameters),
            by=by,
            reason=reason,
        )
        what = f"{wish.action} on {wish.object}"
        asked = Asked(
            cluster=self._cluster,
            subject=f"{RUN}{wish.action} {wish.kind} {wish.place}",
            title=what,
            severity=Severity.WARNING,
            reason=f"{by} wants it: {reason}",
            what=what,
            wish={"wants": wish},
        )
        async with ledger.database.transaction() as tx:
            incident = await ledger.incidents.open_wish(tx, asked, {}, ledger.clock())
            body = {"target": wish.object, "incident": incident.id, **_told(wish)}
            await ledger.audit.append(
                tx, AuditEvent.RUN_ASKED, actor=by, incident_id=incident.id, body=body
            )
        return incident


def read_target(text: str) -> Named:
    """Read a target as people write it; raises `NotRunnableError`."""
    kind, *place = text.split("/")
    if not _KIND.fullmatch(kind) or len(place) not in {1, 2}:
        raise NotRunnableError(_FORM)
    kind, name, namespace = kind.lower(), place[-1], place[0] if len(place) == 2 else ""
    outside = kind in _OUTSIDE
    if outside == bool(namespace):
        why = f"a {kind} is in no namespace" if outside else f"the namespace of a {kind} is needed"
        raise NotRunnableError(f"{why}; {_FORM}")
    if not _NAME.fullmatch(name) or not (outside or _NAMESPACE.fullmatch(namespace)):
        raise NotRunnableError(f"Kubernetes has no such names: {_FORM}")
    return Named(kind, namespace, name)


def read_settings(words: Iterable[str]) -> dict[str, Json]:
    """Read `NAME=VALUE` words; raises `NotRunnableError`."""
    found: dict[str, Json] = {}
    for word in words:
        setting = _SETTING.fullmatch(word)
        if setting is None:
            raise NotRunnableError("a parameter is given as NAME=VALUE, such as replicas=4")
        if setting[1] in found:
            raise NotRunnableError(f"{setting[1]} is given twice")
        found[setting[1]] = setting[2]
    return found


def is_setting(word: str) -> bool:
    """Tell whether a word is `NAME=VALUE`."""
    return bool(_SETTING.fullmatch(word))


def _action(name: str) -> Action:
    try:
        return find(name)
    except UnknownActionError as error:
        known = ", ".join(one.name for one in every())
        raise NotRunnableError(f"{error}; there are {known}") from error


def _kind(action: Action, named: Named) -> tuple[str, str]:
    """Give the kind as the catalogue spells it; raises `NotRunnableError`."""
    for api_version, kind in action.kinds:
        if kind.lower() == named.kind:
            return api_version, kind
    known = " or ".join(kind.lower() for _, kind in action.kinds)
    raise NotRunnableError(f"{action.name} works on a {known}, not on a {named.kind}")


def _parameters(action: Action, given: Mapping[str, Json]) -> dict[str, Json]:
    """Give what fits, as the plan will carry it; raises `NotRunnableError`."""
    for name in given:
        if why := _EVIDENCE.get((action.name, name)):
            raise NotRunnableError(why)
    typed = {name: _typed(action, name, value) for name, value in given.items()}
    try:
        _, parameters = fitting(action.name, typed)
    except UnfitError as error:
        raise NotRunnableError(f"{error}. {described(action)}") from error
    found: dict[str, Json] = parameters.model_dump(mode="json")
    if hidden := secrets_given(found):
        raise NotRunnableError(
            f"it would write what looks like a secret ({', '.join(hidden[:5])}), whose value must "
            "not stand in a plan: do it by hand"
        )
    return found


def _typed(action: Action, name: str, value: Json) -> Json:
    """Read text as a number where the action wants one: people type text."""
    field = action.parameters.model_fields.get(name)
    wants_text = field is None or field.annotation is str
    if wants_text or not isinstance(value, str) or not _NUMBER.fullmatch(value):
        return value
    return int(value)


def _told(wish: Wish) -> dict[str, Json]:
    words: dict[str, Json] = {"action": wish.action, "parameters": wish.parameters}
    return {**words, "by": wish.by, "reason": wish.reason}
