"""The objects beside the target that an action changes too: what the gate must know of each.

They are read by the name that a parameter gives, never listed: the agents may read those ConfigMaps
alone that the policy names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tiphys.agents.field_owner import field_owner
from tiphys.agents.objects import items, strings, text, uid_of
from tiphys.agents.ports import ClusterReader
from tiphys.policies.model import Change, Object, Owner
from tiphys.workflow_templates.action import Action, Parameters


@dataclass(frozen=True)
class Beside:
    """One such object, as it was read."""

    thing: Object
    changes: Sequence[Change]
    """Of its fields, as if it were the target."""


async def read_related(
    cluster: ClusterReader, action: Action, parameters: Parameters, namespace: str
) -> dict[str, Sequence[Object]]:
    """Read what the action's planning asks for; raises `UnansweredError`."""
    found: dict[str, Sequence[Object]] = {}
    for one in action.reads:
        place = one.place(namespace)
        if one.named_by:
            name = str(getattr(parameters, one.named_by))
            thing = await cluster.get(one.api_version, one.kind, place, name)
            found[one.kind] = [thing] if thing else []
        else:
            found[one.kind] = await cluster.list(one.api_version, one.kind, place)
    return found


def changed_beside(
    related: Mapping[str, Sequence[Object]], changes: Sequence[Change]
) -> list[Beside]:
    """Give the objects whose fields change; one that is deleted is not among them."""
    changed: dict[str, list[Change]] = {}
    for change in changes:
        if change.of and change.path:
            plain = change.model_copy(update={"of": None})
            changed.setdefault(change.of.uid, []).append(plain)
    things = [thing for found in related.values() for thing in found]
    return [Beside(one, changed[uid_of(one)]) for one in things if uid_of(one) in changed]


def notes_beside(beside: Sequence[Beside]) -> list[Mapping[str, str]]:
    """Give their annotations: who wants one of them left alone says so there."""
    return [strings(one.thing, "metadata", "annotations") for one in beside]


def owner_beside(beside: Sequence[Beside]) -> str | None:
    """Name the GitOps controller or operator that owns a field of theirs, or None."""
    for one in beside:
        if owner := field_owner(one.thing, _owners(one.thing), one.changes):
            return owner
    return None


def _owners(thing: Object) -> list[Owner]:
    return [
        Owner(
            api_version=text(one, "apiVersion"),
            kind=text(one, "kind"),
            name=text(one, "name"),
            uid=text(one, "uid"),
        )
        for one in items(thing, "metadata", "ownerReferences")
    ]
