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
