"""What stands before an emulator: it counts calls by action, and lets them fail by orders. See README.md.

Requests are passed on as they came, the Host header too, since that is signed.
"""

import base64
import datetime
import http.client
import json
import re
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

MAX_BODY = 1 << 20
MAX_LOG = 20_000
# The longest that "hang" holds a connection: no test waits that long.
MAX_HANG = 60.0
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "trailer", "upgrade"}
SERVICES = {"TrentService": "kms", "AWSSecurityTokenServiceV20110615": "sts"}


class Call:
    """What can be told of a request without believing it."""

    def __init__(self, headers, body):
        credential = re.search(r"Credential=([^/,\s]+)/\d{8}/([^/]+)/([^/]+)/", headers.get("Authorization", ""))
        self.access_key_id, self.region, service = credential.groups() if credential else (None, None, None)
        self.session = bool(headers.get("X-Amz-Security-Token"))
        self.json = "X-Amz-Target" in headers
        if self.json:
            prefix, _, action = headers["X-Amz-Target"].rpartition(".")
            service = SERVICES.get(prefix, service or prefix)
        else:
            form = urllib.parse.parse_qs(body.decode("utf-8", "replace"))
            self.token = form.get("WebIdentityToken", [""])[0]
            action = form.get("Action", ["-"])[0]
            service = service or "sts"
        self.action = f"{service}:{action}"


