"""What the API server lets into WorkflowTemplates and the catalogue: what render.py makes.

Invariants: only publishers write them; a template runs our own step program with a fixed word as
its only argument, as its action's own account, and always has an exit handler, deadlines and a
mutex; parameters reach code through environment variables only. Under one name the steps, their
order, their account and their parameters never change; what an installation decides (images,
environment, tolerations, deadlines) may, or no release could be installed over another. A rollback
is tried again a few times, never without end.
"""

from collections.abc import Sequence

from tiphys.workflow_templates import apart
from tiphys.workflow_templates.action import Action, StepName
from tiphys.workflow_templates.boundary_policy import (
    NAMESPACE_CONTROLLER,
    WRITES,
    BoundarySettings,
    Match,
    Policy,
    Rule,
    publisher,
    texts,
    user_is,
)
from tiphys.workflow_templates.boundary_workflows import ARGO
from tiphys.workflow_templates.identities import ACTION_LABEL
from tiphys.workflow_templates.render import CATALOGUE, PARAMETERS

_REQUIRED = (
    "activeDeadlineSeconds", "arguments", "entrypoint", "onExit", "serviceAccountName",
    "synchronization", "templates", "ttlStrategy",
)  # fmt: skip
_OPTIONAL = (
    "affinity", "automountServiceAccountToken", "imagePullSecrets", "nodeSelector", "podGC",
    "podMetadata", "podPriorityClassName", "securityContext", "tolerations",
)  # fmt: skip
_TEMPLATE = (
    "activeDeadlineSeconds", "container", "containerSet", "name", "outputs", "retryStrategy",
    "steps", "volumes",
)  # fmt: skip
_RETRY = ("backoff", "expression", "limit", "retryPolicy")
_CONTAINER = (
    "args", "command", "dependencies", "env", "image", "imagePullPolicy", "name", "resources",
    "securityContext", "volumeMounts",
)  # fmt: skip


def templates(settings: BoundarySettings, actions: Sequence[Action]) -> Policy:
    """Judge every write of a WorkflowTemplate."""
    return Policy(
        name="templates",
        matches=(Match(ARGO, ("workflowtemplates", "workflowtemplates/*"), WRITES),),
        namespace=settings.actions_namespace,
        variables=(
            publisher(settings),
            ("gone", "request.operation == 'DELETE'"),
            (
                "labels",
                "!variables.gone && has(object.metadata.labels) ? object.metadata.labels : {}",
            ),
            (
                "action",
                f"""'{ACTION_LABEL}' in variables.labels
                    ? variables.labels['{ACTION_LABEL}'] : ''""",
            ),
            ("spec", "variables.gone ? {} : object.spec"),
            ("templates", "has(variables.spec.templates) ? variables.spec.templates : []"),
            (
                "containers",
                """variables.templates.filter(t, has(t.container)).map(t, t.container)
                   + (variables.templates.exists(t, has(t.containerSet))
                   ? variables.templates.filter(t, has(t.containerSet))
                   .map(t, t.containerSet.containers)[0] : [])""",
            ),
            (
                "steps",
                """variables.templates.filter(t, has(t.steps))
                   .map(t, t.steps.all(group, group.all(step,
                   step.all(k, k in ['name', 'template', 'when'])
                   && (!has(step.when) || step.when == '{{workflow.status}} != Succeeded'))))""",
            ),
        ),
        rules=(
            *_owner_rules(),
            *_SPEC_RULES,
            *_CODE_RULES,
            _parameter_rule(actions),
            apart.template_rule(actions),
        ),
    )


def _owner_rules() -> tuple[Rule, ...]:
    return (
        Rule(
            f"variables.publisher || (variables.gone && {user_is(NAMESPACE_CONTROLLER)})",
            "only a publisher may write or delete WorkflowTemplates",
        ),
        Rule(
            """variables.gone || (variables.action != ''
               && object.metadata.name.matches('^[a-z0-9][a-z0-9-]*-v[0-9]+$')
               && object.metadata.name.startsWith(variables.action + '-v'))""",
            f"the name is <action>-v<number>, and {ACTION_LABEL} the action",
        ),
        Rule(
            """variables.gone || (has(variables.spec.serviceAccountName)
               && variables.spec.serviceAccountName == 'act-' + variables.action)""",
            "a template runs as act-<its action>",
        ),
        Rule(
            """request.operation != 'UPDATE' || ['entrypoint', 'onExit'].all(k,
               object.spec[k] == oldObject.spec[k])""",
            "where a published action begins and ends never changes; publish its next number",
        ),
        Rule(
            """request.operation != 'UPDATE'
               || (size(object.spec.templates) == size(oldObject.spec.templates)
               && object.spec.templates.all(t, oldObject.spec.templates.exists(o,
               o.name == t.name && has(o.steps) == has(t.steps)
               && (!has(t.steps) || t.steps == o.steps)
               && has(o.container) == has(t.container)
               && (!has(t.container) || t.container.args == o.container.args)
               && has(o.containerSet) == has(t.containerSet) && (!has(t.containerSet)
               || (size(t.containerSet.containers) == size(o.containerSet.containers)
               && t.containerSet.containers.all(c, o.containerSet.containers.exists(d,
               c.name == d.name && c.args == d.args
               && has(c.dependencies) == has(d.dependencies)
               && (!has(c.dependencies) || c.dependencies == d.dependencies))))))))""",
            "the steps of a published action never change; publish its next number",
        ),
    )


