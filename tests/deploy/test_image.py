"""The Dockerfile and the images that tests/deploy/images/build makes of it.

Run by scripts/test-deployment, or alone: python -m unittest tests/deploy/test_image.py (as root, for namespaces).
"""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import tomllib
import unittest
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from oci import ANY_UID, Container, Image, run  # noqa: E402

TARGETS = ("agent", "agent-root", "control-plane", "winsim")
PROGRAMS = {
    "agent": {"lictor", "lictor-agent"},
    "agent-root": {"lictor", "lictor-agent"},
    "control-plane": {"lictor", "lictor-control-plane"},
    "winsim": {"winsim"},
}
# Well-formed, and of nobody.
JOIN_TOKEN = "lictor-join.nobody." + "A" * 43 + "." + "A" * 43
# What the delegate of Harness asks for by its published manifest, to have something beside the figures.
DELEGATE_MEMORY = "2048Mi"


def cache() -> Path:
    if given := os.environ.get("LICTOR_DEPLOY_CACHE"):
        return Path(given)
    metadata = subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"], cwd=REPOSITORY, check=True,
                              capture_output=True, text=True)
    return Path(json.loads(metadata.stdout)["target_directory"]) / "deploy"


class Dockerfile(unittest.TestCase):
    def test_hadolint_finds_nothing(self):
        tool = Path(sys.executable).with_name("hadolint")
        done = subprocess.run([tool, "--no-fail", REPOSITORY / "Dockerfile"], capture_output=True, text=True, timeout=60, check=True)
        self.assertEqual(done.stdout, "")
        # Each exception stands below a comment that says why.
        lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
        for number, line in enumerate(lines):
            if "hadolint ignore" in line:
                self.assertTrue(lines[number - 1].startswith("# "), f"line {number + 1} has no reason above it")

    def test_nothing_is_of_one_architecture(self):
        for file in [REPOSITORY / "Dockerfile", *(REPOSITORY / "deploy/image").iterdir()]:
            self.assertNotRegex(file.read_text(), r"x86_64|amd64|aarch64|arm64", file)

    def test_the_build_sees_every_member_of_the_workspace(self):
        members = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]["members"]
        let_in = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        self.assertLessEqual({member.split("/")[0] for member in members}, let_in)

    def test_versions_are_those_of_the_workspace(self):
        version = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]["package"]["version"]
        toolchain = tomllib.loads((REPOSITORY / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
        text = (REPOSITORY / "Dockerfile").read_text()
        self.assertEqual(set(re.findall(r"^ARG VERSION=(.*)$", text, re.M)), {version})
        builder = re.search(r"^ARG BUILDER_IMAGE=docker.io/library/rust:([0-9.]+)-slim-bookworm$", text, re.M)
        self.assertTrue(toolchain.startswith(builder.group(1) + "."), toolchain)


class Images(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        subprocess.run([REPOSITORY / "tests/deploy/images/build"], check=True, stdin=subprocess.DEVNULL)
        cls.directory = Path(tempfile.mkdtemp(prefix="lictor-images-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        # Users other than root run things below it.
        cls.directory.chmod(0o755)
        cls.version = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]["package"]["version"]
        cls.images = {}
        for target in TARGETS:
            (cls.directory / target).mkdir()
            cls.images[target] = Image(cache() / "images" / f"{target}.tar", cls.directory / target)

    def test_sizes_are_told(self):
        for target, image in self.images.items():
            archive, unpacked = image.archive.stat().st_size, image.size()
            print(f"image {target}: {archive / 2**20:.1f} MiB to transfer, {unpacked / 2**20:.1f} MiB unpacked"
                  f" (Harness delegate: {DELEGATE_MEMORY} of memory requested)", file=sys.stderr)
            self.assertLess(unpacked, 400 << 20)

    def test_what_engines_are_told(self):
        expected = {
            "agent": ("10001:0", "lictor-agent", ["run"], {"3460/tcp"}),
            "agent-root": ("0:0", "lictor-agent", ["run"], {"3460/tcp"}),
            "control-plane": ("10001:0", "lictor-control-plane", ["run"], {"7443/tcp", "7480/tcp"}),
            "winsim": ("10001:0", "winsim", ["--help"], {"5985/tcp", "5986/tcp"}),
        }
        for target, image in self.images.items():
            with self.subTest(target):
                config = image.config
                told = (config["User"], config["Entrypoint"], config["Cmd"], set(config["ExposedPorts"]))
                user, program, arguments, ports = expected[target]
                self.assertEqual(told, (user, [program], arguments, ports))
                labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
                self.assertEqual(labels["version"], self.version)
                self.assertEqual(labels["licenses"], "Apache-2.0")
                self.assertEqual(labels["base.name"], "docker.io/library/debian:bookworm-slim")
                self.assertRegex(labels["created"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
                self.assertRegex(labels["revision"], r"^[0-9a-f]{40}$")
                self.assertTrue(labels["title"] and labels["description"])
        agent = self.images["agent"].environment()
        self.assertEqual(agent["LICTOR_AGENT_STATE_DIR"], "/var/lib/lictor-agent")
        self.assertEqual(agent["LICTOR_AGENT_HTTP_LISTEN"], "0.0.0.0:3460")
        control_plane = self.images["control-plane"].environment()
        self.assertEqual(control_plane["LICTOR_CONTROL_PLANE_STATE_DIR"], "/var/lib/lictor-control-plane")
        self.assertEqual(control_plane["LICTOR_CONTROL_PLANE_LISTEN"], "0.0.0.0:7443")
        self.assertEqual(control_plane["LICTOR_CONTROL_PLANE_HTTP_LISTEN"], "0.0.0.0:7480")

    def test_what_is_in_them(self):
        for target, image in self.images.items():
            with self.subTest(target):
                programs = {file.name for file in (image.root / "usr/local/bin").iterdir()}
                self.assertEqual(programs, PROGRAMS[target])
                self.assertEqual(list((image.root / "usr/local/sbin").iterdir()), [])
                directories = ["etc/lictor/ca"]
                if target.startswith("agent"):
                    directories += ["opt/harness-delegate/ca-bundle", "var/lib/lictor-agent"]
                    for tool in ("bash", "kinit", "klist", "kvno"):
                        self.assertTrue((image.root / "usr/bin" / tool).exists(), tool)
                for directory in directories:
                    self.assertTrue((image.root / directory).is_dir(), directory)
                self.assertTrue((image.root / "etc/ssl/certs/ca-certificates.crt").stat().st_size > 100_000)
                self.assertTrue((image.root / "usr/share/lictor/LICENSE").exists())
                for program in programs:
                    libraries = subprocess.run(["chroot", image.root, "ldd", f"/usr/local/bin/{program}"], check=True,
                                               capture_output=True, text=True).stdout
                    self.assertIn("libc.so", libraries)
                    self.assertNotIn("not found", libraries)

    def test_what_is_not_in_them(self):
        tools = {"gcc", "cc", "ld", "as", "make", "cargo", "rustc", "cargo-cyclonedx", "jq", "pkg-config", "sudo"}
        for target, image in self.images.items():
            with self.subTest(target):
                privileged, writable = [], []
                for directory, _, files in os.walk(image.root):
                    for file in files:
                        path = Path(directory) / file
                        status = path.lstat()
                        if not stat.S_ISREG(status.st_mode):
                            continue
                        if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
                            privileged.append(path)
                        if status.st_mode & stat.S_IWOTH:
                            writable.append(path)
                        if "bin" in path.parts:
                            self.assertNotIn(file, tools)
                self.assertEqual((privileged, image.capable, writable), ([], [], []))
                leftovers = [*image.root.glob("var/lib/apt/lists/*"), *image.root.glob("var/cache/apt/archives/*.deb"),
                             *image.root.glob("src/*"), *image.root.glob("var/lib/packages/*")]
                self.assertEqual(leftovers, [])
                # What the offline build lent them is gone: apt asks Debian again.
                self.assertNotIn("file:", (image.root / "etc/apt/sources.list").read_text())

    def test_documents_say_what_they_are_made_of(self):
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator

        locked = {(package["name"], package["version"]): package.get("checksum")
                  for package in tomllib.loads((REPOSITORY / "Cargo.lock").read_text())["package"]}
        for target, image in self.images.items():
            with self.subTest(target):
                text = (image.root / "usr/share/lictor/sbom.cdx.json").read_text()
                self.assertIsNone(JsonStrictValidator(SchemaVersion.V1_5).validate_str(text))
                self.assertEqual((cache() / "images" / f"{target}.cdx.json").read_text(), text, "the copy beside the archive")
                document = json.loads(text)
                components = document["components"]
                known = {component["bom-ref"] for component in components} | {document["metadata"]["component"]["bom-ref"]}
                self.assertEqual(len(known), len(components) + 1)
                for dependency in document["dependencies"]:
                    self.assertLessEqual({dependency["ref"], *dependency.get("dependsOn", [])}, known)

                packages = {(component["name"], component["version"]) for component in components
                            if component.get("purl", "").startswith("pkg:deb/debian/")}
                listed = subprocess.run(["chroot", image.root, "dpkg-query", "--show", "--showformat", "${Package} ${Version}\n"],
                                        check=True, capture_output=True, text=True).stdout
                self.assertEqual(packages, {tuple(line.split()) for line in listed.splitlines()})

                crates = {}
                for component in components:
                    if component["bom-ref"].startswith(("registry+", "path+")):
                        hashes = [entry["content"] for entry in component.get("hashes", [])]
                        crates[component["name"], component["version"]] = hashes[0] if hashes else None
                for crate, checksum in crates.items():
                    self.assertEqual(locked.get(crate, "not locked"), checksum, crate)
                arguments = [word for program in sorted(PROGRAMS[target]) for word in ("--package", program)]
                tree = subprocess.run(["cargo", "tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}",
                                       *arguments], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
                linked = {(words[0], words[1].removeprefix("v")) for line in tree.splitlines() if (words := line.split())}
                self.assertLessEqual(linked, crates.keys())

    def test_programs_run_as_any_user_on_a_root_that_is_only_read(self):
        for target, image in self.images.items():
            for program in sorted(PROGRAMS[target]):
                with self.subTest(target=target, program=program):
                    done = run(image, program, "--version")
                    self.assertEqual((done.returncode, done.stdout.strip()), (0, f"{program} {self.version}"))
        agent = self.images["agent"]
        done = run(agent, "bash", "-c", "id -u; id -g; echo $HOME; touch /etc/x; touch /tmp/x && grep CapBnd /proc/self/status")
        self.assertEqual((done.returncode, done.stdout.splitlines()[:3]), (0, [str(ANY_UID), "0", "/tmp"]))
        self.assertRegex(done.stdout, "/etc/x.*(Read-only file system|Permission denied)")
        self.assertRegex(done.stdout, r"CapBnd:\s+0{16}")
        # A user whom no account describes has a cache of credentials all the same.
        done = run(agent, "bash", "-c", "klist; kinit -k -t /nowhere svc@CORP.EXAMPLE; true")
        self.assertIn(f"/tmp/krb5cc_{ANY_UID}", done.stdout)
        self.assertRegex(done.stdout, "kinit: .*(CORP.EXAMPLE|/nowhere)")
        done = run(agent, "lictor-agent", "check-config", environment={"LICTOR_AGENT_CONTROL_PLANE": "https://control.example"})
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stdout, r"ca_files.*/opt/harness-delegate/ca-bundle.*/etc/lictor/ca")

    def agent(self, script=None, **how):
        """An agent whose control plane is not there, in a volume of somebody else's that its group may write."""
        environment = {"LICTOR_AGENT_CONTROL_PLANE": "https://127.0.0.1:9", "LICTOR_AGENT_JOIN_TOKEN": JOIN_TOKEN}
        if script is not None:
            environment["INIT_SCRIPT"] = script
        how = {"volumes": {"/var/lib/lictor-agent": "mode=2775"}} | how
        return Container(self.images["agent"], ["lictor-agent", "run"], environment=environment, **how)

    def control_plane(self):
        volumes = {"/var/lib/lictor-control-plane": "mode=2775"}
        return Container(self.images["control-plane"], ["lictor-control-plane", "run"], volumes=volumes)

    def assert_takes_in_orphans(self, container: Container):
        """Processes that somebody leaves behind end, and are gone then."""
        for _ in range(5):
            container.enter("bash", "-c", "(read -t 0.05 <> <(:); exit 3) & (exit 4) & disown -a")
        first = container.first()
        container.eventually(lambda: children(first) == [], "orphans stay")

    def test_sigterm_ends_the_agent_and_its_script_wherever_the_start_is(self):
        with self.subTest("script"):
            script = "trap '' TERM\nsetsid sleep 1000 &\n(trap '' TERM; sleep 1000) &\necho begun\nsleep 1000\nsleep 1000\n"
            with self.agent(script) as container:
                container.says("begun")
                first = container.first()
                self.assertGreater(len(children(first)), 0)
                container.signal(signal.SIGTERM)
                self.assertEqual(container.wait(), 0, container.output())
                self.assertIn("bootstrap script with it", container.output())
        with self.subTest("between script and agent"):
            with self.agent("echo begun; kill -TERM 1; exit 0") as container:
                self.assertEqual(container.wait(), 0, container.output())
        with self.subTest("agent after a script"):
            with self.agent("sleep 1000 & true") as container:
                container.says("Going on after the bootstrap script")
                container.signal(signal.SIGTERM)
                self.assertEqual(container.wait(), 0, container.output())
        with self.subTest("agent alone"):
            with self.agent() as container:
                container.says("(?i)control plane")
                container.signal(signal.SIGTERM)
                self.assertEqual(container.wait(), 0, container.output())

    def test_a_single_early_sigterm_is_not_lost(self):
        # As early as the kernel knows the program by its name: before it has read its settings, and long before it listens.
        for attempt in range(20):
            with self.agent("sleep 1000" if attempt % 2 else None) as container:
                first = container.first()
                container.eventually(lambda: catches_or_holds(first, signal.SIGTERM), "SIGTERM is neither held nor taken", 10)
                container.signal(signal.SIGTERM)
                self.assertEqual(container.wait(), 0, container.output())

    def test_orphans_are_taken_in_while_the_script_runs_and_afterwards(self):
        script = "for i in 1 2 3 4 5; do (setsid sh -c 'exit 7' & ); done; (sleep 0.1 &); echo begun; until [[ -e /tmp/go ]]; do sleep 0.05; done"
        with self.agent(script) as container:
            container.says("begun")
            first = container.first()
            container.eventually(lambda: len(children(first)) == 1, "orphans of the script stay")
            self.assert_only(container, 1)
            container.enter("touch", "/tmp/go")
            container.says("Going on after the bootstrap script")
            self.assert_takes_in_orphans(container)
            container.signal(signal.SIGTERM)
            self.assertEqual(container.wait(), 0, container.output())

    def assert_only(self, container: Container, count: int):
        first = container.first()
        container.enter("bash", "-c", "(exit 3) & (exit 4) & disown -a")
        container.eventually(lambda: len(children(first)) == count, "orphans of others stay")

    def test_the_control_plane_is_a_good_first_process_as_any_user(self):
        with self.control_plane() as container:
            container.eventually(lambda: "200" in self.get(container, 7480, "/ready"), "the control plane is not ready")
            self.assert_takes_in_orphans(container)
            container.signal(signal.SIGTERM)
            self.assertEqual(container.wait(), 0, container.output())

    def get(self, container: Container, port: int, path: str) -> str:
        """The status line. From within, by what every image has: what else might listen on this port is out of reach."""
        ask = f"exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && read -r line <&3 && echo $line; true"
        return container.enter("bash", "-c", ask + " 2>&1")

    def test_the_agent_starts_as_any_user_in_a_volume_of_its_group(self):
        for options in ("mode=2775", "mode=0777", "mode=0770", f"mode=0755,uid={ANY_UID}"):
            with self.subTest(options), self.agent(volumes={"/var/lib/lictor-agent": options}) as container:
                container.eventually(lambda: "200" in self.get(container, 3460, "/live"), "the agent does not answer")
                # It is made last.
                container.eventually(lambda: "log-level.socket" in container.enter("ls", "/var/lib/lictor-agent").split(), "nothing is written")
                modes = container.enter("bash", "-c", "shopt -s globstar; stat -c '%a %F %n' /var/lib/lictor-agent/**").splitlines()
                # Whatever the directory's own rights are: what is in it is nobody else's.
                for line in modes[1:]:
                    self.assertRegex(line, r"^(600 (regular|socket)|2?700 directory)", modes)
                container.signal(signal.SIGTERM)
                self.assertEqual(container.wait(), 0, container.output())

    def test_start_scripts_run_restricted(self):
        script = """
microdnf install -y krb5-workstation
echo '10.0.0.1 dc1.corp.example' >> /etc/hosts
cat > /tmp/krb5.conf <<EOT
[libdefaults]
  default_realm = CORP.EXAMPLE
EOT
export KRB5_CONFIG=/tmp/krb5.conf
klist -V
id -u
"""
        with self.agent(script) as container:
            container.says("Going on after the bootstrap script")
            output = container.output()
            self.assertRegex(output, "/etc/hosts: (Read-only file system|Permission denied)")
            self.assertIn("Kerberos 5 version", output)
            self.assertIn(str(ANY_UID), output)
            container.signal(signal.SIGTERM)
            self.assertEqual(container.wait(), 0, container.output())


def children(pid: int) -> list:
    """Its children, the dead among them, whichever of its threads has them."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in file.read_text().split()]
        except OSError:
            pass
    return found


def catches_or_holds(pid: int, number: signal.Signals) -> bool:
    """Whether a signal for the process waits or is dealt with, rather than being lost on the first process of its namespace."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return any(int(status[name], 16) & 1 << number - 1 for name in ("SigBlk", "SigCgt"))


if __name__ == "__main__":
    unittest.main()
