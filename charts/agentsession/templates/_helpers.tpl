{{/* Labels of every object. Takes a dict: root (the chart's context), component. */}}
{{- define "agentsession.labels" -}}
{{ include "agentsession.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{/* Labels that find a component's pods. Session pods share the name, and so may lie in the same namespace: the component tells. */}}
{{- define "agentsession.selector" -}}
app.kubernetes.io/name: agentsession
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Image reference. Takes a dict: root, image (one of .Values.image). */}}
{{- define "agentsession.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* The two security contexts that the restricted Pod Security Standard asks for. 65532 is the user of the images. */}}
{{- define "agentsession.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "agentsession.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Annotations of what runs before `helm uninstall`. Takes a dict: weight (lower ones are created first). What fails stays. */}}
{{- define "agentsession.hook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
