"""A pod that acts on a node is never on it: so say the template, admission and the step."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cel
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tiphys.policies.model import Change, Check, DecidedBy, Plan, Target
from tiphys.policies.plan import digest, encode, workflow_name
from tiphys.workflow_templates import apart
from tiphys.workflow_templates.action import Result, StepName
from tiphys.workflow_templates.boundary_policy import line
from tiphys.workflow_templates.catalogue import every, find, template_name
from tiphys.workflow_templates.render import (
    RenderSettings,
    catalogue_entries,
    parameters_of,
    workflow_template,
)
from tiphys.workflow_templates.run_step import run
from tiphys.workflow_templates.signature import public_hex, sign

sys.path.insert(0, str(Path(__file__).parents[1] / "cluster" / "attacks"))

import against_nodes
from outposts import node_pod

Obj = dict[str, Any]
ACTION = find("cordon-drain-node")
ON_NODES = [one for one in every() if apart.works_there(one)]
SETTINGS = RenderSettings(image="i", public_key="ab" * 32)


def test_the_node_actions_are_known() -> None:
    assert ACTION in ON_NODES


@pytest.mark.parametrize("action", every(), ids=lambda one: one.name)
def test_only_what_works_on_nodes_is_given_one_and_kept_off_it(action: Any) -> None:
    made: Any = workflow_template(SETTINGS, action)
    given = "TIPHYS_NODE" in str(made)
    assert (apart.NODE in parameters_of(action)) == given == ("affinity" in made["spec"])
    assert given == (action in ON_NODES)
    assert catalogue_entries()[template_name(action)].endswith(",node") == given


def judged(rule: str, body: Obj, **variables: Any) -> bool:
    context = cel.Context({"object": body, "variables": variables})
    return cel.compile(line(rule)).execute(context) is True


def pod_is_let_in(pod: Obj) -> bool:
    each = [*pod["spec"]["containers"], *pod["spec"]["initContainers"]]
    return judged(apart.pod_rule(every()).expression, pod, made=True, each=each)


def template_is_let_in(made: Obj) -> bool:
    named = {"gone": False, "action": "cordon-drain-node", "templates": made["spec"]["templates"]}
    return judged(apart.template_rule(every()).expression, made, **named)


def attacks(words: str) -> list[tuple[str, Obj]]:
    [found] = [listed for title, _, listed in against_nodes.sections() if words in title]
    return [(one.title, request.body) for one in found for request in one.requests]


@pytest.mark.parametrize(("title", "pod"), attacks("A pod that acts"))
def test_a_pod_that_might_run_there_is_refused(title: str, pod: Obj) -> None:
    assert not pod_is_let_in(pod), title


def test_a_pod_that_cannot_is_let_in() -> None:
    assert pod_is_let_in(node_pod())


@pytest.mark.parametrize(
    "template",
    [body for title, body in attacks("A template whose") if "affinity" in title],
)
def test_a_template_whose_pods_might_run_there_is_refused(template: Obj) -> None:
    assert not template_is_let_in(template)


def test_our_template_is_let_in() -> None:
    made: Any = workflow_template(SETTINGS, ACTION)
    assert template_is_let_in(made)


@pytest.mark.parametrize("node", ["another", ""])
@pytest.mark.parametrize("step", StepName)
def test_a_step_that_is_kept_off_another_node_does_nothing(step: StepName, node: str) -> None:
    target = Target(cluster="c", api_version="v1", kind="Node", namespace="", name="n1", uid="u")
    plan = Plan(
        incident="i",
        attempt=1,
        action=ACTION.name,
        version=ACTION.version,
        target=target,
        parameters={},
        changes=(Change(path="/spec/unschedulable", present=None, intended=True),),
        check=Check(),
        policy="p",
        evidence_hash="0" * 64,
        decided_by=DecidedBy(reasoner="human"),
    )
    key = Ed25519PrivateKey.generate()
    not_after = (datetime.now(UTC) + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    report = run(
        step,
        {
            "TIPHYS_PLAN": encode(plan),
            "TIPHYS_PUBLIC_KEY": public_hex(key),
            "TIPHYS_NOT_AFTER": not_after,
            "TIPHYS_SIGNATURE": sign(key, digest(plan), not_after),
            "TIPHYS_WORKFLOW": workflow_name(plan),
            "TIPHYS_TARGET": "u",
            "TIPHYS_ACTION": template_name(ACTION),
            "TIPHYS_NODE": node,
        },
    )
    assert report.result is Result.REFUSED
    assert "NODE" in report.message or "another node" in report.message
