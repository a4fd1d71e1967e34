"""What looks like a secret never gets into a plan."""

import pytest

from tiphys.agents.plan_secrets import secrets_in
from tiphys.policies.model import Change, Json
from tiphys.workflow_templates.pointers import differences


def template(env: list[dict[str, str]], args: list[str] | None = None) -> dict[str, Json]:
    container: dict[str, Json] = {"name": "app", "env": [*env], "args": [*(args or [])]}
    return {"spec": {"template": {"spec": {"containers": [container]}}}}


def changed(before: dict[str, Json], after: dict[str, Json]) -> list[Change]:
    return list(differences(before["spec"], after["spec"], "/spec"))


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        (
            template([{"name": "DB_PASSWORD", "value": "hunter2"}]),
            template([{"name": "DB_PASSWORD", "value": "hunter3"}]),
            "DB_PASSWORD",
        ),
        (
            template([{"name": "A", "value": "1"}, {"name": "API_TOKEN", "value": "plain"}]),
            template([{"name": "A", "value": "1"}]),
            "API_TOKEN",
        ),
        (
            template([{"name": "DB", "value": "postgres://shop:s3cr3tpw@db/shop"}]),
            template([{"name": "DB", "value": "postgres://db/shop"}]),
            "/spec/template/spec/containers/0/env/0/value",
        ),
        (
            template([], ["--password=hunter2"]),
            template([], ["--verbose"]),
            "/spec/template/spec/containers/0/args",
        ),
    ],
)
def test_a_change_of_a_secret_is_named_and_its_value_is_not(
    before: dict[str, Json], after: dict[str, Json], named: str
) -> None:
    found = secrets_in(changed(before, after), before)
    assert found == [named]
    assert "hunter" not in str(found)


def test_an_ordinary_release_has_none() -> None:
    before = template([{"name": "MODE", "value": "fast"}], ["--verbose"])
    after = template([{"name": "MODE", "value": "safe"}], ["--quiet"])
    changes = [
        *changed(before, after),
        Change(path="/spec/replicas", present=2, intended=3),
        Change(
            path="/spec/template/spec/containers/0/image",
            present="registry.example/shop/checkout:1.8.0",
            intended="registry.example/shop/checkout@sha256:" + "0f" * 32,
        ),
    ]
    assert secrets_in(changes, before) == []
