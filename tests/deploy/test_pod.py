"""The rendered charts, run as pods by podman: a control plane, and agents in both profiles, against MIT's KDC and the simulated
Windows host. There is no cluster here: what only a cluster does (probes that act, policies, autoscaling, the group that fsGroup
gives to volumes) is not shown by this.

What runs is the unmodified images of tests/deploy/images/build. Every test of a class goes on where the one before it ended; they
run in the order in which they stand.
"""

import atexit
import base64
import json
import os
import pathlib
import re
import shlex
import shutil
import tempfile
import threading
import time
import unittest

import pods
from chart_checks.rendering import notes
from devices import Guard
from pods import PATIENCE, Kdc, Pod, Space, config_map, eventually, free_port, get, listeners, render, secret

REALM = "CORP.EXAMPLE"
USER = f"alice@{REALM}"
HOST = "web1.corp.example"
PASSWORD = "c0rrect-Horse-4711"
# Somebody whom no image knows, as OpenShift gives each namespace: with group 0.
RANDOM_USER = 1000650000
FINAL = ("succeeded", "failed", "cancelled", "timed_out", "rejected", "unknown")


class World:
    """What all tests share."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="lictor-pods-"))
        # Ctrl-C and a failed start, too, leave nothing behind.
        atexit.register(self.close)
        self.space = Space()
        self._start()

    def _start(self):
        self.images = {name: self.space.load(name) for name in ("agent", "agent-root", "control-plane", "winsim")}
        self.kdc = Kdc(self.space, self.directory / "kdc", REALM)
        self.kdc.administer(f"addprinc -pw {PASSWORD} alice", f"addprinc -randkey HTTP/{HOST}")
        self._start_windows()
        self._start_control_plane()
        self.figures = {}

    def close(self):
        atexit.unregister(self.close)
        self.space.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start_windows(self):
        keytab = self.kdc.keytab("host.keytab", f"HTTP/{HOST}")
        (self.directory / "windows").mkdir()
        shutil.copy(keytab, self.directory / "windows/host.keytab")
        (self.directory / "windows/host.keytab").chmod(0o444)
        self.windows_port, self.windows_admin = free_port(), free_port()
        self.space.podman("run", "--detach", "--name", "windows", "--network", "host", "--pull", "never",
                          "--volume", f"{self.directory / 'windows'}:/keys:ro", self.images["winsim"],
                          "--listen", f"0.0.0.0:{self.windows_port}", "--admin-listen", f"127.0.0.1:{self.windows_admin}",
                          "--keytab", "/keys/host.keytab", "--principal", rf"*@{REALM}=CORP\*", "--hostname", "WEB1",
                          "--max-shells-per-user", "1000", "--max-connections", "1000")
        eventually("the simulated host answers", lambda: get(self.windows_admin, "/statistics")[0] == 200)

    def _start_control_plane(self):
        self.grpc, self.http = free_port(), free_port()
        self.control_plane_values = {"http": {"port": self.http}, "grpc": {"port": self.grpc}}
        documents = render("lictor-control-plane", "cp", self.control_plane_values)
        self.control_plane = Pod(self.space, documents, "control-plane", self.images["control-plane"])
        self.control_plane.play()
        self.control_plane.ready(self.http)

    def lictor(self, *arguments, **more):
        """A command of the administrator, as the chart's notes say: in the control plane's pod."""
        return self.control_plane.execute("lictor", *arguments, **more)

    def lictor_json(self, *arguments):
        return json.loads(self.lictor(*arguments, "--output", "json").stdout)

    def submit(self, credential, *arguments):
        return self.lictor("task", "submit", "--host", "localhost", "--credential", credential, *arguments).stdout.strip()

    def task(self, task_id):
        return self.lictor_json("task", "show", task_id)

    def ended(self, task_id):
        def final():
            task = self.task(task_id)
            assert task["state"] in FINAL, task["state"]
            return task
        return eventually(f"task {task_id} ends", final)

    def running(self, task_id):
        def runs():
            task = self.task(task_id)
            assert task["state"] == "running", task
            return task
        return eventually(f"task {task_id} runs", runs)

    def output(self, task_id):
        done = self.lictor("task", "watch", task_id, check=False)
        return done.stdout

    def agents(self):
        return {agent["name"]: agent for agent in self.lictor_json("agent", "list")["agents"]}

    def join_token(self):
        return self.lictor("token", "create", "--max-uses", "0", "--description", "pods").stdout.strip()

    def statistics(self):
        return json.loads(get(self.windows_admin, "/statistics")[1])

    def credential(self, name, *arguments):
        self.lictor("credential", "put", name, "--user", USER, "--auth", "kerberos", "--scheme", "http", "--port",
                    str(self.windows_port), "--spn-host", HOST, *arguments)

    def agent(self, release, values, profile="agent"):
        """A pod of the agent's chart, on a port that is free, with the objects that an administrator makes beforehand."""
        port = free_port()
        keytab = base64.b64encode(self.kdc.keytab(f"{release}.keytab", "alice").read_bytes()).decode()
        extra = [
            secret(f"{release}-join", token=base64.b64encode(self.join_token().encode()).decode()),
            secret(f"{release}-keytabs", **{"alice.keytab": keytab}),
            config_map(f"{release}-krb5", **{"krb5.conf": self.kdc.krb5_conf()}),
        ]
        common = {
            "controlPlane": {"endpoint": f"https://127.0.0.1:{self.grpc}"},
            "joinToken": {"existingSecret": f"{release}-join"},
            "http": {"port": port},
        }
        pod = Pod(self.space, render("lictor-agent", release, {**common, **values}), "agent", self.images[profile], extra)
        pod.port = port
        return pod


