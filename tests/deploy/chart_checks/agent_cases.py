"""Values for the agent's chart: what must render, and what must be refused with which words."""

import base64

# Whoever finds it outside of a Secret has found a leak.
MARKER = "MARKED-SECRET-7Q2"

BASIC = {"controlPlane": {"endpoint": "https://lictor.example:7443"}, "joinToken": {"existingSecret": "join"}}
HARNESS = {"managerEndpoint": "https://lictor.example", "delegateToken": f"{MARKER}-token"}
KRB5_CONF = """[libdefaults]
    default_realm = CORP.EXAMPLE
[realms]
    CORP.EXAMPLE = {
        kdc = dc1.corp.example
    }
"""
# An authority of nobody; its key was never kept.
PEM = """-----BEGIN CERTIFICATE-----
MIIBlDCCATmgAwIBAgIUPRN5bcJAfLcJ5zfe6on34mDDrpEwCgYIKoZIzj0EAwIw
HjEcMBoGA1UEAwwTQXV0aG9yaXR5IG9mIGEgdGVzdDAgFw0yNjExMjEyMTQ2MzRa
GA8yMTI2MTAyODIxNDYzNFowHjEcMBoGA1UEAwwTQXV0aG9yaXR5IG9mIGEgdGVz
dDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABAQE7B8QuwPxY5dnUWQJFjIWt21k
797h+M5pxtPUFPnBzB4m1hnUgosvogT1IDgpiEGEN/e0BZvJDZRR9jjlhN6jUzBR
MB0GA1UdDgQWBBSXHysSqbbCBEx+cy4yLv4W4ks79TAfBgNVHSMEGDAWgBSXHysS
qbbCBEx+cy4yLv4W4ks79TAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0kA
MEYCIQCcrNG6w1toRhHPTPBjYPIx7VCF6jtfUO/a5PBEHM/jmAIhANcjxDPHvzaz
CkjffkkpGI+tqcBSS3J7Y2bQhtsbi0Oo
-----END CERTIFICATE-----
"""
# A keytab without keys: its version and nothing else.
KEYTAB = base64.b64encode(b"\x05\x02").decode()
SCRIPT = f"#!/bin/bash\necho '{MARKER}-password' | kinit svc@CORP.EXAMPLE\n"

# Objects that users bring, by name, with what is in them.
OUTSIDE = {
    "join": {"token": "x", "other": "x"},
    "harness-join": {"DELEGATE_TOKEN": "x"},
    "krb5": {"krb5.conf": KRB5_CONF, "corp.conf": KRB5_CONF},
    "keytabs-a": {"a.keytab": ""},
    "keytabs-b": {"b.keytab": ""},
    "scripts": {"init.sh": "true\n", "start": "true\n"},
    "proxy": {"password": "x", "secret": "x"},
    "authorities": {"ca.crt": PEM},
    "more-authorities": {"more.pem": PEM},
    "policy": {"policy.yaml": "hosts:\n  allow: [.corp.example]\n", "own.toml": '[hosts]\nallow = [".corp.example"]\n'},
}


def on(base, **values):
    return {**base, **values}


