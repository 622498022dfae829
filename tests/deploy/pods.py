"""What the tests of pods stand on: a space of its own for podman, a KDC, and charts rendered into pods.

A space has namespaces for mounts, processes and network of its own (tests/deploy/tools/podman). Whatever is started in it, pods,
KDC and simulated host, ends with it, and its network is loopback alone: what listens there on 0.0.0.0 can be reached from nowhere
else. The main thread of the test enters that network; it stays outside of the other namespaces.

It must never do what the cluster would not: a pod is what helm rendered, made from its workload as the workload's controller does.
"""

import atexit
import base64
import calendar
import contextlib
import ctypes
import json
import os
import pathlib
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request

import yaml

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = HERE / "tools"
REPOSITORY = HERE.parents[1]
CACHE = pathlib.Path(os.environ.get("LICTOR_DEPLOY_CACHE") or REPOSITORY / "target/deploy").absolute()
IMAGES = CACHE / "images"

CLONE_NEWNET = 0x40000000
# Generous: the machine may be busy with other things. Nothing here waits this long unless something is wrong.
PATIENCE = 90


def eventually(what, check, patience=PATIENCE):
    """The first true value of `check`, asked again until the deadline; an AssertionError in it counts as not yet."""
    deadline = time.monotonic() + patience
    last = None
    while True:
        try:
            value = check()
            if value:
                return value
            last = value
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {patience} s; last: {last}")
        time.sleep(0.05)


