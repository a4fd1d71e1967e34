{{/* The pod of one role: (list root role). Role `single` runs every role. */}}
{{- define "tiphys.pod" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $v := $root.Values -}}
{{- $single := eq $role "single" -}}
{{- $signs := or $single (eq $role "launcher") -}}
{{- $meets := and $v.people.existingSecret (or $single (eq $role "gateway")) -}}
metadata:
  labels:
    {{- include "tiphys.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $role }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ $role }}
    checksum/settings: {{ include "tiphys.settings" $root | sha256sum }}
spec:
  serviceAccountName: {{ include "tiphys.account" . }}
  # The projected token below lives an hour; the automatic one would be valid for a year.
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: 30
  securityContext:
    {{- include "tiphys.podSecurity" $root | nindent 4 }}
  {{- include "tiphys.placement" $root | nindent 2 }}
  {{- if not $single }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "tiphys.selector" . | nindent 10 }}
  {{- end }}
  {{- if $signs }}
  initContainers:
    # A Secret's file can be read by the pod's group, which the signing key's reader refuses.
    - name: key
      {{- include "tiphys.image" $root | nindent 6 }}
      command: [install, -m, "0400", /key/launcher.key, /run/tiphys/launcher.key]
      resources:
        requests: {cpu: 10m, memory: 16Mi}
        limits: {memory: 64Mi}
      securityContext:
        {{- include "tiphys.locked" $root | nindent 8 }}
      volumeMounts:
        - {name: secret-key, mountPath: /key, readOnly: true}
        - {name: key, mountPath: /run/tiphys}
  {{- end }}
  containers:
    - name: {{ $role }}
      {{- include "tiphys.image" $root | nindent 6 }}
      command: [tiphys, serve, --role, {{ $single | ternary "all" $role }}]
      envFrom:
        - configMapRef: {name: tiphys-settings}
      env:
        {{- include "tiphys.env" . | nindent 8 }}
      ports:
        - {name: http, containerPort: 8080}
      startupProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 2
        failureThreshold: 150
      livenessProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
        timeoutSeconds: 5
      resources:
        {{- toYaml (index $v $role).resources | nindent 8 }}
      securityContext:
        {{- include "tiphys.locked" $root | nindent 8 }}
      volumeMounts:
        - {name: data, mountPath: /data}
        - {name: tmp, mountPath: /tmp}
        - {name: kubernetes, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
        {{- if $signs }}
        - {name: key, mountPath: /run/tiphys, readOnly: true}
        {{- end }}
        {{- if $meets }}
        - {name: people, mountPath: /etc/tiphys/people, readOnly: true}
        {{- end }}
        {{- if $v.policy }}
        - {name: policy, mountPath: /etc/tiphys/policy, readOnly: true}
        {{- end }}
        {{- if $v.playbooks }}
        - {name: playbooks, mountPath: /etc/tiphys/playbooks, readOnly: true}
        {{- end }}
  volumes:
    {{- if not (and $single $v.single.persistence.enabled) }}
    - name: data
      emptyDir: {}
    {{- end }}
    - name: tmp
      emptyDir: {sizeLimit: 256Mi}
    - name: kubernetes
      projected:
        defaultMode: 0440
        sources:
          - serviceAccountToken: {path: token, expirationSeconds: 3600}
          - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
          - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
    {{- if $signs }}
    - name: secret-key
      secret:
        secretName: {{ required "signing.existingSecret is required: docs/install.md, \"Keys\"" $v.signing.existingSecret }}
        items: [{key: launcher.key, path: launcher.key}]
    - name: key
      emptyDir: {medium: Memory, sizeLimit: 1Mi}
    {{- end }}
    {{- if $meets }}
    - name: people
      secret:
        secretName: {{ $v.people.existingSecret }}
        defaultMode: 0440
        items: [{key: people.yaml, path: people.yaml}]
    {{- end }}
    {{- if $v.policy }}
    - name: policy
      configMap: {name: tiphys-policy}
    {{- end }}
    {{- if $v.playbooks }}
    - name: playbooks
      configMap: {name: tiphys-playbooks}
    {{- end }}
{{- end -}}

{{/* What a role is told beside tiphys-settings: its own credentials and nobody else's. */}}
{{- define "tiphys.env" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $v := $root.Values -}}
{{- $all := eq $role "single" -}}
{{- if not $all }}
{{ include "tiphys.secret" (list "TIPHYS_DATABASE_URL" (required "database.existingSecret is required in split mode: docs/install.md, \"PostgreSQL\"" $v.database.existingSecret) $role) }}
{{- if ne $role "launcher" }}
{{ include "tiphys.secret" (list "TIPHYS_NATS_URL" (include "tiphys.nats" $root) $role) }}
{{- end }}
{{- end }}
{{- if or $all (eq $role "gateway") }}
{{ include "tiphys.secret" (list "TIPHYS_WEBHOOK_TOKEN" (include "tiphys.tokens" $root) "webhook") }}
{{ include "tiphys.secret" (list "TIPHYS_API_TOKEN" (include "tiphys.tokens" $root) "api") }}
{{- include "tiphys.peopleEnv" $root }}
{{- end }}
{{- if or $all (eq $role "agents") }}
{{- with $v.prometheus.url }}
- {name: TIPHYS_PROMETHEUS_URL, value: {{ . | quote }}}
{{- end }}
{{- with $v.alertmanager.urls }}
- {name: TIPHYS_ALERTMANAGER_URLS, value: {{ join "," . | quote }}}
{{- end }}
{{- with $v.model.baseUrl }}
- {name: TIPHYS_MODEL_BASE_URL, value: {{ . | quote }}}
- {name: TIPHYS_MODEL, value: {{ $v.model.name | quote }}}
{{- end }}
{{- with $v.model.existingSecret }}
{{ include "tiphys.secret" (list "TIPHYS_MODEL_API_KEY" . "api-key") }}
{{- end }}
{{- end }}
{{- if or $all (eq $role "launcher") }}
- {name: TIPHYS_LAUNCHER_KEY, value: /run/tiphys/launcher.key}
{{- end }}
{{- end -}}

{{/* What the gateway is told of people, and of where they hear of it. */}}
{{- define "tiphys.peopleEnv" -}}
{{- $people := .Values.people -}}
{{- $slack := .Values.slack -}}
{{- $events := .Values.events -}}
{{- if and (or $people.header $people.proxies $people.proxySecret $slack.channel) (not $people.existingSecret) }}
{{- fail "people.existingSecret is required with people.header and with slack.channel" }}
{{- end }}
{{- if ne (empty $people.header) (empty $people.proxies) }}
{{- fail "people.header and people.proxies need each other" }}
{{- end }}
{{- if $people.existingSecret }}
- {name: TIPHYS_PEOPLE, value: /etc/tiphys/people/people.yaml}
{{- end }}
{{- with $people.header }}
- {name: TIPHYS_PEOPLE_HEADER, value: {{ . | quote }}}
- {name: TIPHYS_PEOPLE_PROXIES, value: {{ join "," $people.proxies | quote }}}
{{- end }}
{{- with $people.proxySecret }}
{{ include "tiphys.secret" (list "TIPHYS_PEOPLE_PROXY_SECRET" . "secret") }}
{{- end }}
{{- with $slack.channel }}
{{- $secret := required "slack.existingSecret is required with slack.channel" $slack.existingSecret }}
- {name: TIPHYS_SLACK_CHANNEL, value: {{ . | quote }}}
{{ include "tiphys.secret" (list "TIPHYS_SLACK_BOT_TOKEN" $secret "bot-token") }}
{{- range $name, $key := dict "TIPHYS_SLACK_APP_TOKEN" "app-token" "TIPHYS_SLACK_SIGNING_SECRET" "signing-secret" }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ $key }}, optional: true}}
{{- end }}
{{- end }}
{{- with $events.url }}
- {name: TIPHYS_EVENTS_URL, value: {{ . | quote }}}
{{ include "tiphys.secret" (list "TIPHYS_EVENTS_SECRET" (required "events.existingSecret is required with events.url" $events.existingSecret) "secret") }}
{{- end }}
{{- with $events.types }}
- {name: TIPHYS_EVENTS_TYPES, value: {{ join "," . | quote }}}
{{- end }}
{{- if gt (int $events.batch) 1 }}
- {name: TIPHYS_EVENTS_BATCH, value: {{ int $events.batch | quote }}}
{{- end }}
{{- end -}}