GOOD = {
    "smallest, as Harness users write it": HARNESS,
    "smallest, with names of our own": BASIC,
    "no volume": on(BASIC, persistence={"enabled": False}, replicas=3),
    "an existing claim": on(BASIC, persistence={"existingClaim": "kept"}),
    "volumes of a class": on(
        BASIC,
        replicas=3,
        persistence={
            "size": "10Gi",
            "storageClassName": "fast",
            "accessModes": ["ReadWriteOncePod"],
            "annotations": {"a": "b"},
            "whenDeleted": "Delete",
            "whenScaled": "Delete",
        },
        podManagementPolicy="OrderedReady",
        rollingUpdate={"maxUnavailable": 2},
    ),
    "krb5.conf from a value, keytabs from Secrets": on(
        BASIC, kerberos={"krb5Conf": KRB5_CONF, "keytabs": {"existingSecrets": ["keytabs-a", "keytabs-b"]}}
    ),
    "krb5.conf from a ConfigMap": on(BASIC, kerberos={"existingConfigMap": "krb5"}),
    "krb5.conf under another key, keytab from a value": on(
        BASIC,
        kerberos={"existingConfigMap": "krb5", "key": "corp.conf", "keytabs": {"inline": {"svc.keytab": KEYTAB}}},
    ),
    "declared realms": on(
        BASIC,
        kerberos={
            "defaultRealm": "CORP.EXAMPLE",
            "realms": {
                "CORP.EXAMPLE": {
                    "kdc": ["dc1.corp.example", "dc2.corp.example:8888"],
                    "adminServer": "dc1.corp.example",
                    "kpasswdServer": "dc1.corp.example:464",
                    "primaryKdc": "dc1.corp.example",
                    "defaultDomain": "corp.example",
                },
                "LAB.EXAMPLE": {"kdc": ["dc.lab.example"]},
            },
            "domainRealm": {".corp.example": "CORP.EXAMPLE"},
            "dnsLookupKdc": False,
            "rdns": False,
            "forwardable": True,
            "ticketLifetime": "10h",
            "renewLifetime": "7d",
            "udpPreferenceLimit": 1,
            "keytabs": {"existingSecrets": ["keytabs-a"]},
        },
    ),
    "a script from a value, as root": on(HARNESS, initScript=SCRIPT, profile="root"),
    "a script from a Secret": on(BASIC, bootstrap={"existingSecret": "scripts"}),
    "a script from a ConfigMap, that must succeed": on(
        BASIC,
        bootstrap={"existingConfigMap": "scripts", "key": "start"},
        config={"bootstrap": {"policy": "fail", "timeout": "20m"}},
    ),
    "a script in a variable": on(BASIC, extraEnv=[{"name": "INIT_SCRIPT", "value": "true"}], profile="root"),
    "a startup probe that asks for readiness": on(
        BASIC, bootstrap={"script": "true"}, startupProbe={"path": "/ready", "periodSeconds": 7}
    ),
    "a proxy of our own names": on(
        BASIC,
        proxy={
            "url": "http://proxy.example:3128",
            "username": "svc",
            "existingSecret": "proxy",
            "key": "secret",
            "noProxy": ["corp.example", "10.0.0.0/8"],
        },
    ),
    "a proxy of Harness's names": on(
        HARNESS,
        proxyHost="proxy.example",
        proxyPort="8080",
        proxyScheme="https",
        proxyUser="svc",
        proxyPassword=f"{MARKER}-proxy",
        noProxy="corp.example, .svc",
    ),
    "a proxy without a port": on(BASIC, proxy={"url": "https://proxy.example"}),
    "authorities from everywhere": on(
        BASIC,
        ca={"bundle": PEM, "existingSecrets": ["authorities"], "existingConfigMaps": ["more-authorities"]},
        delegateCustomCa={"secretName": "authorities"},
    ),
    "authorities of Harness's names": on(
        HARNESS, shared_certificates={"ca_bundle": PEM, "certs_path": "/shared/ca.bundle"}
    ),
    "a policy from a value": on(
        BASIC, policy={"rules": {"hosts": {"allow": [".corp.example"]}, "connection": {"http": "sealed"}}}
    ),
    "a policy from a ConfigMap": on(BASIC, policy={"existingConfigMap": "policy", "key": "own.toml"}),
    "settings of all kinds": on(
        BASIC,
        agentNamePrefix="berlin-",
        tags=["web", "region=eu", "süd"],
        description="Serves\n  the web farm",
        config={
            "slots": 200,
            "scope": "platform/web",
            "drain_grace": "1h 30m",
            "transport": "stream",
            "pool": {"max_sessions": 2000, "commands_per_user": 1000000, "shell_idle": "5m"},
            "admission": {"cpu_percent": 80, "memory_percent": "off"},
            "log": {"format": "json", "level": "debug"},
            "kerberos": {"caches": ["FILE:/tmp/krb5cc_10001"]},
        },
    ),
    "settings that say the same twice": on(
        BASIC, tags=["web"], config={"tags": ["web"], "control_plane": "https://lictor.example:7443"}
    ),
    "a join token that something else brings": {
        "controlPlane": {"endpoint": "https://[2001:db8::7]:7443"},
        "config": {"join_token_file": "/vault/join"},
        "http": {"address": "[::]", "port": 13460},
        "extraVolumes": [{"name": "vault", "csi": {"driver": "secrets-store.csi.k8s.io", "readOnly": True}}],
        "extraVolumeMounts": [{"name": "vault", "mountPath": "/vault", "readOnly": True}],
    },
    "the key of a Secret": on(BASIC, joinToken={"existingSecret": "join", "key": "other"}),
    "the Secret of Harness's name": {
        "managerEndpoint": "lictor.example:443/path",
        "existingDelegateToken": "harness-join",
    },
    "a long drain": on(BASIC, config={"drain_grace": "24h"}),
    "no drain": on(BASIC, config={"drain_grace": "0s"}),
    "a longer grace than must be": on(BASIC, terminationGracePeriodSeconds=600),
    "scaled by the processor": on(BASIC, autoscaling={"enabled": True}),
    "scaled by Harness's names": on(
        HARNESS,
        autoscaling={
            "enabled": True,
            "minReplicas": 2,
            "maxReplicas": 4,
            "targetCPUUtilizationPercentage": 70,
            "targetMemoryUtilizationPercentage": 90,
        },
        persistence={"enabled": False},
    ),
    "scaled by tasks": on(
        BASIC,
        autoscaling={
            "enabled": True,
            "targetSlotsUsed": 12,
            "backlog": {"targetPerPod": 20, "matchLabels": {"namespace": "lictor"}},
            "metrics": [
                {
                    "type": "ContainerResource",
                    "containerResource": {
                        "name": "cpu",
                        "container": "agent",
                        "target": {"type": "Utilization", "averageUtilization": 60},
                    },
                },
            ],
        },
    ),
    "monitored": on(
        BASIC,
        metrics={
            "serviceMonitor": {"enabled": True, "labels": {"release": "p"}},
            "podMonitor": {"enabled": True, "interval": "1m"},
        },
    ),
    "a narrow network": on(
        BASIC,
        networkPolicy={
            "egress": {
                "controlPlane": [{"ipBlock": {"cidr": "10.1.0.5/32"}}],
                "kdc": [{"ipBlock": {"cidr": "10.2.0.0/24"}}],
                "kdcPorts": [88, 464],
                "winrm": [{"ipBlock": {"cidr": "10.3.0.0/16"}}],
                "winrmPorts": [5986],
                "aws": True,
                "instanceMetadata": True,
                "packages": True,
                "dnsPorts": [53],
                "extra": [{"to": [{"ipBlock": {"cidr": "10.9.0.0/24"}}], "ports": [{"port": 514, "protocol": "UDP"}]}],
            },
            "ingress": {
                "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
                "extra": [{"from": [{"podSelector": {}}]}],
            },
        },
    ),
    "no network policy, no budget, no account": on(
        BASIC,
        networkPolicy={"enabled": False},
        podDisruptionBudget={"enabled": False},
        serviceAccount={"create": False},
    ),
    "an account with a role of AWS": on(
        BASIC, serviceAccount={"name": "lictor", "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}}
    ),
    "a budget of pods that must be there": on(BASIC, replicas=3, podDisruptionBudget={"minAvailable": "50%"}),
    "an uid that the platform chooses": on(
        BASIC, podSecurityContext={"runAsUser": None, "fsGroup": None, "fsGroupChangePolicy": None}
    ),
    "an image of one's own": on(
        BASIC,
        image={
            "registry": "registry.example",
            "repository": "team/lictor-agent",
            "digest": "sha256:" + "0" * 64,
            "pullPolicy": "Always",
        },
        imagePullSecrets=["pull-a"],
        imagePullSecret="pull-b",
    ),
    "an image of Harness's name": on(HARNESS, delegateDockerImage="registry.example/lictor-agent:1"),
    "everything that pods can have": on(
        BASIC,
        fullnameOverride="Web.Agents",
        commonLabels={"team": "web"},
        commonAnnotations={"note": "1"},
        podLabels={"tier": "x"},
        podAnnotations={"p": "1"},
        annotations={"prometheus.io/scrape": "true"},
        delegateLabels={"d": "1"},
        delegatePodLabels={"e": "1"},
        nodeSelector={"kubernetes.io/os": "linux"},
        tolerations=[{"key": "a", "operator": "Exists"}],
        affinity={
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 1,
                        "podAffinityTerm": {
                            "topologyKey": "kubernetes.io/hostname",
                            "labelSelector": {"matchLabels": {"a": "b"}},
                        },
                    },
                ]
            }
        },
        topologySpreadConstraints=[
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
        ],
        priorityClassName="high",
        schedulerName="own",
        runtimeClassName="gvisor",
        dnsPolicy="None",
        dnsConfig={"nameservers": ["10.0.0.53"], "options": [{"name": "ndots", "value": "2"}]},
        hostAliases=[{"ip": "10.0.0.1", "hostnames": ["dc1.corp.example"]}],
        extraEnv=[{"name": "TZ", "value": "Europe/Berlin"}],
        extraEnvFrom=[{"configMapRef": {"name": "more"}}],
        extraVolumes=[{"name": "more", "emptyDir": {}}],
        extraVolumeMounts=[{"name": "more", "mountPath": "/more"}],
        resources={"requests": {"cpu": "1", "memory": "1Gi"}},
        tmp={"medium": "", "size": "1Gi"},
        minReadySeconds=30,
        revisionHistoryLimit=1,
        replicas=2,
    ),
    "containers of others, and Harness's names for all that": on(
        HARNESS,
        delegateName="winrm",
        tags="a, b ,,c",
        description="d",
        replicas=2,
        cpu=0.5,
        memory=256,
        pollForTasks="true",
        persistence={"enabled": False},
        rollingUpdate={"maxSurge": "50%", "maxUnavailable": 1},
        custom_envs=[{"name": "DELEGATE_TASK_CAPACITY", "value": "8"}],
        custom_volumes=[{"name": "v", "emptyDir": {}}],
        custom_mounts=[{"name": "v", "mountPath": "/v"}],
    ),
    "Recreate": on(HARNESS, persistence={"enabled": False}, deploymentStrategy="Recreate"),
    "root without asking by our own name": on(HARNESS, securityContext={"runAsRoot": True}),
}