WORLD = None


def setUpModule():
    global WORLD
    unittest.addModuleCleanup(Guard().check)
    WORLD = World()


def tearDownModule():
    if WORLD is not None:
        WORLD.close()


class PodTest(unittest.TestCase):
    """Goes on where the test before it ended."""

    pod = None

    @classmethod
    def tearDownClass(cls):
        if cls.pod is not None:
            cls.pod.down()

    def start(self, pod):
        """Plays a pod until it is ready, and makes sure that it is the pod that answers."""
        self.assertEqual(listeners(pod.port), [], "something listens on the port before the pod does")
        self.assertEqual(get(pod.port, "/live")[0], 0)
        pod.play()
        pod.ready(pod.port)
        self.assertTrue(pod.owns(pod.port), "another process listens on the pod's port")

    def serves(self, credential, *arguments):
        """A task with Kerberos: exit code and output are right, and it was Kerberos, sealed."""
        task_id = WORLD.submit(credential, *arguments, "--", "whoami")
        task = WORLD.ended(task_id)
        self.assertEqual(task["state"], "succeeded", f"{task}\n{self.pod.log()}")
        self.assertEqual(task["result"]["exit_code"], 0, task)
        self.assertIn("kerberos", task["result"]["connection"]["auth"])
        self.assertTrue(task["result"]["connection"]["sealed"], task)
        self.assertEqual(WORLD.output(task_id).strip().lower(), r"corp\alice")
        return task