class Front:
    """The state behind the server: counters, rules, and sessions that have expired."""

    def __init__(self, upstream, more=None):
        parts = urllib.parse.urlsplit(upstream)
        self.upstream = (parts.hostname, parts.port)
        # Orders of the emulator itself, by name.
        self.orders = {
            "calls": self.calls,
            "log": lambda _: {"log": list(self.log)},
            "reset": self.reset,
            "rules": self.set_rules,
            "sessions": self.sessions,
            "expire": self.expire,
            "ends": self.ends,
            "tokens": self.tokens,
        } | (more or {})
        self.lock = threading.Condition()
        self.reset({})

    def reset(self, _):
        with self.lock:
            self.counts, self.log, self.rules = {}, [], []
            self.lifetime, self.expiries, self.seen = None, {}, set()
            self.verifier = None
            self.generation = getattr(self, "generation", 0) + 1
            self.lock.notify_all()
        return {}

    def calls(self, _):
        with self.lock:
            return {"calls": {action: dict(count) for action, count in self.counts.items()}}

    def set_rules(self, order):
        rules = order["rules"]
        for rule in rules:
            unknown = set(rule) - {
                "action", "access_key_id", "skip", "times", "do", "code", "message", "status", "seconds", "when", "body", "headers",
            }  # fmt: skip
            if unknown or rule.get("do") not in ("error", "answer", "delay", "drop", "hang"):
                raise ValueError(f"no such rule: {rule}")
            if rule["do"] == "error" and "code" not in rule:
                raise ValueError(f"an error needs its code: {rule}")
        with self.lock:
            self.rules = [dict(rule) for rule in rules]
            self.generation += 1
            self.lock.notify_all()
        return {}

    def sessions(self, order):
        """From now on sessions that STS gives out last this long, whatever was asked for. None: as STS says."""
        with self.lock:
            self.lifetime = order["lifetime"]
        return {}

    def expire(self, order):
        """These access keys, or every session that came by until now, have expired."""
        with self.lock:
            keys = order.get("access_key_ids")
            keys = sorted(self.seen) if keys is None else keys
            self.expiries |= {key: time.time() for key in keys}
        return {"access_key_ids": keys}

    def ends(self, order):
        """A session made elsewhere ends then; in seconds since 1970."""
        with self.lock:
            self.expiries[order["access_key_id"]] = order["at"]
        return {}

    def tokens(self, order):
        """From now on tokens of web identities are verified by their issuer's own keys."""
        from tokens import Verifier

        with self.lock:
            self.verifier = Verifier(order) if order.get("verify", True) else None
        return {}

    def begin(self, call):
        """Counts the call and says which rule it falls under."""
        with self.lock:
            count = self.counts.setdefault(call.action, {"calls": 0})
            count["calls"] += 1
            if call.session and call.access_key_id:
                self.seen.add(call.access_key_id)
            for rule in self.rules:
                if rule.get("action", "*") not in ("*", call.action):
                    continue
                if rule.get("access_key_id", call.access_key_id) != call.access_key_id:
                    continue
                if rule.get("skip", 0) > 0:
                    rule["skip"] -= 1
                    continue
                if rule.get("times") == 0:
                    continue
                if "times" in rule:
                    rule["times"] -= 1
                return dict(rule)
            expiry = self.expiries.get(call.access_key_id)
            if expiry is not None and time.time() >= expiry:
                code = "ExpiredTokenException" if call.json else "ExpiredToken"
                status = 400 if call.json else 403
                message = "The security token included in the request is expired"
                return {"do": "error", "code": code, "status": status, "message": message}
        return None

    def end(self, call, status, code):
        with self.lock:
            count = self.counts.get(call.action)
            if count is not None:
                key = f"{status} {code}" if code else str(status)
                count[key] = count.get(key, 0) + 1
            if len(self.log) < MAX_LOG:
                self.log.append(
                    {
                        "action": call.action,
                        "access_key_id": call.access_key_id,
                        "region": call.region,
                        "status": status,
                        "code": code,
                    }
                )

    def hold(self, seconds):
        """Waits, but not beyond a change of the rules."""
        end = time.monotonic() + min(seconds, MAX_HANG)
        with self.lock:
            generation = self.generation
            while self.generation == generation and (left := end - time.monotonic()) > 0:
                self.lock.wait(left)

    def shorten(self, call, status, body):
        """Notes which sessions STS gave out, and shortens them if that was ordered."""
        if status != 200 or not call.action.startswith("sts:AssumeRole"):
            return body
        text = body.decode("utf-8", "replace")
        key = re.search(r"<AccessKeyId>([^<]+)</AccessKeyId>", text)
        if not key:
            return body
        with self.lock:
            self.seen.add(key.group(1))
            if self.lifetime is None:
                return body
            expiry = time.time() + self.lifetime
            self.expiries[key.group(1)] = expiry
        stamp = datetime.datetime.fromtimestamp(expiry, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        return re.sub(r"(<Expiration>)[^<]+(</Expiration>)", rf"\g<1>{stamp}\g<2>", text).encode()

    def forward(self, method, path, headers, body):
        connection = http.client.HTTPConnection(*self.upstream, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                if name.lower() not in HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP]
            return answer.status, kept, answer.read()
        finally:
            connection.close()


class Handler(BaseHTTPRequestHandler):
    """One connection. The server's `front` answers."""

    protocol_version = "HTTP/1.1"
    # Without it each answer waits for an acknowledgement of its headers.
    disable_nagle_algorithm = True
    timeout = 120

    def log_message(self, *_):
        pass

    def do(self):
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY:
            self.close_connection = True
            return self.reply(413, [], b"")
        body = self.rfile.read(length)
        if self.path.startswith("/_lictor/"):
            return self.reply(*order(self.server.front.orders, self.path, body))
        self.pass_on(body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do

    def pass_on(self, body):
        front = self.server.front
        call = Call(self.headers, body)
        rule = front.begin(call)
        kind = rule and rule["do"]
        if kind == "hang":
            front.hold(rule.get("seconds", MAX_HANG))
            front.end(call, "-", "hang")
            return self.drop()
        if kind == "drop" and rule.get("when", "before") == "before":
            front.end(call, "-", "drop")
            return self.drop()
        if kind == "error":
            status = rule.get("status", 400)
            front.end(call, status, rule["code"])
            return self.reply(status, *error(call, rule))
        if kind == "answer":
            status = rule.get("status", 200)
            front.end(call, status, "answer")
            return self.reply(status, list(rule.get("headers", {}).items()), rule.get("body", "").encode())
        if kind == "delay":
            front.hold(rule["seconds"])
        if front.verifier and call.action == "sts:AssumeRoleWithWebIdentity":
            if refused := front.verifier.refuses(call.token):
                front.end(call, refused["status"], refused["code"])
                return self.reply(refused["status"], *error(call, refused))
        try:
            status, headers, answer = front.forward(self.command, self.path, self.headers.items(), body)
        except OSError as failure:
            front.end(call, "-", "upstream")
            return self.reply(502, [], str(failure).encode())
        answer = front.shorten(call, status, answer)
        front.end(call, status, code_of(status, answer))
        if kind == "drop":
            return self.drop()
        self.reply(status, headers, answer)

    def drop(self):
        self.close_connection = True

    def reply(self, status, headers, body):
        self.send_response_only(status)
        names = {name.lower() for name, _ in headers}
        if "date" not in names:
            self.send_header("Date", self.date_time_string())
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """Listens on loopback, at a port that the kernel chose."""

    daemon_threads = True
    # A crowd comes at once.
    request_queue_size = 1024

    def __init__(self, handler, **state):
        super().__init__(("127.0.0.1", 0), handler)
        self.__dict__.update(state)

    def handle_error(self, *_):
        # Who leaves early is what tests are about.
        pass


def order(orders, path, body):
    """Carries out what a test orders: its name is the path, its arguments are a JSON object."""
    name = path.removeprefix("/_lictor/")
    try:
        answer = orders[name](json.loads(body) if body else {})
        status = 200
    except KeyError as missing:
        status, answer = 400, {"error": f"missing: {missing}, or no such order: {name}"}
    except Exception as failure:  # whatever it is, the test wants to read it
        status, answer = 400, {"error": f"{type(failure).__name__}: {failure}"}
    return status, [("Content-Type", "application/json")], json.dumps(answer, default=plain).encode()


def plain(value):
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(value)


def error(call, rule):
    code, message = rule["code"], rule.get("message", rule["code"])
    more = list(rule.get("headers", {}).items())
    if call.json:
        return [("Content-Type", "application/x-amz-json-1.1"), *more], json.dumps({"__type": code, "message": message}).encode()
    fault = "Sender" if rule.get("status", 400) < 500 else "Receiver"
    text = (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error>'
        f"<Type>{fault}</Type><Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
        "</Error><RequestId>00000000-0000-4000-8000-000000000000</RequestId></ErrorResponse>"
    )
    return [("Content-Type", "text/xml"), *more], text.encode()


def code_of(status, body):
    """The code of an error in either protocol."""
    if status < 400:
        return None
    text = body.decode("utf-8", "replace")
    found = re.search(r'"__type"\s*:\s*"(?:[^"#]*#)?([^"]+)"', text) or re.search(r"<Code>([^<]+)</Code>", text)
    return found.group(1) if found else "?"
