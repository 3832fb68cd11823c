{{- define "agentcube.fullname" -}}
{{- .Values.fullnameOverride | default (.Values.nameOverride | default "agentcube") | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* Begins the names of what belongs to no namespace, of which each installation has its own. */}}
{{- define "agentcube.clusterName" -}}
{{- $name := include "agentcube.fullname" . -}}
{{- if or .Values.fullnameOverride (eq $name .Release.Namespace) }}{{ $name }}{{ else }}{{ $name }}-{{ .Release.Namespace }}{{ end -}}
{{- end -}}

{{- define "agentcube.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "agentcube.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: agentcube
{{- end -}}

{{/* What a Deployment selects its Pods by. */}}
{{- define "agentcube.selector" -}}
app.kubernetes.io/name: agentcube
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* The names of a service, and more, as a list for allowedHosts. */}}
{{- define "agentcube.hosts" -}}
{{- $ns := .root.Release.Namespace -}}
{{- concat (list .service (printf "%s.%s" .service $ns) (printf "%s.%s.svc" .service $ns) (printf "%s.%s.svc.cluster.local" .service $ns)) .hosts | uniq | join "," -}}
{{- end -}}

{{- define "agentcube.keys" -}}
{{ .Values.keys.existingSecret | default (printf "%s-keys" (include "agentcube.fullname" .)) }}
{{- end -}}

{{- define "agentcube.redisAddress" -}}
{{- if .Values.redis.bundled.enabled -}}
redis://{{ include "agentcube.fullname" . }}-valkey:6379
{{- else -}}
{{- $addr := required "redis.addr is required, unless redis.bundled.enabled is true: sessions are kept there" .Values.redis.addr -}}
{{- if contains "://" $addr }}{{ $addr }}{{ else }}redis://{{ $addr }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "agentcube.redisSecret" -}}
{{- if .Values.redis.secretName }}{{ .Values.redis.secretName }}{{ else if or .Values.redis.password .Values.redis.bundled.enabled }}{{ include "agentcube.fullname" . }}-redis{{ end -}}
{{- end -}}

{{/* Environment that both parts have. */}}
{{- define "agentcube.env" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: AGENTCUBE_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: AGENTCUBE_LISTEN
  value: ":8080"
- name: AGENTCUBE_ALLOW_NON_LOOPBACK
  value: "true"
- name: AGENTCUBE_DATA_DIR
  value: /data
- name: AGENTCUBE_LOG_LEVEL
  value: {{ .Values.log.level | quote }}
- name: AGENTCUBE_LOG_FORMAT
  value: {{ .Values.log.format | quote }}
# One that goes has a minute, of which it waits 5 s until no new requests come.
- name: AGENTCUBE_SHUTDOWN_TIMEOUT
  value: 50s
- name: AGENTCUBE_AUDIT
  value: {{ .Values.audit.enabled | quote }}
- name: AGENTCUBE_AUDIT_MAX_SIZE
  value: {{ .Values.audit.maxSize | quote }}
- name: AGENTCUBE_STORE
  value: redis
- name: AGENTCUBE_REDIS_URL
  value: {{ include "agentcube.redisAddress" . | quote }}
- name: AGENTCUBE_REDIS_PREFIX
  value: {{ .Values.redis.prefix | quote }}
{{- if include "agentcube.redisSecret" . }}
- name: AGENTCUBE_REDIS_PASSWORD_FILE
  value: /etc/agentcube/redis/{{ .Values.redis.secretKey }}
{{- end }}
{{- if .Values.redis.tlsSecretName }}
- name: AGENTCUBE_REDIS_CA_FILE
  value: /etc/agentcube/redis-tls/ca.crt
{{- if .Values.redis.clientCertificate }}
- name: AGENTCUBE_REDIS_CERT_FILE
  value: /etc/agentcube/redis-tls/tls.crt
- name: AGENTCUBE_REDIS_KEY_FILE
  value: /etc/agentcube/redis-tls/tls.key
{{- end }}
{{- end }}
- name: AGENTCUBE_KUBE_TOKEN_AUDIENCES
  value: {{ join "," .Values.auth.audiences | quote }}
- name: AGENTCUBE_KUBE_ACCESS_REVIEWS
  value: {{ .Values.auth.authorize | quote }}
{{- with .Values.auth.oidc }}
{{- if .issuerUrl }}
- name: AGENTCUBE_OIDC_ISSUER
  value: {{ .issuerUrl | quote }}
- name: AGENTCUBE_OIDC_AUDIENCE
  value: {{ .audience | quote }}
- name: AGENTCUBE_OIDC_ROLE_CLAIM
  value: {{ .roleClaim | quote }}
- name: AGENTCUBE_OIDC_REQUIRED_ROLE
  value: {{ .requiredRole | quote }}
{{- end }}
{{- end }}
{{- if .Values.metrics.enabled }}
- name: AGENTCUBE_METRICS_LISTEN
  value: ":{{ .Values.metrics.port }}"
{{- end }}
{{- end -}}

{{/* Any setting by its own name, as environment. */}}
{{- define "agentcube.config" -}}
{{- range $key, $value := . }}
- name: AGENTCUBE_{{ $key | snakecase | upper }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "agentcube.volumes" -}}
- name: data
  emptyDir: {}
{{- if .root.Values.audit.enabled }}
- name: audit
{{ toYaml (.root.Values.audit.volume | default (dict "emptyDir" dict)) | indent 2 }}
{{- end }}
- name: keys
  secret:
    secretName: {{ include "agentcube.keys" .root }}
    defaultMode: 0400
    items:
{{ .items | indent 6 }}
{{- if include "agentcube.redisSecret" .root }}
- name: redis
  secret:
    secretName: {{ include "agentcube.redisSecret" .root }}
    defaultMode: 0400
{{- end }}
{{- if .root.Values.redis.tlsSecretName }}
- name: redis-tls
  secret:
    secretName: {{ .root.Values.redis.tlsSecretName }}
    defaultMode: 0400
{{- end }}
{{- end -}}

{{- define "agentcube.mounts" -}}
- {name: data, mountPath: /data}
{{- if .Values.audit.enabled }}
- {name: audit, mountPath: /data/audit, subPathExpr: $(POD_NAME)/audit}
{{- end }}
- {name: keys, mountPath: /etc/agentcube/keys, readOnly: true}
{{- if include "agentcube.redisSecret" . }}
- {name: redis, mountPath: /etc/agentcube/redis, readOnly: true}
{{- end }}
{{- if .Values.redis.tlsSecretName }}
- {name: redis-tls, mountPath: /etc/agentcube/redis-tls, readOnly: true}
{{- end }}
{{- end -}}

{{/* Pods of the parts themselves run as nobody, and write to /data alone. */}}
{{- define "agentcube.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "agentcube.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "agentcube.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}