class ControlPlane(PodTest):
    """The control plane's own chart."""

    @classmethod
    def tearDownClass(cls):
        pass

    def test_10_it_is_ready_on_its_own_ports(self):
        for port in (WORLD.http, WORLD.grpc):
            self.assertTrue(WORLD.control_plane.owns(port), port)
        self.assertEqual(set(WORLD.control_plane.probe().values()), {200})

    def test_20_what_the_notes_tell_to_do_works(self):
        told = re.findall(r" exec statefulset/\S+ -c control-plane -- (.*)", notes("lictor-control-plane", WORLD.control_plane_values))
        answers = {}
        for command in told:
            command = command.split(" > ")[0]
            answers[command] = WORLD.control_plane.execute(*shlex.split(command)).stdout
        self.assertEqual(len(answers), 4, answers)
        self.assertIn("admin", answers["lictor whoami"])
        (join_token,) = [text for command, text in answers.items() if "token create" in command]
        self.assertRegex(join_token, r"^lictor-join\.\S+\n$")
        # The administrator's token and the authority are what somebody outside needs, and nobody without them gets in.
        state = "/var/lib/lictor-control-plane/state"
        outside = self._outside(answers[f"cat {state}/admin-token"], answers[f"cat {state}/ca.pem"])
        self.assertEqual(outside.stdout, answers["lictor whoami"], outside.stderr)
        self.assertNotEqual(self._outside("nobody", answers[f"cat {state}/ca.pem"]).returncode, 0)

    def _outside(self, token, authority):
        """`lictor whoami` in a container that has nothing of the control plane's but what it is given."""
        given = pathlib.Path(tempfile.mkdtemp(dir=WORLD.directory))
        (given / "token").write_text(token)
        (given / "ca.pem").write_text(authority)
        environment = {"SERVER": f"https://localhost:{WORLD.grpc}", "TOKEN_FILE": "/given/token", "CA": "/given/ca.pem"}
        arguments = [word for name, value in environment.items() for word in ("--env", f"LICTOR_{name}={value}")]
        return WORLD.space.podman("run", "--rm", "--network", "host", "--user", "0", "--entrypoint", "lictor", *arguments,
                                  "--volume", f"{given}:/given:ro", WORLD.images["agent"], "whoami", check=False)

    def test_30_a_new_pod_on_the_same_volume_knows_all_that_the_old_one_knew(self):
        WORLD.credential("own", "--keytab-on-agent")
        authority = WORLD.control_plane.execute("sh", "-c", 'cat "$LICTOR_CA"').stdout
        self.assertEqual(WORLD.control_plane.stop(), 0, WORLD.control_plane.log())
        WORLD.control_plane.down(claims=False)
        self.assertEqual(get(WORLD.http, "/live")[0], 0)
        WORLD.control_plane.play()
        WORLD.control_plane.ready(WORLD.http)
        self.assertEqual([each["name"] for each in WORLD.lictor_json("credential", "list")["credentials"]], ["own"])
        self.assertEqual(WORLD.control_plane.execute("sh", "-c", 'cat "$LICTOR_CA"').stdout, authority)


