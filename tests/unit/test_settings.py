"""Settings: read once from TIPHYS_*, bounded, frozen; an empty variable is an unset one."""

import ast
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tiphys.agents.budget import Budget
from tiphys.service.model_settings import ModelSettings
from tiphys.service.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("TIPHYS_")]:
        monkeypatch.delenv(name)


def test_out_of_the_box_it_is_alone_on_loopback_and_asks_nobody() -> None:
    settings = Settings()
    assert settings.on_loopback
    assert settings.alertmanager_urls == ()
    assert settings.policy is None, "the built-in one, which only suggests"
    for outside in ("prometheus_url", "nats_url", "database_url", "model_base_url"):
        assert getattr(settings, outside) is None


def test_every_field_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "TIPHYS_PORT": "0",
        "TIPHYS_ALERTMANAGER_URLS": " http://a:9093, http://b:9093 ,",
        "TIPHYS_API_TOKEN": "secret",
        "TIPHYS_LOG_JSON": "true",
        "TIPHYS_LEASE_SECONDS": "2.5",
        "TIPHYS_DATA_DIR": "/somewhere",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.port == 0
    assert settings.alertmanager_urls == ("http://a:9093", "http://b:9093")
    assert settings.api_token is not None
    assert settings.api_token.get_secret_value() == "secret"
    assert settings.log_json is True
    assert settings.lease_seconds == 2.5
    assert settings.data_dir == Path("/somewhere")


def test_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_TOKEN", "WEBHOOK_TOKEN", "MODEL_API_KEY"):
        monkeypatch.setenv(f"TIPHYS_{name}", "hunter2")
    settings = Settings()
    assert "hunter2" not in repr(settings) + str(settings.model_dump()) + settings.model_dump_json()


@pytest.mark.parametrize("name", ["api_token", "webhook_token", "database_url", "policy"])
def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An empty token would be one that every caller bears."""
    monkeypatch.setenv(f"TIPHYS_{name.upper()}", "")
    assert getattr(Settings(), name) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", 65_536),
        ("port", -1),
        ("port", "http"),
        ("lease_seconds", 0),
        ("poll_interval", -1),
        ("reconcile_interval", 0),
        ("not_after_seconds", 901),
        ("not_after_seconds", 0),
        ("stream_max_bytes", 1000),
        ("stream_replicas", 6),
        ("model_timeout", 0),
        ("model_retries", 6),
        ("model_calls_per_incident", 0),
        ("model_price_input", -1),
        ("model_money_per_day", -1),
    ],
)
def test_what_makes_no_sense_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        Settings(**{field: value})


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.org", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_only_loopback_counts_as_loopback(host: str, expected: bool) -> None:
    assert Settings(host=host).on_loopback is expected


def test_each_setting_says_what_it_is_for() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, f"{name} has no docstring"


def test_the_page_on_the_model_names_each_of_its_settings() -> None:
    page = (ROOT / "docs" / "model.md").read_text()
    for name in ModelSettings.model_fields:
        variable = f"TIPHYS_{name.upper()}"
        family, _, span = variable.partition("_PER_")
        listed = f"`{family}_PER_INCIDENT`" in page and f"`_PER_{span}`" in page
        assert f"`{variable}`" in page or f"`{variable}=" in page or listed, variable


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        ({}, ""),
        ({"model_base_url": "http://m/v1", "model": "m"}, ""),
        ({"model_base_url": "http://m/v1"}, "needs TIPHYS_MODEL,"),
        ({"model_record": "x.jsonl"}, "needs TIPHYS_MODEL_BASE_URL"),
        (
            {"model_base_url": "http://m/v1", "model": "m", "model_seconds_per_incident": 60},
            "less than TIPHYS_INVESTIGATION_SECONDS (60)",
        ),
    ],
    ids=["none", "whole", "nameless", "nowhere", "too-long"],
)
def test_a_model_needs_a_name_and_leaves_time_for_the_playbook(
    given: dict[str, Any], lacking: str
) -> None:
    found = Settings.model_validate(given).model_lacking
    assert lacking in found
    assert bool(found) == bool(lacking)


def test_the_models_limits_are_those_of_the_settings() -> None:
    assert Settings().model_budget == Budget()
    given = Settings(model_calls_per_hour=3, model_money_per_day=2, model_price_input=0.1)
    assert (given.model_budget.calls_per_hour, given.model_budget.money_per_day) == (3, 2)
    assert given.model_prices.known
    assert not Settings().model_prices.known


READERS = {
    "service/conform/command.py",
    "service/conform/planner.py",
    "service/conform/steps.py",
    "service/playing.py",
    "service/rehearsal.py",
    "workflow_templates/run_step.py",
}
"""Children get an environment of their own from the others; a step's pod is given nothing else.

