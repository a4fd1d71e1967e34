"""The page's manifest grants what the code uses, and names what the code listens to."""

import re
from pathlib import Path
from typing import Any

import yaml

from tiphys.sandbox.slack import Slack
from tiphys.service.people_file import parse
from tiphys.service.settings import Settings
from tiphys.service.slack import signed
from tiphys.service.slack.app import SCOPES
from tiphys.service.slack.slash import COMMAND

PAGE = (Path(__file__).parents[2] / "docs" / "chat-ops.md").read_text()


def documents() -> list[Any]:
    found = re.findall(r"^( *)```yaml\n(.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)
    return [yaml.safe_load(re.sub(f"(?m)^{indent}", "", text)) for indent, text in found]


def test_the_manifest_grants_what_is_used_and_no_more() -> None:
    manifest = documents()[0]
    assert manifest["oauth_config"]["scopes"] == {"bot": sorted(SCOPES)}
    assert set(SCOPES) == Slack().scopes, "the stand-in refuses what lacks its scope"
    assert manifest["settings"]["socket_mode_enabled"]
    assert manifest["settings"]["interactivity"] == {"is_enabled": True}
    assert "event_subscriptions" not in manifest["settings"]
    [command] = manifest["features"]["slash_commands"]
    assert command["command"] == COMMAND
    assert not command["should_escape"]


def test_the_manifest_for_signed_requests_leads_to_our_route() -> None:
    manifest = documents()[2]
    [command] = manifest["features"]["slash_commands"]
    assert command["url"].endswith(signed.PATH)
    assert manifest["settings"]["interactivity"]["request_url"] == command["url"]
    assert not manifest["settings"]["socket_mode_enabled"]


def test_the_people_file_on_the_page_is_one() -> None:
    text = yaml.safe_dump(documents()[1]).encode()
    [person] = parse(text, "people.yaml").people
    assert parse(text, "people.yaml").identities["slack", "U024BE7LH"] == person


def test_every_setting_that_the_page_names_exists() -> None:
    named = set(re.findall(r"TIPHYS_([A-Z_]+)", PAGE))
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_slack_says_what_it_lacks() -> None:
    def lacking(**given: Any) -> str:
        return Settings(**given).slack_lacking

    full: dict[str, Any] = {
        "slack_bot_token": "xoxb-1", "slack_app_token": "xapp-1", "slack_channel": "C1",
        "people": "p.yaml",
    }  # fmt: skip
    assert lacking() == ""
    assert lacking(**full) == ""
    for name, said in (
        ("slack_bot_token", "BOT_TOKEN"),
        ("slack_app_token", "APP_TOKEN or"),
        ("slack_channel", "CHANNEL"),
        ("people", "PEOPLE"),
    ):
        assert said in lacking(**{key: value for key, value in full.items() if key != name})