class Restricted(PodTest):
    """The default profile, as a user that no image knows."""

    def test_10_it_enrols_and_answers_on_its_own_port(self):
        values = {
            "kerberos": {"existingConfigMap": "one-krb5", "keytabs": {"existingSecrets": ["one-keytabs"]}},
            "podSecurityContext": {"runAsUser": RANDOM_USER, "runAsGroup": 0, "fsGroup": 0},
        }
        pod = type(self).pod = WORLD.agent("one", values)
        with Stopwatch(pod.port) as stopwatch:
            self.start(pod)
            WORLD.figures["start to ready"] = stopwatch.ready() - pod.started()
        WORLD.figures["idle"] = pod.memory()
        WORLD.figures["requested"] = pod.requests()["memory"]
        agent = WORLD.agents()[pod.name]
        self.assertEqual(agent["degraded"], [])
        self.assertEqual(agent["kerberos_principals"], [USER])
        self.assertFalse(WORLD.control_plane.owns(pod.port), "whoever listens, it seems to be everybody's")
        self.assertEqual(pod.probe(), {"/live": 200, "/ready": 200})
        self.assertEqual(get(pod.port, "/api/health")[0], 200)
        self.assertIn("agent_slots_free", get(pod.port, "/metrics")[1])

    def test_20_it_has_no_rights(self):
        for process in self.pod.processes():
            status = self.pod.status(process)
            self.assertEqual(set(status["Uid"].split()), {str(RANDOM_USER)}, status["Name"])
            self.assertEqual(set(status["Gid"].split()), {"0"}, status["Name"])
            for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                self.assertEqual(int(status[kind], 16), 0, f"{kind} of {status['Name']}")
            self.assertEqual(status["NoNewPrivs"], "1")
            self.assertEqual(status["Seccomp"], "2", "no filter of system calls")

    def test_30_it_writes_to_its_volumes_and_nowhere_else(self):
        mounts = (WORLD.space.process(self.pod.pid()) / "mountinfo").read_text().splitlines()
        (root,) = [line.split() for line in mounts if line.split()[4] == "/"]
        self.assertIn("ro", root[5].split(","))
        for path in ("/x", "/etc/krb5.conf", "/usr/local/bin/x", "/opt/harness-delegate/ca-bundle/x", "/etc/lictor/krb5/x",
                     "/etc/lictor/keytabs/x", "/etc/lictor/join/x", "/etc/lictor/agent/x"):
            done = self.pod.execute("bash", "-c", 'echo x >> "$0"', path, check=False)
            self.assertNotEqual(done.returncode, 0, path)
            self.assertIn("Read-only file system", done.stderr, path)
        for path in ("/tmp/x", "/var/lib/lictor-agent/x"):
            self.pod.execute("bash", "-c", 'echo x > "$0" && rm "$0"', path)

    def test_40_it_serves_tasks_with_its_keytab(self):
        self.serves("own")
        self.assertEqual(WORLD.kdc.logins(USER), 1, WORLD.kdc.log())
        task = WORLD.ended(WORLD.submit("own", "--", "sim.exe exit 7"))
        self.assertEqual((task["state"], task["result"]["exit_code"]), ("failed", 7), task)

    def test_50_a_rotated_keytab_is_used_without_a_restart(self):
        before = self.pod.state()["StartedAt"]
        WORLD.kdc.administer("cpw -pw An0ther-Horse-0815 alice")
        new = WORLD.kdc.keytab("rotated.keytab", "alice").read_bytes()
        self.pod.replace("/etc/lictor/keytabs", {"alice.keytab": new})
        logins = WORLD.kdc.logins(USER)
        self.serves("own", "--fresh-tickets", "--env", "ROTATED=1")
        self.assertEqual(WORLD.kdc.logins(USER), logins + 1, WORLD.kdc.log())
        self.assertNotIn("PREAUTH_FAILED", WORLD.kdc.log())
        self.assertEqual(self.pod.state()["StartedAt"], before)

    def test_60_a_changed_krb5_conf_is_used_without_a_restart(self):
        before, old = self.pod.state()["StartedAt"], WORLD.kdc.port
        WORLD.kdc.move()
        self.assertNotEqual(WORLD.kdc.port, old)
        self.pod.replace("/etc/lictor/krb5", {"krb5.conf": WORLD.kdc.krb5_conf().encode()})
        logins = WORLD.kdc.logins(USER)
        # The agent looks at the file at most once in a second: the test before this one may have been a moment ago.
        eventually("the changed file is used", lambda: self.serves("own", "--fresh-tickets", "--env", "MOVED=1"), 30)
        self.assertEqual(WORLD.kdc.logins(USER), logins + 1, WORLD.kdc.log())
        self.assertEqual(self.pod.state()["StartedAt"], before)

    def test_70_processes_that_lose_their_parent_are_taken_in(self):
        # The parent ends at once; the child waits until the test has seen whose it is now.
        self.pod.execute("bash", "-c", "mkfifo /tmp/gate; (read -r _ </tmp/gate) >/dev/null 2>&1 &")
        first = self.pod.status()["NSpid"].split()[-1]
        self.assertEqual(first, "1")

        def orphan():
            found = [status for status in map(self.pod.status, self.pod.processes()) if status["Name"].strip() == "bash"]
            return found[0] if found and found[0]["PPid"] == self.pod.status()["NSpid"].split()[-2] else None
        pid = eventually("the child has the container's first process as its parent", orphan)["NSpid"].split()[-1]
        self.pod.execute("bash", "-c", "echo go >/tmp/gate")

        def gone():
            return pid not in [self.pod.status(process)["NSpid"].split()[-1] for process in self.pod.processes()]
        eventually("it is gone, and no zombie is left of it", gone)

    def test_80_many_tasks_at_once(self):
        hosts = "".join(f"127.0.1.{number}\n" for number in range(1, 201))
        with Sampler(self.pod) as sampler:
            batch = WORLD.lictor("task", "submit", "--hosts-file", "-", "--credential", "own", "--", "sim.exe lines 20 25",
                                 input=hosts).stdout.strip()
            WORLD.lictor("batch", "watch", batch)
        tasks = WORLD.lictor_json("task", "list", "--batch", batch, "--limit", "1000")["tasks"]
        self.assertEqual((len(tasks), {task["state"] for task in tasks}), (200, {"succeeded"}))
        WORLD.figures["loaded"] = sampler.most
        self.assertEqual(WORLD.agents()[self.pod.name]["degraded"], [])

    def test_90_sigterm_lets_running_tasks_end_and_loses_nothing(self):
        running = WORLD.submit("own", "--", "sim.exe lines 30 200")
        WORLD.running(running)
        agent = WORLD.agents()[self.pod.name]
        stopping = Background(self.pod.stop)
        eventually("it is not ready any more", lambda: get(self.pod.port, "/ready")[0] != 200)
        late = WORLD.submit("own", "--", "whoami")
        self.assertEqual(stopping.result(), 0, self.pod.log())
        task = WORLD.ended(running)
        self.assertEqual(task["state"], "succeeded", task)
        self.assertEqual(WORLD.output(running).split()[-2:], ["line", "30"])
        self.assertEqual(WORLD.statistics()["shells"]["open"], 0, "it left shells on the host")
        self.assertEqual(WORLD.task(late)["state"], "queued")
        # A new pod on the same claim is the same agent, and what waited is served.
        self.pod.down(claims=False)
        self.start(self.pod)
        self.assertEqual(WORLD.agents()[self.pod.name]["agent_id"], agent["agent_id"])
        self.assertEqual(WORLD.ended(late)["state"], "succeeded")


