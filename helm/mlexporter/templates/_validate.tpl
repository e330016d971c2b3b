{{/* What the schema cannot say: settings that contradict each other. */}}
{{- define "mlexporter.validate" -}}
{{- $v := .Values -}}
{{- include "mlexporter.oneOf" (dict "key" "config" "values" $v.config "names" (list "inline" "existingConfigMap" "existingSecret")) -}}
{{- include "mlexporter.oneOf" (dict "key" "webConfig" "values" $v.webConfig "names" (list "inline" "existingSecret")) -}}
{{- $baselines := merge (dict "download.image" $v.baselines.download.image) $v.baselines -}}
{{- include "mlexporter.oneOf" (dict "key" "baselines" "values" $baselines "names" (list "files" "existingConfigMap" "existingSecret" "existingClaim" "download.image")) -}}
{{- if and (include "mlexporter.hasBaselines" .) (not (include "mlexporter.hasConfig" .)) -}}
{{- fail "baselines: without a configuration nobody reads them. Name them in config.inline, as `baseline: /baselines/FILE`" -}}
{{- end -}}
{{- with $v.webConfig -}}
{{- if and (contains "tls_server_config:" .inline) (ne .scheme "https") -}}
{{- fail "webConfig.scheme: webConfig.inline has tls_server_config, so probes and scrapes must use https" -}}
{{- end -}}
{{- if and (contains "RequireAndVerifyClientCert" .inline) (not .clientCertificates) -}}
{{- fail "webConfig.clientCertificates: webConfig.inline asks for RequireAndVerifyClientCert, which the kubelet does not have: set it to true" -}}
{{- end -}}
{{- if and (or .tlsSecret .clientCertificates (eq .scheme "https")) (not (or .inline .existingSecret)) -}}
{{- fail "webConfig: scheme https, tlsSecret and clientCertificates do nothing without webConfig.inline or webConfig.existingSecret" -}}
{{- end -}}
{{- end -}}
{{- if and $v.persistence.existingClaim (not $v.persistence.enabled) -}}
{{- fail "persistence.existingClaim: set persistence.enabled to true, too" -}}
{{- end -}}
{{- if and $v.persistence.existingClaim (gt (int $v.replicas) 1) -}}
{{- fail "persistence.existingClaim: one volume is for one pod, and there are several replicas. Leave it out: each pod gets a volume of its own" -}}
{{- end -}}
{{- if and $v.podMonitor.enabled $v.serviceMonitor.enabled -}}
{{- fail "podMonitor.enabled, serviceMonitor.enabled: with both, each pod is scraped twice and every sample counts double. Take one" -}}
{{- end -}}
{{- if and $v.podDisruptionBudget.enabled (eq (int $v.replicas) 1) (eq (toString $v.podDisruptionBudget.maxUnavailable) "0") -}}
{{- fail "podDisruptionBudget.maxUnavailable: with one replica, 0 keeps its node from ever being drained" -}}
{{- end -}}
{{- end -}}

{{/* Fails if more than one of these is set. Takes: key, values, names. */}}
{{- define "mlexporter.oneOf" -}}
{{- $set := list -}}
{{- range .names }}{{ if get $.values . }}{{ $set = append $set (printf "%s.%s" $.key .) }}{{ end }}{{ end -}}
{{- if gt (len $set) 1 -}}
{{- fail (printf "%s: give one of them" (join ", " $set)) -}}
{{- end -}}
{{- end -}}