# What a user of Harness has who copied the whole values.yaml of its chart (names and defaults are facts of a public
# file), with the two that must be changed.
COPIED = {
    **HARNESS,
    "image": {"pullPolicy": "Always"},
    "fullnameOverride": "",
    "mTLS": {"secretName": ""},
    "serviceAccount": {"create": True, "annotations": {}, "name": ""},
    "service": {"port": 8080},
    "autoscaling": {"enabled": False, "minReplicas": 1, "maxReplicas": 10, "targetCPUUtilizationPercentage": 80},
    "nodeSelector": {},
    "tolerations": [],
    "affinity": {},
    "priorityClassName": "",
    "delegateName": "harness-delegate-ng",
    "deployMode": "KUBERNETES",
    "delegateDockerImage": "registry.example/harness-public/harness/delegate:25.12.87402",
    "commonAnnotations": {},
    "delegateAnnotations": {},
    "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "3460", "prometheus.io/path": "/api/metrics"},
    "commonLabels": {},
    "delegatePodLabels": {},
    "delegateLabels": {},
    "imagePullSecret": "",
    "pollForTasks": "false",
    "startupProbe": {"initialDelaySeconds": 10, "periodSeconds": 10, "failureThreshold": 40, "timeoutSeconds": 1},
    "livenessProbe": {"initialDelaySeconds": 30, "periodSeconds": 20, "failureThreshold": 3, "timeoutSeconds": 1},
    "description": "",
    "tags": "",
    "k8sPermissionsType": "CLUSTER_ADMIN",
    "replicas": 1,
    "deploymentStrategy": "RollingUpdate",
    "cpu": 1,
    "memory": 2048,
    "initScript": "",
    "delegateType": "HELM_DELEGATE",
    "javaOpts": "-Xms64M",
    "upgrader": {
        "enabled": True,
        "image": {"pullPolicy": "Always"},
        "schedule": "0 */1 * * *",
        "securityContext": None,
    },
    "securityContext": {"runAsRoot": True},
    "delegatePodSecurityContext": {"runAsUser": 0, "fsGroup": 1001},
    "delegateSecurityContext": {"allowPrivilegeEscalation": False, "runAsUser": 0},
    "nextGen": True,
    "accountId": "abc",
    "existingDelegateToken": "",
    "shared_certificates": {"certs_path": "/shared/ca.bundle", "ca_bundle": None, "ci_mount_targets": None},
    "custom_init_containers": None,
    "custom_containers": None,
    "custom_envs": None,
    "custom_mounts": None,
    "custom_volumes": None,
    "minReadySeconds": 120,
    "ccm": {"visibility": False},
    "additionalLabels": {},
    "dnsConfig": {},
    "dnsPolicy": "",
    "upgraderCustomCa": {"secretName": None},
    "delegateCustomCa": {"secretName": None},
    "destinationCaPath": None,
}
GOOD["all values of Harness's chart, copied"] = COPIED