# What the delegate's documentation tells people to put into their delegate.yaml, with its placeholders.
INIT_SCRIPT = """# Set up kerberos
microdnf update
microdnf install vim
microdnf install yum
microdnf install -y yum-utils
yes | yum install krb5-workstation krb5-libs
truncate -s 0 /etc/krb5.conf
cat <<EOT >> /etc/krb5.conf
[logging]
    default = FILE:/var/log/krb5libs.log
    kdc = FILE:/var/log/krb5kdc.log
    admin_server = FILE:/var/log/kadmind.log
[libdefaults]
    default_realm = KERBEROS.DOMAIN
    dns_lookup_realm = true
    ticket_lifetime = 24h
    renew_lifetime = 7d
    forwardable = true
    rdns = false
[realms]
  KERBEROS.DOMAIN = {
    kdc = "SERVER_NAME.KERBEROS.DOMAIN:PORT"
    admin_server = "SERVER_NAME.KERBEROS.DOMAIN"
    default_domain = "KERBEROS.DOMAIN"
    master_kdc = "SERVER_NAME.KERBEROS.DOMAIN:PORT"
  }
[domain_realm]
  .KERBEROS.DOMAIN = KERBEROS.DOMAIN
EOT
echo 'host_ip host_name SERVER_NAME.KERBEROS.DOMAIN' >> /etc/hosts
echo 'password' | kinit USERNAME@KERBEROS.DOMAIN
klist
"""


class Root(PodTest):
    """The profile for start scripts that write /etc, with the script of a delegate."""

    def test_10_the_script_of_a_delegate_runs(self):
        WORLD.kdc.administer(f"cpw -pw {PASSWORD} alice")
        script = INIT_SCRIPT
        for placeholder, value in (("SERVER_NAME", "dc1"), ("KERBEROS.DOMAIN", REALM), ("PORT", str(WORLD.kdc.port)),
                                   ("host_ip host_name", "127.0.0.1 dc1"), ("'password'", f"'{PASSWORD}'"), ("USERNAME", "alice")):
            script = script.replace(placeholder, value)
        self.__class__.logins = WORLD.kdc.logins(USER)
        values = {"profile": "root", "bootstrap": {"script": script}, "config": {"drain_grace": "3s"}, "tags": ["root"]}
        pod = type(self).pod = WORLD.agent("two", values, "agent-root")
        self.start(pod)
        self.assertEqual(pod.status()["Uid"].split()[0], "0")
        # Root with no more than files and processes of its own need, by the numbers of capabilities(7): no SYS_ADMIN, no NET_ADMIN.
        given = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7))
        for process in pod.processes():
            self.assertEqual(int(pod.status(process)["CapEff"], 16) & ~given, 0)
            self.assertEqual(pod.status(process)["NoNewPrivs"], "1")
        log = pod.log()
        for line in ("microdnf: command not found", "yum: command not found", f"Default principal: {USER}"):
            self.assertIn(line, log)
        # The packages of another system are not there, which is no reason not to go on.
        self.assertIn("5 of its commands failed, the first at line 2", log)
        self.assertEqual(WORLD.agents()[pod.name]["degraded"], [])
        self.assertIn(f"default_realm = {REALM}", pod.execute("cat", "/etc/krb5.conf").stdout)
        # The name of the KDC is known from there alone. /etc/hosts is a mount of its own, of podman's as of kubelet's.
        self.assertIn(f"127.0.0.1 dc1 dc1.{REALM}", pod.execute("cat", "/etc/hosts").stdout)
        self.assertEqual(WORLD.kdc.logins(USER), self.logins + 1, WORLD.kdc.log())

    def test_20_its_ticket_serves_tasks(self):
        WORLD.credential("ticket", "--ccache-on-agent")
        self.serves("ticket", "--tag", "root")
        self.assertEqual(WORLD.kdc.logins(USER), self.logins + 1, "the script's ticket served: " + WORLD.kdc.log())

    def test_30_its_password_is_in_no_log(self):
        for name, log in (("agent", self.pod.log()), ("control plane", WORLD.control_plane.log())):
            self.assertNotIn(PASSWORD, log, name)
        for process in self.pod.processes():
            for file in ("cmdline", "environ"):
                self.assertNotIn(PASSWORD.encode(), (process / file).read_bytes(), f"{file} of {process.name}")

    def test_40_sigterm_ends_what_outlasts_the_grace_and_says_so(self):
        task_id = WORLD.submit("ticket", "--tag", "root", "--", "sim.exe sleep 600000")
        WORLD.running(task_id)
        begin = time.monotonic()
        self.assertEqual(self.pod.stop(), 0, self.pod.log())
        self.assertLess(time.monotonic() - begin, self.pod.manifest["spec"]["terminationGracePeriodSeconds"])
        task = WORLD.ended(task_id)
        self.assertEqual(task["result"]["error"]["code"], "agent.drained", task)
        self.assertEqual(WORLD.statistics()["shells"]["open"], 0, "it left shells on the host")


