"""Values that the agent's chart must refuse, with which words. None of them may repeat a secret."""

from .agent_cases import BASIC, HARNESS, KRB5_CONF, MARKER, PEM, on

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
    "a grace that cuts the drain": (
        on(BASIC, terminationGracePeriodSeconds=120),
        "terminationGracePeriodSeconds: 120 is less than the 160",
    ),
    "a grace that cuts a longer drain": (
        on(BASIC, terminationGracePeriodSeconds=3600, config={"drain_grace": "1h"}),
        "less than the 3700",
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
    "an unknown profile": (on(BASIC, profile="privileged"), "at '/profile'"),
    "a password without a user": (
        on(BASIC, proxy={"url": "http://p.example:1", "password": "x"}),
        "without proxy.username",
    ),
    "a password of a proxy in its URL": (
        on(BASIC, proxy={"url": f"http://a:{MARKER}@p.example:1"}),
        "proxy.url is not of the form",
    ),
    "a password of a proxy in the settings' URL": (
        on(BASIC, config={"proxy": {"url": f"http://a:{MARKER}@p.example:1"}}),
        "config.proxy.url is not of the form",
    ),
    "a password in Harness's host": (on(BASIC, proxyHost=f"u:{MARKER}@p"), "proxyHost is not the name"),
    "a scheme in Harness's host": (on(BASIC, proxyHost="http://p"), "proxyHost is not the name"),
    "a password in the user's name": (
        on(BASIC, proxyHost="p", proxyUser=f"u:{MARKER}"),
        "proxyUser holds a colon",
    ),
    "a password in the endpoint": (
        on(HARNESS, managerEndpoint=f"https://u:{MARKER}@lictor.example"),
        "managerEndpoint holds an @",
    ),
    "a password in the settings' endpoint": (
        on(BASIC, config={"control_plane": f"https://u:{MARKER}@lictor.example"}),
        "config.control_plane holds an @",
    ),
    "a key for traces in their URL": (
        on(BASIC, config={"telemetry": {"otlp_endpoint": f"https://k:{MARKER}@c.example"}}),
        "config.telemetry.otlp_endpoint is not of the form",
    ),
    "a keytab that is not base64": (
        on(BASIC, kerberos={"keytabs": {"inline": {"a.keytab": f"!{MARKER}!"}}}),
        "kerberos.keytabs.inline: a.keytab is not base64",
    ),
    "a token in place of a Secret's name": (
        on(BASIC, joinToken={"existingSecret": f"lictor-join.{MARKER}"}),
        "joinToken.existingSecret is not the name of a Secret",
    ),
    "a private key among authorities": (
        on(BASIC, ca={"bundle": f"-----BEGIN PRIVATE KEY-----\n{MARKER}"}),
        "ca.bundle holds a private key",
    ),
    "a proxy that only a Secret knows": (
        on(BASIC, extraEnv=[{"name": "PROXY_PORT", "valueFrom": {"secretKeyRef": {"name": "p", "key": "k"}}}]),
        "the NetworkPolicy cannot know what PROXY_PORT holds: use the value proxy.url",
    ),
    "a collector that only a Secret knows": (
        on(
            BASIC,
            extraEnv=[{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "valueFrom": {"secretKeyRef": {"name": "p", "key": "k"}}}],
        ),
        "use config.telemetry.otlp_endpoint",
    ),
    **{
        f"{variable} beside the chart": (
            on(BASIC, custom_envs=[{"name": variable, "value": "1"}]),
            f"{variable} would go before what the chart has made: use the value {value}",
        )
        for variable, value in {
            "LICTOR_AGENT_DRAIN_GRACE": "config.drain_grace",
            "LICTOR_AGENT_HTTP_LISTEN": "http.address and http.port",
            "LICTOR_AGENT_STATE_DIR": "persistence",
            "LICTOR_AGENT_NAME": "agentNamePrefix",
            "LICTOR_AGENT_SLOTS": "config.slots",
            "LICTOR_AGENT_BOOTSTRAP__TIMEOUT": "config.bootstrap.timeout",
            "LICTOR_AGENT_CONTROL_PLANE": "controlPlane.endpoint",
            "MANAGER_HOST_AND_PORT": "controlPlane.endpoint",
            "LICTOR_AGENT_PROXY__URL": "proxy.url",
        }.items()
    },
    "slots that the autoscaler does not know": (
        on(
            BASIC,
            autoscaling={"enabled": True, "targetSlotsUsed": 6},
            custom_envs=[{"name": "DELEGATE_TASK_CAPACITY", "value": "8"}],
        ),
        "use the value config.slots",
    ),
    "a variable of the chart's": (
        on(BASIC, kerberos={"existingConfigMap": "krb5"}, extraEnv=[{"name": "KRB5_CONFIG", "value": "/x"}]),
        "extraEnv (or custom_envs): KRB5_CONFIG is the chart's own",
    ),
    "a variable twice": (
        on(BASIC, extraEnv=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
        "A is given twice, and differs",
    ),
    "a volume of the chart's": (
        on(BASIC, custom_volumes=[{"name": "state", "emptyDir": {}}]),
        "extraVolumes (or custom_volumes): state is the chart's own",
    ),
    "a mount of the chart's": (
        on(BASIC, custom_mounts=[{"name": "v", "mountPath": "/etc/lictor/agent/"}]),
        "extraVolumeMounts (or custom_mounts): /etc/lictor/agent is the chart's own",
    ),
    "a variable that is a number": (on(BASIC, extraEnv=[{"name": "A", "value": 8}]), "at '/extraEnv/0/value'"),
    "a label that is none": (on(BASIC, podLabels={"team": "a b"}), "at '/podLabels/team'"),
    "a label's name that is none": (on(BASIC, commonLabels={"a b": "c"}), "'a b' does not match pattern"),
    "a rule of the policy that is none": (
        on(BASIC, policy={"rules": {"hosts": {"alow": ["x"]}}}),
        "additional properties 'alow' not allowed",
    ),
    "an update that cannot begin": (
        on(BASIC, persistence={"enabled": False}, rollingUpdate={"maxSurge": 0, "maxUnavailable": "0%"}),
        "rollingUpdate.maxSurge and rollingUpdate.maxUnavailable are both 0",
    ),
    "an update of a StatefulSet that cannot begin": (
        on(BASIC, rollingUpdate={"maxUnavailable": 0}),
        "rollingUpdate.maxUnavailable: 0 of a StatefulSet",
    ),
    "root, with a user that the platform chooses": (
        on(BASIC, profile="root", platformChoosesUser=True),
        "platformChoosesUser is for the profile restricted",
    ),
    **{
        f"Harness's image as {image}": (
            on(BASIC, image={"repository": image}),
            "names the image of Harness's delegate",
        )
        for image in ("mirror/harness-delegate", "delegate-fips", "a/b/delegate-immutable")
    },
    "a proxy's port alone": (on(BASIC, proxyPort=3128), "mean nothing without proxyHost"),
    "two proxies": (on(BASIC, proxy={"url": "http://p.example:1"}, proxyHost="q.example"), "proxy.url and proxyHost"),
    "two ways to a proxy's password": (
        on(BASIC, proxy={"url": "http://p.example:1", "username": "u", "password": "x", "existingSecret": "proxy"}),
        "by value and by proxy.existingSecret",
    ),
    "two policies": (
        on(BASIC, policy={"rules": {"hosts": {"allow": ["x"]}}, "existingConfigMap": "policy"}),
        "policy.rules and policy.existingConfigMap",
    ),
    "two bundles": (
        on(BASIC, ca={"bundle": PEM}, shared_certificates={"ca_bundle": PEM + PEM}),
        "ca.bundle and shared_certificates.ca_bundle",
    ),
    "a bundle that is none": (on(BASIC, ca={"bundle": "hello"}), "ca.bundle is not a PEM certificate"),
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
        "config.tags says something else than the value",
    ),
    "a nested setting that says otherwise": (
        on(BASIC, proxy={"url": "http://p.example:1"}, config={"proxy": {"url": "http://q.example:1"}}),
        "config.proxy.url says something else",
    ),
    "a tag with a blank": (on(BASIC, tags=["a b"]), "is not a tag"),
    "a name that is none": (on(BASIC, fullnameOverride="9 lives!"), "cannot be the name of objects"),
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
