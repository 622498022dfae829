{{/* The pod, for the Deployment and the StatefulSet. */}}

{{/* What a container of each profile may do. */}}
{{- define "lictor.containerSecurity" -}}
{{- $context := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) -}}
{{- if eq (include "lictor.profile" .) "root" -}}
{{- /* What writing /etc and installing packages takes, and ending what a script left running as another user. */ -}}
{{- $context = dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" false "capabilities" (dict "drop" (list "ALL") "add" (list "CHOWN" "DAC_OVERRIDE" "FOWNER" "FSETID" "KILL" "SETGID" "SETUID")) -}}
{{- end -}}
{{- include "lictor.without" (mergeOverwrite $context (deepCopy .Values.containerSecurityContext)) -}}
{{- end -}}

{{- define "lictor.podSecurity" -}}
{{- $context := dict "runAsNonRoot" true "runAsUser" 10001 "fsGroup" 10001 "fsGroupChangePolicy" "OnRootMismatch" "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- if eq (include "lictor.profile" .) "root" -}}
{{- $context = dict "runAsNonRoot" false "runAsUser" 0 "runAsGroup" 0 "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- end -}}
{{- include "lictor.without" (mergeOverwrite $context (deepCopy .Values.podSecurityContext)) -}}
{{- end -}}

{{/* Leaves out what is null: that is how one takes a field away. */}}
{{- define "lictor.without" -}}
{{- $left := dict -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) }}{{ $_ := set $left $key $value }}{{ end -}}
{{- end -}}
{{- toYaml $left -}}
{{- end -}}

{{- define "lictor.probe" -}}
httpGet:
  path: {{ .probe.path }}
  port: http
initialDelaySeconds: {{ int64 .probe.initialDelaySeconds }}
periodSeconds: {{ int64 .probe.periodSeconds }}
timeoutSeconds: {{ int64 .probe.timeoutSeconds }}
failureThreshold: {{ int64 .failures }}
{{- end -}}

{{- define "lictor.resources" -}}
{{- $own := dict "requests" (dict "cpu" "50m" "memory" "64Mi") "limits" (dict "memory" "512Mi") -}}
{{- if and .Values.resources (or .Values.cpu .Values.memory) -}}
{{- fail "resources goes before cpu and memory, which are names of a part of it: give resources, or those two" -}}
{{- end -}}
{{- with .Values.cpu }}{{ $_ := set $own.requests "cpu" (toString .) }}{{ end -}}
{{- with .Values.memory -}}
{{- $mebibytes := printf "%dMi" (int64 .) -}}
{{- $_ := set $own.requests "memory" $mebibytes -}}
{{- $_ := set $own.limits "memory" $mebibytes -}}
{{- end -}}
{{- toYaml (.Values.resources | default $own) -}}
{{- end -}}

{{- define "lictor.env" -}}
{{- $settings := include "lictor.settings" . | fromYaml -}}
{{- if .Values.agentNamePrefix }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: LICTOR_AGENT_NAME
  value: {{ printf "%s$(POD_NAME)" .Values.agentNamePrefix | quote }}
{{- else }}
- name: LICTOR_AGENT_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- end }}
{{- /* These two are in the image's environment, which goes before agent.yaml. The agent makes the directory itself, so that it owns
it: that of a volume belongs to root. */}}
- name: LICTOR_AGENT_STATE_DIR
  value: /var/lib/lictor-agent/state
- name: LICTOR_AGENT_HTTP_LISTEN
  value: {{ printf "%s:%d" .Values.http.address (int64 .Values.http.port) | quote }}
{{- $kerberos := $settings.kerberos | default dict }}
{{- if include "lictor.hasKrb5File" . }}
- name: KRB5_CONFIG
  value: /etc/lictor/krb5/krb5.conf
{{- else if omit $kerberos "keytabs" "caches" "krb5_conf" }}
- name: KRB5_CONFIG
  value: /var/lib/lictor-agent/state/krb5.conf
{{- end }}
{{- with concat (.Values.extraEnv | default list) (.Values.custom_envs | default list) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "lictor.mounts" -}}
- name: state
  mountPath: /var/lib/lictor-agent
- name: tmp
  mountPath: /tmp
- name: settings
  mountPath: /etc/lictor/agent
  readOnly: true
{{- if include "lictor.joinSecret" . }}
- name: join
  mountPath: /etc/lictor/join
  readOnly: true
{{- end }}
{{- if include "lictor.hasKrb5File" . }}
- name: krb5
  mountPath: /etc/lictor/krb5
  readOnly: true
{{- end }}
{{- if include "lictor.keytabSources" . | fromYamlArray }}
- name: keytabs
  mountPath: /etc/lictor/keytabs
  readOnly: true
{{- end }}
{{- if include "lictor.bootstrapSource" . }}
- name: bootstrap
  mountPath: /etc/lictor/bootstrap
  readOnly: true
{{- end }}
{{- if include "lictor.proxyPassword" . | or .Values.proxy.existingSecret }}
- name: proxy
  mountPath: /etc/lictor/proxy
  readOnly: true
{{- end }}
{{- if include "lictor.authorities" . | fromYamlArray }}
- name: ca
  mountPath: /etc/lictor/ca
  readOnly: true
{{- end }}
{{- if include "lictor.policyFile" . }}
- name: policy
  mountPath: /etc/lictor/policy
  readOnly: true
{{- end }}
{{- with concat (.Values.extraVolumeMounts | default list) (.Values.custom_mounts | default list) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Secrets are for the pod's group only; a keytab is as good as a password. */}}
{{- define "lictor.volumes" -}}
{{- $name := include "lictor.fullname" . -}}
{{- if .Values.persistence.existingClaim }}
- name: state
  persistentVolumeClaim:
    claimName: {{ .Values.persistence.existingClaim }}
{{- else if eq (include "lictor.workload" .) "deployment" }}
- name: state
  emptyDir:
    sizeLimit: {{ .Values.ephemeralStateSize }}
{{- end }}
- name: tmp
  emptyDir:
    {{- with .Values.tmp.medium }}
    medium: {{ . }}
    {{- end }}
    sizeLimit: {{ .Values.tmp.size }}
- name: settings
  configMap:
    name: {{ $name }}
{{- with include "lictor.joinSecret" . | fromYaml }}
- name: join
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: token
{{- end }}
{{- if include "lictor.hasKrb5File" . }}
- name: krb5
  configMap:
    name: {{ .Values.kerberos.existingConfigMap | default (printf "%s-krb5" $name) }}
    {{- if and .Values.kerberos.existingConfigMap (ne .Values.kerberos.key "krb5.conf") }}
    items:
      - key: {{ .Values.kerberos.key }}
        path: krb5.conf
    {{- end }}
{{- end }}
{{- with include "lictor.keytabSources" . | fromYamlArray }}
- name: keytabs
  projected:
    defaultMode: 0440
    sources:
      {{- toYaml . | nindent 6 }}
{{- end }}
{{- with include "lictor.bootstrapSource" . | fromYaml }}
- name: bootstrap
  {{- if eq .kind "secret" }}
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
  {{- else }}
  configMap:
    name: {{ .name }}
  {{- end }}
    items:
      - key: {{ .key }}
        path: init.sh
{{- end }}
{{- if include "lictor.proxyPassword" . | or .Values.proxy.existingSecret }}
- name: proxy
  secret:
    secretName: {{ .Values.proxy.existingSecret | default (printf "%s-proxy" $name) }}
    defaultMode: 0440
    items:
      - key: {{ ternary .Values.proxy.key "password" (not (empty .Values.proxy.existingSecret)) }}
        path: password
{{- end }}
{{- with include "lictor.authorities" . | fromYamlArray }}
- name: ca
  projected:
    defaultMode: 0444
    sources:
      {{- toYaml . | nindent 6 }}
{{- end }}
{{- if include "lictor.policyFile" . }}
- name: policy
  configMap:
    name: {{ .Values.policy.existingConfigMap | default (printf "%s-policy" $name) }}
{{- end }}
{{- with concat (.Values.extraVolumes | default list) (.Values.custom_volumes | default list) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
What pods must be started anew for: the agent reads its settings, the authorities and the script at its start. krb5.conf, keytabs,
policy, join token and the proxy's password are read when they are needed. The script may hold passwords and annotations are read by
more people than Secrets: what stands here of it is the outcome of a slow one-way function.
*/}}
{{- define "lictor.checksums" -}}
checksum/settings: {{ include "lictor.settings" . | sha256sum }}
{{- with include "lictor.caBundle" . }}
checksum/ca: {{ sha256sum . }}
{{- end }}
{{- with include "lictor.script" . }}
checksum/bootstrap: {{ derivePassword 1 "maximum" . (include "lictor.fullname" $) "bootstrap" | sha256sum | trunc 32 | quote }}
{{- end }}
{{- end -}}

{{- define "lictor.podAnnotations" -}}
{{- $values := .Values -}}
{{- toYaml (mergeOverwrite (dict) ($values.commonAnnotations | default dict) ($values.annotations | default dict) ($values.delegateAnnotations | default dict) ($values.podAnnotations | default dict) (include "lictor.checksums" . | fromYaml)) -}}
{{- end -}}

{{- define "lictor.podLabels" -}}
{{- $values := .Values -}}
{{- toYaml (mergeOverwrite (dict) ($values.delegateLabels | default dict) ($values.delegatePodLabels | default dict) ($values.podLabels | default dict) (include "lictor.labels" . | fromYaml)) -}}
{{- end -}}

{{- define "lictor.spread" -}}
{{- $selector := dict "matchLabels" (include "lictor.selector" . | fromYaml) -}}
{{- $constraints := .Values.topologySpreadConstraints -}}
{{- if kindIs "invalid" $constraints -}}
{{- $constraints = list (dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" "ScheduleAnyway") (dict "maxSkew" 1 "topologyKey" "topology.kubernetes.io/zone" "whenUnsatisfiable" "ScheduleAnyway") -}}
{{- end -}}
{{- $whole := list -}}
{{- range $constraints }}{{ $whole = append $whole (merge (deepCopy .) (dict "labelSelector" $selector)) }}{{ end -}}
{{- if $whole }}{{ toYaml $whole }}{{ end -}}
{{- end -}}

{{- define "lictor.pod" -}}
metadata:
  labels:
    {{- include "lictor.podLabels" . | nindent 4 }}
  annotations:
    {{- include "lictor.podAnnotations" . | nindent 4 }}
spec:
  serviceAccountName: {{ include "lictor.serviceAccount" . }}
  automountServiceAccountToken: {{ .Values.serviceAccount.automount }}
  # Variables of services would only be mistaken for settings.
  enableServiceLinks: false
  {{- $pull := .Values.imagePullSecrets }}
  {{- with .Values.imagePullSecret }}{{ $pull = append $pull . | uniq }}{{ end }}
  {{- with $pull }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  securityContext:
    {{- include "lictor.podSecurity" . | nindent 4 }}
  # drain_grace, and what the agent may need after it.
  terminationGracePeriodSeconds: {{ include "lictor.terminationGracePeriod" . }}
  {{- with concat (.Values.initContainers | default list) (.Values.custom_init_containers | default list) }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: agent
      image: {{ include "lictor.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: ["run", "--config", "/etc/lictor/agent/agent.yaml"]
      securityContext:
        {{- include "lictor.containerSecurity" . | nindent 8 }}
      env:
        {{- include "lictor.env" . | trim | nindent 8 }}
      {{- with .Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: http
          containerPort: {{ int64 .Values.http.port }}
          protocol: TCP
      startupProbe:
        {{- include "lictor.probe" (dict "probe" .Values.startupProbe "failures" (include "lictor.startupFailures" .)) | nindent 8 }}
      livenessProbe:
        {{- include "lictor.probe" (dict "probe" .Values.livenessProbe "failures" .Values.livenessProbe.failureThreshold) | nindent 8 }}
      readinessProbe:
        {{- include "lictor.probe" (dict "probe" .Values.readinessProbe "failures" .Values.readinessProbe.failureThreshold) | nindent 8 }}
      resources:
        {{- include "lictor.resources" . | nindent 8 }}
      volumeMounts:
        {{- include "lictor.mounts" . | trim | nindent 8 }}
    {{- with concat (.Values.extraContainers | default list) (.Values.custom_containers | default list) }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "lictor.volumes" . | trim | nindent 4 }}
  {{- with .Values.hostAliases }}
  hostAliases:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.dnsPolicy }}
  dnsPolicy: {{ . }}
  {{- end }}
  {{- with .Values.dnsConfig }}
  dnsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "lictor.spread" . }}
  topologySpreadConstraints:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.schedulerName }}
  schedulerName: {{ . }}
  {{- end }}
  {{- with .Values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
{{- end -}}
