"""The plain manifests under deploy/, made of the charts for people who have no Helm."""

import base64
import re

from .rendering import REPOSITORY, Refused, helm

NAMESPACE = "lictor"
TOKEN = "PUT_YOUR_JOIN_TOKEN_HERE"
# What only Helm has a use for. A checksum would be wrong once somebody edits what it is of.
OF_HELM = re.compile(r"^\s*(helm\.sh/chart|app\.kubernetes\.io/managed-by|checksum/[a-z]+): .*\n", re.MULTILINE)
SOURCE = re.compile(r"^# Source: .*\n", re.MULTILINE)
EMPTY_ANNOTATIONS = re.compile(r"^( *)annotations:\n(?!\1 )", re.MULTILINE)

DELEGATE_HEAD = f"""\
# Agents of Lictor without Helm, for those who have a delegate.yaml. Made of helm/lictor-agent with its default values
# by tests/deploy/test_chart_manifests.py; change the chart, not this file.
#
# `kubectl create namespace {NAMESPACE}` first: it is not in here, because `kubectl delete -f` would take everything in
# it along. Then, before `kubectl apply -f`, put in
#   1. the image: none is published, build it and push it to a registry of yours,
#   2. the address of your control plane (control_plane in the ConfigMap); as it is, that of deploy/control-plane.yaml,
#   3. a join token (token in the Secret): lictor token create --max-uses 0 --description pods
#
# Each pod keeps its identity and its journal on a volume; a cluster without a default storage class needs a
# storageClassName in the volumeClaimTemplates. What a delegate.yaml says besides goes into the container's env as it is
# (DELEGATE_TAGS, INIT_SCRIPT and so on: docs/migrate-harness.md), and the agent reads it. The NetworkPolicy does not:
# where PROXY_HOST, HTTPS_PROXY or a collector of traces is among it, add the port to its egress. After a change of the
# ConfigMap: kubectl -n {NAMESPACE} rollout restart statefulset/lictor-agent. It was judged by Kubernetes' schemas and
# read by the agent in tests, not applied to a cluster.
"""
CONTROL_PLANE_HEAD = f"""\
# The control plane of Lictor without Helm. Made of helm/lictor-control-plane with its default values by
# tests/deploy/test_chart_manifests.py; change the chart, not this file.
#
# `kubectl create namespace {NAMESPACE}` first: it is not in here, because `kubectl delete -f` would take everything in
# it along. Then, before `kubectl apply -f`, put in the image: none is published, build it and push it to a registry of
# yours. Afterwards
#
#   kubectl -n {NAMESPACE} exec statefulset/lictor-control-plane -- lictor token create --max-uses 0 --description pods
#
# prints a join token for deploy/delegate.yaml. For agents or users outside of the cluster add the name that they
# connect by to `names` in the ConfigMap. The master key is made at the first start and lies on the volume beside what
# it encrypts; the chart takes one of yours from a Secret. It was judged by Kubernetes' schemas and read by the control
# plane in tests, not applied to a cluster.
"""
MANIFESTS = {
    "delegate.yaml": (
        "lictor-agent",
        DELEGATE_HEAD,
        {
            "controlPlane": {"endpoint": f"https://lictor-control-plane.{NAMESPACE}.svc:7443"},
            "joinToken": {"value": TOKEN},
            "image": {"repository": "registry.example/lictor-agent"},
        },
    ),
    "control-plane.yaml": (
        "lictor-control-plane",
        CONTROL_PLANE_HEAD,
        {"image": {"repository": "registry.example/lictor-control-plane"}},
    ),
}


def path(name):
    return REPOSITORY / "deploy" / name


def manifest(name):
    """The text of a manifest as it should be."""
    chart, head, values = MANIFESTS[name]
    code, out, error = helm("template", chart, REPOSITORY / "helm" / chart, "--namespace", NAMESPACE, values=values)
    if code != 0:
        raise Refused(error)
    parts = re.split(r"^---\n", SOURCE.sub("", out), flags=re.MULTILINE)
    documents = [plain(part.strip() + "\n") for part in parts if part.strip()]
    return head + "---\n" + "---\n".join(documents)


def plain(document):
    document = EMPTY_ANNOTATIONS.sub("", OF_HELM.sub("", document))
    if "\nkind: Secret\n" in document:
        # In clear, so that it can be edited.
        readable = lambda found: f"{found[1]}{base64.b64decode(found[2]).decode()}"  # noqa: E731
        document = document.replace("\ndata:\n", "\nstringData:\n")
        document = re.sub(r'^(  [a-z.]+: )"([A-Za-z0-9+/=]+)"$', readable, document, flags=re.MULTILINE)
    return document
