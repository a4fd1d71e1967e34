"""The JSON shapes in which Prometheus' HTTP API gives samples, rules and alerts."""

import math
from decimal import Decimal
from typing import Any

from tiphys.sandbox.alert_rules import ActiveAlert, AlertingState, AlertState, Recording
from tiphys.sandbox.promql_vectors import Matrix, QuerySyntaxError, Scalar, Value, Vector
from tiphys.sandbox.timestamps import rfc3339


def written(value: float) -> str:
    """A sample's value as Prometheus writes it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value and not 1e-6 <= abs(value) < 1e21:
        return _scientific(value)
    plain = format(Decimal(repr(value)), "f")
    return plain.removesuffix(".0")


def _scientific(value: float) -> str:
    if not math.isfinite(value):
        return written(value)
    mantissa, _, exponent = f"{Decimal(repr(value)).normalize():e}".partition("e")
    power = int(exponent)
    return f"{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"


def instant_result(value: Value, at: float) -> Any:
    """The `data` of an instant query."""
    if isinstance(value, str):
        return {"resultType": "string", "result": [at, value]}
    if isinstance(value, Scalar):
        return {"resultType": "scalar", "result": [at, written(value.values[0])]}
    if isinstance(value, Vector):
        result = [
            {"metric": row.labels, "value": [at, written(v)]}
            for row in value.rows
            if (v := row.values[0]) is not None
        ]
        return {"resultType": "vector", "result": result}
    result = [
        {
            "metric": window.labels,
            "values": [
                [window.times[i], written(window.values[i])] for i in range(*window.bounds[0])
            ],
        }
        for window in value.windows
    ]
    return {"resultType": "matrix", "result": result}


def range_result(value: Value, times: list[float]) -> Any:
    """The `data` of a range query; raises QuerySyntaxError for strings and range vectors."""
    if isinstance(value, str | Matrix):
        raise QuerySyntaxError(
            'invalid parameter "query": invalid expression type for range query,'
            " must be Scalar or instant Vector"
        )
    rows = (
        [({}, list[float | None](value.values))]
        if isinstance(value, Scalar)
        else [(row.labels, row.values) for row in value.rows]
    )
    result = [
        {
            "metric": labels,
            "values": [
                [at, written(v)] for at, v in zip(times, values, strict=True) if v is not None
            ],
        }
        for labels, values in sorted(rows, key=lambda row: sorted(row[0].items()))
    ]
    return {"resultType": "matrix", "result": result}


def active_alerts(rule: AlertingState) -> list[dict[str, Any]]:
    """A rule's pending and firing alerts."""

    def shown(alert: ActiveAlert) -> dict[str, Any]:
        return {
            "labels": alert.labels,
            "annotations": alert.annotations,
            "state": alert.state.value,
            "activeAt": rfc3339(alert.active_at),
            "value": _scientific(alert.value),
        }

    alive = [a for a in rule.active.values() if a.state is not AlertState.INACTIVE]
    return [shown(alert) for alert in alive]


def alerting_rule(rule: AlertingState) -> dict[str, Any]:
    """An alerting rule with its state."""
    health = "err" if rule.error else "ok" if rule.evaluated_at else "unknown"
    return {
        "state": rule.state.value,
        "name": rule.rule.alert,
        "query": rule.rule.expr.strip(),
        "duration": rule.rule.for_seconds,
        "keepFiringFor": 0,
        "labels": dict(rule.rule.labels),
        "annotations": dict(rule.rule.annotations),
        "alerts": active_alerts(rule),
        "health": health,
        **({"lastError": rule.error} if rule.error else {}),
        "evaluationTime": rule.took_seconds,
        "lastEvaluation": rfc3339(rule.evaluated_at),
        "type": "alerting",
    }


def recording_rule(rule: Recording) -> dict[str, Any]:
    """A recording rule."""
    return {
        "name": rule.record,
        "query": rule.expr.strip(),
        "labels": dict(rule.labels),
        "health": "ok",
        "type": "recording",
    }
