"""The settings of the model: where it is, what it may cost, what it may decide."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from tiphys.agents.budget import Budget, Prices


class ModelSettings(BaseSettings):
    """A part of `Settings`; docs/model.md explains it."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, protected_namespaces=())

    model_base_url: str | None = None
    """OpenAI-compatible endpoint; without it the playbooks decide."""
    model: str = ""
    """The model's name at that endpoint."""
    model_api_key: SecretStr | None = None
    """Its key."""
    model_timeout: float = Field(default=20.0, gt=0)
    """Seconds for one model call."""
    model_retries: int = Field(default=2, ge=0, le=5)
    """How often a call is made again after no connection, 429 or 5xx; each counts as a call."""
    model_alone: bool = False
    """Whether the model decides where no playbook covers the alert; else a human does."""
    model_cause_minutes: float = Field(default=60.0, gt=0, le=1440)
    """How long what the model said holds for other incidents of the same cause."""
    model_record: Path | None = None
    """A file to which every exchange is appended, redacted, for `--replay`; default: none."""

    model_calls_per_incident: int = Field(default=6, ge=1)
    """Model calls for one incident, in a day."""
    model_calls_per_cause: int = Field(default=5, ge=1)
    """Calls for one kind of trouble while a storm of it lasts, else within ten minutes."""
    model_calls_per_hour: int = Field(default=120, ge=0)
    """Model calls in any hour."""
    model_calls_per_day: int = Field(default=1_000, ge=0)
    """Model calls in any day."""
    model_tokens_per_incident: int = Field(default=100_000, ge=0)
    """Tokens for one incident, prompts and answers together."""
    model_tokens_per_hour: int = Field(default=1_500_000, ge=0)
    """Tokens in any hour."""
    model_tokens_per_day: int = Field(default=10_000_000, ge=0)
    """Tokens in any day."""
    model_seconds_per_incident: float = Field(default=40.0, gt=0)
    """Seconds of one investigation by the model; less than `investigation_seconds`."""
    model_seconds_per_hour: float = Field(default=3_600.0, ge=0)
    """Seconds of model calls in any hour, those made at once added up."""
    model_seconds_per_day: float = Field(default=36_000.0, ge=0)
    """Seconds of model calls in any day."""
    model_price_input: float = Field(default=0.0, ge=0)
    """Money for 1,000 tokens of a prompt; this and the next 0: unknown, money is not limited."""
    model_price_output: float = Field(default=0.0, ge=0)
    """Money for 1,000 tokens of an answer."""
    model_money_per_incident: float = Field(default=1.0, ge=0)
    """Money for one incident, in the prices' currency."""
    model_money_per_hour: float = Field(default=10.0, ge=0)
    """Money in any hour."""
    model_money_per_day: float = Field(default=50.0, ge=0)
    """Money in any day."""

    @property
    def model_budget(self) -> Budget:
        """The limits together."""
        spans = ("incident", "hour", "day")
        names = [f"{what}_per_{span}" for what in ("calls", "tokens", "seconds") for span in spans]
        names += [f"money_per_{span}" for span in spans]
        return Budget(
            **{name: getattr(self, f"model_{name}") for name in [*names, "calls_per_cause"]}
        )

    @property
    def model_prices(self) -> Prices:
        """What tokens cost; unknown where both are 0."""
        return Prices(self.model_price_input, self.model_price_output)
