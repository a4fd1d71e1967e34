{{/*
Names are fixed, but for what is cluster-wide, which begins with the release's name: accounts are
named literally in the boundary, and people should find the same things everywhere.
*/}}

{{/* Labels of everything that is ours; the gate leaves alone what bears the first. */}}
{{- define "tiphys.labels" -}}
app.kubernetes.io/part-of: tiphys
app.kubernetes.io/name: tiphys
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* Labels that select a role's pods: (list root role). */}}
{{- define "tiphys.selector" -}}
app.kubernetes.io/name: tiphys
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Whose rights a role has: in one process there is one identity, the one that admission knows. */}}
{{- define "tiphys.account" -}}
{{- if eq (index . 0).Values.mode "single" -}}tiphys-launcher{{- else -}}tiphys-{{ index . 1 }}{{- end -}}
{{- end -}}

{{- define "tiphys.user" -}}
system:serviceaccount:{{ (index . 0).Release.Namespace }}:{{ include "tiphys.account" . }}
{{- end -}}

{{/* A list of strings as CEL writes it; the schema lets no quote into them. */}}
{{- define "tiphys.cel" -}}
[{{ range $i, $one := . }}{{ if $i }}, {{ end }}'{{ $one }}'{{ end }}]
{{- end -}}

{{/*
A file that was rendered by `make chart`, with its placeholders filled in: (list root name dict).
One that stands alone in quotes may become JSON. The schema's patterns let no value leave its quotes.
*/}}
{{- define "tiphys.filled" -}}
{{- $root := index . 0 -}}
{{- $v := $root.Values -}}
{{- $pull := list -}}
{{- range $v.images.pullSecrets }}{{ $pull = append $pull (dict "name" .) }}{{ end -}}
{{- $whole := dict
  "TOLERATIONS" $v.steps.tolerations
  "PULL_SECRETS" $pull -}}
{{- $parts := dict
  "STEP_IMAGE" $v.images.step
  "EXECUTOR_IMAGE" $v.images.executor
  "PULL_POLICY" $v.images.pullPolicy
  "PUBLIC_KEY" (required "signing.publicKey is required: docs/install.md, \"Keys\"" $v.signing.publicKey)
  "PROMETHEUS_URL" $v.prometheus.url
  "PRIORITY_CLASS" $v.steps.priorityClass
  "PUBLISHER_GROUPS" (include "tiphys.cel" $v.boundary.publisherGroups)
  "PUBLISHER_USERS" (include "tiphys.cel" $v.boundary.publisherUsers)
  "LAUNCHER" (include "tiphys.user" (list $root "launcher"))
  "GATEWAY" (include "tiphys.user" (list $root "gateway"))
  "AGENTS" (include "tiphys.user" (list $root "agents"))
  "NODE_ACTIONS" (toString $v.nodeActions.enabled)
  "RELEASE" $root.Release.Name
  "SYSTEM_NAMESPACE" $root.Release.Namespace
  "ACTIONS_NAMESPACE" $v.actionsNamespace
  "STOP_NAMESPACE" $v.stopNamespace
  "ARGO_NAMESPACE" $v.argo.namespace
  "ARGO_ACCOUNT" $v.argo.serviceAccount -}}
{{- $text := $root.Files.Get (printf "files/%s" (index . 1)) -}}
{{- range $name, $value := $whole }}{{ $text = replace (printf "'@@%s@@'" $name) (toJson $value) $text }}{{ end -}}
{{- range $name, $value := merge (dict) (index . 2) $parts }}{{ $text = replace (printf "@@%s@@" $name) $value $text }}{{ end -}}
{{- $text -}}
{{- end -}}

{{/* The pod-level half of the Pod Security level restricted. */}}
{{- define "tiphys.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.pods.user }}
runAsGroup: {{ .Values.pods.user }}
fsGroup: {{ .Values.pods.user }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "tiphys.locked" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where our own pods run. */}}
{{- define "tiphys.placement" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.pods.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pods.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pods.priorityClass }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "tiphys.image" -}}
image: {{ .Values.images.service | quote }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
{{- end -}}

{{- define "tiphys.tokens" -}}
{{ .Values.tokens.existingSecret | default "tiphys-tokens" }}
{{- end -}}

{{- define "tiphys.nats" -}}
{{ .Values.nats.existingSecret | default "tiphys-nats" }}
{{- end -}}

{{/* One variable from a Secret: (list variable secret key). */}}
{{- define "tiphys.secret" -}}
- name: {{ index . 0 }}
  valueFrom: {secretKeyRef: {name: {{ index . 1 }}, key: {{ index . 2 }}}}
{{- end -}}

{{/* A StatefulSet's claim: (list root name persistence). */}}
{{- define "tiphys.claim" -}}
{{- $p := index . 2 -}}
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata:
    name: {{ index . 1 }}
    labels:
      app.kubernetes.io/part-of: tiphys
      app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with $p.storageClass }}
    storageClassName: {{ . }}
    {{- end }}
    resources: {requests: {storage: {{ $p.size }}}}
{{- end -}}

{{/* A binding's subject: (list root role). */}}
{{- define "tiphys.subject" }}
  - kind: ServiceAccount
    name: {{ include "tiphys.account" . }}
    namespace: {{ (index . 0).Release.Namespace }}
{{- end }}

{{/* Metadata of the test's hooks: (list root weight). */}}
{{- define "tiphys.testMeta" }}
  name: tiphys-test
  labels:
    {{- include "tiphys.labels" (index . 0) | nindent 4 }}
    app.kubernetes.io/component: test
  annotations:
    helm.sh/hook: test
    helm.sh/hook-weight: {{ index . 1 | quote }}
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
    helm.sh/hook-output-log-policy: hook-succeeded,hook-failed
{{- end }}
