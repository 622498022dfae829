#!/usr/bin/python3
"""An Active Directory domain of its own: Samba as domain controller in namespaces, reachable by its KDC on loopback.

See README.md. The part that is started listens on loopback, then becomes `unshare`, whose child, process 1 of the new
namespaces, provisions the domain, runs Samba, and carries what comes to the inherited sockets to the KDC. When it
ends, the kernel ends all others in its namespace, and its mounts with everything on them go too.
"""

import argparse
import ctypes
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time

# Nothing is written beside this file, which may belong to somebody else than root.
sys.dont_write_bytecode = True

ADDRESS = "10.99.7.2"
STATE = ("/etc/samba", "/run/samba", "/var/lib/samba", "/var/cache/samba", "/var/log/samba")
PROGRAMS = ("samba", "ntlm_auth", "wbinfo", "ktutil", "ip", "hostname", "unshare")
# Each wait has an end: the domain is up in ten seconds on two slow cores, ten times that is a fault.
DEADLINE = 100


def main():
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", required=True, help="where krb5.conf, keytabs and the log go; it must exist")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        inside(arguments.directory, json.loads(arguments.inside))
    else:
        outside(os.path.abspath(arguments.directory))


def outside(directory):
    """Checks what can be checked, then becomes `unshare`."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        unavailable(f"not installed: {', '.join(missing)}; tests/peers/samba/README.md names the packages")
    namespaces = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
    trial = subprocess.run([*namespaces, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if trial.returncode:
        unavailable(f"a Samba domain needs namespaces, which this machine lets only root make: {trial.stderr.strip()}")

    tcp, udp = loopback()
    for inherited in (tcp, udp):
        os.set_inheritable(inherited.fileno(), True)
    label = secrets.token_hex(3)
    settings = {
        "tcp": tcp.fileno(),
        "udp": udp.fileno(),
        "port": tcp.getsockname()[1],
        "dns": f"d{label}.corp.example",
        "domain": "CORP",
    }
    os.execvp("unshare", [
        *namespaces,
        *("/usr/bin/python3", os.path.abspath(__file__), "--directory", directory, "--inside", json.dumps(settings)),
    ])


def unavailable(why):
    """Ends with the code by which a caller knows that no domain can be had here."""
    print(why, file=sys.stderr)
    sys.exit(3)


def loopback():
    """A TCP and a UDP socket on one free port."""
    for _ in range(50):
        tcp = socket.create_server(("127.0.0.1", 0), backlog=256)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
            return tcp, udp
        except OSError:
            tcp.close()
            udp.close()
    sys.exit("found no port that is free for both TCP and UDP")


def inside(directory, settings):
    """Process 1 of the new namespaces."""
    # /proc is still the machine's: it knows us by the number by which others can enter our namespaces.
    pid = int(os.readlink("/proc/self"))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    log = os.open(os.path.join(directory, "log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    mounts_and_network(settings)

    # Only now: their modules read paths when they are loaded.
    from accounts import populate
    from domain import Directory, provision
    from relay import Relay

    provision(settings["dns"], settings["domain"], ADDRESS)
    known = populate(settings["dns"], directory)
    with open(os.path.join(directory, "krb5.conf"), "w", encoding="utf-8") as file:
        file.write(krb5_conf(settings["dns"], f"127.0.0.1:{settings['port']}"))

    samba = subprocess.Popen(["samba", "--interactive", "--debuglevel=2"], stdin=subprocess.DEVNULL)
    until(samba, "its KDC listens", lambda: socket.create_connection((ADDRESS, 88), 1))
    # Winbind first tries to find its domain controller and remembers for a while when it could not.
    until(samba, "winbind works", pings)
    database = until(samba, "LDAP answers", lambda: Directory(settings["dns"]))
    relay = Relay(settings["tcp"], settings["udp"], (ADDRESS, 88))

    ready = {
        "realm": settings["dns"].upper(),
        "dns": settings["dns"],
        "domain": settings["domain"],
        "kdc": f"127.0.0.1:{settings['port']}",
        "pid": pid,
        **known,
    }
    print(json.dumps(ready), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "get" in request:
                answer = database.get(request["get"], request["attributes"])
            elif "password" in request:
                answer = database.set_password(request["password"], request["to"])
            else:
                answer = {"tcp": relay.tcp, "udp": relay.udp}
        except Exception as error:  # Whatever it is, the test shall say it.
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)
    # Ends everything else here, whatever state it is in.
    os._exit(0)


def mounts_and_network(settings):
    """Makes the namespaces look like a domain controller's machine. Nothing of it is visible from outside."""
    bind, private, recursive = 4096, 1 << 18, 1 << 14
    mount("none", "/", None, private | recursive)
    mount("proc", "/proc", "proc")
    os.makedirs("/run/samba", exist_ok=True)
    for path in STATE:
        mount("tmpfs", path, "tmpfs", data="mode=755,size=256m")
    os.makedirs("/var/lib/samba/private", mode=0o700)
    os.makedirs("/var/lib/samba/ours", mode=0o755)

    dns = settings["dns"]
    files = {
        "/etc/hosts": f"127.0.0.1 localhost\n{ADDRESS} dc1.{dns} dc1\n",
        "/etc/resolv.conf": f"nameserver {ADDRESS}\nsearch {dns}\n",
    }
    for path, text in files.items():
        ours = f"/var/lib/samba/ours/{os.path.basename(path)}"
        with open(ours, "w", encoding="utf-8") as file:
            file.write(text)
        mount(ours, path, None, bind)
    # By its variable, since a machine without krb5-config has no such file to put ours over.
    os.environ["KRB5_CONFIG"] = "/var/lib/samba/ours/krb5.conf"
    with open(os.environ["KRB5_CONFIG"], "w", encoding="utf-8") as file:
        file.write(krb5_conf(dns, ADDRESS))

    for command in (
        ["hostname", "dc1"],
        ["ip", "link", "set", "lo", "up"],
        ["ip", "address", "add", f"{ADDRESS}/24", "dev", "lo"],
    ):
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def krb5_conf(dns, kdc):
    realm = dns.upper()
    return (
        f"[libdefaults]\n  default_realm = {realm}\n"
        "  dns_lookup_realm = false\n  dns_lookup_kdc = false\n  rdns = false\n"
        f"\n[realms]\n  {realm} = {{\n    kdc = {kdc}\n  }}\n"
        f"\n[domain_realm]\n  .{dns} = {realm}\n  {dns} = {realm}\n"
    )


def mount(source, target, kind, flags=0, data=None):
    libc = ctypes.CDLL(None, use_errno=True)
    given = [text.encode() if text is not None else None for text in (source, target, kind)]
    if libc.mount(*given, ctypes.c_ulong(flags), data.encode() if data else None):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), target)


def pings():
    """Whether winbind reaches its domain controller."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.run(["wbinfo", "--ping-dc"], check=False, **quiet).returncode == 0


def until(samba, what, check):
    """What `check` gives in the end, when it gives something and raises nothing."""
    end = time.monotonic() + DEADLINE
    why = None
    while True:
        try:
            if found := check():
                return found
        except Exception as error:  # A refused connection is another class in each library; the last one is told.
            why = error
        if samba.poll() is not None:
            sys.exit(f"Samba ended with {samba.returncode} before {what}")
        if time.monotonic() > end:
            sys.exit(f"still not so after {DEADLINE} s: {what} ({why})")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
