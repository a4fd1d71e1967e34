"""The database's tables: who writes which is in DESIGN's role table, one user per role.

Times are UTC text in RFC 3339 (fixed width, microseconds), so that SQLite and PostgreSQL order
them alike; JSON is canonical text, so that what was hashed can be read back byte for byte.
"""

from sqlalchemy import (
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

inbox = Table(
    "inbox",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("cluster", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("starts_at", String, nullable=False),
    Column("status", String, nullable=False),
    Column("incident_id", String, nullable=True),
    Column("open", Boolean, nullable=False),
    Column("began_at", String, nullable=False),
    Column("ended_at", String, nullable=True),
    Column("seen_at", String, nullable=False),
    Column("repeats", Integer, nullable=False, server_default="0"),
    Column("missing_listings", Integer, nullable=False, server_default="0"),
    Column("position", String, nullable=False, server_default=""),
    Column("alert", Text, nullable=False),
    Index(
        "inbox_open",
        "cluster",
        "fingerprint",
        unique=True,
        sqlite_where=text("open"),
        postgresql_where=text("open"),
    ),
    Index("inbox_incident", "incident_id"),
    Index("inbox_fingerprint", "fingerprint", "began_at"),
)
"""One row per episode of an alert: from its first firing until it is gone.

`position` is where in the stream the last message about it was: older ones are stale.
"""

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("stream_seq", Integer, nullable=True),
    Column("reason", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("at", String, nullable=False),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", String, primary_key=True),
    Column("cluster", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("state", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("opened_at", String, nullable=False),
    Column("changed_at", String, nullable=False),
    Column("deadline_at", String, nullable=True),
    Column("due_at", String, nullable=False),
    Column("target_uid", String, nullable=True),
    Column("body", Text, nullable=False),
    Column("cause", String, nullable=True),
    Index("incidents_due", "state", "due_at"),
    Index("incidents_cause", "cluster", "cause"),
    Index("incidents_subject", "cluster", "subject", "opened_at"),
    Index(
        "incidents_one_open_subject",
        "cluster",
        "subject",
        unique=True,
        sqlite_where=text("state != 'closed'"),
        postgresql_where=text("state != 'closed'"),
    ),
)

evidence = Table(
    "evidence",
    metadata,
    Column("incident_id", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("asked_at", String, nullable=False),
    Column("body", Text, nullable=False),
)

proposals = Table(
    "proposals",
    metadata,
    Column("incident_id", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("at", String, nullable=False),
    Column("decision", Text, nullable=False),
    Column("notes", Text, nullable=False, server_default=""),
    Column("facts", Text, nullable=True),
    Column("judgement", Text, nullable=True),
)

facts = Table(
    "facts",
    metadata,
    Column("incident_id", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("at", String, nullable=False),
    Column("body", Text, nullable=False),
)
"""What the agents saw last, for the gate; `at` is the database's time, which all replicas share."""

plans = Table(
    "plans",
    metadata,
    Column("digest", String, primary_key=True),
    Column("incident_id", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", String, nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("incident_id", "attempt"),
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("incident_id", String, nullable=False),
    Column("plan_digest", String, nullable=False),
    Column("verdict", String, nullable=False),
    Column("by", String, nullable=False),
    Column("teams", Text, nullable=False, server_default="[]"),
    Column("reason", Text, nullable=False),
    Column("at", String, nullable=False),
    Column("expires_at", String, nullable=False),
    UniqueConstraint("plan_digest", "by", "verdict"),
)
"""What each person said of a plan, once: yes, yes alone in an emergency, or no, also after a yes.
`at` is the database's time."""

reviews = Table(
    "reviews",
    metadata,
    Column("plan_digest", String, primary_key=True),
    Column("incident_id", String, nullable=False),
    Column("what", Text, nullable=False),
    Column("namespace", String, nullable=False),
    Column("by", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", String, nullable=False),
    Column("paged_at", String, nullable=True),
    Column("closed_by", String, nullable=True),
    Column("closed_reason", Text, nullable=True),
    Column("closed_at", String, nullable=True),
)
"""Who broke the glass, until somebody else has looked at it."""

runs = Table(
    "runs",
    metadata,
    Column("name", String, primary_key=True),
    Column("incident_id", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("plan_digest", String, nullable=False, unique=True),
    Column("action", String, nullable=False),
    Column("cluster", String, nullable=False),
    Column("namespace", String, nullable=False),
    Column("target_uid", String, nullable=False),
    Column("owner_uid", String, nullable=False),
    Column("intended_at", String, nullable=False),
    Column("not_after", String, nullable=False),
    Column("deadline_at", String, nullable=False),
    Column("open", Boolean, nullable=False),
    Column("created", Boolean, nullable=False),
    Column("ended_at", String, nullable=True),
    Column("outcome", String, nullable=True),
    Column("steps", Text, nullable=False, server_default="[]"),
    Index(
        "runs_one_open_target",
        "target_uid",
        unique=True,
        sqlite_where=text("open"),
        postgresql_where=text("open"),
    ),
    Index("runs_namespace", "cluster", "namespace", "intended_at"),
    # What is counted under the budget's lock, which everybody waits for.
    Index("runs_cluster", "cluster", "intended_at"),
    Index("runs_ended", "cluster", "namespace", "ended_at"),
    Index("runs_open", "cluster", sqlite_where=text("open"), postgresql_where=text("open")),
    Index("runs_incident", "incident_id", "attempt"),
    Index("runs_owner", "owner_uid", "intended_at"),
    Index("runs_target", "target_uid", "intended_at"),
)

trials = Table(
    "trials",
    metadata,
    Column("run", String, primary_key=True),
    Column("alert", String, primary_key=True),
    Column("cluster", String, nullable=False),
    Column("namespace", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("at", String, nullable=False),
    Column("undoes", String, nullable=True),
    Index("trials_alert", "cluster", "alert", "at"),
    Index("trials_place", "cluster", "alert", "namespace", "at"),
    Index("trials_undoes", "undoes"),
)
"""For which alerts each run was made, and of what kind its target was: what experience is read by.

`alert` is empty where a person asked for the run; `undoes` names the run that it undoes.
"""

run_stops = Table(
    "run_stops",
    metadata,
    Column("run", String, primary_key=True),
    Column("by", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", String, nullable=False),
)
"""What people want stopped; the launcher, which alone can, reads it."""

cards = Table(
    "cards",
    metadata,
    Column("incident_id", String, primary_key=True),
    Column("channel", String, nullable=False),
    Column("ts", String, nullable=True),
    Column("posting_at", String, nullable=True),
    Column("shown", String, nullable=False, server_default=""),
    Column("told", Integer, nullable=False, server_default="0"),
    Column("over", Boolean, nullable=False),
    Column("holder", String, nullable=False, server_default=""),
    Column("held_until", String, nullable=False, server_default=""),
)
"""Each incident's card in chat: where it is, a hash of what it shows, what its thread was told.

`posting_at` without `ts`: it may be there, and nobody has heard from Slack. `over`: it will not
change any more.
"""

slack_requests = Table(
    "slack_requests",
    metadata,
    Column("signature", String, primary_key=True),
    Column("at", String, nullable=False),
)
"""Signed requests of the last minutes, so that none counts twice, whichever replica it comes to."""

pauses = Table(
    "pauses",
    metadata,
    Column("scope", String, primary_key=True),
    Column("by", String, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("at", String, nullable=False),
    Column("until", String, nullable=False),
)
"""One row for each person and scope, `cluster` or `namespace:<name>`; over once `until` is past."""

event_positions = Table(
    "event_positions",
    metadata,
    Column("name", String, primary_key=True),
    Column("seq", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due_at", String, nullable=False),
    Column("holder", String, nullable=False),
    Column("token", Integer, nullable=False),
    Column("expires_at", String, nullable=False),
)
"""How far the events out have been told: the audit's number, and whose turn it is to go on."""

freezes = Table(
    "freezes",
    metadata,
    Column("target_uid", String, primary_key=True),
    Column("incident_id", String, nullable=False),
    Column("target", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", String, nullable=False),
)

breakers = Table(
    "breakers",
    metadata,
    Column("scope", String, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("at", String, nullable=False),
)
"""A row is a tripped breaker, `namespace:<cluster>/<name>` or `cluster:<name>`; sticky."""

breaker_resets = Table(
    "breaker_resets",
    metadata,
    Column("scope", String, primary_key=True),
    Column("by", String, nullable=False),
    Column("at", String, nullable=False),
)
"""When a person last reset a breaker: what happened before does not trip it again."""

leases = Table(
    "leases",
    metadata,
    Column("resource", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("token", Integer, nullable=False),
    Column("expires_at", String, nullable=False),
)

locks = Table(
    "locks",
    metadata,
    Column("name", String, primary_key=True),
    Column("counter", Integer, nullable=False),
)
"""Rows that transactions lock by updating them: `budget` and `audit`."""

audit = Table(
    "audit",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", String, nullable=False),
    Column("event", String, nullable=False),
    Column("incident_id", String, nullable=True),
    Column("actor", String, nullable=False),
    Column("body", Text, nullable=False),
    Column("previous", String, nullable=False),
    Column("hash", String, nullable=False),
    Index("audit_incident", "incident_id", "seq"),
)