BAD = {
    "nothing": ({}, "controlPlane.endpoint (or managerEndpoint) is required"),
    "no token": ({"managerEndpoint": "https://lictor.example"}, "lictor token create --max-uses 0"),
    "Harness's platform": (on(HARNESS, managerEndpoint="https://app.harness.io/gratis"), "is Harness's platform"),
    "plain http": (on(HARNESS, managerEndpoint="http://lictor.example"), "is not of the form https://host:port"),
    "two endpoints": (
        on(BASIC, managerEndpoint="https://other.example"),
        "controlPlane.endpoint and managerEndpoint are two names",
    ),
    "two tokens": (on(HARNESS, joinToken={"value": "other"}), "joinToken.value and delegateToken are two names"),
    "a token and a Secret": (on(HARNESS, existingDelegateToken="join"), "by value and by an existing Secret"),
    "two Secrets": (
        on(BASIC, existingDelegateToken="harness-join"),
        "joinToken.existingSecret and existingDelegateToken are two names",
    ),
    "an unknown value": (on(BASIC, replicaCount=2), "additional properties 'replicaCount' not allowed"),
    "an unknown value below": (on(BASIC, kerberos={"krb5conf": "x"}), "additional properties 'krb5conf' not allowed"),
    "an unknown key of a realm": (
        on(BASIC, kerberos={"realms": {"CORP.EXAMPLE": {"kdcs": ["x"]}}}),
        "additional properties 'kdcs' not allowed",
    ),
    "a section that is null": (on(BASIC, persistence=None), "missing property 'persistence'"),
    "a grace that cuts the drain": (
        on(BASIC, terminationGracePeriodSeconds=120),
        "terminationGracePeriodSeconds: 120 is less than the 150",
    ),
    "a grace that cuts a longer drain": (
        on(BASIC, terminationGracePeriodSeconds=3600, config={"drain_grace": "1h"}),
        "less than the 3690",
    ),
    "a drain without a unit": (on(BASIC, config={"drain_grace": 90}), "at '/config/drain_grace'"),
    "a drain of another unit": (on(BASIC, config={"drain_grace": "2fortnights"}), "a unit that is not understood"),
    "an unknown setting": (on(BASIC, config={"slot": 3}), "additional properties 'slot' not allowed"),
    "a setting out of its range": (on(BASIC, config={"slots": 0}), "at '/config/slots'"),
    "a krb5.conf twice": (
        on(BASIC, kerberos={"krb5Conf": KRB5_CONF, "existingConfigMap": "krb5"}),
        "kerberos.krb5Conf and kerberos.existingConfigMap",
    ),
    "a krb5.conf and realms": (
        on(BASIC, kerberos={"existingConfigMap": "krb5", "defaultRealm": "CORP.EXAMPLE"}),
        "a krb5.conf and default_realm are both given",
    ),
    "two scripts": (
        on(BASIC, initScript="true", bootstrap={"script": "false"}),
        "bootstrap.script and initScript are two names",
    ),
    "a script and a Secret of one": (
        on(BASIC, initScript="true", bootstrap={"existingSecret": "s"}),
        "more than one of bootstrap.script",
    ),
    "a script and a variable of one": (
        on(BASIC, initScript="true", custom_envs=[{"name": "INIT_SCRIPT", "value": "true"}]),
        "has INIT_SCRIPT beside a bootstrap script",
    ),
    "a startup probe too short for the script": (
        on(BASIC, initScript="true", startupProbe={"path": "/ready", "periodSeconds": 10, "failureThreshold": 10}),
        "are less than the 660s that a start may take",
    ),
    "a liveness probe of readiness": (on(BASIC, livenessProbe={"path": "/ready"}), "at '/livenessProbe/path'"),
    "two profiles": (
        on(BASIC, profile="restricted", securityContext={"runAsRoot": True}),
        "profile is restricted and securityContext.runAsRoot",
    ),
    "two profiles the other way": (
        on(BASIC, profile="root", securityContext={"runAsRoot": False}),
        "profile is root and securityContext.runAsRoot",
    ),
    "an unknown profile": (on(BASIC, profile="privileged"), "at '/profile'"),
    "a password without a user": (
        on(BASIC, proxy={"url": "http://p.example:1", "password": "x"}),
        "without proxy.username",
    ),
    "a password of a proxy in its URL": (on(BASIC, proxy={"url": "http://a:b@p.example:1"}), "at '/proxy/url'"),
    "a proxy's port alone": (on(BASIC, proxyPort=3128), "mean nothing without proxyHost"),
    "two proxies": (on(BASIC, proxy={"url": "http://p.example:1"}, proxyHost="q.example"), "proxy.url and proxyHost"),
    "two ways to a proxy's password": (
        on(BASIC, proxy={"url": "http://p.example:1", "username": "u", "password": "x", "existingSecret": "proxy"}),
        "by value and by proxy.existingSecret",
    ),
    "two policies": (
        on(BASIC, policy={"rules": {"tasks": {}}, "existingConfigMap": "policy"}),
        "policy.rules and policy.existingConfigMap",
    ),
    "two bundles": (
        on(BASIC, ca={"bundle": PEM}, shared_certificates={"ca_bundle": PEM + PEM}),
        "ca.bundle and shared_certificates.ca_bundle",
    ),
    "a bundle that is none": (on(BASIC, ca={"bundle": "hello"}), "at '/ca/bundle'"),
    "one claim for many": (
        on(BASIC, replicas=2, persistence={"existingClaim": "kept"}),
        "persistence.existingClaim is for one pod",
    ),
    "a setting of the chart's": (on(BASIC, config={"state_dir": "/x"}), "config.state_dir: comes from"),
    "a port by a setting": (
        on(BASIC, config={"http_listen": "0.0.0.0:1"}),
        "config.http_listen: comes from http.address and http.port",
    ),
    "a token in the settings": (
        on(BASIC, config={"join_token": "x"}),
        "additional properties 'join_token' not allowed",
    ),
    "a setting that says otherwise": (
        on(BASIC, tags=["a"], config={"tags": ["b"]}),
        'config.tags is ["b"], but other values make it ["a"]',
    ),
    "a nested setting that says otherwise": (
        on(BASIC, proxy={"url": "http://p.example:1"}, config={"proxy": {"url": "http://q.example:1"}}),
        "config.proxy.url is",
    ),
    "a tag with a blank": (on(BASIC, tags=["a b"]), "is not a tag"),
    "a name that is none": (on(BASIC, fullnameOverride="9 lives!"), "cannot be the name of objects"),
    "resources and memory": (
        on(BASIC, resources={"limits": {"memory": "1Gi"}}, memory=512),
        "resources goes before cpu and memory",
    ),
    "two images": (
        on(BASIC, image={"repository": "a"}, delegateDockerImage="b:1"),
        "image.* and delegateDockerImage are two names",
    ),
    "Harness's image": (on(BASIC, image={"repository": "harness/delegate"}), "names the image of Harness's delegate"),
    "fewest above most": (
        on(BASIC, autoscaling={"enabled": True, "minReplicas": 5, "maxReplicas": 2}),
        "autoscaling.minReplicas (5) is more",
    ),
    "all slots": (on(BASIC, autoscaling={"enabled": True, "targetSlotsUsed": 16}), "must be less than the 16 slots"),
    "a port that is none": (on(BASIC, http={"port": 70000}), "at '/http/port'"),
}
