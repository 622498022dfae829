"""The machine's credentials as AWS hands them out: instance metadata, version 2 only, and the endpoint of containers. See README.md.

Both give out sessions of a role, fresh ones for each renewal, which are valid at the emulator behind them when there is one.
"""

import datetime
import hmac
import json
import secrets
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler

from front import MAX_HANG, order

# What the real service allows.
TOKEN_SECONDS = range(1, 21601)


class Source:
    """Makes sessions, and hands the same one out until it is near its end, as AWS does."""

    def __init__(self, options):
        self.role = options.role
        self.region = options.region
        self.account = options.account
        # How long sessions last by what is said of them.
        self.lifetime = options.lifetime
        self.upstream = options.upstream
        self.fixed = options.keys
        self.lock = threading.Condition()
        self.session, self.expiry = None, 0.0
        self.faults = []
        self.counts = {}
        self.tokens = {}
        self.orders = {
            "calls": lambda _: {"calls": dict(self.counts)},
            "lifetime": self.set_lifetime,
            "expire": self.expire,
            "faults": self.set_faults,
            "reset": self.reset,
        }

    def set_lifetime(self, order):
        with self.lock:
            self.lifetime = float(order["seconds"])
            self.expiry = 0.0
        return {}

    def expire(self, _):
        """The next request is answered with a new session, and all tokens for metadata have run out."""
        with self.lock:
            self.expiry = 0.0
            self.tokens.clear()
        return {}

    def set_faults(self, order):
        for fault in order["faults"]:
            if fault.get("on") not in ("token", "role", "credentials") or fault.get("do") not in ("hang", "drop", "answer"):
                raise ValueError(f"no such fault: {fault}")
        with self.lock:
            self.faults = [dict(fault) for fault in order["faults"]]
            self.lock.notify_all()
        return {}

    def reset(self, _):
        with self.lock:
            self.faults, self.counts = [], {}
            self.lock.notify_all()
        return {}

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def fault(self, on):
        with self.lock:
            for fault in self.faults:
                if fault["on"] == on and fault.get("times", 1) > 0:
                    if "times" in fault:
                        fault["times"] -= 1
                    return dict(fault)
        return None

    def hold(self):
        """Waits until the faults change: who never answers does not answer soon either."""
        end = time.monotonic() + MAX_HANG
        with self.lock:
            faults = self.faults
            while self.faults is faults and (left := end - time.monotonic()) > 0:
                self.lock.wait(left)

    def current(self):
        """The session and its end. A real one comes five minutes or more before the old one ends; here, at its end."""
        with self.lock:
            if time.time() >= self.expiry:
                self.session = self.make()
                self.expiry = time.time() + self.lifetime
                self.counts["sessions"] = self.counts.get("sessions", 0) + 1
            return self.session, self.expiry

    def make(self):
        if self.fixed:
            return self.fixed
        if not self.upstream:
            return {
                "access_key_id": "ASIA" + secrets.token_hex(8).upper(),
                "secret_access_key": secrets.token_urlsafe(30),
                "session_token": secrets.token_urlsafe(90),
            }
        from emulators import client

        # Not through what stands before the emulator: these calls are none of the program that is tested.
        keys = {
            "aws_access_key_id": self.administrator["access_key_id"],
            "aws_secret_access_key": self.administrator["secret_access_key"],
        }
        sts = client(self.administrator["url"], "sts", keys, self.region)
        arn = f"arn:aws:iam::{self.account}:role/{self.role}"
        made = sts.assume_role(RoleArn=arn, RoleSessionName="i-0123456789abcdef0")["Credentials"]
        end = {"access_key_id": made["AccessKeyId"], "at": time.time() + self.lifetime}
        ask(self.upstream, "ends", end)
        return {
            "access_key_id": made["AccessKeyId"],
            "secret_access_key": made["SecretAccessKey"],
            "session_token": made["SessionToken"],
        }


