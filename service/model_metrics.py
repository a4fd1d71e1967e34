"""What the model costs and why it failed, for Prometheus."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter

from tiphys.agents.budget import Call


class ModelMetrics:
    """What is counted of a model; one object for each registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._calls = Counter("tiphys_model_calls", "Calls, retries included.", registry=registry)
        self._tokens = Counter(
            "tiphys_model_tokens", "Tokens, by direction.", ["direction"], registry=registry
        )
        self._money = Counter("tiphys_model_money", "Money, by the prices set.", registry=registry)
        self._seconds = Counter("tiphys_model_seconds", "Seconds of calls.", registry=registry)
        self._failures = Counter(
            "tiphys_model_failures", "Investigations without an answer.", ["kind"],
            registry=registry,
        )  # fmt: skip
        self._incidents = Counter(
            "tiphys_model_incidents", "Incidents, by how they came by an answer.", ["how"],
            registry=registry,
        )  # fmt: skip

    def spent(self, call: Call) -> None:
        """Note a call that has ended."""
        self._calls.inc()
        self._tokens.labels("prompt").inc(call.given)
        self._tokens.labels("answer").inc(call.said)
        self._money.inc(call.money)
        self._seconds.inc(call.seconds)

    def failed(self, kind: str) -> None:
        """Note why an investigation gave no answer."""
        self._failures.labels(kind).inc()

    def answered(self, how: str) -> None:
        """Note how an incident came by its answer."""
        self._incidents.labels(how).inc()
