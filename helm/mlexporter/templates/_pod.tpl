{{/* The pod, which Deployment and StatefulSet have in common. */}}
{{- define "mlexporter.pod" -}}
{{- $name := include "mlexporter.fullname" . -}}
{{- $v := .Values -}}
metadata:
  labels:
    {{- /* Without the chart's version: a new chart alone is no reason for new pods. */}}
    {{- merge (include "mlexporter.selector" . | fromYaml) $v.podLabels $v.additionalLabels | toYaml | nindent 4 }}
  {{- $roll := and $v.config.rolloutOnChange (or $v.config.inline $v.baselines.files $v.webConfig.inline) }}
  {{- if or $roll $v.podAnnotations }}
  annotations:
    {{- if $roll }}
    checksum/config: {{ list $v.config.inline $v.baselines.files $v.webConfig.inline | toJson | sha256sum }}
    {{- end }}
    {{- with $v.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
spec:
  serviceAccountName: {{ include "mlexporter.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add $v.preStopSeconds 15 }}
  {{- with $v.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.baselines.download }}
  {{- if .image }}
  initContainers:
    - name: download-baselines
      image: {{ .image }}
      {{- range $key := list "command" "args" "env" "envFrom" }}
      {{- with get $v.baselines.download $key }}
      {{ $key }}:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- end }}
      {{- with $v.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: baselines
          mountPath: /baselines
        - name: tmp
          mountPath: /tmp
  {{- end }}
  {{- end }}
  containers:
    - name: mlexporter
      image: {{ include "mlexporter.image" . }}
      imagePullPolicy: {{ $v.image.pullPolicy }}
      args:
        - serve
        - --web.listen-address=:9877
        - --storage.path=/var/lib/mlexporter
        {{- if include "mlexporter.hasConfig" . }}
        - --config.file=/etc/mlexporter/{{ $v.config.key }}
        {{- end }}
        {{- if include "mlexporter.hasWebConfig" . }}
        - --web.config.file=/etc/mlexporter-web/{{ $v.webConfig.key }}
        {{- end }}
        {{- if $v.enableLifecycle }}
        - --web.enable-lifecycle
        {{- end }}
        - --log.level={{ $v.log.level }}
        - --log.format={{ $v.log.format }}
      ports:
        - name: http
          containerPort: 9877
      {{- include "mlexporter.probes" . | trim | nindent 6 }}
      {{- if $v.preStopSeconds }}
      lifecycle:
        preStop:
          exec:
            command: [sleep, {{ $v.preStopSeconds | quote }}]
      {{- end }}
      {{- with $v.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: state
          mountPath: /var/lib/mlexporter
        - name: tmp
          mountPath: /tmp
        {{- if include "mlexporter.hasConfig" . }}
        - name: config
          mountPath: /etc/mlexporter
          readOnly: true
        {{- end }}
        {{- if include "mlexporter.hasBaselines" . }}
        - name: baselines
          mountPath: /baselines
          readOnly: true
        {{- end }}
        {{- if include "mlexporter.hasWebConfig" . }}
        - name: web-config
          mountPath: /etc/mlexporter-web
          readOnly: true
        {{- end }}
  volumes:
    {{- include "mlexporter.volumes" . | nindent 4 }}
  {{- range $key := list "nodeSelector" "tolerations" "affinity" }}
  {{- with get $v $key }}
  {{ $key }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with $v.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    {{- $selector := dict "labelSelector" (dict "matchLabels" (include "mlexporter.selector" $ | fromYaml)) }}
    - {{ merge (deepCopy .) $selector | toYaml | indent 6 | trim }}
    {{- end }}
  {{- end }}
  {{- with $v.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
{{- end -}}

{{/* Both are open to everybody, but for a client certificate: then TCP has to do. */}}
{{- define "mlexporter.probes" -}}
{{- $paths := dict "startupProbe" "/-/ready" "readinessProbe" "/-/ready" "livenessProbe" "/-/healthy" -}}
{{- range $probe, $path := $paths }}
{{ $probe }}:
  {{- if $.Values.webConfig.clientCertificates }}
  tcpSocket:
    port: http
  {{- else }}
  httpGet:
    path: {{ $path }}
    port: http
    scheme: {{ upper $.Values.webConfig.scheme }}
  {{- end }}
  {{- if eq $probe "startupProbe" }}
  periodSeconds: 2
  failureThreshold: 60
  {{- else }}
  periodSeconds: 10
  {{- end }}
  timeoutSeconds: 5
{{- end }}
{{- end -}}

{{- define "mlexporter.volumes" -}}
{{- $name := include "mlexporter.fullname" . -}}
{{- $v := .Values -}}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- if not $v.persistence.enabled }}
- name: state
  emptyDir:
    sizeLimit: {{ $v.persistence.sizeLimit }}
{{- else if $v.persistence.existingClaim }}
- name: state
  persistentVolumeClaim:
    claimName: {{ $v.persistence.existingClaim }}
{{- end }}
{{- if include "mlexporter.hasConfig" . }}
- name: config
  {{- include "mlexporter.source" (dict "inline" (printf "%s-config" $name) "values" $v.config) | trim | nindent 2 }}
{{- end }}
{{- if include "mlexporter.hasBaselines" . }}
- name: baselines
  {{- if $v.baselines.download.image }}
  emptyDir:
    sizeLimit: {{ $v.baselines.download.sizeLimit }}
  {{- else if $v.baselines.existingClaim }}
  persistentVolumeClaim:
    claimName: {{ $v.baselines.existingClaim }}
    readOnly: true
  {{- else }}
  {{- include "mlexporter.source" (dict "inline" (printf "%s-baselines" $name) "values" $v.baselines) | trim | nindent 2 }}
  {{- end }}
{{- end }}
{{- if include "mlexporter.hasWebConfig" . }}
- name: web-config
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ default (printf "%s-web" $name) $v.webConfig.existingSecret }}
      {{- with $v.webConfig.tlsSecret }}
      - secret:
          name: {{ . }}
      {{- end }}
{{- end }}
{{- end -}}
