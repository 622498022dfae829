{{- define "lictorControlPlane.fullname" -}}
{{- $release := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name := .Values.fullnameOverride | default $release | lower | trunc 52 | trimSuffix "-" -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name) -}}
{{- fail (printf "%q cannot be the name of objects: use letters, digits and hyphens, and a letter first (fullnameOverride)" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "lictorControlPlane.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "lictorControlPlane.labels" -}}
{{- $chart := printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- $own := dict "helm.sh/chart" $chart "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/managed-by" .Release.Service "app.kubernetes.io/component" "control-plane" "app.kubernetes.io/part-of" "lictor" -}}
{{- toYaml (mergeOverwrite (dict) (.Values.commonLabels | default dict) $own (include "lictorControlPlane.selector" . | fromYaml)) -}}
{{- end -}}

{{/* Head of an object: (dict "root" $ "name" ... "labels" ... "annotations" ...). */}}
{{- define "lictorControlPlane.metadata" -}}
{{- $root := .root -}}
name: {{ .name | default (include "lictorControlPlane.fullname" $root) | quote }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- toYaml (mergeOverwrite (include "lictorControlPlane.labels" $root | fromYaml) (.labels | default dict)) | nindent 2 }}
{{- with mergeOverwrite (dict) ($root.Values.commonAnnotations | default dict) (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "lictorControlPlane.image" -}}
{{- $image := .Values.image -}}
{{- $version := ternary (printf "@%s" $image.digest) (printf ":%s" ($image.tag | default .Chart.AppVersion)) (not (empty $image.digest)) -}}
{{- printf "%s%s%s" (ternary (printf "%s/" $image.registry) "" (not (empty $image.registry))) $image.repository $version -}}
{{- end -}}

{{- define "lictorControlPlane.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "lictorControlPlane.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* Every name that the certificate must have. */}}
{{- define "lictorControlPlane.names" -}}
{{- $service := include "lictorControlPlane.fullname" . -}}
{{- $inside := printf "%s.%s" $service .Release.Namespace -}}
{{- $names := list $service $inside (printf "%s.svc" $inside) (printf "%s.svc.%s" $inside .Values.clusterDomain) "localhost" "127.0.0.1" -}}
{{- toYaml (concat $names .Values.names | uniq) -}}
{{- end -}}

{{/* The settings (control-plane.yaml): what values say, with `config` beneath. */}}
{{- define "lictorControlPlane.settings" -}}
{{- $given := deepCopy (.Values.config | default dict) -}}
{{- range $key, $instead := dict "listen" "grpc.address and grpc.port" "http_listen" "http.address and http.port" "state_dir" "the chart, which mounts it" "names" "the value names" -}}
{{- if hasKey $given $key -}}
{{- fail (printf "config.%s: comes from %s" $key $instead) -}}
{{- end -}}
{{- end -}}
{{- $settings := dict "names" (include "lictorControlPlane.names" . | fromYamlArray) -}}
{{- if .Values.masterKey.existingSecret -}}
{{- if hasKey $given "master_key_file" -}}
{{- fail "config.master_key_file and masterKey.existingSecret both give the master key: give one of them" -}}
{{- end -}}
{{- $_ := set $settings "master_key_file" (printf "/etc/lictor/master-key/%s" .Values.masterKey.key) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $settings $given) -}}
{{- end -}}

{{- define "lictorControlPlane.without" -}}
{{- $left := dict -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) }}{{ $_ := set $left $key $value }}{{ end -}}
{{- end -}}
{{- toYaml $left -}}
{{- end -}}

{{/* (dict "path" "/live" "probe" values). */}}
{{- define "lictorControlPlane.probe" -}}
httpGet:
  path: {{ .path }}
  port: http
periodSeconds: {{ int64 .probe.periodSeconds }}
timeoutSeconds: {{ int64 .probe.timeoutSeconds }}
failureThreshold: {{ int64 .probe.failureThreshold }}
{{- end -}}
