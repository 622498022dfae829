"""The Pod Security Standards, levels baseline and restricted, as Kubernetes 1.30 to 1.37 checks them.

Written from the published rules, because the one thing that checks them is a cluster. Each function gives a list of
what is wrong, empty when nothing is.
"""

# What baseline lets one add.
BASELINE_CAPABILITIES = {
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
}
RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def containers(pod):
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from pod.get(kind) or []


def contexts(pod):
    """Security contexts with where they stand: the pod's, then those of containers."""
    yield "the pod", pod.get("securityContext") or {}
    for container in containers(pod):
        yield container["name"], container.get("securityContext") or {}


def baseline(template):
    pod = template["spec"]
    wrong = []
    for switch in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(switch):
            wrong.append(f"{switch} is on")
    for where, context in contexts(pod):
        if (context.get("windowsOptions") or {}).get("hostProcess"):
            wrong.append(f"{where}: hostProcess")
        selinux = context.get("seLinuxOptions") or {}
        if selinux.get("type", "") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
            wrong.append(f"{where}: seLinuxOptions")
        if (context.get("seccompProfile") or {}).get("type") == "Unconfined":
            wrong.append(f"{where}: seccomp is off")
        if (context.get("appArmorProfile") or {}).get("type") == "Unconfined":
            wrong.append(f"{where}: AppArmor is off")
    for container in containers(pod):
        name, context = container["name"], container.get("securityContext") or {}
        if context.get("privileged"):
            wrong.append(f"{name}: privileged")
        added = set((context.get("capabilities") or {}).get("add") or [])
        if added - BASELINE_CAPABILITIES:
            wrong.append(f"{name}: adds {sorted(added - BASELINE_CAPABILITIES)}")
        if context.get("procMount", "Default") != "Default":
            wrong.append(f"{name}: procMount")
        if any(port.get("hostPort") for port in container.get("ports") or []):
            wrong.append(f"{name}: hostPort")
        handlers = [container.get(probe) or {} for probe in ("livenessProbe", "readinessProbe", "startupProbe")]
        handlers += [handler or {} for handler in (container.get("lifecycle") or {}).values()]
        for handler in handlers:
            if any((handler.get(way) or {}).get("host") for way in ("httpGet", "tcpSocket")):
                wrong.append(f"{name}: a probe of another host")
    if any("hostPath" in volume for volume in pod.get("volumes") or []):
        wrong.append("a volume is a hostPath")
    for sysctl in (pod.get("securityContext") or {}).get("sysctls") or []:
        if sysctl["name"] not in SAFE_SYSCTLS:
            wrong.append(f"sysctl {sysctl['name']}")
    for key, value in (template["metadata"].get("annotations") or {}).items():
        if key.startswith("container.apparmor.security.beta.kubernetes.io/"):
            if value != "runtime/default" and not value.startswith("localhost/"):
                wrong.append(f"AppArmor is {value}")
    return wrong


def restricted(template):
    pod = template["spec"]
    wrong = baseline(template)
    of_pod = pod.get("securityContext") or {}
    for volume in pod.get("volumes") or []:
        kinds = set(volume) - {"name"}
        if not kinds <= RESTRICTED_VOLUMES:
            wrong.append(f"volume {volume['name']} is of kind {sorted(kinds)}")
    if of_pod.get("runAsUser") == 0:
        wrong.append("the pod runs as user 0")
    for container in containers(pod):
        name, context = container["name"], container.get("securityContext") or {}
        if context.get("allowPrivilegeEscalation") is not False:
            wrong.append(f"{name}: allowPrivilegeEscalation is not false")
        if context.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True:
            wrong.append(f"{name}: runAsNonRoot is not true")
        if context.get("runAsUser") == 0:
            wrong.append(f"{name}: runs as user 0")
        profile = (context.get("seccompProfile") or of_pod.get("seccompProfile") or {}).get("type")
        if profile not in ("RuntimeDefault", "Localhost"):
            wrong.append(f"{name}: seccomp profile {profile}")
        capabilities = context.get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or []):
            wrong.append(f"{name}: does not drop ALL capabilities")
        if set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
            wrong.append(f"{name}: adds {capabilities['add']}")
    return wrong
