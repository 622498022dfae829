"""Images as tests look at them: OCI archives unpacked to a directory, and programs run in it as in a container.

No container engine takes part, so that nothing but the image and the kernel decides what happens: a program here is the first process
of its process namespace, as in a pod without an init, and has a network namespace of its own with only the loopback interface.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

ANY_UID = 1000650000  # What OpenShift would choose: no account has it.


class Image:
    """An OCI archive, unpacked. `root` is its file system, `config` what its makers set."""

    def __init__(self, archive: Path, directory: Path):
        self.archive = archive
        blobs = directory / "blobs"
        with tarfile.open(archive) as tar:
            tar.extractall(blobs, filter="data")

        def blob(descriptor: dict) -> Path:
            algorithm, digest = descriptor["digest"].split(":")
            path = blobs / "blobs" / algorithm / digest
            assert hashlib.new(algorithm, path.read_bytes()).hexdigest() == digest, path
            return path

        index = json.loads((blobs / "index.json").read_text())
        (entry,) = index["manifests"]
        self.name = entry.get("annotations", {}).get("org.opencontainers.image.ref.name")
        manifest = json.loads(blob(entry).read_text())
        document = json.loads(blob(manifest["config"]).read_text())
        self.architecture = document["architecture"]
        self.config = document["config"]
        self.root = directory / "root"
        self.root.mkdir()
        # Files that give whoever runs them capabilities.
        self.capable = []
        for layer in manifest["layers"]:
            self._apply(blob(layer))
        shutil.rmtree(blobs)

    def _apply(self, layer: Path) -> None:
        """Unpacks a layer over those below it. What it hides of them comes first."""
        with tarfile.open(layer) as tar:
            for member in tar:
                path = self.root / member.name
                if path.name == ".wh..wh..opq":
                    for hidden in path.parent.iterdir():
                        _remove(hidden)
                elif path.name.startswith(".wh."):
                    _remove(path.with_name(path.name.removeprefix(".wh.")))
                elif "SCHILY.xattr.security.capability" in member.pax_headers:
                    self.capable.append(member.name)
        subprocess.run(["tar", "--extract", "--numeric-owner", "--same-permissions", "--exclude=.wh.*", f"--file={layer}",
                        f"--directory={self.root}"], check=True)

    def size(self) -> int:
        """Bytes of all files, each counted once."""
        seen = {}
        for directory, _, files in os.walk(self.root):
            for file in files:
                status = os.lstat(os.path.join(directory, file))
                seen[status.st_ino] = status.st_size
        return sum(seen.values())

    def environment(self) -> dict:
        return dict(pair.split("=", 1) for pair in self.config.get("Env", []))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# Runs in new namespaces. $1 is the root, $2 how it is mounted, then what becomes the first process.
_ENTER = r"""
set -eu
root=$1 mode=$2; shift 2
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
mknod -m 0666 "$root/dev/null" c 1 3
mknod -m 0666 "$root/dev/zero" c 1 5
mknod -m 0666 "$root/dev/full" c 1 7
mknod -m 0666 "$root/dev/random" c 1 8
mknod -m 0666 "$root/dev/urandom" c 1 9
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
while [ "$1" != -- ]; do
  # A volume as Kubernetes makes it: root's, and of a group that may write.
  mount -t tmpfs -o "$2" tmpfs "$root$1"
  shift 2
done
shift
[ "$mode" = rw ] || mount -o remount,bind,ro "$root"
ip link set lo up
exec chroot "$root" "$@"
"""


class Container:
    """A program in an image. `volumes` maps paths to options of tmpfs, such as `mode=2775`."""

    def __init__(self, image: Image, argv: list, *, uid=ANY_UID, gid=0, environment=None, volumes=None, readonly=True,
                 capabilities=False):
        variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        variables |= image.environment() | (environment or {})
        user = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
        if not capabilities:
            user += ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
        places = [word for pair in (volumes or {}).items() for word in pair]
        inside = ["env", "-i", *(f"{name}={value}" for name, value in variables.items()), *user, "--", *argv]
        command = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "--",
                   "sh", "-c", _ENTER, "enter", str(image.root), "ro" if readonly else "rw", *places, "--", *inside]
        self.log = image.root.parent / f"log-{time.monotonic_ns()}"
        self._file = self.log.open("wb")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._file, stderr=self._file)
        self.argv = argv

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            # unshare takes the first process of the namespace along, and that everything in it.
            self.process.kill()
        self.process.wait(30)
        self._file.close()

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def first(self) -> int:
        """The number that the first process has out here, once it is the program."""
        def found():
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            name = Path(self.argv[0]).name[:15]
            return next((int(pid) for pid in children if _name(int(pid)) == name), None)
        return self.eventually(found, f"{self.argv[0]} does not run")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.first(), number)

    def enter(self, *argv: str) -> str:
        """Runs something beside the program, as `kubectl exec` does."""
        command = ["nsenter", "--target", str(self.first()), "--mount", "--pid", "--net", "--root", "--wd", "--", *argv]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    def wait(self, seconds=60) -> int:
        """The exit code of the program."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{shlex.join(self.argv)} has not ended after {seconds} s:\n{self.output()}") from None

    def says(self, pattern: str) -> None:
        self.eventually(lambda: re.search(pattern, self.output()), f"nothing like {pattern!r} was said")

    def eventually(self, condition, problem: str, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            result = condition()
            if result:
                return result
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"{problem}; exit code {self.process.poll()}:\n{self.output()}")


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def run(image: Image, *argv: str, **how) -> subprocess.CompletedProcess:
    """Runs it to its end."""
    with Container(image, list(argv), **how) as container:
        code = container.wait()
        return subprocess.CompletedProcess(argv, code, container.output())
