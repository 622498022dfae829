"""What the scripts for both clients share: arguments, results as JSON lines, and what to expect from sim.exe."""

import argparse
import hashlib
import json
import os
import sys
import traceback

MIB = 1024 * 1024
NON_ASCII = "Grüße, こんにちは, ∑"


def arguments(client):
    parser = argparse.ArgumentParser(description=f"Checks a WinRM host with {client}. The password is in LICTOR_PEER_PASSWORD.")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--user", required=True)
    parser.add_argument("--scheme", choices=["http", "https"], default="http")
    parser.add_argument("--auth", choices=["ntlm", "negotiate", "basic", "kerberos"], default="ntlm")
    parser.add_argument("--encryption", choices=["auto", "always"], default="auto", help="seal messages, inside TLS too or not")
    parser.add_argument("--delegate", action="store_true", help="give the host a ticket to act in the user's name")
    parser.add_argument("--skip", action="append", default=[], metavar="CHECK", help="leave a check out")
    parser.add_argument("--ca", help="PEM file with the CA of the host's certificate")
    parsed = parser.parse_args()
    # With Kerberos the ticket may come from the credential cache that KRB5CCNAME names.
    parsed.password = os.environ.get("LICTOR_PEER_PASSWORD")
    Checks.skipped = parsed.skip
    return parsed


def expected_bytes(count):
    """What `sim.exe bytes COUNT` writes."""
    lines = b"".join(b"%063d\n" % line for line in range(count // 64 + 1))
    return lines[:count]


def digest(data):
    return hashlib.sha256(data).hexdigest()


class Checks:
    """Runs checks and remembers whether one failed."""

    skipped = []

    def __init__(self, client):
        self.client = client
        self.failed = False

    def run(self, name, check):
        if name in self.skipped:
            return
        try:
            check()
            ok, detail = True, ""
        except Exception:  # A check may fail in any way; all are reported.
            ok, detail = False, traceback.format_exc()
        self.failed = self.failed or not ok
        print(json.dumps({"client": self.client, "check": name, "ok": ok, "detail": detail}), flush=True)

    def finish(self):
        sys.exit(1 if self.failed else 0)


def equal(actual, expected):
    if actual != expected:
        raise AssertionError(f"expected {expected!r}, got {actual!r}")
