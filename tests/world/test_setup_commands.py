"""Commands that prepare an installation, and what `serve` refuses before it begins."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner, Result

from tiphys.service.errors import BadInputError
from tiphys.service.main import app
from tiphys.service.people import People
from tiphys.service.role_launcher import open_launcher
from tiphys.service.settings import Settings
from tiphys.workflow_templates.signature import load_key, public_hex


@pytest.fixture
def tiphys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    for name in [name for name in os.environ if name.startswith("TIPHYS_")]:
        monkeypatch.delenv(name)

    def run(*words: str, **environment: str) -> Result:
        return CliRunner().invoke(app, [*words], env=environment)

    yield run
    structlog.reset_defaults()  # `serve` logs to the runner's stderr, which is closed by now


def test_keygen_writes_a_private_key_once_and_prints_its_public_half(
    tiphys: Callable[..., Result], tmp_path: Path
) -> None:
    file = tmp_path / "launcher.key"
    made = tiphys("keygen", str(file))
    assert made.exit_code == 0
    assert made.stdout.strip() == public_hex(load_key(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    again = tiphys("keygen", str(file))
    assert isinstance(again.exception, BadInputError)
    assert "never written over" in str(again.exception)
    assert file.read_bytes() == before


def test_keygen_says_why_it_cannot_write(tiphys: Callable[..., Result], tmp_path: Path) -> None:
    assert isinstance(tiphys("keygen", str(tmp_path / "no" / "k")).exception, BadInputError)


def test_migrate_makes_the_embedded_database(tiphys: Callable[..., Result], tmp_path: Path) -> None:
    for _ in range(2):
        done = tiphys("migrate", TIPHYS_DATA_DIR=str(tmp_path))
        assert done.exit_code == 0, done.exception
    assert (tmp_path / "tiphys.db").exists()


@pytest.mark.parametrize("role", ["gateway", "agents", "launcher"])
def test_one_role_alone_is_refused_without_a_database_that_others_reach(
    tiphys: Callable[..., Result], tmp_path: Path, role: str
) -> None:
    refused = tiphys("serve", "--role", role, "--data-dir", str(tmp_path))
    assert isinstance(refused.exception, BadInputError)
    assert "TIPHYS_DATABASE_URL" in str(refused.exception)
    assert not (tmp_path / "lock").exists(), "nothing was begun"


def test_only_the_gateway_needs_tokens_to_listen_everywhere(
    tiphys: Callable[..., Result], tmp_path: Path
) -> None:
    given = {"TIPHYS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/no"}
    given |= {"TIPHYS_NATS_URL": "nats://127.0.0.1:1"}
    words = ("serve", "--host", "0.0.0.0", "--data-dir", str(tmp_path), "--role")
    refused = tiphys(*words, "gateway", **given)
    assert "TIPHYS_WEBHOOK_TOKEN" in str(refused.exception)


async def test_a_key_that_was_named_is_never_made(tmp_path: Path) -> None:
    class Process:
        settings = Settings(launcher_key=tmp_path / "given.key", data_dir=tmp_path)
        ledger = runs = policy = None

    with pytest.raises(BadInputError, match=r"given\.key"):
        await open_launcher(Process())  # type: ignore[arg-type]
    assert not os.listdir(tmp_path)


PEOPLE = "format: tiphys/people/v1\npeople:\n  - name: ada\n    roles: []\n"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"TIPHYS_PEOPLE": "{file}"}, "people.yaml:4: people[0].roles: "),
        ({"TIPHYS_PEOPLE": "{file}.gone"}, "people.yaml.gone: No such file"),
        ({"TIPHYS_PEOPLE_HEADER": "X-User", "TIPHYS_PEOPLE_PROXIES": "10.0.0.1"}, "need a TIPHYS"),
        ({"TIPHYS_PEOPLE": "{file}", "TIPHYS_PEOPLE_HEADER": "X-User"}, "need each other"),
        ({"TIPHYS_PEOPLE": "{file}", "TIPHYS_PEOPLE_PROXY_SECRET": "s"}, "needs TIPHYS_PEOPLE_H"),
        ({"TIPHYS_PEOPLE_PROXIES": "everybody"}, "people_proxies"),
    ],
)
def test_serve_refuses_people_that_it_cannot_tell_apart(
    tiphys: Callable[..., Result], tmp_path: Path, given: dict[str, str], says: str
) -> None:
    file = tmp_path / "people.yaml"
    file.write_text(PEOPLE)
    filled = {name: value.replace("{file}", str(file)) for name, value in given.items()}
    done = tiphys("serve", "--data-dir", str(tmp_path / "data"), **filled)
    assert says in str(done.exception)
    assert not (tmp_path / "data").exists(), "before anything begins"


def test_a_token_is_shown_once_and_only_its_hash_is_for_the_file(
    tiphys: Callable[..., Result], tmp_path: Path
) -> None:
    told = tiphys("people", "token", "ada").stdout
    token = told.splitlines()[0]
    assert told.count(token) == 1
    [line] = [line for line in told.splitlines() if "sha256: " in line]
    file = tmp_path / "people.yaml"
    role = '[{role: viewer, namespaces: ["*"]}]'
    file.write_text(f"{PEOPLE.replace('[]', role)}    tokens:\n{line}\n")
    assert tiphys("people", "check", str(file)).exit_code == 0
    found = People(file).of_token(token)
    assert found is not None
    assert found.name == "ada"
