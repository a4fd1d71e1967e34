"""docs/actions.md says of each action what the code says, and nothing is left out."""

import ast
import inspect
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tiphys.policies.model import Risk
from tiphys.service.conform.trials import TRIALS
from tiphys.workflow_templates.action import Action, Parameters, Right, Scope
from tiphys.workflow_templates.catalogue import every
from tools import actions_page

SECTIONS = dict(
    re.findall(r"^## ([a-z-]+)\n(.*?)(?=^## |\Z)", actions_page.page(), re.DOTALL | re.MULTILINE)
)


def test_the_page_is_current() -> None:
    assert actions_page.PAGE.read_text() == actions_page.page(), "reviewed? then: make golden"


@pytest.mark.parametrize("action", every(), ids=lambda one: one.name)
def test_an_action_s_section_names_all_of_its_contract(action: Action) -> None:
    text = " ".join(SECTIONS[action.name].split())
    said = [action.summary, action.undo, *action.parameters.model_fields]
    said += [guard.message for guard in action.guards]
    assert TRIALS[action.name].violations, "what does it check before it acts?"
    said += [*TRIALS[action.name].violations]
    for right in action.rights:
        said += [
            f"{', '.join(right.verbs)} `{right.api_group}/{right.resource}`".replace("`/", "`")
        ]
    assert [one for one in said if one not in text] == []


@pytest.mark.parametrize("action", every(), ids=lambda one: one.name)
def test_the_sentence_on_risk_names_every_grade_that_the_code_gives(action: Action) -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(type(action).risk)))
    given = {
        Risk[node.attr]
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Risk"
    }
    told = (inspect.getdoc(type(action).risk) or "").lower()
    assert given
    assert {grade for grade in given if not re.search(rf"\b{grade}\b", told)} == set()


def test_a_right_beyond_the_namespace_says_so() -> None:
    found = (Right("apps", "deployments", ("get",)), Right("", "nodes", ("patch",), Scope.CLUSTER))
    assert [*actions_page.rights(found)] == [
        "get `apps/deployments`",
        "patch `nodes` in the whole cluster",
    ]


class _Sample(Parameters):
    """Parameters of each kind."""

    words: str = Field(default="a|b", max_length=9, pattern="^[a|b]+$")
    """Words."""
    count: int = Field(ge=1, lt=7)
    either: bool | None = None


def test_bounds_become_words_and_what_has_none_comes_as_it_is() -> None:
    fields: dict[str, Any] = _Sample.model_json_schema()["properties"]
    assert {name: actions_page.taken(schema) for name, schema in fields.items()} == {
        "words": "string, at most 9 characters, as `^[a\\|b]+$`",
        "count": "integer, at least 1, less than 7",
        "either": '`{"anyOf": [{"type": "boolean"}, {"type": "null"}]}`',
    }
    assert actions_page.words(_Sample) == {"words": "Words."}
