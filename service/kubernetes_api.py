"""Connections to the Kubernetes API, one for each identity this process holds."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import structlog
import yaml
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException
from kubernetes.aio.config.incluster_config import InClusterConfigLoader

from tiphys.service.errors import BadInputError

log = structlog.get_logger()

TIMEOUT = 5.0
"""Seconds for one request that is not a watch."""

UNREACHABLE = (aiohttp.ClientError, asyncio.TimeoutError, OSError, ConfigException)
"""What the client raises when the API server does not answer, or our token cannot be read anew."""

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its own token, which is replaced there before it runs out."""


class NoCredentials(client.ApiClient):
    """Stands where no cluster is configured: every call says so, as an API that is away."""

    async def call_api(self, *_arguments: object, **_named: object) -> Any:
        """Raise `OSError`."""
        raise OSError("no cluster is configured: set TIPHYS_KUBECONFIG and its siblings")


@contextlib.asynccontextmanager
async def connect(
    kubeconfig: Path | None, account: Path = ACCOUNT
) -> AsyncGenerator[client.ApiClient]:
    """Open a client with the given kubeconfig, else with the pod's own ServiceAccount.

    Without either the service still takes alerts, and hands each to a human. Raises
    `BadInputError` for a kubeconfig that cannot be used.
    """
    configuration = client.Configuration()
    api: client.ApiClient | None = None
    if kubeconfig is not None:
        try:
            await asyncio.to_thread(kubeconfig.read_bytes)  # a missing one only gets a warning
            await config.load_kube_config(
                config_file=str(kubeconfig), client_configuration=configuration
            )
        except (ConfigException, OSError, ValueError, TypeError, yaml.YAMLError) as error:
            why = " ".join(str(error).split())
            raise BadInputError(f"the kubeconfig {kubeconfig}: {why}") from error
    else:
        try:
            # Reads the token again every minute.
            InClusterConfigLoader(
                token_filename=str(account / "token"), cert_filename=str(account / "ca.crt")
            ).load_and_set(configuration)
        except (ConfigException, OSError):
            log.warning("no Kubernetes credentials: alerts are taken, and nothing can be healed")
            api = NoCredentials(configuration=configuration)
    api = api or client.ApiClient(configuration=configuration)
    try:
        yield api
    finally:
        await api.close()


def explain(error: BaseException) -> str:
    """Say in one line what the API server, or the way to it, answered."""
    if isinstance(error, ApiException):
        return f"{error.status} {error.reason}: {_message(error)}"
    return f"the Kubernetes API does not answer ({type(error).__name__}: {error})"


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.body or "")[:300]