class Common(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 120

    def log_message(self, *_):
        pass

    @property
    def source(self):
        return self.server.source

    def do(self):
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 1 << 20))
        if self.path.startswith("/_lictor/"):
            return self.reply(*order(self.source.orders, self.path, body))
        self.answer()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do

    def failed(self, on):
        """Carries out a fault, if one is ordered for this."""
        fault = self.source.fault(on)
        if not fault:
            return False
        if fault["do"] == "answer":
            self.reply(fault.get("status", 500), list(fault.get("headers", {}).items()), fault.get("body", "").encode())
            return True
        if fault["do"] == "hang":
            self.source.hold()
        self.close_connection = True
        return True

    def reply(self, status, headers, body):
        self.send_response_only(status)
        self.send_header("Date", self.date_time_string())
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Instance(Common):
    """Instance metadata, version 2 only: nothing without a token, and no token for a request that a proxy passed on."""

    def answer(self):
        if self.path == "/latest/api/token":
            return self.token()
        self.source.count("get")
        if self.command != "GET":
            return self.reply(405, [("Allow", "OPTIONS, GET, HEAD")], b"")
        left = self.source.tokens.get(self.headers.get("X-aws-ec2-metadata-token", ""), 0) - time.monotonic()
        if left <= 0:
            self.source.count("refused")
            return self.reply(401, [], b"")
        ttl = [("X-aws-ec2-metadata-token-ttl-seconds", str(int(left))), ("Server", "EC2ws")]
        prefix = "/latest/meta-data/iam/security-credentials"
        source = self.source
        if self.path in (prefix, prefix + "/"):
            source.count("role")
            return self.failed("role") or self.reply(200, ttl + [("Content-Type", "text/plain")], source.role.encode())
        if self.path == f"{prefix}/{source.role}":
            source.count("credentials")
            if self.failed("credentials"):
                return None
            session, expiry = source.current()
            document = {
                "Code": "Success",
                "LastUpdated": stamp(time.time()),
                "Type": "AWS-HMAC",
                "AccessKeyId": session["access_key_id"],
                "SecretAccessKey": session["secret_access_key"],
                "Token": session["session_token"],
                "Expiration": stamp(expiry),
            }
            return self.reply(200, ttl + [("Content-Type", "text/plain")], json.dumps(document, indent=2).encode())
        if self.path == "/latest/dynamic/instance-identity/document":
            document = {
                "accountId": source.account,
                "region": source.region,
                "availabilityZone": source.region + "a",
                "instanceId": "i-0123456789abcdef0",
                "instanceType": "t3.small",
                "version": "2017-09-30",
            }
            return self.reply(200, ttl + [("Content-Type", "text/plain")], json.dumps(document, indent=2).encode())
        texts = {
            "/latest/meta-data/placement/region": source.region,
            "/latest/meta-data/placement/availability-zone": source.region + "a",
            "/latest/meta-data/instance-id": "i-0123456789abcdef0",
        }
        if self.path in texts:
            return self.reply(200, ttl + [("Content-Type", "text/plain")], texts[self.path].encode())
        return self.reply(404, ttl, b"")

    def token(self):
        source = self.source
        source.count("token")
        if self.command != "PUT":
            return self.reply(405, [("Allow", "OPTIONS, PUT")], b"")
        if self.failed("token"):
            return None
        # So that an open proxy on the instance gives nobody outside a token.
        if "X-Forwarded-For" in self.headers:
            source.count("refused")
            return self.reply(403, [], b"")
        wanted = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if not (wanted.isascii() and wanted.isdigit() and int(wanted) in TOKEN_SECONDS):
            source.count("refused")
            return self.reply(400, [], b"")
        token = secrets.token_urlsafe(40)
        with source.lock:
            now = time.monotonic()
            source.tokens = {key: end for key, end in source.tokens.items() if end > now}
            source.tokens[token] = now + int(wanted)
        headers = [("X-aws-ec2-metadata-token-ttl-seconds", wanted), ("Content-Type", "text/plain"), ("Server", "EC2ws")]
        return self.reply(200, headers, token.encode())


class Container(Common):
    """Credentials of containers, at AWS_CONTAINER_CREDENTIALS_FULL_URI: ECS, and EKS Pod Identity with its token in a file."""

    def answer(self):
        source = self.source
        source.count("get")
        if self.command != "GET" or self.path != "/v1/credentials":
            return self.reply(404, [], b"")
        if self.failed("credentials"):
            return None
        given = self.headers.get("Authorization")
        if given is None:
            source.count("refused")
            return self.refuse(400, "InvalidRequest", "Service account token cannot be empty")
        # Read each time: Kubernetes replaces the file.
        with open(source.token_file, encoding="utf-8") as file:
            expected = file.read().strip()
        if not hmac.compare_digest(given.encode(), expected.encode()):
            source.count("refused")
            return self.refuse(400, "AccessDeniedException", "Unauthorized Exception! EKS does not have permissions")
        source.count("credentials")
        session, expiry = source.current()
        document = {
            "AccessKeyId": session["access_key_id"],
            "SecretAccessKey": session["secret_access_key"],
            "Token": session["session_token"],
            "AccountId": source.account,
            "Expiration": stamp(expiry),
        }
        return self.reply(200, [("Content-Type", "application/json")], json.dumps(document).encode())

    def refuse(self, status, code, message):
        body = json.dumps({"code": code, "message": message}).encode()
        return self.reply(status, [("Content-Type", "application/json")], body)


def stamp(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def ask(url, name, arguments):
    """Gives an order to what stands before an emulator."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/_lictor/{name}", json.dumps(arguments).encode(), timeout=30) as answer:
        return json.load(answer)
