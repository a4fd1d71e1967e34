"""All settings, read once from `TIPHYS_*` variables; nothing else reads the environment."""

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from tiphys.policies.correlation import TELLERS
from tiphys.service.model_settings import ModelSettings
from tiphys.service.roles import ALL, Role, parse_roles


class Settings(ModelSettings):
    """One frozen object, made where the process starts and handed down."""

    model_config = SettingsConfigDict(
        env_prefix="TIPHYS_",
        env_ignore_empty=True,  # an empty token would let everybody in
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    roles: Annotated[tuple[Role, ...], NoDecode] = ALL
    """What this process does: `all`, or roles separated by commas; fewer than all share their work
    with others through PostgreSQL and an external NATS."""
    data_dir: Path = Path(".tiphys")
    """Where the embedded database, broker and keys live; one `serve` at a time."""
    host: str = "127.0.0.1"
    """Address to listen on; anything but loopback requires `webhook_token`, and `api_token` or
    `people`."""
    port: int = Field(default=8080, ge=0, le=65535)
    """TCP port; 0 takes a free one."""
    webhook_token: SecretStr | None = None
    """Bearer token that Alertmanager must send."""
    api_token: SecretStr | None = None
    """Bearer token that the command line and scripts must send; beside `people`, an admin's."""
    token: SecretStr | None = None
    """A person's own token, which the command line sends instead of `api_token`."""
    people: Path | None = None
    """The file that says who people are and what each may do; default: nobody is told apart."""
    people_header: str | None = Field(default=None, pattern="^[A-Za-z][A-Za-z0-9-]*$")
    """A header in which a trusted proxy names the person: an `email`, or a `login`."""
    people_proxies: Annotated[
        tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...], NoDecode
    ] = ()
    """Addresses or CIDRs of that proxy, separated by commas; from others the header is refused."""
    people_proxy_secret: SecretStr | None = None
    """What that proxy must send as `X-Tiphys-Proxy-Secret` beside the header."""

    cluster: str = "default"
    """Name of the cluster this installation manages, as in the alerts' `cluster` label."""
    kubeconfig: Path | None = None
    """The agents' read-only credentials; default: the pod's own ServiceAccount."""
    launcher_key: Path | None = None
    """The key that signs launches; default: `launcher.key` in `data_dir`, made where absent."""
    launcher_kubeconfig: Path | None = None
    """Credentials that may create Workflows in `actions_namespace` and nothing else."""
    gateway_kubeconfig: Path | None = None
    """Credentials that may create the stop ConfigMap and nothing else."""
    kubectl_config: Path | None = Field(default=None, validation_alias="KUBECONFIG")
    """A person's own credentials, as kubectl finds them: for `tiphys resume --stop` alone."""
    actions_namespace: str = "tiphys-actions"
    """Where Workflows run."""
    stop_namespace: str = "tiphys-stop"
    """Where the stop ConfigMap is created."""

    prometheus_url: str | None = None
    """Base URL of Prometheus; without it no history is read and no alert expression verified."""
    prometheus_timeout: float = Field(default=5.0, gt=0)
    """Seconds for one query."""
    alertmanager_urls: Annotated[tuple[str, ...], NoDecode] = ()
    """Base URLs of every Alertmanager, separated by commas."""
    reconcile_interval: float = Field(default=60.0, gt=0)
    """Seconds between two listings of each Alertmanager."""

    teller_labels: Annotated[tuple[str, ...], NoDecode] = tuple(sorted(TELLERS))
    """Labels, separated by commas, that say only which of several equal Prometheus told an alert:
    alerts that differ in them alone are one; `none`: every label counts."""

    nats_url: str | None = None
    """An external JetStream; default: a server of our own on a free loopback port."""
    stream_max_bytes: int = Field(default=1 << 30, ge=1 << 20)
    """Size of the alert stream in bytes; a full stream refuses alerts with 503."""
    stream_replicas: int = Field(default=1, ge=1, le=5)
    """Copies of the stream when NATS is clustered."""
    database_url: str | None = None
    """URL of a PostgreSQL, with this role's user; default: SQLite in `data_dir`."""
    db_users: Annotated[dict[Role, str], NoDecode] = {role: f"tiphys_{role}" for role in Role}
    """For `tiphys migrate`: each role's database user, as in `gateway=NAME,agents=NAME`."""

    policy: Path | None = None
    """Policy file; default: the built-in one, which only suggests."""
    playbooks: Path | None = None
    """A folder of playbooks that add to or override the built-in ones."""
    poll_interval: float = Field(default=0.5, gt=0)
    """Seconds between two looks at a running Workflow and at due work."""
    lease_seconds: float = Field(default=15.0, gt=0)
    """How long a replica holds an incident before another may take it over."""
    not_after_seconds: float = Field(default=600.0, gt=0, le=900)
    """How long after its intent a Workflow may still start to act."""
    investigation_seconds: float = Field(default=60.0, gt=0)
    """How long the agents may take before a human is told."""
    investigation_calls: int = Field(default=300, ge=20)
    """How many questions to Kubernetes one investigation may ask before a human is told."""
    investigation_log_bytes: int = Field(default=1 << 20, ge=1 << 16)
    """How many bytes of logs one investigation may read."""

    slack_bot_token: SecretStr | None = None
    """Slack's bot token (`xoxb-…`); without it there is no Slack."""
    slack_app_token: SecretStr | None = None
    """Its app-level token (`xapp-…`): Socket Mode, which needs no address of ours."""
    slack_signing_secret: SecretStr | None = None
    """Its signing secret: without an app token Slack posts to `/slack/events`, signed with this."""
    slack_channel: str = ""
    """The id of the channel for cards, such as `C0123456789`."""
    slack_api_url: str = Field(default="https://slack.com/api/", pattern="^https?://[^/]+/.*$")
    """Base URL of Slack's Web API."""
    events_url: str | None = None
    """Where events are posted as CloudEvents, https or this machine; default: nowhere."""
    events_secret: SecretStr | None = None
    """What they are signed with: `whsec_` and base64; two, separated by a space, to change it."""
    events_types: Annotated[tuple[str, ...], NoDecode] = ()
    """Which records, separated by commas; default: those that docs/events.md lists."""
    events_batch: int = Field(default=1, ge=1, le=100)
    """Events in one post at most; more than 1: as CloudEvents' batches."""

    log_json: bool = False
    """Structured logs as JSON lines instead of text."""

    @field_validator("teller_labels", mode="before")
    @classmethod
    def _tellers(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return () if value.strip().lower() == "none" else _words(value)

    @field_validator("alertmanager_urls", "events_types", "people_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _words(value) if isinstance(value, str) else value

    @field_validator("roles", mode="before")
    @classmethod
    def _roles(cls, value: object) -> object:
        return parse_roles(_words(value)) if isinstance(value, str) else value

    @field_validator("db_users", mode="before")
    @classmethod
    def _users(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [word.partition("=") for word in _words(value)]
        return {role: f"tiphys_{role}" for role in Role} | {r: name for r, _, name in pairs}

    @field_validator("database_url", mode="after")
    @classmethod
    def _driver(cls, value: str | None) -> str | None:
        """Name the driver that we bring, where the URL names none."""
        scheme, mark, rest = (value or "").partition("://")
        bare = scheme in {"postgres", "postgresql"}
        return f"postgresql+psycopg{mark}{rest}" if bare else value

    @property
    def tellers(self) -> frozenset[str]:
        """The labels that do not tell one alert from another."""
        return frozenset(self.teller_labels)

    @property
    def external_database(self) -> bool:
        """Whether other processes can reach our database."""
        return self.database_url is not None and not self.database_url.startswith("sqlite")

    @property
    def names_db_users(self) -> bool:
        """Whether somebody chose the database users' names, who then expects them to exist."""
        return "db_users" in self.model_fields_set

    @property
    def lacking(self) -> str:
        """What fewer roles than all lack to reach the others; empty when nothing."""
        if set(self.roles) == set(Role):
            return ""
        wants = [] if self.external_database else ["TIPHYS_DATABASE_URL with a PostgreSQL"]
        if self.nats_url is None and set(self.roles) != {Role.LAUNCHER}:
            wants.append("TIPHYS_NATS_URL")
        names = " and ".join(self.roles)
        return f"{names} without the other roles needs {' and '.join(wants)}" if wants else ""

    @property
    def slack_lacking(self) -> str:
        """What Slack needs beside its bot token; empty when nothing, or when there is no Slack."""
        others = (self.slack_app_token, self.slack_signing_secret)
        if self.slack_bot_token is None:
            given = self.slack_channel or any(others)
            return "Slack needs TIPHYS_SLACK_BOT_TOKEN" if given else ""
        if not self.slack_channel:
            return "Slack needs TIPHYS_SLACK_CHANNEL, the id of a channel"
        if not any(others):
            return "Slack needs TIPHYS_SLACK_APP_TOKEN or TIPHYS_SLACK_SIGNING_SECRET"
        if self.people is None:
            return "Slack needs TIPHYS_PEOPLE, or nobody there may do anything"
        return ""

    @property
    def model_lacking(self) -> str:
        """What keeps the model from being asked as it was meant; empty when nothing."""
        if self.model_base_url is None:
            return "TIPHYS_MODEL_RECORD needs TIPHYS_MODEL_BASE_URL" if self.model_record else ""
        if not self.model:
            return "TIPHYS_MODEL_BASE_URL needs TIPHYS_MODEL, the model's name there"
        if self.model_seconds_per_incident >= self.investigation_seconds:
            return (
                "TIPHYS_MODEL_SECONDS_PER_INCIDENT must be less than TIPHYS_INVESTIGATION_SECONDS "
                f"({self.investigation_seconds:g}), or no playbook could answer after the model"
            )
        return ""

    @property
    def identity_lacking(self) -> str:
        """What keeps people from being told apart as it was meant; empty when nothing."""
        if (self.people_header or self.people_proxies) and self.people is None:
            return "TIPHYS_PEOPLE_HEADER and TIPHYS_PEOPLE_PROXIES need a TIPHYS_PEOPLE file"
        if bool(self.people_header) != bool(self.people_proxies):
            return "TIPHYS_PEOPLE_HEADER and TIPHYS_PEOPLE_PROXIES need each other"
        if self.people_proxy_secret and not self.people_header:
            return "TIPHYS_PEOPLE_PROXY_SECRET needs TIPHYS_PEOPLE_HEADER"
        return ""

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach us."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, as others cannot reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
