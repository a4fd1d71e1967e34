"""`tiphys migrate`: the tables as the code wants them, from nothing, from an older one, at once."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from places import Place
from sqlalchemy import create_engine

from tiphys.service import schema
from tiphys.service.roles import Role
from tiphys.service.schema import HEAD
from tiphys.service.tables import metadata

FOLDER = Path(schema.__file__).parent / "migrations"


def engine(place: Place) -> Any:
    return create_engine(place.owner.replace("postgresql://", "postgresql+psycopg://"))


def test_what_the_migrations_make_is_what_the_code_reads(place: Place) -> None:
    made = engine(place)
    with made.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    made.dispose()
    assert place.ask(place.owner, "SELECT version_num FROM alembic_version") == [(HEAD,)]
    locks = place.ask(place.owner, "SELECT name FROM locks ORDER BY name")
    assert locks == [("audit",), ("budget",), ("causes",), ("incidents",)]


def test_several_at_once_and_again_are_one(empty_place: Place, tiphys: Callable[..., Any]) -> None:
    names = ",".join(f"{role}={name}" for role, name in empty_place.names.items())
    given = {"TIPHYS_DATABASE_URL": empty_place.owner, "TIPHYS_DB_USERS": names}
    with ThreadPoolExecutor(3) as several:
        done = list(several.map(lambda _: tiphys("migrate", **given), range(3)))
    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]
    test_what_the_migrations_make_is_what_the_code_reads(empty_place)


def test_a_database_from_before_the_migrations_is_brought_up_to_date(
    empty_place: Place, tiphys: Callable[..., Any]
) -> None:
    made = engine(empty_place)
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    with made.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    empty_place.ask(empty_place.owner, "DROP TABLE alembic_version")
    empty_place.ask(empty_place.owner, "UPDATE locks SET counter = 7 WHERE name = 'audit'")
    empty_place.ask(
        empty_place.owner,
        "INSERT INTO approvals (incident_id, plan_digest, verdict, by, reason, at, expires_at) "
        "VALUES ('inc-1', 'd', 'approve', 'ada', 'go', 'then', 'later')",
    )
    done = tiphys("migrate", TIPHYS_DATABASE_URL=empty_place.owner)
    assert done.returncode == 0, done.stderr
    with made.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    made.dispose()
    old = empty_place.ask(empty_place.owner, "SELECT id, by, teams FROM approvals")
    assert old == [(1, "ada", "[]")]
    kept = empty_place.ask(empty_place.owner, "SELECT counter FROM locks WHERE name = 'audit'")
    assert kept == [(7,)]


def test_a_user_that_was_named_must_exist(empty_place: Place, tiphys: Callable[..., Any]) -> None:
    done = tiphys("migrate", "--agents-user", "nobody", TIPHYS_DATABASE_URL=empty_place.owner)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no database user nobody" in done.stderr
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert empty_place.ask(empty_place.owner, tables) == [(0,)], "all of it or nothing"


def test_without_users_there_are_tables_and_a_word(
    empty_place: Place, tiphys: Callable[..., Any]
) -> None:
    done = tiphys("migrate", TIPHYS_DATABASE_URL=empty_place.owner)
    assert done.returncode == 0, done.stderr
    assert "agents: there is no user tiphys_agents; nothing was granted" in done.stdout


def test_the_owner_is_no_roles_user(empty_place: Place, tiphys: Callable[..., Any]) -> None:
    [(owner,)] = empty_place.ask(empty_place.owner, "SELECT current_user")
    for user in (owner, "postgres"):
        done = tiphys("migrate", "--gateway-user", user, TIPHYS_DATABASE_URL=empty_place.owner)
        assert done.returncode == 2
        assert "no right binds it" in done.stderr


def test_a_server_that_is_away_is_one_sentence(tiphys: Callable[..., Any]) -> None:
    done = tiphys("migrate", TIPHYS_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_serving_waits_for_tables_and_says_so(empty_place: Place, tmp_path: Any) -> None:
    command = [sys.executable, "-m", "tiphys.service.main", "serve", "--role", "launcher"]
    given = {
        "TIPHYS_DATABASE_URL": empty_place.owner,
        "TIPHYS_DATA_DIR": str(tmp_path),
        "TIPHYS_PORT": "0",
    }
    with subprocess.Popen(command, env=given, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stderr
        for line in serving.stderr:
            if "tiphys migrate" in line:
                break
        else:
            raise AssertionError("it ended without a word about migrating")
        serving.kill()
    assert set(Role) == set(empty_place.names)
