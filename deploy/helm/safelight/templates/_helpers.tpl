{{/* At most 38 characters: Kubernetes makes a label of a StatefulSet's name and 11 more, and a label has 63. */}}
{{- define "safelight.name" -}}
{{- $name := contains "safelight" .Release.Name | ternary .Release.Name (printf "%s-safelight" .Release.Name) }}
{{- if le (len $name) 38 }}{{ $name }}{{ else }}{{ printf "%s-%s" ($name | trunc 29 | trimSuffix "-") ($name | sha256sum | trunc 8) }}{{ end }}
{{- end }}

{{- define "safelight.selector" -}}
app.kubernetes.io/name: safelight
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "safelight.labels" -}}
{{ include "safelight.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "safelight.port" -}}
{{- get (dict "keyvaluestore" 8000 "db" 8001 "storage" 8002 "master" 8003 "worker" 8004) . }}
{{- end }}

{{- define "safelight.keySecret" -}}
{{- .Values.clusterKey.existingSecret | default (printf "%s-cluster-key" (include "safelight.name" .)) }}
{{- end }}

{{/* The names by which pods of the cluster reach a service. Takes root and component. */}}
{{- define "safelight.hosts" -}}
{{- $short := printf "%s-%s" (include "safelight.name" .root) .component }}
{{- $full := printf "%s.%s" $short .root.Release.Namespace }}
{{- list $short $full (printf "%s.svc" $full) (printf "%s.svc.cluster.local" $full) | join "," }}
{{- end }}

{{- define "safelight.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "safelight.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65534
runAsGroup: 65534
fsGroup: 65534
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "safelight.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The pod of a service. Takes root, component and volume: the name of a claim template, or empty for memory. */}}
{{- define "safelight.pod" -}}
{{- $root := .root }}
{{- $component := .component }}
{{- $values := get $root.Values $component }}
{{- $name := include "safelight.name" $root }}
{{- $port := include "safelight.port" $component }}
metadata:
  labels: {{- include "safelight.labels" . | nindent 4 }}
spec:
  serviceAccountName: {{ $name }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds | default 30 }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext: {{- include "safelight.podSecurity" $root | nindent 4 }}
  containers:
    - name: {{ $component }}
      image: {{ include "safelight.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      workingDir: /srv
      command: [python3, -m, safelight.{{ $component }}]
      args:
        {{- if ne $component "keyvaluestore" }}
        - {{ printf "%s-keyvaluestore:8000" $name }}
        {{- else }}
        - --allowed-hosts={{ include "safelight.hosts" . }}
        {{- end }}
        - --host=0.0.0.0
        - --port={{ $port }}
        - --data=/data
        - --cluster-key-file=/run/secrets/safelight/cluster-key
        {{- if eq $component "master" }}
        {{- $more := $root.Values.ingress.enabled | ternary (list $root.Values.ingress.host) list }}
        - --allowed-hosts={{ prepend (concat $more $values.allowedHosts) (include "safelight.hosts" .) | join "," }}
        {{- with $root.Values.publicUrl }}
        - --public-url={{ . }}
        {{- end }}
        {{- end }}
        {{- if eq $component "worker" }}
        - --slots={{ $values.slots }}
        # The rest of the grace period is for what comes before and after the photos.
        - --drain={{ max 0 (sub (int $values.terminationGracePeriodSeconds) 15) }}s
        {{- end }}
        {{- with $values.args }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      env:
        - {name: SAFELIGHT_LOG_FORMAT, value: json}
        {{- if and (hasKey $values "storeSecret") $values.storeSecret.name }}
        - name: SAFELIGHT_{{ upper $component }}_STORE
          valueFrom:
            secretKeyRef: {name: {{ $values.storeSecret.name | quote }}, key: {{ $values.storeSecret.key | quote }}}
        {{- end }}
        {{- with $root.Values.traces }}
        {{- if .enabled }}
        - {name: SAFELIGHT_TRACES, value: "true"}
        - {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ required "traces.endpoint is the collector's URL" .endpoint | quote }}}
        {{- with .env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- end }}
        {{- end }}
        {{- with $values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: http, containerPort: {{ $port }}, protocol: TCP}
      startupProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 2
        failureThreshold: 150
      livenessProbe: # never /readyz: a restart does not bring PostgreSQL, a bucket or etcd back
        httpGet: {path: /healthz, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      # Without etcd, a key-value store still answers from memory. It must stay reachable by its name, or the others lose
      # one another. db and storage are found by the addresses that they register, whether they are ready or not.
      readinessProbe:
        httpGet: {path: {{ eq $component "keyvaluestore" | ternary "/healthz" "/readyz" }}, port: http}
        periodSeconds: 5
        timeoutSeconds: 5
      resources: {{- toYaml $values.resources | nindent 8 }}
      securityContext: {{- include "safelight.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        - {name: {{ .volume | default "scratch" }}, mountPath: /data}
        - {name: tmp, mountPath: /tmp}
        - {name: cluster-key, mountPath: /run/secrets/safelight, readOnly: true}
        {{- with $values.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- if not .volume }}
    - {name: scratch, emptyDir: {}}
    {{- else if $values.persistence.existingClaim }}
    - name: {{ .volume }}
      persistentVolumeClaim: {claimName: {{ $values.persistence.existingClaim | quote }}}
    {{- end }}
    {{- with $values.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    - {name: tmp, emptyDir: {}}
    - name: cluster-key
      secret: {secretName: {{ include "safelight.keySecret" $root | quote }}, defaultMode: 0440}
  {{- with $root.Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "safelight.selector" . | nindent 10 }}
{{- end }}
