{{/* The container, of either kind. It takes the values. */}}
{{- define "mlexporter-sidecar.container" -}}
- name: mlexporter
  image: {{ if .image.digest }}{{ .image.repository }}@{{ .image.digest }}{{ else }}{{ .image.repository }}:{{ .image.tag }}{{ end }}
  imagePullPolicy: {{ .image.pullPolicy }}
  {{- if .native }}
  restartPolicy: Always
  {{- end }}
  args:
    - serve
    - --web.listen-address=:{{ .port }}
    {{- if or .config .existingConfigMap }}
    - --config.file=/etc/mlexporter/config/mlexporter.yml
    {{- end }}
    {{- if .webConfigSecret }}
    - --web.config.file=/etc/mlexporter/web/web.yml
    {{- end }}
    {{- if ne .state.kind "none" }}
    - --storage.path=/var/lib/mlexporter
    {{- end }}
    {{- with .args }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - name: mlexporter
      containerPort: {{ .port }}
      protocol: TCP
  {{- /* Not a readiness probe: a model that answers is ready, whether or not it is being watched. */}}
  startupProbe:
    {{- include "mlexporter-sidecar.probe" (dict "values" . "path" "/-/ready") | nindent 4 }}
    periodSeconds: 1
    timeoutSeconds: 2
    failureThreshold: {{ .startSeconds }}
  livenessProbe:
    {{- include "mlexporter-sidecar.probe" (dict "values" . "path" "/-/healthy") | nindent 4 }}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  {{- if and (not .native) (gt (int .preStopSeconds) 0) }}
  lifecycle:
    preStop:
      exec:
        command: [python, -c, "import time; time.sleep({{ .preStopSeconds }})"]
  {{- end }}
  {{- with .resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: mlexporter-tmp
      mountPath: /tmp
    {{- if ne .state.kind "none" }}
    - name: mlexporter-state
      mountPath: /var/lib/mlexporter
    {{- end }}
    {{- if or .config .existingConfigMap }}
    - name: mlexporter-config
      mountPath: /etc/mlexporter/config
      readOnly: true
    {{- end }}
    {{- if .baselines }}
    - name: mlexporter-baselines
      mountPath: /etc/mlexporter/baselines
      readOnly: true
    {{- end }}
    {{- if .webConfigSecret }}
    - name: mlexporter-web
      mountPath: /etc/mlexporter/web
      readOnly: true
    {{- end }}
{{- end }}

{{- define "mlexporter-sidecar.probe" -}}
httpGet:
  path: {{ .path }}
  port: mlexporter
  {{- if .values.tls }}
  scheme: HTTPS
  {{- end }}
{{- end }}
