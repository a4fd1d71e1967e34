"""The boundary that the API server itself enforces: every ValidatingAdmissionPolicy, rendered.

Pure, like render.py. docs/boundary.md says what each policy is for, docs/attacks.md what was tried
against them.
"""

from collections.abc import Sequence

from tiphys.workflow_templates import boundary_identities as identities
from tiphys.workflow_templates import boundary_pods as pods
from tiphys.workflow_templates import boundary_templates as templates
from tiphys.workflow_templates import boundary_workflows as workflows
from tiphys.workflow_templates.action import Action
from tiphys.workflow_templates.boundary_policy import BoundarySettings, Manifest, Policy
from tiphys.workflow_templates.catalogue import every

__all__ = ["BoundarySettings", "boundary", "policies"]


def policies(
    settings: BoundarySettings, actions: Sequence[Action] | None = None
) -> tuple[Policy, ...]:
    """Give every policy; `actions` are the catalogue's unless said otherwise."""
    known = every() if actions is None else actions
    return (
        workflows.created(settings),
        workflows.changed(settings),
        workflows.deleted(settings),
        workflows.stopped(settings),
        workflows.stop_switch(settings),
        templates.templates(settings, known),
        templates.catalogue(settings),
        pods.pods(settings, known),
        pods.results(settings),
        pods.other_kinds(settings),
        pods.surroundings(settings),
        identities.service(settings),
        identities.acting(settings, known),
        *(identities.action(settings, one) for one in known),
    )


def boundary(settings: BoundarySettings, actions: Sequence[Action] | None = None) -> list[Manifest]:
    """Give the policies and their bindings, in the order to apply them."""
    return [
        manifest
        for policy in policies(settings, actions)
        for manifest in policy.manifests(settings.name_prefix)
    ]
