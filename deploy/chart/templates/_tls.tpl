{{/* What the listener of a part serves TLS with; part is its values below tls. */}}
{{- define "agentcube.tlsEnv" -}}
{{- if .part.secretName -}}
- name: AGENTCUBE_TLS_CERT_FILE
  value: /etc/agentcube/tls/tls.crt
- name: AGENTCUBE_TLS_KEY_FILE
  value: /etc/agentcube/tls/tls.key
{{- if .part.clientCASecretName }}
- name: AGENTCUBE_TLS_CLIENT_CA_FILE
  value: /etc/agentcube/client-ca/ca.crt
- name: AGENTCUBE_TLS_CLIENT_NAMES
  value: {{ required "tls.workloadmanager.clientNames is required with clientCASecretName: whose certificates are let in" (join "," .part.clientNames) | quote }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "agentcube.tlsMounts" -}}
{{- if .secretName -}}
- {name: tls, mountPath: /etc/agentcube/tls, readOnly: true}
{{- if .clientCASecretName }}
- {name: client-ca, mountPath: /etc/agentcube/client-ca, readOnly: true}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "agentcube.tlsVolumes" -}}
{{- if .secretName -}}
- name: tls
  secret: {secretName: {{ .secretName }}, defaultMode: 0400}
{{- if .clientCASecretName }}
- name: client-ca
  secret: {secretName: {{ .clientCASecretName }}, defaultMode: 0400}
{{- end }}
{{- end -}}
{{- end -}}