_SPEC_RULES = (
    Rule(
        f"variables.gone || object.spec.all(k, k in {texts(sorted(_REQUIRED + _OPTIONAL))})",
        "the spec has a field that our templates do not have",
    ),
    Rule(
        f"variables.gone || {texts(_REQUIRED)}.all(k, k in object.spec)",
        "the spec lacks a deadline, a mutex, an exit handler or another field of our templates",
    ),
    Rule(
        """variables.gone || (object.spec.arguments.all(k, k == 'parameters')
           && object.spec.arguments.parameters.all(p, p.all(k, k == 'name')))""",
        "the arguments are parameters, without values",
    ),
    Rule(
        """variables.gone || (object.spec.synchronization.all(k, k == 'mutexes')
           && object.spec.synchronization.mutexes.all(m,
           m.all(k, k == 'name') && m.name == '{{workflow.parameters.target}}'))""",
        "the only mutex is the target",
    ),
    Rule(
        f"variables.templates.all(t, t.all(k, k in {texts(_TEMPLATE)}))",
        "a template is a container, a containerSet or steps; nothing else, nothing inline",
    ),
    Rule(
        "variables.steps.all(fine, fine)",
        "a step names a template of its own WorkflowTemplate, and only rollback has a condition",
    ),
    Rule(
        """variables.templates.filter(t, has(t.containerSet)).size() <= 1
           && variables.templates.all(t, !has(t.containerSet)
           || t.containerSet.all(k, k in ['containers', 'volumeMounts']))""",
        "one containerSet, without retries",
    ),
    Rule(
        """variables.templates.all(t, !has(t.retryStrategy)
           || (t.name == 'rollback' && has(t.container)))""",
        "nothing is tried again but a rollback",
    ),
    Rule(
        f"""variables.templates.all(t, !has(t.retryStrategy) || (t.retryStrategy.all(k,
            k in {texts(_RETRY)}) && has(t.retryStrategy.limit)
            && string(t.retryStrategy.limit).matches('^[0-9]$')))""",
        "a rollback is tried again nine times at most",
    ),
    Rule(
        """variables.templates.all(t, !has(t.volumes) || t.volumes.all(v,
           v.all(k, k in ['name', 'emptyDir'])))""",
        "the only volumes are empty folders",
    ),
    Rule(
        """variables.templates.all(t, !has(t.outputs) || (t.outputs.all(k, k == 'parameters')
           && t.outputs.parameters.all(p, p.all(k, k in ['name', 'valueFrom'])
           && p.valueFrom.all(k, k in ['path', 'default']))))""",
        "the only outputs are a container's own files as parameters",
    ),
)
_CODE_RULES = (
    Rule(
        f"variables.containers.all(c, c.all(k, k in {texts(_CONTAINER)}))",
        "a container has a field that our steps do not have",
    ),
    Rule(
        """variables.containers.all(c, has(c.command) && c.command == ['tiphys-step']
           && has(c.args) && c.args.size() == 1
           && c.args[0] in """
        + texts([step.value for step in StepName])
        + ")",
        "a container runs tiphys-step with the name of a step; parameters never reach it so",
    ),
    Rule(
        """variables.containers.all(c, !c.image.contains('{{') && (!has(c.env)
           || c.env.all(e, e.all(k, k in ['name', 'value']))))""",
        "no image is put together from parameters, no variable read from elsewhere",
    ),
)


def _parameter_rule(actions: Sequence[Action]) -> Rule:
    on_nodes = texts([action.name for action in actions if apart.works_there(action)])
    return Rule(
        f"""variables.gone || object.spec.arguments.parameters.map(p, p.name)
            == (variables.action in {on_nodes} ? {texts((*PARAMETERS, apart.NODE))}
            : {texts(PARAMETERS)})""",
        "the parameters are those of every template, and of one on nodes the node's name",
    )


def catalogue(settings: BoundarySettings) -> Policy:
    """Judge every write of the catalogue, which says what the launcher may start."""
    usual = ",".join(PARAMETERS)
    return Policy(
        name="catalogue",
        matches=(Match("", ("configmaps",), WRITES),),
        namespace=settings.system_namespace,
        conditions=(("catalogue", f"has(request.name) && request.name == '{CATALOGUE}'"),),
        variables=(publisher(settings),),
        rules=(
            Rule(
                f"""variables.publisher || (request.operation == 'DELETE'
                    && {user_is(NAMESPACE_CONTROLLER)})""",
                "only a publisher may write the catalogue",
            ),
            Rule(
                f"""request.operation == 'DELETE' || !has(object.data) || object.data.all(k,
                    k.matches('^[a-z0-9][a-z0-9-]*-v[0-9]+$')
                    && object.data[k] in ['{usual}', '{usual},{apart.NODE}'])""",
                "an entry is a template's name with the parameters that every template declares",
            ),
        ),
    )
