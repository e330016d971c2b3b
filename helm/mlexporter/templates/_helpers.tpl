{{- define "mlexporter.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "mlexporter.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The pod of `helm test`, which the service and the budget must not take for one of theirs. */}}
{{- define "mlexporter.testSelector" -}}
app.kubernetes.io/name: {{ printf "%s-test" (default .Chart.Name .Values.nameOverride | trunc 58 | trimSuffix "-") }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of an object, none of them twice: what selects it cannot be changed. Takes: root, more. */}}
{{- define "mlexporter.labels" -}}
{{- $labels := dict "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- merge $labels (include "mlexporter.selector" .root | fromYaml) (.more | default dict) .root.Values.additionalLabels | toYaml -}}
{{- end -}}

{{- define "mlexporter.serviceAccountName" -}}
{{- default (ternary (include "mlexporter.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "mlexporter.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether there is a configuration, baselines, a web configuration: "true" or nothing. */}}
{{- define "mlexporter.hasConfig" -}}
{{- with .Values.config }}{{ if or .inline .existingConfigMap .existingSecret }}true{{ end }}{{ end -}}
{{- end -}}
{{- define "mlexporter.hasBaselines" -}}
{{- with .Values.baselines }}{{ if or .files .existingConfigMap .existingSecret .existingClaim .download.image }}true{{ end }}{{ end -}}
{{- end -}}
{{- define "mlexporter.hasWebConfig" -}}
{{- with .Values.webConfig }}{{ if or .inline .existingSecret }}true{{ end }}{{ end -}}
{{- end -}}

{{/* The volume of baselines or configuration from one of its sources. Takes: inline (name of the ConfigMap), values. */}}
{{- define "mlexporter.source" -}}
{{- if .values.existingSecret }}
secret:
  secretName: {{ .values.existingSecret }}
  defaultMode: 0440
{{- else }}
configMap:
  name: {{ default .inline .values.existingConfigMap }}
{{- end }}
{{- end -}}

{{/* Fails unless the cluster has this kind of the Prometheus Operator. Takes: root, key, api. */}}
{{- define "mlexporter.requires" -}}
{{- if not (.root.Capabilities.APIVersions.Has .api) -}}
{{- fail (printf "%s.enabled: this cluster has no %s. Install the CRDs of the Prometheus Operator first (kube-prometheus-stack has them); for `helm template`, say --api-versions=%s" .key .api .api) -}}
{{- end -}}
{{- end -}}

{{/* What PodMonitor and ServiceMonitor have in common, an endpoint's settings. Takes: root, values. */}}
{{- define "mlexporter.endpoint" -}}
port: http
path: /metrics
scheme: {{ .root.Values.webConfig.scheme }}
interval: {{ .values.interval }}
{{- with .values.scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- range $key := list "tlsConfig" "basicAuth" "authorization" "relabelings" "metricRelabelings" }}
{{- with get $.values $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}
