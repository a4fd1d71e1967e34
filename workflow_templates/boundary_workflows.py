"""What the API server lets into Workflows, and when it lets nothing in.

Invariants: only the launcher creates, only what the catalogue lists, only with plain tokens, only
for the next 15 minutes, and nothing while a stop ConfigMap exists; what a Workflow was started with
never changes; the launcher's only update is `shutdown: Stop`, since after `Terminate` no rollback
would run. Only creation reads the catalogue and the stop: what runs goes on without either.
"""

from tiphys.workflow_templates.boundary_policy import (
    COLLECTORS,
    BoundarySettings,
    Match,
    Policy,
    Rule,
    publisher,
    text,
    texts,
    user_is,
)
from tiphys.workflow_templates.render import CATALOGUE

STOP_LABEL = "tiphys.io/stop"
INSTANCE_LABEL = "workflows.argoproj.io/controller-instanceid"
LONGEST_PLAN = 16_384
"""Characters of the plan's parameter."""
LONGEST_VALIDITY = "15m"
_TOKEN = "^[A-Za-z0-9]([A-Za-z0-9._:-]{0,251}[A-Za-z0-9])?$"  # noqa: S105  a plain word
_MOMENT = (
    "^2[0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    "T([01][0-9]|2[0-3])(:[0-5][0-9]){2}([.][0-9]{1,9})?Z$"
)
ARGO = "argoproj.io"


def created(settings: BoundarySettings) -> Policy:
    """Judge the creation of a Workflow."""
    return Policy(
        name="workflows-create",
        matches=(Match(ARGO, ("workflows", "workflows/*"), ("CREATE",)),),
        namespace=settings.actions_namespace,
        parameters={
            "name": CATALOGUE,
            "namespace": settings.system_namespace,
            "parameterNotFoundAction": "Deny",
        },
        variables=(
            (
                "template",
                """has(object.spec.workflowTemplateRef) && has(object.spec.workflowTemplateRef.name)
                   ? object.spec.workflowTemplateRef.name : ''""",
            ),
            (
                "listed",
                """variables.template.matches('^[a-z0-9][a-z0-9-]*-v[0-9]+$')
                   && variables.template in params.data""",
            ),
            (
                "declared",
                "variables.listed ? params.data[variables.template].split(',') : []",
            ),
            (
                "given",
                """has(object.spec.arguments) && has(object.spec.arguments.parameters)
                   ? object.spec.arguments.parameters : []""",
            ),
            (
                "notAfter",
                """variables.given.filter(p, p.name == 'notAfter' && has(p.value))
                   .map(p, p.value)""",
            ),
            ("born", "timestamp(object.metadata.creationTimestamp)"),
        ),
        rules=(
            Rule(user_is(settings.launcher), "only the launcher may create a Workflow"),
            *_SPEC_RULES,
            *_metadata_rules(settings),
        ),
    )


_SPEC_RULES = (
    Rule(
        "object.spec.all(k, k in ['workflowTemplateRef', 'arguments'])",
        "a Workflow may carry only workflowTemplateRef and arguments",
    ),
    Rule("variables.listed", "workflowTemplateRef must name a template in the catalogue"),
    Rule(
        """!has(object.spec.workflowTemplateRef)
           || object.spec.workflowTemplateRef.all(k, k == 'name')""",
        "workflowTemplateRef may carry only a name, no clusterScope",
    ),
    Rule("!has(object.status)", "status may not be supplied at creation"),
    Rule(
        "!has(object.spec.arguments) || object.spec.arguments.all(k, k == 'parameters')",
        "arguments may carry only parameters, no artifacts",
    ),
    Rule(
        """!variables.listed || (size(variables.given) == size(variables.declared)
           && variables.declared.all(n, variables.given.exists_one(p, p.name == n)))""",
        "exactly the declared parameters, once each",
    ),
    Rule(
        "variables.given.all(p, p.all(k, k in ['name', 'value']))",
        "a parameter may carry only a name and a value",
    ),
    Rule(
        f"""variables.given.all(p, has(p.value) && type(p.value) == string && (p.name == 'plan'
            ? size(p.value) <= {LONGEST_PLAN} && p.value.matches('^[A-Za-z0-9_-]+$')
            : p.value.matches('{_TOKEN}')))""",
        "parameter values are plain words: no templates, quotes, blanks or shell characters",
    ),
    Rule(
        # A moment that is none would be refused as well, but as an error that says nothing.
        f"""size(variables.notAfter) == 1 && variables.notAfter[0].matches('{_MOMENT}')
            && timestamp(variables.notAfter[0]) > variables.born
            && timestamp(variables.notAfter[0]) <= variables.born
            + duration('{LONGEST_VALIDITY}')""",
        "the plan has expired or is valid for too long",
    ),
)


