"""The simulated Kubernetes API server over HTTP: who may do what, and each verb.

Invariants: nothing is answered without a known token, nothing is done that RBAC does not grant,
every refusal is a Status object.
"""

import base64
import logging
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tiphys.sandbox import quotas, volumes
from tiphys.sandbox.api_error import ApiError, about
from tiphys.sandbox.discovery import discovery
from tiphys.sandbox.disruptions import evict
from tiphys.sandbox.kube_request import Address, Call, address
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.rbac import Access, Identity, Tokens, allowed
from tiphys.sandbox.resources import Obj
from tiphys.sandbox.scale import scale_of
from tiphys.sandbox.selectors import matcher
from tiphys.sandbox.store import Store, Write
from tiphys.sandbox.watches import Watch, follow

_log = logging.getLogger(__name__)
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
WATCH_SECONDS = 1800


def kube_app(store: Store, tokens: Tokens, logs: Logs) -> ASGIApp:
    """Give the ASGI application that serves the store."""
    server = _Server(store, tokens, logs)
    quotas.install(store)
    volumes.install(store)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = await server.answer(request)
        except ApiError as refusal:
            headers = {"Retry-After": "10"} if refusal.code == 429 else None
            response = JSONResponse(refusal.status(), refusal.code, headers)
        except Exception as error:
            _log.exception("the simulated API server failed at %s", request.url.path)
            refusal = ApiError(500, "InternalError", f"Internal error occurred: {error!r}")
            response = JSONResponse(refusal.status(), 500)
        await response(scope, receive, send)

    return app


