"""The tools of these tests: what they make has devices of its own, and images are built of the sources that there are."""

import os
import pathlib
import subprocess
import tempfile
import unittest

from devices import NODES, Guard
from pods import REPOSITORY, TOOLS, Space

# Spoils the devices that it sees, unless they are this machine's.
SPOIL = """#!/usr/bin/env bash
set -euo pipefail
for node in NODES; do
  if [[ $(stat --format=%d "/dev/$node") == DEVICE ]]; then echo "/dev/$node is the machine's" >&2; exit 3; fi
done
for node in NODES; do chmod 600 "/dev/$node"; done
mkdir -p /dev/mqueue /dev/hugepages /dev/log
echo spoilt
""".replace("NODES", " ".join(NODES)).replace("DEVICE", str(os.stat("/dev/null").st_dev))


def setUpModule():
    subprocess.run([REPOSITORY / "scripts" / "install-packages", "systemd", "util-linux", "iproute2"], check=True, timeout=600)


class Devices(unittest.TestCase):
    """Who changes devices in what was made by a tool does not change this machine's."""

    def setUp(self):
        guard = Guard()
        # After all else.
        self.addCleanup(guard.check)
        work = tempfile.TemporaryDirectory(prefix="lictor-tools-")
        self.addCleanup(work.cleanup)
        self.spoil = pathlib.Path(work.name, "spoil")
        self.spoil.write_text(SPOIL)
        self.spoil.chmod(0o755)
        self.nothing = pathlib.Path(work.name, "nothing")
        self.nothing.write_text("#!/bin/sh\n")
        self.nothing.chmod(0o755)

    def test_of_podman(self):
        space = Space()
        self.addCleanup(space.close)
        done = subprocess.run(["nsenter", "--target", str(space.init), "--mount", "--pid", "--", "bash", self.spoil],
                              capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
        self.assertEqual((done.returncode, done.stdout), (0, "spoilt\n"), done.stderr)

    def test_of_with_systemd(self):
        done = subprocess.run([TOOLS / "with-systemd", self.nothing, self.spoil], capture_output=True, text=True, timeout=400,
                              check=False, stdin=subprocess.DEVNULL)
        self.assertEqual((done.returncode, done.stdout), (0, "spoilt\n"), done.stderr)


# Stand-ins for what tests/deploy/images/build starts. Nothing is built: what matters is when it would be.
STUBS = {
    "cargo": '[[ $1 == fetch ]] && mkdir -p "$CARGO_HOME/registry"\n',
    "rustc": 'if [[ $1 == --print ]]; then echo /sysroot; else echo "host: here"; fi\n',
    "unshare": 'shift\nexec "$@"\n',
    "buildah": """case " $* " in
*" build "*) echo "$*" >>"$BUILDS" ;;
*" mount "*) echo "$IMAGE" ;;
*" from "*) echo container ;;
*" push "*) file=${*: -1} && file=${file#oci-archive:} && echo image >"${file%%:*}" ;;
esac
""",
}


class Build(unittest.TestCase):
    """tests/deploy/images/build, in a repository of the test's."""

    def setUp(self):
        work = tempfile.TemporaryDirectory(prefix="lictor-build-")
        self.addCleanup(work.cleanup)
        self.work = pathlib.Path(work.name)
        self.repository = self.work / "repository"
        self.write("Cargo.toml", '[workspace.package]\nversion = "1.2.3"\n')
        self.write("Dockerfile", "FROM scratch\n")
        self.write(".dockerignore", "*\n!Cargo.toml\n!agent\n")
        self.write("agent/src/main.rs", "fn main() {}\n")
        self.write("agent/src/other.rs", "")
        self.write("README.md", "Not in an image.\n")
        self.write("scripts/install-packages", "#!/bin/sh\n", 0o755)
        self.write("tests/deploy/images/bases", '#!/bin/sh\ntest -d "$CARGO_HOME/registry"\n', 0o755)
        self.write("tests/deploy/images/build", (REPOSITORY / "tests/deploy/images/build").read_text(), 0o755)
        for name, text in STUBS.items():
            self.write(f"../bin/{name}", "#!/usr/bin/env bash\nset -euo pipefail\n" + text, 0o755)
        self.write("../image/usr/share/lictor/sbom.cdx.json", "{}\n")
        git = ["git", "-c", "user.name=test", "-c", "user.email=test@corp.example", "-C", self.repository]
        for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "All"]):
            subprocess.run([*git, *arguments], check=True, timeout=60, capture_output=True)

    def write(self, path, text, mode=0o644):
        file = self.repository / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def build(self):
        """How it ended, and how many images it built."""
        builds = self.work / "builds"
        builds.unlink(missing_ok=True)
        environment = {"PATH": f"{self.work / 'bin'}:{os.environ['PATH']}", "HOME": str(self.work), "CARGO_HOME": str(self.work / "cargo"),
                       "LICTOR_DEPLOY_CACHE": str(self.work / "cache"), "BUILDS": str(builds), "IMAGE": str(self.work / "image")}
        done = subprocess.run([self.repository / "tests/deploy/images/build"], env=environment, cwd=self.work, capture_output=True, text=True,
                              timeout=60, check=False, stdin=subprocess.DEVNULL)
        return done, builds.read_text().splitlines() if builds.exists() else []

    def built(self):
        done, builds = self.build()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return len(builds)

    def test_it_builds_when_sources_change_and_not_otherwise(self):
        # The first time on a machine without downloads of Cargo's: bases mounts them.
        self.assertEqual(self.built(), 4)
        self.assertEqual(self.built(), 0)
        self.write("README.md", "Still not.\n")
        self.assertEqual(self.built(), 0)
        for change in ({"path": "agent/src/main.rs", "text": "fn main() { }\n"}, {"path": "agent/src/new.rs", "text": ""},
                       {"path": "tests/deploy/images/bases", "text": "#!/bin/sh\n", "mode": 0o755}):
            self.write(**change)
            self.assertEqual(self.built(), 4, change)
            self.assertEqual(self.built(), 0, change)
        (self.repository / "agent/src/other.rs").unlink()
        self.assertEqual(self.built(), 4)

    def test_whose_the_files_are_does_not_matter(self):
        self.assertEqual(self.built(), 4)
        for path in [self.repository, *self.repository.rglob("*")]:
            os.chown(path, 12345, 12345)
        self.assertEqual(self.built(), 0)
        self.write("agent/src/main.rs", "fn main() { }\n")
        done, builds = self.build()
        self.assertEqual((done.returncode, len(builds)), (0, 4), done.stderr)
        self.assertRegex(builds[0], r"REVISION=[0-9a-f]{40} ")

    def test_without_a_list_of_files_it_fails(self):
        self.assertEqual(self.built(), 4)
        (self.repository / ".git").rename(self.work / "gone")
        done, builds = self.build()
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("git", done.stderr)
        self.assertEqual(builds, [])


if __name__ == "__main__":
    unittest.main()