def _metadata_rules(settings: BoundarySettings) -> tuple[Rule, ...]:
    instance = text(settings.instance_id)
    return (
        Rule(
            """!has(object.metadata.generateName)
               && object.metadata.name.matches('^tiphys-[a-z2-7]{40}$')""",
            "the name is tiphys-<digest of the plan>",
        ),
        Rule(
            "!has(object.metadata.finalizers) && !has(object.metadata.ownerReferences)",
            "a new Workflow has no finalizers and no owners",
        ),
        Rule(
            f"""(!has(object.metadata.labels) || object.metadata.labels.all(k,
                k.startsWith('tiphys.io/') || (k == '{INSTANCE_LABEL}'
                && object.metadata.labels[k] == {instance}))) && (!has(object.metadata.annotations)
                || object.metadata.annotations.all(k, k.startsWith('tiphys.io/')))""",
            "only labels and annotations of tiphys.io",
        ),
    )


def changed(settings: BoundarySettings) -> Policy:
    """Judge every update of a Workflow."""
    known = texts((settings.controller, settings.launcher, *COLLECTORS))
    launcher = f"!({user_is(settings.launcher)})"
    return Policy(
        name="workflows-update",
        matches=(Match(ARGO, ("workflows", "workflows/*"), ("UPDATE",)),),
        namespace=settings.actions_namespace,
        variables=(("controller", user_is(settings.controller)),),
        rules=(
            Rule(
                f"request.userInfo.username in {known}",
                "only the launcher and Argo's controller may change a Workflow",
            ),
            Rule(
                """['workflowTemplateRef', 'arguments'].all(k,
                   (k in object.spec) == (k in oldObject.spec)
                   && (!(k in object.spec) || object.spec[k] == oldObject.spec[k]))""",
                "what a Workflow was started with never changes",
            ),
            Rule(
                """variables.controller || (oldObject.spec.all(k, k in object.spec)
                   && object.spec.all(k, k == 'shutdown'
                   || (k in oldObject.spec && object.spec[k] == oldObject.spec[k])))""",
                "only Argo's controller may change more of the spec than its shutdown",
            ),
            Rule(
                f"{launcher} || (has(object.spec.shutdown) && object.spec.shutdown == 'Stop')",
                "the launcher may only set spec.shutdown: Stop",
            ),
            Rule(
                """variables.controller || (has(object.status) == has(oldObject.status)
                   && (!has(object.status) || object.status == oldObject.status))""",
                "only Argo's controller may change the status",
            ),
            Rule(
                f"""{launcher} || (oldObject.metadata.all(k, k in object.metadata)
                    && object.metadata.all(k,
                    k in ['managedFields', 'resourceVersion', 'generation']
                    || (k in oldObject.metadata
                    && object.metadata[k] == oldObject.metadata[k])))""",
                "the launcher may not change labels, annotations, finalizers or owners",
            ),
        ),
    )


def deleted(settings: BoundarySettings) -> Policy:
    """Judge the deletion of a Workflow: without it, its rollback would never run."""
    users = texts((settings.controller, *COLLECTORS))
    return Policy(
        name="workflows-delete",
        matches=(Match(ARGO, ("workflows",), ("DELETE",)),),
        namespace=settings.actions_namespace,
        variables=(publisher(settings),),
        rules=(
            Rule(
                f"variables.publisher || request.userInfo.username in {users}",
                "Workflows are kept: they are the record, and rollback runs in them",
            ),
        ),
    )


def stopped(settings: BoundarySettings) -> Policy:
    """Refuse every new Workflow while a stop ConfigMap exists, whatever its label's value.

    It stays when a release goes: an API server that once had no binding with ConfigMaps as its
    parameters never looks at ConfigMaps again (kubernetes/kubernetes#130887), and a later
    installation's stop would stop nothing.
    """
    return Policy(
        name="stop",
        stays=True,
        matches=(Match(ARGO, ("workflows",), ("CREATE",)),),
        namespace=settings.actions_namespace,
        parameters={
            "namespace": settings.stop_namespace,
            "selector": {"matchExpressions": [{"key": STOP_LABEL, "operator": "Exists"}]},
            "parameterNotFoundAction": "Allow",
        },
        rules=(
            Rule(
                "false",
                "stopped",
                """'stopped by ConfigMap ' + params.metadata.name
                   + (has(params.data) && 'reason' in params.data
                   ? ': ' + params.data['reason'] : '')""",
            ),
        ),
    )


def stop_switch(settings: BoundarySettings) -> Policy:
    """Let the gateway engage the stop with nothing but a stop; `service` leaves it no other write.

    What it engages only people release.
    """
    return Policy(
        name="stop-switch",
        matches=(Match("", ("configmaps",), ("CREATE",)),),
        namespace=settings.stop_namespace,
        conditions=(("gateway", user_is(settings.gateway)),),
        rules=(
            Rule(
                f"""has(object.metadata.labels)
                    && object.metadata.labels.all(k, k == '{STOP_LABEL}'
                    && object.metadata.labels[k] == 'true')
                    && size(object.metadata.labels) == 1
                    && object.metadata.name.matches('^stop-[0-9a-z-]+$')
                    && object.metadata.all(k, k in ['name', 'namespace', 'labels', 'uid',
                    'creationTimestamp', 'managedFields'])""",
                "a stop has its name and its label, no owner whose end would end it",
            ),
            Rule(
                """!has(object.binaryData)
                   && !has(object.immutable) && (!has(object.data) || object.data.all(k,
                   k in ['reason', 'by'] && size(object.data[k]) <= 1024))""",
                "a stop says why and by whom, and nothing else",
            ),
        ),
    )
