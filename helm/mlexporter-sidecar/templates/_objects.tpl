{{/* What stands beside the pod: the ConfigMap of `config`, and the PodMonitor. A file of its own in your chart. */}}
{{- define "mlexporter-sidecar.objects" -}}
{{- with include "mlexporter-sidecar.values" . | fromYaml -}}
{{- if .config }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "mlexporter-sidecar.name" $ }}
  namespace: {{ $.Release.Namespace }}
  labels:
    {{- include "mlexporter-sidecar.labels" (dict "root" $) | nindent 4 }}
data:
  mlexporter.yml: |
    {{- .config | trimSuffix "\n" | nindent 4 }}
{{- end }}
{{- if eq .scrape "podMonitor" }}
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include "mlexporter-sidecar.name" $ }}
  namespace: {{ $.Release.Namespace }}
  labels:
    {{- include "mlexporter-sidecar.labels" (dict "root" $ "more" .podMonitor.additionalLabels) | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- include "mlexporter-sidecar.podLabels" $ | nindent 6 }}
  {{- with .podMonitor.podTargetLabels }}
  podTargetLabels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  sampleLimit: 60000
  podMetricsEndpoints:
    {{- $endpoint := dict "port" "mlexporter" "interval" .podMonitor.interval "scheme" (ternary "https" "http" .tls) }}
    - {{ merge $endpoint .podMonitor.endpoint | toYaml | indent 6 | trim }}
{{- end }}
{{- end -}}
{{- end }}
