{{/* Names, labels, and the choice between two names of one value. */}}

{{- define "lictor.fullname" -}}
{{- $named := .Values.fullnameOverride | default .Values.delegateName -}}
{{- $release := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name := $named | default $release | lower | replace "_" "-" | replace "." "-" | replace " " "-" -}}
{{- /* What a StatefulSet puts behind it must fit into a label. */ -}}
{{- $name = $name | trunc 52 | trimSuffix "-" -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name) -}}
{{- fail (printf "%q cannot be the name of objects: use letters, digits and hyphens, and a letter first (fullnameOverride goes before delegateName)" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "lictor.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "lictor.labels" -}}
{{- $chart := printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- $own := dict "helm.sh/chart" $chart "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/managed-by" .Release.Service "app.kubernetes.io/component" "agent" "app.kubernetes.io/part-of" "lictor" -}}
{{- toYaml (mergeOverwrite (dict) (.Values.additionalLabels | default dict) (.Values.commonLabels | default dict) $own (include "lictor.selector" . | fromYaml)) -}}
{{- end -}}

{{/* Head of an object: (dict "root" $ "name" ... "labels" ... "annotations" ...). */}}
{{- define "lictor.metadata" -}}
{{- $root := .root -}}
name: {{ .name | default (include "lictor.fullname" $root) | quote }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- toYaml (mergeOverwrite (dict) (.labels | default dict) (include "lictor.labels" $root | fromYaml)) | nindent 2 }}
{{- with mergeOverwrite (dict) ($root.Values.commonAnnotations | default dict) (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* One value of two names: (list "own" value "harness" value). Different ones are a mistake. */}}
{{- define "lictor.either" -}}
{{- $a := index . 1 | default "" | toString | trim -}}
{{- $b := index . 3 | default "" | toString | trim -}}
{{- if and $a $b (ne $a $b) -}}
{{- fail (printf "%s and %s are two names of one value and differ: give one of them" (index . 0) (index . 2)) -}}
{{- end -}}
{{- $a | default $b -}}
{{- end -}}

{{/* What is said by our own name goes before the alias, which copied values bring along. */}}
{{- define "lictor.profile" -}}
{{- .Values.profile | default (ternary "root" "restricted" (eq (toString .Values.securityContext.runAsRoot) "true")) -}}
{{- end -}}

{{/* Whether an image is that of Harness's delegate, which values that were copied name. */}}
{{- define "lictor.isHarnessImage" -}}
{{- if regexMatch "(^|/)(harness-)?delegate(-[a-z]+)*([:@][^/]*)?$" (. | default "" | toString) -}}true{{- end -}}
{{- end -}}

{{- define "lictor.image" -}}
{{- $image := .Values.image -}}
{{- $tag := $image.tag | default (printf "%s%s" .Chart.AppVersion (ternary "-root" "" (eq (include "lictor.profile" .) "root"))) -}}
{{- $own := printf "%s%s%s" (ternary (printf "%s/" $image.registry) "" (not (empty $image.registry))) $image.repository (ternary (printf "@%s" $image.digest) (printf ":%s" $tag) (not (empty $image.digest))) -}}
{{- $harness := .Values.delegateDockerImage | default "" -}}
{{- if include "lictor.isHarnessImage" $image.repository -}}
{{- fail "image.repository names the image of Harness's delegate: put the image of this agent in its place" -}}
{{- else if or (not $harness) (include "lictor.isHarnessImage" $harness) -}}
{{- $own -}}
{{- else if and (or $image.registry $image.digest $image.tag (ne $image.repository "lictor-agent")) (ne $harness $own) -}}
{{- fail "image.* and delegateDockerImage are two names of one value and differ: give one of them" -}}
{{- else -}}
{{- $harness -}}
{{- end -}}
{{- end -}}

{{- define "lictor.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "lictor.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* statefulset, or deployment. */}}
{{- define "lictor.workload" -}}
{{- if and .Values.persistence.enabled (not .Values.persistence.existingClaim) -}}statefulset{{- else -}}deployment{{- end -}}
{{- end -}}

{{/* "true" for a value that may be a text or a switch. */}}
{{- define "lictor.isTrue" -}}
{{- if eq (lower (toString .)) "true" -}}true{{- end -}}
{{- end -}}
