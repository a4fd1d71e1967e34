{{/* One egress rule: (dict to ports). An empty `to` is everywhere on these ports. */}}
{{- define "tiphys.egress" }}
    - {{ with .to }}to: {{ toJson . }}
      {{ end }}ports:
        {{- range .ports }}
        - {protocol: TCP, port: {{ . | int }}}
        {{- end }}
{{- end }}
{{- define "tiphys.egressDns" }}
    - {{ with .to }}to: {{ toJson . }}
      {{ end }}ports:
        {{- range .ports }}
        - {protocol: UDP, port: {{ . | int }}}
        - {protocol: TCP, port: {{ . | int }}}
        {{- end }}
{{- end }}
{{- define "tiphys.policyHead" }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ index . 1 }}
  namespace: {{ index . 2 }}
  labels:
    {{- include "tiphys.labels" (index . 0) | nindent 4 }}
{{- end }}