{{/* What every role is told. */}}
{{- define "tiphys.settings" -}}
TIPHYS_HOST: 0.0.0.0
TIPHYS_PORT: "8080"
TIPHYS_DATA_DIR: /data
TIPHYS_CLUSTER: {{ .Values.cluster | quote }}
TIPHYS_ACTIONS_NAMESPACE: {{ .Values.actionsNamespace }}
TIPHYS_STOP_NAMESPACE: {{ .Values.stopNamespace }}
TIPHYS_STREAM_MAX_BYTES: {{ .Values.nats.streamMaxBytes | int64 | quote }}
TIPHYS_STREAM_REPLICAS: {{ .Values.nats.streamReplicas | quote }}
TIPHYS_LOG_JSON: {{ .Values.logJson | quote }}
{{- range $name, $value := .Values.tuning }}
{{- /* A whole number in a file of values is a float, which would be written as 1e+07. */}}
{{- $whole := and (kindIs "float64" $value) (eq (toString (floor $value)) (toString $value)) }}
TIPHYS_{{ snakecase $name | upper }}: {{ $whole | ternary ($value | int64) $value | quote }}
{{- end }}
{{- if .Values.policy }}
TIPHYS_POLICY: /etc/tiphys/policy/policy.yaml
# Its digest, so that a new policy starts new pods.
TIPHYS_POLICY_SHA256: {{ sha256sum .Values.policy }}
{{- if .Values.calendars }}
TIPHYS_CALENDARS_SHA256: {{ toJson .Values.calendars | sha256sum }}
{{- end }}
{{- end }}
{{- if .Values.playbooks }}
TIPHYS_PLAYBOOKS: /etc/tiphys/playbooks
TIPHYS_PLAYBOOKS_SHA256: {{ toJson .Values.playbooks | sha256sum }}
{{- end }}
{{- end -}}
