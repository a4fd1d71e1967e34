"""The boundary's own ValidatingAdmissionPolicies, evaluated over the sandbox's writes.

What the chart installs in a real API server judges here too, so the two cannot drift apart. Left
out is what asks for more than a user's name: whom a token is bound to, and a request's options; of
the actions' own policies only what they patch is judged. Invariants: an expression without an
answer refuses; the sandbox's own machinery writes without a user and is not asked.
https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import cel

from tiphys.sandbox.argo_workflow import CONTROLLER
from tiphys.sandbox.resources import BY_KIND
from tiphys.sandbox.store import AdmissionRequest, ApiError, Store
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import Action
from tiphys.workflow_templates.boundary import policies
from tiphys.workflow_templates.boundary_policy import BoundarySettings, Match, Policy, Rule
from tiphys.workflow_templates.boundary_workflows import STOP_LABEL
from tiphys.workflow_templates.catalogue import every
from tiphys.workflow_templates.identities import account_name
from tiphys.workflow_templates.quantities import amount

__all__ = ["ACTIONS_NAMESPACE", "CONTROLLER", "LAUNCHER", "STOP_LABEL", "STOP_NAMESPACE", "install"]

SETTINGS = BoundarySettings(images=(), publisher_users=("sandbox-admin",), controller=CONTROLLER)
LAUNCHER = SETTINGS.launcher
ACTIONS_NAMESPACE = SETTINGS.actions_namespace
STOP_NAMESPACE = SETTINGS.stop_namespace
_LEFT_OUT = ("act", "results")

Json = dict[str, Any]
_ACCOUNTS = {
    f"system:serviceaccount:{SETTINGS.actions_namespace}:{account_name(action)}": action
    for action in every()
}


def install(store: Store) -> None:
    """Make the store refuse what the boundary refuses."""
    judges = [
        _Judge(policy, store)
        for policy in policies(SETTINGS)
        if policy.name not in _LEFT_OUT and not policy.name.startswith("act-")
    ]

    def judge(request: AdmissionRequest) -> None:
        if request.user:
            for one in judges:
                one.judge(request)
            _judge_action(request)

    store.admission.append(judge)


def refused_by(action: Action, resource: str, facts: Json) -> list[str]:
    """Give the messages of the guards that refuse an action's write to `group/plural`.

    `facts` are `object` and `oldObject`, and `run`, the name of the Workflow.
    """
    variables: Json = {"run": facts["run"]}
    known = {**facts, "variables": variables}
    for name, text in action.terms:
        variables[name] = _value(text, known)
    guards = (guard for guard in action.guards if guard.resource == resource)
    return [guard.message for guard in guards if _value(guard.expression, known) is not True]


def _judge_action(request: AdmissionRequest) -> None:
    """Hold an action to its guards where they need no more than the object: in a patch.

    Whose pod the token is bound to is not known here, so the run is taken from the mark.
    """
    action = _ACCOUNTS.get(request.user)
    resource = BY_KIND[request.kind]
    place = f"{resource.group}/{resource.plural}"
    right = action and next(
        (r for r in action.rights if f"{r.api_group}/{r.resource}" == place), None
    )
    if action is None or right is None or "patch" not in right.verbs or request.subresource:
        return
    run = f"tiphys-{mark.by_annotation(request.obj).partition('.')[0]}"
    facts: Json = {"object": request.obj, "oldObject": request.old, "run": run}
    try:
        found = refused_by(action, place, facts)
    except _NoAnswer as error:
        found = [f"an expression resulted in error: {error}"]
    if found:
        raise ApiError(403, "Forbidden", f"act-{action.name}: {place}: {found[0]}")


@dataclass(frozen=True)
class _Judge:
    policy: Policy
    store: Store

    def judge(self, request: AdmissionRequest) -> None:
        """Raise `ApiError` 403 where a validation does not hold or has no answer."""
        policy, resource = self.policy, BY_KIND[request.kind]
        place = request.obj["metadata"].get("namespace", "") if resource.namespaced else ""
        asked = _Asked(resource.group, resource.plural, request.subresource, request.operation)
        if policy.namespace and policy.namespace != place:
            return
        if not any(map(asked.matches, policy.matches)) or any(map(asked.matches, policy.excludes)):
            return
        facts = self._facts(request, asked, place)
        if not all(_value(text, facts) is True for _, text in policy.conditions):
            return
        for params in self._parameters():
            self._validate({**facts, "params": params})

    def _validate(self, facts: Json) -> None:
        variables: Json = {}
        for name, text in self.policy.variables:
            try:
                variables[name] = _value(text, {**facts, "variables": variables})
            except _NoAnswer:
                # Asked for by a validation, it is missing there, which refuses.
                continue
        known = {**facts, "variables": variables}
        for rule in self.policy.rules:
            try:
                holds = _value(rule.expression, known) is True
            except _NoAnswer as error:
                self._refuse(f"expression '{rule.expression}' resulted in error: {error}")
                return
            if not holds:
                self._refuse(_message(rule, known))

    def _refuse(self, message: str) -> None:
        name = f"{SETTINGS.name_prefix}-{self.policy.name}"
        text = f"ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: {message}"
        raise ApiError(403, "Forbidden", text)

    def _parameters(self) -> Iterator[Json | None]:
        reference = cast("Mapping[str, Any] | None", self.policy.parameters)
        if reference is None:
            yield None
        elif "name" in reference:
            found = self.store.find("ConfigMap", reference["namespace"], reference["name"])
            if found is None:
                self._refuse(
                    "no params found for policy binding with `Deny` parameterNotFoundAction"
                )
            yield found
        else:
            (expression,) = reference["selector"]["matchExpressions"]
            yield from self.store.list("ConfigMap", reference["namespace"], expression["key"])

    def _facts(self, request: AdmissionRequest, asked: "_Asked", place: str) -> Json:
        name = request.obj["metadata"]["name"]
        resource = {"group": asked.group, "resource": asked.resource}
        said: Json = {"operation": asked.operation, "resource": resource, "name": name}
        said["userInfo"] = {"username": request.user}
        said |= {"namespace": place} if place else {}
        said |= {"subResource": asked.subresource} if asked.subresource else {}
        return {
            "request": said,
            "object": None if asked.operation == "DELETE" else request.obj,
            "oldObject": request.old,
            "namespaceObject": self.store.find("Namespace", "", place) if place else None,
        }


@dataclass(frozen=True)
class _Asked:
    group: str
    resource: str
    subresource: str
    operation: str

    def matches(self, match: Match) -> bool:
        """Say whether the policy is meant for this request."""
        whole = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        resources = {whole, "*/*", "*" if not self.subresource else f"{self.resource}/*"}
        return (
            match.group in {self.group, "*"}
            and bool(resources & {*match.resources})
            and bool({self.operation, "*"} & {*match.operations})
        )


class _NoAnswer(Exception):
    """The expression failed on these facts."""


def _message(rule: Rule, facts: Json) -> str:
    return str(_value(rule.message_expression, facts)) if rule.message_expression else rule.message


def _split(whole: str, by: str) -> list[str]:
    return whole.split(by)


def _quantity(text: str) -> int:
    """Give a quantity in thousandths, rounded up; what does not fit into an int has no answer."""
    return math.ceil(amount(text) * 1000)


def _compared(one: int, other: int) -> int:
    return (one > other) - (one < other)


_LIBRARY: Mapping[str, Callable[..., Any]] = {
    "split": _split,
    "quantity": _quantity,
    "add": operator.add,
    "compareTo": _compared,
}
"""What Kubernetes' CEL knows and the library does not; quantities are plain numbers here.

https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-quantity-library
"""


@cache
def _program(text: str) -> cel.Program:
    return cel.compile(text)


def _value(text: str, facts: Json) -> Any:
    context = cel.Context(facts)
    for name, function in _LIBRARY.items():
        context.add_function(name, function)
    try:
        return _program(text).execute(context)
    except Exception as error:
        raise _NoAnswer(str(error).splitlines()[0][:200]) from error
    except BaseException as error:
        # The library's own crash is no Exception; an interrupt must pass.
        if type(error).__name__ != "PanicException":
            raise
        raise _NoAnswer(str(error)[:200]) from error