class _Server:
    def __init__(self, store: Store, tokens: Tokens, logs: Logs) -> None:
        self._store = store
        self._tokens = tokens
        self._logs = logs

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        if path in {"/readyz", "/livez", "/healthz"}:
            return PlainTextResponse("ok")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        identity = self._tokens.user_of(token) if scheme.lower() == "bearer" else None
        if identity is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        if (found := discovery(path)) is not None:
            return JSONResponse(found)
        at = address(path)
        call = Call(request, identity, at or Address("", "", "", "", "", ""), await request.body())
        if path == _REVIEWS and request.method == "POST":
            return JSONResponse(self._review(call), 201)
        if at is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        self._authorize(identity, call.access())
        return self._serve(call)

    def _authorize(self, identity: Identity, access: Access) -> None:
        if allowed(self._store, identity, access):
            return
        what = f"{access.resource}.{access.group}" if access.group else access.resource
        named = f'{what} "{access.name}"' if access.name else what
        whole = f"{access.resource}/{access.subresource}".rstrip("/")
        place = f'in the namespace "{access.namespace}"' if access.namespace else ""
        raise ApiError(
            403,
            "Forbidden",
            f'{named} is forbidden: User "{identity.user}" cannot {access.verb} resource "{whole}" '
            f'in API group "{access.group}" {place or "at the cluster scope"}',
            {"name": access.name, "group": access.group, "kind": access.resource},
        )

    def _review(self, call: Call) -> Obj:
        review = call.body()
        asked = review.get("spec", {}).get("resourceAttributes") or {}
        fields = ("verb", "group", "resource", "namespace", "name", "subresource")
        access = Access(**{field: asked.get(field, "") for field in fields})
        return {**review, "status": {"allowed": allowed(self._store, call.identity, access)}}

    def _serve(self, call: Call) -> Response:
        at = call.address
        if at.resource.kind == "Pod" and at.subresource in {"log", "eviction"}:
            verb = at.subresource
        else:
            verb = call.access().verb
        match verb:
            case "get":
                found = self._store.get(at.resource.kind, at.namespace, at.name)
                return JSONResponse(scale_of(found) if at.subresource == "scale" else found)
            case "list":
                return JSONResponse(self._list(call))
            case "watch":
                return self._watch(call)
            case "create" if not at.name:
                return JSONResponse(self._create(call), 201)
            case "update":
                return JSONResponse(self._update(call))
            case "patch" if at.name:
                return JSONResponse(self._patch(call))
            case "delete" if not at.subresource:
                return JSONResponse(self._delete(call))
            case "log" if call.request.method == "GET":
                return PlainTextResponse(self._log_of(call))
            case "eviction" if call.request.method == "POST":
                pod = self._store.get("Pod", at.namespace, at.name)
                user = call.identity.user
                evict(self._store, pod, call.body(), user=user, dry_run=call.dry_run)
                return JSONResponse(_success(201), 201)
            case _:
                why = "the server does not allow this method on the requested resource"
                raise ApiError(405, "MethodNotAllowed", why)

    # --- verbs ----------------------------------------------------------------------------------

    def _list(self, call: Call) -> Obj:
        resource = call.address.resource
        selectors = call.query("labelSelector"), call.query("fieldSelector")
        items = self._store.list(resource.kind, call.address.namespace, *selectors)
        meta: Obj = {"resourceVersion": str(self._store.version)}
        if call.query("continue"):
            after = base64.urlsafe_b64decode(call.query("continue")).decode()
            items = [item for item in items if _place(item) > after]
        limit = call.number("limit")
        if limit and len(items) > limit:
            token = base64.urlsafe_b64encode(_place(items[limit - 1]).encode()).decode()
            meta |= {"continue": token, "remainingItemCount": len(items) - limit}
            items = items[:limit]
        if not resource.custom:
            # Items of built-in lists do not repeat kind and apiVersion.
            items = [{k: v for k, v in i.items() if k not in {"kind", "apiVersion"}} for i in items]
        kind = f"{resource.kind}List"
        return {"kind": kind, "apiVersion": resource.api_version, "metadata": meta, "items": items}

    def _watch(self, call: Call) -> Response:
        version = call.query("resourceVersion")
        if version and not version.isdigit():
            raise ApiError(400, "BadRequest", f"invalid resourceVersion: {version!r}")
        watch = Watch(
            resource=call.address.resource,
            namespace=call.address.namespace,
            matches=matcher(call.query("labelSelector"), call.query("fieldSelector")),
            version=version,
            seconds=call.number("timeoutSeconds") or WATCH_SECONDS,
            bookmarks=call.query("allowWatchBookmarks") in {"1", "true", "True"},
        )
        return StreamingResponse(follow(self._store, watch), media_type="application/json")

    def _create(self, call: Call) -> Obj:
        body, resource = self._addressed(call), call.address.resource
        if "status" in resource.subresources and resource.kind != "Node":
            body.pop("status", None)
        return self._store.create(body, **self._how(call))

    def _update(self, call: Call) -> Obj:
        body, at = self._addressed(call), call.address
        if body["metadata"].get("name") != at.name:
            why = f"the name of the object ({body['metadata'].get('name', '')}) does not match "
            raise ApiError(400, "BadRequest", f"{why}the name on the URL ({at.name})")
        if at.subresource == "scale":
            return self._store.update_scale(at.resource.kind, body, **self._how(call))
        return self._store.update(body, **self._how(call))

    def _patch(self, call: Call) -> Obj:
        at = call.address
        kind, body = call.patch()
        how = self._how(call)
        return self._store.patch(at.resource.kind, at.namespace, at.name, body, kind, **how)

    def _delete(self, call: Call) -> Obj:
        at, resource, options = call.address, call.address.resource, call.delete_options()
        wanted = options.get("preconditions") or {}
        # Jobs orphan their pods unless told otherwise, for compatibility with old clients.
        usual = "Orphan" if resource.kind == "Job" else "Background"
        asked = options.get("propagationPolicy") or call.query("propagationPolicy") or usual
        gone = self._store.delete(
            resource.kind,
            at.namespace,
            at.name,
            uid=wanted.get("uid") or "",
            resource_version=wanted.get("resourceVersion") or "",
            user=call.identity.user,
            dry_run=call.dry_run or bool(options.get("dryRun")),
            orphan=asked == "Orphan",
            grace=options.get("gracePeriodSeconds", call.number("gracePeriodSeconds")),
        )
        if resource.kind == "Pod" or gone["metadata"].get("finalizers"):
            return gone
        details = {**about(resource, at.name), "uid": gone["metadata"]["uid"]}
        return {**_success(200), "details": details}

    def _log_of(self, call: Call) -> str:
        at = call.address
        pod = self._store.get("Pod", at.namespace, at.name)
        names = [container["name"] for container in pod["spec"]["containers"]]
        wanted = call.query("container") or (names[0] if len(names) == 1 else "")
        if wanted not in names:
            why = f"container {wanted or 'name'} must be one of [{' '.join(names)}] of {at.name}"
            raise ApiError(400, "BadRequest", why)
        previous = call.query("previous") in {"1", "true", "True"}
        statuses = pod.get("status", {}).get("containerStatuses") or []
        state = next((s for s in statuses if s["name"] == wanted), {})
        waiting = state.get("state", {}).get("waiting")
        if not statuses or (waiting and "terminated" not in state.get("lastState", {})):
            reason = (waiting or {}).get("reason", "ContainerCreating")
            why = f'container "{wanted}" in pod "{at.name}" is waiting to start: {reason}'
            raise ApiError(400, "BadRequest", why)
        uid = pod["metadata"]["uid"]
        text = self._logs.read(uid, wanted, previous, call.number("tailLines"))
        if text is None:
            why = f'previous terminated container "{wanted}" in pod "{at.name}" not found'
            raise ApiError(400, "BadRequest", why)
        limit = call.number("limitBytes")
        return text if limit is None else text.encode()[:limit].decode(errors="ignore")

    # --- inside ---------------------------------------------------------------------------------

    def _addressed(self, call: Call) -> Obj:
        """Read the body and check that it is for the URL's kind and namespace."""
        at, body = call.address, call.body()
        kind = "Scale" if at.subresource == "scale" else at.resource.kind
        if body.setdefault("kind", kind) != kind:
            why = f"{body['kind']} in version {body.get('apiVersion')!r} cannot be handled as a "
            raise ApiError(400, "BadRequest", why + kind)
        body["metadata"] = body.get("metadata") or {}
        if at.resource.namespaced and body["metadata"].setdefault("namespace", at.namespace) != (
            at.namespace
        ):
            why = "the namespace of the provided object does not match the one of the request"
            raise ApiError(400, "BadRequest", why)
        return body

    def _how(self, call: Call) -> Write:
        return Write(
            manager=call.manager,
            user=call.identity.user,
            subresource=call.address.subresource,
            dry_run=call.dry_run,
        )


def _place(obj: Obj) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def _success(code: int) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}
