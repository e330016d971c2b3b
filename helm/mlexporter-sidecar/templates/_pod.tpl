{{/* What goes into the model's pod. Each is empty where there is nothing to say, so put `with` around it. */}}

{{/* Labels of the pod, by which the PodMonitor finds it. */}}
{{- define "mlexporter-sidecar.podLabels" -}}
{{- with include "mlexporter-sidecar.values" . | fromYaml -}}
mlexporter.io/sidecar: {{ $.Release.Name }}
{{- end -}}
{{- end }}

{{/* Annotations of the pod: how to scrape it, and a sum of the configuration, so that a change of it is a rollout. */}}
{{- define "mlexporter-sidecar.podAnnotations" -}}
{{- with include "mlexporter-sidecar.values" . | fromYaml -}}
{{- if eq .scrape "annotations" -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .port | quote }}
{{- if .tls }}
prometheus.io/scheme: https
{{- end }}
{{- end }}
{{- if .config }}
mlexporter.io/config-checksum: {{ sha256sum .config }}
{{- end }}
{{- end -}}
{{- end }}

{{/* For `initContainers`: the native sidecar. What stands after it in the list starts after it. */}}
{{- define "mlexporter-sidecar.initContainers" -}}
{{- with include "mlexporter-sidecar.values" . | fromYaml -}}
{{- if .native -}}
{{- include "mlexporter-sidecar.container" . -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* For `containers`: the ordinary one. */}}
{{- define "mlexporter-sidecar.containers" -}}
{{- with include "mlexporter-sidecar.values" . | fromYaml -}}
{{- if not .native -}}
{{- include "mlexporter-sidecar.container" . -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* For `volumes`. */}}
{{- define "mlexporter-sidecar.volumes" -}}
{{- with include "mlexporter-sidecar.values" . | fromYaml -}}
- name: mlexporter-tmp
  emptyDir:
    sizeLimit: 64Mi
{{- if eq .state.kind "emptyDir" }}
- name: mlexporter-state
  emptyDir:
    sizeLimit: {{ .state.size }}
{{- end }}
{{- if or .config .existingConfigMap }}
- name: mlexporter-config
  configMap:
    name: {{ .existingConfigMap | default (include "mlexporter-sidecar.name" $) }}
{{- end }}
{{- with .baselines }}
- name: mlexporter-baselines
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .webConfigSecret }}
- name: mlexporter-web
  secret:
    secretName: {{ . }}
{{- end }}
{{- end -}}
{{- end }}

{{/* For `volumeClaimTemplates` of a StatefulSet, with `state.kind: volumeClaim`. */}}
{{- define "mlexporter-sidecar.volumeClaimTemplates" -}}
{{- with include "mlexporter-sidecar.values" . | fromYaml -}}
{{- if eq .state.kind "volumeClaim" -}}
- metadata:
    name: mlexporter-state
  spec:
    accessModes: [ReadWriteOnce]
    {{- with .state.storageClass }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests:
        storage: {{ .state.size }}
{{- end -}}
{{- end -}}
{{- end }}
