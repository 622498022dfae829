{{/* Milliseconds of a time as settings write it (`90s`, `1m 30s`): (dict "name" "config.x" "text" "90s"). */}}
{{- define "lictor.milliseconds" -}}
{{- $units := dict "ms" 1 "msec" 1 "millis" 1 "s" 1000 "sec" 1000 "secs" 1000 "second" 1000 "seconds" 1000 "m" 60000 "min" 60000 "mins" 60000 "minute" 60000 "minutes" 60000 "h" 3600000 "hr" 3600000 "hrs" 3600000 "hour" 3600000 "hours" 3600000 "d" 86400000 "day" 86400000 "days" 86400000 -}}
{{- $text := .text | toString | nospace -}}
{{- $sum := 0 -}}
{{- $parts := regexFindAll "[0-9]+[a-z]+" $text -1 -}}
{{- if or (not $parts) (ne (join "" $parts) $text) -}}
{{- fail (printf "%s: %q is not a time with its unit, such as 90s, 5m or 1h 30m" .name (toString .text)) -}}
{{- end -}}
{{- range $parts -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- if not (hasKey $units $unit) -}}
{{- fail (printf "%s: %q has a unit that is not understood here: use ms, s, m, h or d" $.name (toString $.text)) -}}
{{- end -}}
{{- $sum = add $sum (mul (int64 (regexFind "[0-9]+" .)) (get $units $unit)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* The same in whole seconds, rounded up. */}}
{{- define "lictor.seconds" -}}
{{- div (add (int64 (include "lictor.milliseconds" .)) 999) 1000 -}}
{{- end -}}

{{/*
What the agent may need after drain_grace, in seconds: 60 to stop the commands that still run on their hosts, 10 to deliver what
they said, 15 to delete its shells, and some to close its endpoints. Cut short, tasks end as unknown and shells stay on hosts.
*/}}
{{- define "lictor.afterDrain" -}}100{{- end -}}

{{- define "lictor.terminationGracePeriod" -}}
{{- $settings := include "lictor.settings" . | fromYaml -}}
{{- $drain := include "lictor.seconds" (dict "name" "config.drain_grace" "text" ($settings.drain_grace | default "60s")) | int64 -}}
{{- $least := add $drain (include "lictor.afterDrain" . | int64) -}}
{{- with .Values.terminationGracePeriodSeconds -}}
{{- if lt (int64 .) $least -}}
{{- fail (printf "terminationGracePeriodSeconds: %d is less than the %d that drain_grace (%ds) and what follows it (%ss) need: raise it, or lower config.drain_grace" (int64 .) $least $drain (include "lictor.afterDrain" $)) -}}
{{- end -}}
{{- end -}}
{{- .Values.terminationGracePeriodSeconds | default $least | int64 -}}
{{- end -}}

{{/* Failures of the startup probe: a minute, and bootstrap.timeout when a script runs. */}}
{{- define "lictor.startupFailures" -}}
{{- $settings := include "lictor.settings" . | fromYaml -}}
{{- $bootstrap := $settings.bootstrap | default dict -}}
{{- $budget := 60 -}}
{{- if include "lictor.hasScript" . -}}
{{- $budget = add $budget (include "lictor.seconds" (dict "name" "config.bootstrap.timeout" "text" ($bootstrap.timeout | default "10m")) | int64) -}}
{{- end -}}
{{- $period := int64 .Values.startupProbe.periodSeconds -}}
{{- with .Values.startupProbe.failureThreshold -}}
{{- if and (eq $.Values.startupProbe.path "/ready") (lt (mul $period (int64 .)) $budget) -}}
{{- fail (printf "startupProbe: %d failures every %ds are less than the %ds that a start may take, and /ready says no until then: raise failureThreshold, or ask /live" (int64 .) $period $budget) -}}
{{- end -}}
{{- end -}}
{{- .Values.startupProbe.failureThreshold | default (div (add $budget (sub $period 1)) $period) | int64 -}}
{{- end -}}