def run(arguments, *, check=True, patience=300, **more):
    """Runs a program to its end, with its output as text."""
    if "input" not in more:
        more["stdin"] = subprocess.DEVNULL
    done = subprocess.run(arguments, check=False, text=True, capture_output=True, timeout=patience, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


# ---------------------------------------------------------------------------------------------------------------- the space


class Space:
    """Namespaces in which podman works, with a storage in memory; all of it is gone when it is closed or this process ends."""

    def __init__(self):
        self._holder = subprocess.Popen([TOOLS / "podman", "--space"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        start_new_session=True, cwd=REPOSITORY, env={**os.environ, "LICTOR_DEPLOY_CACHE": str(CACHE)})
        atexit.register(self.close)
        if self._holder.stdout.readline() != b"ready\n":
            raise AssertionError("tests/deploy/tools/podman made no space")
        children = pathlib.Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()
        (self.init,) = map(int, children)
        self._home_network = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._network(f"/proc/{self.init}/ns/net")

    @staticmethod
    def _network(path):
        """Puts this thread, and what it starts from now on, into a network namespace."""
        descriptor = path if isinstance(path, int) else os.open(path, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(descriptor)

    def close(self):
        if self._holder is None:
            return
        groups = self._control_groups()
        holder, self._holder = self._holder, None
        atexit.unregister(self.close)
        with contextlib.suppress(OSError, AttributeError):
            self._network(self._home_network)
        holder.stdin.close()
        try:
            holder.wait(30)
        except subprocess.TimeoutExpired:
            holder.kill()
            holder.wait()
        holder.stdout.close()
        # Only groups without a process can be removed; that of all pods stays while others have some.
        for group in groups:
            for directory, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
            with contextlib.suppress(OSError):
                os.rmdir(group.parent)

    def _control_groups(self):
        """Those of pods and containers that were not taken down."""
        found = []
        with contextlib.suppress(AssertionError, AttributeError, subprocess.TimeoutExpired):
            pods = self.podman("pod", "ps", "--quiet", "--no-trunc", patience=20).stdout.split()
            containers = self.podman("ps", "--all", "--quiet", "--no-trunc", patience=20).stdout.split()
            for name in [*pods, *(f"libpod-{container}" for container in containers), "conmon"]:
                found += pathlib.Path("/sys/fs/cgroup").glob(f"**/libpod_parent/{name}")
        return found

    def podman(self, *arguments, **more):
        environment = {**os.environ, "LICTOR_PODMAN_SPACE": str(self.init), "LICTOR_DEPLOY_CACHE": str(CACHE)}
        return run([TOOLS / "podman", *map(str, arguments)], env=environment, **more)

    def start(self, arguments, log, **more):
        """Starts a program of this machine that ends with the space."""
        enter = ["nsenter", "--target", str(self.init), "--pid", "--"]
        with open(log, "ab") as output:
            return subprocess.Popen(enter + arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **more)

    def process(self, pid):
        """Where /proc of this machine shows a process that the space knows by `pid`."""
        return pathlib.Path(f"/proc/{self.init}/root/proc/{pid}")

    def load(self, name):
        """Loads an image out of its archive and answers its id."""
        archive = IMAGES / f"{name}.tar"
        if not archive.is_file():
            raise AssertionError(f"{archive} is missing: run tests/deploy/images/build, or all of scripts/test-deployment")
        loaded = self.podman("load", "--quiet", "--input", archive).stdout.strip().rsplit(" ", 1)[-1]
        return self.podman("image", "inspect", "--format", "{{.Id}}", loaded).stdout.strip()


def image_size(name):
    """What an image takes as it is pulled: its layers as they lie in the archive."""
    with tarfile.open(IMAGES / f"{name}.tar") as archive:
        index = json.load(archive.extractfile("index.json"))
        algorithm, digest = index["manifests"][0]["digest"].split(":")
        manifest = json.load(archive.extractfile(f"blobs/{algorithm}/{digest}"))
    return sum(layer["size"] for layer in manifest["layers"])


def free_port():
    """A port that nothing listens on, which is looked at twice: by taking it, and by asking it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    assert listeners(port) == [], f"port {port} is not free"
    with socket.socket() as asked:
        assert asked.connect_ex(("127.0.0.1", port)) != 0, f"port {port} answers"
    return port


def listeners(port):
    """Inodes of the sockets that listen on a port, as the kernel tells."""
    found = []
    for table in ("/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"):
        for line in pathlib.Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                found.append(fields[9])
    return found


def get(port, path):
    """Status and text of an HTTP answer; status 0 when there is none."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


# ---------------------------------------------------------------------------------------------------------------- the KDC


class Kdc:
    """An MIT KDC with a realm, a database and a port of its own."""

    def __init__(self, space, directory, realm="CORP.EXAMPLE"):
        self.space, self.directory, self.realm = space, pathlib.Path(directory), realm
        self.directory.mkdir()
        self.port, self._process = None, None
        self._environment = {**os.environ, "KRB5_CONFIG": str(self.directory / "krb5.conf"),
                             "KRB5_KDC_PROFILE": str(self.directory / "kdc.conf"), "LC_ALL": "C.UTF-8"}
        self._write(free_port())
        run(["/usr/sbin/kdb5_util", "-r", realm, "create", "-s", "-P", "master"], env=self._environment)
        self._launch()

    def _write(self, port):
        self.port = port
        (self.directory / "krb5.conf").write_text(self.krb5_conf())
        at = self.directory
        (at / "kdc.conf").write_text(
            f"[kdcdefaults]\n  kdc_listen = 127.0.0.1:{port}\n  kdc_tcp_listen = 127.0.0.1:{port}\n"
            f"[realms]\n  {self.realm} = {{\n    database_name = {at}/principal\n    key_stash_file = {at}/stash\n"
            f"    acl_file = {at}/kadm5.acl\n    max_renewable_life = 7d\n    default_principal_flags = +preauth\n"
            "    supported_enctypes = aes256-cts-hmac-sha1-96:normal aes128-cts-hmac-sha1-96:normal\n  }\n"
            f"[logging]\n  kdc = FILE:{at}/kdc.log\n  admin_server = FILE:{at}/kadmin.log\n  default = FILE:{at}/other.log\n")

    def _launch(self):
        before = self.log().count("commencing operation")
        self._process = self.space.start(["/usr/sbin/krb5kdc", "-n", "-r", self.realm, "-P", str(self.directory / "pid")],
                                         self.directory / "krb5kdc.out", env=self._environment)
        eventually("the KDC answers", lambda: self.log().count("commencing operation") > before)

    def move(self):
        """Ends the KDC and starts it on another port, with the same database."""
        # Its number within the space. What we started is nsenter, which waits for it and passes no signal on.
        pid = (self.directory / "pid").read_text().strip()
        run(["nsenter", "--target", str(self.space.init), "--pid", "--", "bash", "-c", f"kill {pid}"])
        self._process.wait(30)
        self._write(free_port())
        self._launch()

    def krb5_conf(self):
        return (f"[libdefaults]\n  default_realm = {self.realm}\n  dns_lookup_kdc = false\n  dns_lookup_realm = false\n"
                "  rdns = false\n  dns_canonicalize_hostname = false\n"
                f"[realms]\n  {self.realm} = {{\n    kdc = 127.0.0.1:{self.port}\n  }}\n"
                f"[domain_realm]\n  .{self.realm.lower()} = {self.realm}\n")

    def administer(self, *commands):
        done = run(["/usr/sbin/kadmin.local", "-r", self.realm], input="\n".join(commands) + "\nquit\n", env=self._environment)
        wrong = [line for line in (done.stdout + done.stderr).splitlines() if " while " in line or "Usage:" in line]
        assert not wrong, wrong

    def keytab(self, name, *principals):
        """A file with the present keys of principals."""
        path = self.directory / name
        path.unlink(missing_ok=True)
        self.administer(f"ktadd -norandkey -k {path} {' '.join(principals)}")
        return path

    def log(self):
        path = self.directory / "kdc.log"
        return path.read_text() if path.exists() else ""

    def logins(self, principal):
        """How often a principal got a ticket-granting ticket."""
        return sum(all(word in line for word in ("AS_REQ", "ISSUE:", principal)) for line in self.log().splitlines())


# ---------------------------------------------------------------------------------------------------------------- charts


def helm():
    directory = run([sys.executable, TOOLS / "helm"], patience=900).stdout.strip()
    return pathlib.Path(directory) / "helm"


def render(chart, release, values):
    """The documents that helm renders, with the values in a file as people give them."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        text = run([helm(), "template", release, REPOSITORY / "helm" / chart, "--values", file.name]).stdout
    return [document for document in yaml.safe_load_all(text) if document]


def secret(name, **files):
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": files}


def config_map(name, **files):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": files}


WORKLOADS = ("Deployment", "StatefulSet")
# What goes into a pod. The rest of a chart (policies, budgets, services, accounts) is for a cluster's controllers, which there
# are none of here.
PARTS = ("ConfigMap", "Secret", "PersistentVolumeClaim")


def as_pod(documents):
    """What the controller of the rendered workload makes of it: its first pod, with the claims of its templates."""
    (workload,) = [document for document in documents if document["kind"] in WORKLOADS]
    template = workload["spec"]["template"]
    name = workload["metadata"]["name"] + "-0"
    spec = dict(template["spec"])
    metadata = {**template["metadata"], "name": name}
    parts = [document for document in documents if document["kind"] in PARTS]
    for claim in workload["spec"].get("volumeClaimTemplates", []):
        claim_name = f"{claim['metadata']['name']}-{name}"
        parts.append({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim_name}, "spec": claim["spec"]})
        spec["volumes"] = [*spec.get("volumes", []), {"name": claim["metadata"]["name"],
                                                      "persistentVolumeClaim": {"claimName": claim_name}}]
    return parts, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def without_projections(spec, objects):
    """Puts projected volumes together as kubelet does, because podman does not know them. The objects, with one Secret for each
    such volume in place of its sources."""
    made, used = [], []
    for volume in spec.get("volumes", []):
        projected = volume.pop("projected", None)
        if projected is None:
            continue
        data = {}
        for source in projected["sources"]:
            ((kind, reference),) = source.items()
            wanted = {"secret": "Secret", "configMap": "ConfigMap"}[kind]
            (found,) = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (wanted, reference["name"])]
            used.append(found)
            for key, value in found["data"].items():
                names = [item["path"] for item in reference.get("items", [{"key": key, "path": key}]) if item["key"] == key]
                for name in names:
                    data[name] = value if kind == "secret" else base64.b64encode(value.encode()).decode()
        name = f"projected-{volume['name']}"
        made.append(secret(name, **data))
        volume["secret"] = {"secretName": name, **{key: projected[key] for key in ("defaultMode",) if key in projected}}
    return [each for each in objects if each not in used] + made


class Pod:
    """A pod out of a rendered chart. `extra` are ConfigMaps and Secrets that an administrator has made beforehand."""

    def __init__(self, space, documents, container, image, extra=()):
        self.space, self.container = space, container
        parts, self.manifest = as_pod(documents)
        self.name = self.manifest["metadata"]["name"]
        (main,) = [each for each in self.manifest["spec"]["containers"] if each["name"] == container]
        self._main = main
        # The image is here under what the chart calls it; podman is given no other chance to get it.
        space.podman("tag", image, main["image"])
        main["imagePullPolicy"] = "Never"
        # podman makes healthchecks of its own kind of them, which need systemd's timers and prove nothing about kubelet's.
        self._probes = [main.pop(probe) for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
        self._ports = {port["name"]: port["containerPort"] for port in main["ports"]}
        self.documents = [*without_projections(self.manifest["spec"], [*extra, *parts]), self.manifest]

    @property
    def main(self):
        return f"{self.name}-{self.container}"

    def play(self):
        text = yaml.safe_dump_all(self.documents)
        self.space.podman("kube", "play", "--quiet", "--network", "host", "-", input=text)

    def down(self, claims=True):
        """Takes the pod down, and with `claims` the volumes of its claims, too. Those of ConfigMaps and Secrets always go."""
        self.space.podman("pod", "rm", "--force", "--ignore", self.name)
        for document in self.documents:
            name = document["metadata"]["name"]
            if document["kind"] == "Secret":
                self.space.podman("secret", "rm", "--ignore", name)
            if document["kind"] in ("Secret", "ConfigMap") or claims and document["kind"] == "PersistentVolumeClaim":
                self.space.podman("volume", "rm", "--force", name)

    def stop(self):
        """What kubelet does to a pod that is deleted: SIGTERM, SIGKILL after the grace period. The exit code of the program."""
        grace = self.manifest["spec"]["terminationGracePeriodSeconds"]
        self.space.podman("pod", "stop", "--time", grace, self.name, patience=grace + 60)
        return self.state()["ExitCode"]

    def state(self):
        return json.loads(self.space.podman("container", "inspect", "--format", "{{json .State}}", self.main).stdout)

    def log(self):
        done = self.space.podman("logs", self.main, check=False)
        return done.stdout + done.stderr

    def ready(self, port):
        """Waits until /ready says yes."""
        def says():
            status, text = get(port, "/ready")
            assert status == 200, f"{status} {text}"
            return True
        try:
            eventually(f"{self.name} is ready", says)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.state()}\n{self.log()}") from None

    def execute(self, *command, **more):
        """A command in the container, as `kubectl exec` runs it."""
        return self.space.podman("exec", "--interactive", self.main, *command, **more)

    def probe(self):
        """What each probe gets when it asks as kubelet does: status by path."""
        asked = [probe["httpGet"] for probe in self._probes]
        return {each["path"]: get(self._ports.get(each["port"], each["port"]), each["path"])[0] for each in asked}

    def started(self):
        """When the container was started, in seconds since 1970."""
        moment, fraction = self.state()["StartedAt"].rstrip("Z").split("+")[0].split(".")
        return calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction}")

    def pid(self):
        return self.state()["Pid"]

    def processes(self):
        """Where /proc shows each process of the container."""
        first = self.space.process(self.pid())
        namespace = os.readlink(first / "ns/pid")
        found = []
        for path in first.parent.iterdir():
            with contextlib.suppress(OSError):
                if path.name.isdigit() and os.readlink(path / "ns/pid") == namespace:
                    found.append(path)
        return found

    def status(self, path=None):
        """Fields of /proc/PID/status."""
        path = path or self.space.process(self.pid())
        return dict(line.split(":\t", 1) for line in (path / "status").read_text().splitlines() if ":\t" in line)

    def owns(self, port):
        """Whether the one socket that listens on a port is of a process of this container."""
        inodes = listeners(port)
        assert len(inodes) == 1, f"{len(inodes)} sockets listen on {port}"
        wanted = f"socket:[{inodes[0]}]"
        for process in self.processes():
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) == wanted:
                        return True
        return False

    def replace(self, path, files):
        """Changes the ConfigMap or Secret (file name to bytes) that is mounted at `path`, and what is mounted of it, as kubelet
        does some time later."""
        spec = self.manifest["spec"]
        (mounted,) = [mount["name"] for mount in self._main["volumeMounts"] if mount["mountPath"] == path]
        (volume,) = [each for each in spec["volumes"] if each["name"] == mounted]
        kind, name = ("Secret", volume["secret"]["secretName"]) if "secret" in volume else ("ConfigMap", volume["configMap"]["name"])
        (document,) = [each for each in self.documents if (each["kind"], each["metadata"]["name"]) == (kind, name)]
        for file, content in files.items():
            document["data"][file] = (base64.b64encode(content) if kind == "Secret" else content).decode()
        source = self.space.podman("volume", "inspect", "--format", "{{.Mountpoint}}", name).stdout.strip()
        replace_as_kubelet(pathlib.Path(f"/proc/{self.space.init}/root{source}"), files)

    # ------------------------------------------------------------------------------------------------------------ memory

    def requests(self):
        """What the pod asks the cluster for."""
        return self._main["resources"]["requests"]

    def memory(self):
        """(resident memory of all processes, working set of the control group as kubelet counts it), in bytes."""
        resident = 0
        for process in self.processes():
            with contextlib.suppress(OSError):
                for line in (process / "smaps_rollup").read_text().splitlines():
                    if line.startswith("Rss:"):
                        resident += int(line.split()[1]) * 1024
        return resident, self._working_set()

    def _working_set(self):
        for line in (self.space.process(self.pid()) / "cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            # Seen through the space's /proc, the path begins at the root of the machine's groups.
            if "memory" in controllers.split(","):
                group, usage, inactive = pathlib.Path("/sys/fs/cgroup/memory" + path), "memory.usage_in_bytes", "total_inactive_file"
                break
            if number == "0":
                group, usage, inactive = pathlib.Path("/sys/fs/cgroup" + path), "memory.current", "inactive_file"
        if not (group / usage).exists():
            return None
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int((group / usage).read_text()) - int(statistics.get(inactive, 0))


def replace_as_kubelet(volume, files):
    """Replaces what a mounted ConfigMap or Secret holds as kubelet does: a new directory, one symbolic link turned to it.

    podman writes plain files. The first time, they are turned into what kubelet would have made of them.
    """
    new = pathlib.Path(tempfile.mkdtemp(prefix="..", dir=volume))
    new.chmod(0o755)
    for name, content in files.items():
        (new / name).write_bytes(content)
        (new / name).chmod(0o644)
    link = volume / "..data_tmp"
    link.symlink_to(new.name)
    link.rename(volume / "..data")
    for name in files:
        if not (volume / name).is_symlink():
            link = volume / f"..{name}"
            link.symlink_to(f"..data/{name}")
            link.rename(volume / name)
