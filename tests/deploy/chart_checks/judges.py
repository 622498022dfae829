"""What judges the renderings of a chart: Kubernetes' own schemas, and the programs that read the settings."""

import base64
import functools
import json
import os
import pathlib
import re
import subprocess
import tempfile

import commands
import kubernetes_validate

from .rendering import DEADLINE

# The oldest and the newest Kubernetes that the charts are for.
KUBERNETES = ("1.30.0", "1.37.0")
# Kinds that a cluster learns from Prometheus' operator: what of them we set, with the type of each.
MONITORS = {
    "ServiceMonitor": ("endpoints", "monitoring.coreos.com/v1"),
    "PodMonitor": ("podMetricsEndpoints", "monitoring.coreos.com/v1"),
}


def kubernetes(thing):
    """What the schemas of Kubernetes have against an object."""
    if thing["kind"] in MONITORS:
        return monitor(thing)
    # The same object comes out of many sets of values, and a validator is slow to make.
    return list(validated(json.dumps(thing)))


@functools.cache
def validated(text):
    thing, wrong = json.loads(text), []
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except Exception as error:  # The package has several, without a common base but this.
            wrong.append(f"{version}: {thing['kind']} {thing['metadata']['name']}: {error}")
    return wrong


def monitor(thing):
    key, version = MONITORS[thing["kind"]]
    spec = thing["spec"]
    good = (
        thing["apiVersion"] == version and set(spec) == {"selector", key} and set(spec["selector"]) == {"matchLabels"}
    )
    good = good and all(set(one) == {"port", "path", "interval"} for one in spec[key])
    return [] if good else [f"{thing['kind']} has other fields than it should have"]


@functools.cache
def programs():
    """The directory of our programs: $LICTOR_BIN, or where cargo puts them."""
    given = os.environ.get("LICTOR_BIN")
    return pathlib.Path(given) if given else commands.programs_directory()


def program(name):
    return programs() / name


def content(rendered, source, outside):
    """The files that a volume's source makes: name to bytes. `outside` holds objects that the chart does not make."""
    if "projected" in source:
        files = {}
        for part in source["projected"]["sources"]:
            more = content(rendered, part, outside)
            assert not files.keys() & more.keys(), f"two sources of one volume have {files.keys() & more.keys()}"
            files.update(more)
        return files
    kind, about = next(((kind, source[kind]) for kind in ("configMap", "secret") if kind in source), (None, None))
    if kind is None:
        return {}
    name = about.get("secretName") or about["name"]
    wanted = "ConfigMap" if kind == "configMap" else "Secret"
    made = [one for one in rendered.all(wanted) if one["metadata"]["name"] == name]
    if made:
        data = {key: value.encode() for key, value in (made[0].get("data") or {}).items()}
        if kind == "secret":
            data = {key: base64.b64decode(value, validate=True) for key, value in data.items()}
    else:
        data = {key: value.encode() for key, value in outside[name].items()}
    if "items" in about:
        return {item["path"]: data[item["key"]] for item in about["items"]}
    return data


def lay_out(rendered, root, outside):
    """Writes what the volumes of our container hold, under `root`."""
    volumes = {volume["name"]: volume for volume in rendered.pod.get("volumes", [])}
    for mount in rendered.container["volumeMounts"]:
        directory = pathlib.Path(root, mount["mountPath"].lstrip("/"))
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in content(rendered, volumes.get(mount["name"], {}), outside).items():
            (directory / name).write_bytes(data)


def check_config(rendered, outside, name, prefix):
    """Lets the program read its settings as it would in the container: exit code, output, mistakes. All paths lie under
    a directory of the test's, so that what they name is there."""
    with tempfile.TemporaryDirectory(prefix="lictor-pod-") as root:
        lay_out(rendered, root, outside)
        arguments = rendered.container["args"]
        config = pathlib.Path(root, arguments[arguments.index("--config") + 1].lstrip("/"))

        def moved(text):
            return re.sub(r"/(etc/lictor|var/lib/lictor|opt/harness-delegate|tmp)\b", lambda place: root + place[0], text)

        def back(text):
            return text.replace(root, "")

        config.write_text(moved(config.read_text()))
        variables = {key: moved(value) for key, value in rendered.environment().items()}
        assert any(key.startswith(prefix) for key in variables), variables
        environment = {"PATH": os.environ["PATH"], **variables}
        command = [program(name), "check-config", "--config", config]
        if name == "lictor-agent":
            command += ["--output", "json"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=DEADLINE, cwd=root)
        return done.returncode, back(done.stdout), back(done.stderr)


def agent_settings(rendered, outside):
    """The agent's settings in effect, by name; fails when the agent finds a mistake or something that does nothing."""
    code, out, error = check_config(rendered, outside, "lictor-agent", "LICTOR_AGENT_")
    if code != 0:
        raise AssertionError(f"lictor-agent check-config ended with {code}:\n{out}{error}")
    return json.loads(out)
