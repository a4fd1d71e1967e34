"""What each role's database user may do: the right column of DESIGN's role table, as SQL rights.

Invariants: only the agents insert evidence, proposals and facts; only the gateway approvals; only
the launcher plans and runs; nobody changes or deletes a record of the audit; what is not listed is
refused by PostgreSQL. Updates are granted by column.
"""

from collections.abc import Iterator, Mapping

from sqlalchemy import Connection, text

from tiphys.service.errors import BadInputError
from tiphys.service.roles import Role
from tiphys.service.tables import metadata

Rights = Mapping[str, tuple[str, ...]]
"""Table to rights, such as `SELECT` or `UPDATE (state, body)`."""

_MOVES = "UPDATE (state, attempt, changed_at, deadline_at, due_at, target_uid, cause, body)"
"""What a move changes; an incident's identity never changes."""
_EVERYWHERE: Rights = {
    "alembic_version": ("SELECT",),
    "audit": ("SELECT", "INSERT"),
    "incidents": ("SELECT", _MOVES),
    "locks": ("SELECT", "UPDATE (counter)"),
}
_CLAIMS: Rights = {"leases": ("SELECT", "INSERT", "UPDATE (holder, token, expires_at)")}

GRANTS: Mapping[Role, Rights] = {
    Role.GATEWAY: {
        **_EVERYWHERE,
        "approvals": ("SELECT", "INSERT"),
        "breaker_resets": ("SELECT", "INSERT", "UPDATE (by, at)"),
        "breakers": ("SELECT", "DELETE"),
        "cards": (
            "SELECT",
            "INSERT",
            "UPDATE (channel, ts, posting_at, shown, told, over, holder, held_until)",
        ),
        "dead_letters": ("SELECT",),
        "event_positions": (
            "SELECT",
            "INSERT",
            "UPDATE (seq, tries, due_at, holder, token, expires_at)",
        ),
        "evidence": ("SELECT",),
        "freezes": ("SELECT", "DELETE"),
        "inbox": ("SELECT",),
        # A person's wish, for an action or an undo; what comes of it agents and gate decide.
        "incidents": ("SELECT", "INSERT", _MOVES),
        "pauses": ("SELECT", "INSERT", "DELETE"),
        "plans": ("SELECT",),
        "proposals": ("SELECT",),
        "reviews": ("SELECT", "INSERT", "UPDATE (closed_by, closed_reason, closed_at)"),
        "run_stops": ("SELECT", "INSERT"),
        "runs": ("SELECT",),
        "slack_requests": ("SELECT", "INSERT", "DELETE"),
    },
    Role.AGENTS: {
        **_EVERYWHERE,
        "dead_letters": ("SELECT", "INSERT"),
        "evidence": ("SELECT", "INSERT"),
        "facts": ("SELECT", "INSERT", "UPDATE (at, body)"),
        "inbox": (
            "SELECT",
            "INSERT",
            "UPDATE (status, open, ended_at, seen_at, repeats, missing_listings, position, alert)",
        ),
        "incidents": ("SELECT", "INSERT", _MOVES),
        "leases": (*_CLAIMS["leases"], "DELETE"),
        "plans": ("SELECT",),
        "proposals": ("SELECT", "INSERT", "UPDATE (at, decision, notes)"),
        # Who broke the glass is told to everybody else.
        "reviews": ("SELECT", "UPDATE (paged_at)"),
        "runs": ("SELECT",),
        "trials": ("SELECT",),
    },
    Role.LAUNCHER: {
        **_EVERYWHERE,
        **_CLAIMS,
        "approvals": ("SELECT",),
        "breaker_resets": ("SELECT",),
        "breakers": ("SELECT", "INSERT"),
        "evidence": ("SELECT",),
        "facts": ("SELECT",),
        "freezes": ("SELECT", "INSERT", "UPDATE (incident_id, target, reason, at)"),
        "pauses": ("SELECT",),
        "plans": ("SELECT", "INSERT"),
        "proposals": ("SELECT", "UPDATE (facts, judgement)"),
        "run_stops": ("SELECT",),
        "runs": ("SELECT", "INSERT", "UPDATE (open, created, ended_at, outcome, steps)"),
        "trials": ("INSERT",),
    },
}

_SERIALS = {table: f"{table}_id_seq" for table in ("approvals", "dead_letters", "inbox")}


def grant(connection: Connection, users: Mapping[Role, str]) -> list[Role]:
    """Give each role's user exactly its rights; gives the roles whose user does not exist.

    Raises `BadInputError` for a user whom rights would not bind: a superuser, or our tables' owner.
    """
    missing: list[Role] = []
    schema = str(connection.execute(text("SELECT current_schema()")).scalar_one())
    for role, user in users.items():
        known = connection.execute(
            text(
                "SELECT rolsuper OR pg_has_role(rolname, current_user, 'MEMBER') "
                "FROM pg_roles WHERE rolname = :user"
            ),
            {"user": user},
        ).scalar()
        if known is None:
            missing.append(role)
        elif known:
            raise BadInputError(f"{user} owns the tables or is a superuser: no right binds it")
        else:
            for statement in statements(role, _quoted(connection, user), schema):
                connection.execute(text(statement))
    return missing


def statements(role: Role, user: str, schema: str) -> Iterator[str]:
    """Give the statements for one role, the narrowing ones first; `user` is quoted already."""
    place = f'"{schema}"'
    ours = ", ".join(f"{place}.{table}" for table in (*metadata.tables, "alembic_version"))
    serials = ", ".join(f"{place}.{sequence}" for sequence in _SERIALS.values())
    yield f"REVOKE ALL ON {ours} FROM {user}, PUBLIC"  # the columns' rights go with it
    yield f"REVOKE ALL ON SEQUENCE {serials} FROM {user}, PUBLIC"
    yield f"GRANT USAGE ON SCHEMA {place} TO {user}"
    for table, rights in GRANTS[role].items():
        yield f"GRANT {', '.join(rights)} ON {place}.{table} TO {user}"
        if "INSERT" in rights and table in _SERIALS:
            yield f"GRANT USAGE ON SEQUENCE {place}.{_SERIALS[table]} TO {user}"


def _quoted(connection: Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name)
