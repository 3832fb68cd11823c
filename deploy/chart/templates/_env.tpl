{{/*
The environment of a part: what the chart sets, which is the text own, and config and
extraEnv of its values, which are part. Of entries of one name the last is kept alone:
server-side apply refuses two.
*/}}
{{- define "agentcube.environment" -}}
{{- $all := concat (fromYamlArray .own) (fromYamlArray (include "agentcube.config" .part.config)) (.part.extraEnv | default list) }}
{{- $last := dict }}
{{- range $i, $entry := $all }}{{ $_ := set $last $entry.name $i }}{{ end }}
{{- $kept := list }}
{{- range $i, $entry := $all }}{{ if eq $i (get $last $entry.name) }}{{ $kept = append $kept $entry }}{{ end }}{{ end }}
{{- toYaml $kept }}
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
{{- /* One that goes has a minute, of which it waits 5 s until no new requests come. */}}
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

{{/* What the chart sets for the Router. */}}
{{- define "agentcube.routerEnv" -}}
{{ include "agentcube.env" $ }}
- name: AGENTCUBE_ALLOWED_HOSTS
  value: {{ include "agentcube.hosts" (dict "root" $ "service" "agentcube-router" "hosts" $.Values.router.hosts) | quote }}
- name: AGENTCUBE_WORKLOAD_MANAGER_URL
  value: {{ printf "%s://workloadmanager.%s.svc:%v" (ternary "https" "http" (ne $.Values.tls.workloadmanager.secretName "")) $.Release.Namespace $.Values.workloadmanager.service.port }}
- name: AGENTCUBE_ROUTER_KEY_FILE
  value: /etc/agentcube/keys/router.key
- name: AGENTCUBE_AUDIT_CONTENT
  value: {{ $.Values.audit.content | quote }}
- name: AGENTCUBE_MAX_REQUESTS_PER_OWNER
  value: {{ $.Values.limits.maxRequestsPerOwner | quote }}
- name: AGENTCUBE_MAX_CONCURRENT_REQUESTS
  value: {{ $.Values.limits.maxConcurrentRequests | quote }}
{{ include "agentcube.tlsEnv" (dict "root" $ "part" $.Values.tls.router) }}
{{- if $.Values.tls.workloadmanager.secretName }}
- name: AGENTCUBE_WORKLOAD_MANAGER_CA_FILE
  value: /etc/agentcube/workloadmanager-ca/ca.crt
{{- end }}
{{- if $.Values.tls.router.clientSecretName }}
- name: AGENTCUBE_WORKLOAD_MANAGER_CERT_FILE
  value: /etc/agentcube/client-tls/tls.crt
- name: AGENTCUBE_WORKLOAD_MANAGER_KEY_FILE
  value: /etc/agentcube/client-tls/tls.key
{{- else if $.Values.tls.workloadmanager.clientCASecretName }}
{{- fail "tls.router.clientSecretName is required with tls.workloadmanager.clientCASecretName: the Router has to show a certificate, too" }}
{{- end }}
{{- end -}}

{{/* What the chart sets for the Workload Manager. */}}
{{- define "agentcube.workloadmanagerEnv" -}}
{{ include "agentcube.env" $ }}
- name: AGENTCUBE_ALLOWED_HOSTS
  value: {{ include "agentcube.hosts" (dict "root" $ "service" "workloadmanager" "hosts" $.Values.workloadmanager.hosts) | quote }}
- name: AGENTCUBE_WATCH_NAMESPACE
  value: {{ $.Values.sandbox.namespace | quote }}
- name: AGENTCUBE_AGENT_IMAGE
  value: {{ include "agentcube.image" $ }}
- name: AGENTCUBE_AGENT_IMAGE_PULL_POLICY
  value: {{ $.Values.image.pullPolicy }}
{{- with $.Values.imagePullSecrets }}
{{- $names := list }}
{{- range . }}{{ $names = append $names .name }}{{ end }}
- name: AGENTCUBE_AGENT_IMAGE_PULL_SECRETS
  value: {{ join "," $names | quote }}
{{- end }}
- name: AGENTCUBE_DEFAULT_IMAGE
  value: {{ $.Values.sandbox.defaultImage | quote }}
- name: AGENTCUBE_DEFAULT_ISOLATION
  value: {{ $.Values.sandbox.defaultIsolation }}
- name: AGENTCUBE_POD_PENDING_TIMEOUT
  value: {{ $.Values.sandbox.pendingTimeout | quote }}
- name: AGENTCUBE_SANDBOX_CREATE_TIMEOUT
  value: {{ $.Values.sandbox.createTimeout | quote }}
- name: AGENTCUBE_NETWORK_POLICIES
  value: {{ $.Values.sandbox.networkPolicies | quote }}
- name: AGENTCUBE_BOOTSTRAP_KEY_FILE
  value: /etc/agentcube/keys/bootstrap.key
- name: AGENTCUBE_ROUTER_CERTIFICATE_FILE
  value: /etc/agentcube/keys/router.crt
- name: AGENTCUBE_MAX_SESSIONS_PER_OWNER
  value: {{ $.Values.limits.maxSessionsPerOwner | quote }}
- name: AGENTCUBE_MAX_CREATE_RATE_PER_OWNER
  value: {{ $.Values.limits.maxCreateRatePerOwner | quote }}
{{ include "agentcube.tlsEnv" (dict "root" $ "part" $.Values.tls.workloadmanager) }}
{{- end -}}
