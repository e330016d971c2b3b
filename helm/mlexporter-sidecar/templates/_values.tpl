{{/* What the other templates share. All of them take the root of your chart (`.` at the top of a file). */}}

{{/* The values, checked for what a schema cannot see, as YAML; nothing where the sidecar is not enabled. */}}
{{- define "mlexporter-sidecar.values" -}}
{{- $values := index .Values "mlexporter-sidecar" -}}
{{- if $values.enabled -}}
{{- if and $values.native (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "mlexporter-sidecar: native sidecars need Kubernetes 1.29, and this is %s: set mlexporter-sidecar.native=false" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and $values.config $values.existingConfigMap -}}
{{- fail "mlexporter-sidecar: config and existingConfigMap are two configurations: give one of them" -}}
{{- end -}}
{{- if and $values.tls (not $values.webConfigSecret) -}}
{{- fail "mlexporter-sidecar: tls needs webConfigSecret, with the web.yml that has the certificate" -}}
{{- end -}}
{{- if and (eq $values.scrape "podMonitor") (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PodMonitor")) -}}
{{- fail "mlexporter-sidecar: scrape=podMonitor needs the Prometheus Operator, and the cluster does not know monitoring.coreos.com/v1/PodMonitor: install it first, set mlexporter-sidecar.scrape=annotations, or give helm template --api-versions=monitoring.coreos.com/v1/PodMonitor" -}}
{{- end -}}
{{- toYaml $values -}}
{{- end -}}
{{- end }}

{{/* Name of the ConfigMap and of the PodMonitor. */}}
{{- define "mlexporter-sidecar.name" -}}
{{ .Release.Name }}-mlexporter-sidecar
{{- end }}

{{/* Labels of what is made here. */}}
{{- define "mlexporter-sidecar.labels" -}}
app.kubernetes.io/name: mlexporter-sidecar
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