class Figures(unittest.TestCase):
    """Printed, and not judged: what is fast and small elsewhere may not be so on this machine."""

    def test_they_are_printed(self):
        figures = WORLD.figures

        def mebibytes(count):
            return "unknown" if count is None else f"{count / 1048576:.0f} MiB"
        rows = [("memory requested by the manifest, Harness delegate, as published", "2048Mi"),
                ("memory requested by the manifest, agent", figures["requested"])]
        for name in ("agent", "agent-root", "control-plane"):
            unpacked = int(WORLD.space.podman("image", "inspect", "--format", "{{.Size}}", WORLD.images[name]).stdout)
            rows.append((f"image {name}, unpacked / as pulled", f"{mebibytes(unpacked)} / {mebibytes(pods.image_size(name))}"))
        rows.append(("start of the container to /ready, with enrolment", f"{figures['start to ready'] * 1000:.0f} ms"))
        for name, what in (("idle", "connected, idle"), ("loaded", "200 tasks on 200 hosts, 16 at once, most")):
            resident, group = figures[name]
            rows.append((f"memory, {what}: resident / working set of the group", f"{mebibytes(resident)} / {mebibytes(group)}"))
        width = max(len(name) for name, _ in rows)
        # One to a line, the value behind the last two spaces: for people, and for `grep '^figure: '`.
        text = "".join(f"figure: {name:<{width}}  {value}\n" for name, value in rows)
        print(f"\n\n{text}", end="", flush=True)
        # scripts/test-deployment says them once more at its end.
        if file := os.environ.get("LICTOR_FIGURES"):
            pathlib.Path(file).write_text(text)


class Stopwatch:
    """Asks /ready all the time, and knows when it first said yes."""

    def __init__(self, port):
        self.port, self.moment, self.over = port, None, threading.Event()
        self.thread = threading.Thread(target=self._ask)

    def _ask(self):
        while not self.over.wait(0.002):
            if get(self.port, "/ready")[0] == 200:
                self.moment = time.time()
                return

    def ready(self):
        self.thread.join(PATIENCE)
        return self.moment

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


class Sampler:
    """The most memory that a pod has had meanwhile."""

    def __init__(self, pod):
        self.pod, self.most, self.over = pod, (0, 0), threading.Event()
        self.thread = threading.Thread(target=self._sample)

    def _sample(self):
        while not self.over.wait(0.2):
            self.most = tuple(max(old, new or 0) for old, new in zip(self.most, self.pod.memory()))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


class Background:
    """A function in a thread, and what came of it."""

    def __init__(self, function):
        self.value, self.error = None, None
        self.thread = threading.Thread(target=self._run, args=(function,))
        self.thread.start()

    def _run(self, function):
        try:
            self.value = function()
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def result(self):
        self.thread.join()
        if self.error is not None:
            raise self.error
        return self.value


def load_tests(loader, _tests, _pattern):
    """In the order in which they go on from each other."""
    return unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in (ControlPlane, Restricted, Root, Figures))


if __name__ == "__main__":
    unittest.main(verbosity=2)
