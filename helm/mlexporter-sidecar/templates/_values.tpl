{{/* What the other templates share. All of them take the root of your chart (`.` at the top of a file). */}}

{{/* The values, checked for what a schema cannot see, as YAML; nothing where the sidecar is not enabled. */}}
{{- define "mlexporter-sidecar.values" -}}
{{- $values := index .Values "mlexporter-sidecar" -}}
{{- if $values.enabled -}}
{{- if and $values.native (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "mlexporter-sidecar.native: native sidecars need Kubernetes 1.29, and this is %s: say native=false" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and $values.config $values.existingConfigMap -}}
{{- fail "mlexporter-sidecar: config and existingConfigMap are two configurations: give one of them" -}}
{{- end -}}
{{- if and $values.tls (not $values.webConfigSecret) -}}
{{- fail "mlexporter-sidecar.tls: it needs webConfigSecret, whose web.yml has the certificate" -}}
{{- end -}}
{{- if and (eq $values.scrape "podMonitor") (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PodMonitor")) -}}
{{- fail "mlexporter-sidecar.scrape: this cluster has no monitoring.coreos.com/v1/PodMonitor. Install the CRDs of the Prometheus Operator first (kube-prometheus-stack has them), or say scrape=annotations; for `helm template`, say --api-versions=monitoring.coreos.com/v1/PodMonitor" -}}
{{- end -}}
{{- toYaml $values -}}
{{- end -}}
{{- end }}

{{/* Name of the ConfigMap and of the PodMonitor. */}}
{{- define "mlexporter-sidecar.name" -}}
{{ .Release.Name }}-mlexporter-sidecar
{{- end }}

{{/* Labels of what is made here. Takes: root, more. */}}
{{- define "mlexporter-sidecar.labels" -}}
{{- $labels := dict "app.kubernetes.io/name" "mlexporter-sidecar" "app.kubernetes.io/instance" .root.Release.Name -}}
{{- $_ := set $labels "app.kubernetes.io/part-of" .root.Chart.Name -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- merge $labels (.more | default dict) | toYaml -}}
{{- end }}