`agents/__init__.py` writes one variable for a library, and reads none."""


def test_nothing_else_reads_the_environment() -> None:
    found = set()
    for folder in ("agents", "policies", "service", "workflow_templates"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                reads = isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
                if reads and isinstance(node.value, ast.Name) and node.value.id == "os":
                    found.add(str(path.relative_to(ROOT)))
    assert found - {"agents/__init__.py"} <= READERS


POSTGRES = "postgresql://tiphys@db/tiphys"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("all", ["gateway", "agents", "launcher"]),
        ("launcher", ["launcher"]),
        ("launcher, gateway", ["gateway", "launcher"]),
        ("agents,all", ["gateway", "agents", "launcher"]),
        ("", ["gateway", "agents", "launcher"]),
    ],
)
def test_roles_are_named_by_comma(
    monkeypatch: pytest.MonkeyPatch, given: str, expected: list[str]
) -> None:
    monkeypatch.setenv("TIPHYS_ROLES", given)
    assert [*Settings().roles] == expected


def test_a_role_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match="'pilot' is not a role; there are gateway, agents"):
        Settings.model_validate({"roles": "gateway,pilot"})


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        ({}, ""),
        ({"roles": "gateway"}, "TIPHYS_DATABASE_URL with a PostgreSQL and TIPHYS_NATS_URL"),
        ({"roles": "agents", "database_url": POSTGRES}, "TIPHYS_NATS_URL"),
        ({"roles": "agents", "database_url": "sqlite:///x", "nats_url": "nats://n"}, "PostgreSQL"),
        ({"roles": "launcher"}, "PostgreSQL"),
        ({"roles": "launcher", "database_url": POSTGRES}, ""),
        ({"roles": "gateway,agents", "database_url": POSTGRES, "nats_url": "nats://n"}, ""),
        ({"roles": "all", "database_url": POSTGRES}, ""),
    ],
)
def test_fewer_roles_than_all_need_what_others_can_reach(
    given: dict[str, str], lacking: str
) -> None:
    found = Settings.model_validate(given).lacking
    assert lacking in found
    assert bool(found) == bool(lacking)
    if lacking == "TIPHYS_NATS_URL":
        assert "PostgreSQL" not in found


def test_a_url_that_names_no_driver_gets_ours() -> None:
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        url = f"{scheme}://a:b@c/d?sslmode=require"
        expected = "postgresql+psycopg://a:b@c/d?sslmode=require"
        assert Settings(database_url=url).database_url == expected


def test_database_users_are_named_by_role(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().db_users == {
        "gateway": "tiphys_gateway",
        "agents": "tiphys_agents",
        "launcher": "tiphys_launcher",
    }
    assert not Settings().names_db_users
    monkeypatch.setenv("TIPHYS_DB_USERS", "agents=reader")
    assert Settings().db_users == {
        "gateway": "tiphys_gateway",
        "agents": "reader",
        "launcher": "tiphys_launcher",
    }
    assert Settings().names_db_users
    monkeypatch.setenv("TIPHYS_DB_USERS", "pilot=reader")
    with pytest.raises(ValidationError, match="db_users"):
        Settings()
