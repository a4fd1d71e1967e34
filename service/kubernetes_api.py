"""Connections to the Kubernetes API, one for each identity this process holds."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import yaml
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException

from tiphys.service.errors import BadInputError

TIMEOUT = 5.0
"""Seconds for one request that is not a watch."""

UNREACHABLE = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
"""What the client raises when the API server does not answer."""


@contextlib.asynccontextmanager
async def connect(kubeconfig: Path | None) -> AsyncGenerator[client.ApiClient]:
    """Open a client with the given kubeconfig, or with the pod's own ServiceAccount.

    Raises `BadInputError` when there is neither.
    """
    configuration = client.Configuration()
    try:
        if kubeconfig is not None:
            await config.load_kube_config(
                config_file=str(kubeconfig), client_configuration=configuration
            )
        else:
            config.load_incluster_config(client_configuration=configuration)
    except (ConfigException, OSError, ValueError, TypeError, yaml.YAMLError) as error:
        where = kubeconfig or "this is not a pod; set TIPHYS_KUBECONFIG and its siblings"
        raise BadInputError(f"no Kubernetes credentials: {where}: {error}") from error
    api = client.ApiClient(configuration=configuration)
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
