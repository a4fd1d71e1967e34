"""What each role's database user may do, asked of a real PostgreSQL: its list and nothing else."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from places import Place

from tiphys.service.grants import GRANTS
from tiphys.service.roles import Role
from tiphys.service.tables import metadata

VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
TABLES = sorted([*metadata.tables, "alembic_version"])


def test_every_user_has_the_rights_of_its_list_and_no_other(place: Place) -> None:
    for role, url in place.users.items():
        for table in TABLES:
            listed = {right.split(" ")[0] for right in GRANTS[role].get(table, ())}
            for verb in VERBS:
                whole = "has_any_column_privilege" if verb in VERBS[:3] else "has_table_privilege"
                [(may,)] = place.ask(url, f"SELECT {whole}(%s, %s)", table, verb)
                assert may == (verb in listed), f"{role} {verb} {table}"


def test_an_update_is_granted_column_by_column(place: Place) -> None:
    granted = (
        "SELECT column_name FROM information_schema.column_privileges "
        "WHERE grantee = current_user AND table_name = %s AND privilege_type = 'UPDATE'"
    )
    for role, url in place.users.items():
        for table in TABLES:
            [listed] = [
                {name.strip() for name in right[8:-1].split(",")}
                for right in GRANTS[role].get(table, ())
                if right.startswith("UPDATE")
            ] or [set[str]()]
            assert {name for (name,) in place.ask(url, granted, table)} == listed, (role, table)


INSERTED_BY = {
    "approvals": {Role.GATEWAY},
    "evidence": {Role.AGENTS},
    "facts": {Role.AGENTS},
    "inbox": {Role.AGENTS},
    "incidents": {Role.AGENTS, Role.GATEWAY},
    "plans": {Role.LAUNCHER},
    "proposals": {Role.AGENTS},
    "reviews": {Role.GATEWAY},
    "run_stops": {Role.GATEWAY},
    "runs": {Role.LAUNCHER},
}
"""An incident is opened by an alert, or by a person who has a run undone."""


def test_nobody_inserts_what_is_anothers(place: Place) -> None:
    for table, theirs in INSERTED_BY.items():
        query = f"INSERT INTO {table} SELECT * FROM {table} LIMIT 0"
        for role, url in place.users.items():
            if role in theirs:
                place.ask(url, query)
            else:
                refused(place, url, query)


def refused(place: Place, url: str, query: str) -> None:
    try:
        place.ask(url, query)
    except psycopg.errors.InsufficientPrivilege:
        return
    pytest.fail(f"{url.partition('@')[0]} did: {query}")


FORBIDDEN = [
    "UPDATE audit SET actor = 'somebody else'",
    "DELETE FROM audit",
    "TRUNCATE audit",
    "ALTER TABLE audit ADD COLUMN note text",
    "DROP TABLE audit",
    "CREATE TRIGGER t BEFORE UPDATE ON audit EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE quiet AS ON INSERT TO audit DO INSTEAD NOTHING",
    "LOCK TABLE audit IN ACCESS EXCLUSIVE MODE",
    "SELECT setval('inbox_id_seq', 1)",
    "ALTER TABLE audit OWNER TO CURRENT_USER",
    "DELETE FROM incidents",
    "UPDATE incidents SET id = 'inc-other'",
    "UPDATE runs SET plan_digest = 'another'",
    "UPDATE runs SET not_after = '2999'",
    "UPDATE plans SET body = '{}'",
    "UPDATE approvals SET by = 'ada'",
    "DELETE FROM approvals",
    "UPDATE reviews SET by = 'somebody else'",
    "DELETE FROM reviews",
    "DELETE FROM runs",
    "UPDATE evidence SET body = '{}'",
    "UPDATE alembic_version SET version_num = '0'",
    "CREATE TABLE mine (id int)",
    "COPY audit TO PROGRAM 'cat'",
]


def test_nobody_changes_what_is_written_nor_the_tables(place: Place) -> None:
    for query in FORBIDDEN:
        for url in place.users.values():
            refused(place, url, query)


def test_nobody_becomes_another(place: Place) -> None:
    for role, url in place.users.items():
        for other in {*place.names.values(), place.ask(place.owner, "SELECT current_user")[0][0]}:
            if other != place.names[role]:
                refused(place, url, f"SET ROLE {other}")


def test_migrating_again_narrows_what_was_widened_by_hand(
    place: Place, tiphys: Callable[..., Any]
) -> None:
    for name in place.names.values():
        place.ask(place.owner, f"GRANT ALL ON audit, runs TO {name}")
        place.ask(place.owner, f"GRANT UPDATE (actor) ON audit TO {name}")
    place.ask(place.owner, "GRANT SELECT, DELETE ON audit TO PUBLIC")
    names = ",".join(f"{role}={name}" for role, name in place.names.items())
    done = tiphys("migrate", TIPHYS_DATABASE_URL=place.owner, TIPHYS_DB_USERS=names)
    assert done.returncode == 0, done.stderr
    test_every_user_has_the_rights_of_its_list_and_no_other(place)
    test_an_update_is_granted_column_by_column(place)
