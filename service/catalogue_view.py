"""What people are shown of the catalogue: every action that exists, its rights and its undo."""

from tiphys.policies.model import Noun
from tiphys.workflow_templates import catalogue
from tiphys.workflow_templates.action import Scope


class CatalogueEntry(Noun):
    """One action that exists."""

    name: str
    version: int
    summary: str
    kinds: tuple[str, ...]
    reversible: bool
    always_ask: str
    """Why each use needs a person's approval, whatever the policy grants; empty: it does not."""
    undo: str
    parameters: dict[str, object]
    rights: tuple[str, ...]


def catalogue_entries() -> list[CatalogueEntry]:
    """Describe every action."""
    return [
        CatalogueEntry(
            name=action.name,
            version=action.version,
            summary=action.summary,
            kinds=tuple(f"{version} {kind}" for version, kind in action.kinds),
            reversible=action.reversible,
            always_ask=action.always_ask,
            undo=action.undo,
            parameters=action.parameters.model_json_schema(),
            rights=tuple(
                f"{', '.join(r.verbs)} {r.resource}{'.' + r.api_group if r.api_group else ''}"
                f"{' in the whole cluster' if r.scope is Scope.CLUSTER else ''}"
                for r in action.rights
            ),
        )
        for action in catalogue.every()
    ]
