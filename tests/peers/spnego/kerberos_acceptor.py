"""A loopback WinRM-like acceptor of Kerberos, by pyspnego and by python-gssapi. See README.md beside this file."""

import base64
import hashlib
import http.server
import os
import re
import ssl
import struct
import sys
import tempfile
import threading

import gssapi
import spnego
from cryptography.hazmat.primitives import serialization
from gssapi.raw.types import RequirementFlag
from pypsrp.encryption import WinRMEncryption

from acceptor import SOAP_TYPE, binding, certificates, certify, tell

PROTOCOLS = {"negotiate": WinRMEncryption.SPNEGO, "kerberos": WinRMEncryption.KERBEROS}
FRAME = (
    b"--Encrypted Boundary\r\n"
    b"\tContent-Type: %s\r\n"
    b"\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=%d\r\n"
    b"--Encrypted Boundary\r\n"
    b"\tContent-Type: application/octet-stream\r\n"
)
CLOSING = b"--Encrypted Boundary--\r\n"


class Spnego:
    """Contexts by pyspnego, framing by pypsrp."""

    def __init__(self, scheme, bindings):
        self.scheme = scheme
        self.context = spnego.server(protocol=scheme, channel_bindings=bindings)

    def step(self, token):
        return self.context.step(token), None

    @property
    def complete(self):
        return self.context.complete

    def native(self):
        context = self.context
        while not isinstance(context, gssapi.SecurityContext):
            context = context._context
        return context

    def unseal(self, body, _opening):
        return WinRMEncryption(self.context, PROTOCOLS[self.scheme]).unwrap_message(body, "Encrypted Boundary")

    def seal(self, message):
        return WinRMEncryption(self.context, PROTOCOLS[self.scheme]).wrap_message(message)[1]


class Gssapi:
    """Contexts and plain Wrap tokens by python-gssapi: nothing is rotated, and the header is cut where the token's own ends."""

    def __init__(self, scheme, bindings):
        self.scheme = scheme
        if bindings:
            bindings = gssapi.raw.ChannelBindings(application_data=bindings.application_data)
        self.context = gssapi.SecurityContext(
            creds=gssapi.Credentials(usage="accept"), usage="accept", channel_bindings=bindings
        )

    def step(self, token):
        """The answer, and why there will be no other."""
        try:
            reply = self.context.step(token)
        except gssapi.exceptions.GSSError as error:
            return error.token, error
        # When there is a token that says what was wrong, the error itself waits for the next call.
        return reply, self.context._last_err

    @property
    def complete(self):
        return self.context.complete

    def native(self):
        return self.context

    def unseal(self, body, opening):
        length = struct.unpack("<I", body[len(opening) : len(opening) + 4])[0]
        token = body[len(opening) + 4 : -len(CLOSING)]
        message = self.context.unwrap(token)
        assert message.encrypted and length + len(message.message) == len(token)
        return message.message

    def seal(self, message):
        token = self.context.wrap(message, True).message
        opening = FRAME % (PROTOCOLS[self.scheme].encode(), len(message))
        return opening + struct.pack("<I", 16) + token + CLOSING


KINDS = {"pyspnego": Spnego, "gssapi": Gssapi}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One handler serves one connection: what is bound to the connection lives here.
    context = None
    tokens = 0

    def do_POST(self):
        # For example /gssapi/negotiate/sealed.
        self.words = self.path.strip("/").split("/")
        self.kind, self.scheme = self.words[:2]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        authorization = self.headers.get("Authorization")
        if authorization is None:
            if self.context is None or not self.context.complete:
                return self.challenge()
            return self.serve(body)
        if body or (self.context is not None and self.context.complete):
            tell(event="unexpected")
            return self.answer(400)
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() != self.scheme:
            return self.challenge()
        self.authenticate(base64.b64decode(value, validate=True))

    def challenge(self, token=None):
        scheme = self.scheme.capitalize()
        fields = [scheme + (" " + base64.b64encode(token).decode() if token else ""), 'Basic realm="WSMAN"']
        self.answer(401, authenticate=fields)

    def authenticate(self, token):
        bindings = None
        if "bound" in self.words:
            bindings = self.server.bindings
        elif "mitm" in self.words:
            bindings = binding(hashlib.sha256(b"the certificate of somebody else").digest())
        if self.context is None:
            self.context = KINDS[self.kind](self.scheme, bindings)
        self.tokens += 1
        try:
            reply, error = self.context.step(token)
        except (spnego.exceptions.SpnegoError, AttributeError) as failure:
            # pyspnego looks at the flags of a context that failed before it looks at the error.
            reply, error = None, failure
        if error:
            print("refused:", error, file=sys.stderr, flush=True)
            self.context = None
            return self.challenge(reply)
        if not self.context.complete:
            return self.challenge(reply)
        native = self.context.native()
        flags = int(native.actual_flags)
        # MIT lets an initiator pass that sends no bindings at all.
        if bindings and not flags & int(RequirementFlag.channel_bound):
            print("refused: not bound to the channel", file=sys.stderr, flush=True)
            self.context = None
            return self.challenge()
        if "forbidden" in self.words:
            self.context = None
            return self.challenge()
        tell(
            event="authenticated",
            user=str(native.initiator_name),
            service=str(native.target_name),
            tokens=self.tokens,
            mutual=bool(flags & int(RequirementFlag.mutual_authentication)),
            confidential=bool(flags & int(RequirementFlag.confidentiality)),
            bound=bool(flags & int(RequirementFlag.channel_bound)),
            delegated=acts_for(native.delegated_creds, self.server.elsewhere),
        )
        fields = []
        if reply and "silent" not in self.words:
            fields.append(self.scheme.capitalize() + " " + base64.b64encode(reply).decode())
        self.answer(200, authenticate=fields)

    def serve(self, body):
        protocol = PROTOCOLS[self.scheme]
        sealed = 'multipart/encrypted;protocol="%s";boundary="Encrypted Boundary"' % protocol
        if self.headers.get("Content-Type") != sealed:
            return self.answer(500 if "sealed" in self.words else 200, body, SOAP_TYPE)
        length = re.search(rb"Length=(\d+)\r\n", body[:512])
        opening = FRAME % (protocol.encode(), int(length[1]))
        # The framing that Windows takes, byte for byte, with a header of SSPI's length for the key type.
        header = struct.unpack("<I", body[len(opening) : len(opening) + 4])[0] if body.startswith(opening) else 0
        if header not in (60, 64, 72) or len(body) != len(opening) + 4 + header + int(length[1]) + len(CLOSING):
            return self.answer(400)
        message = self.context.unseal(body, opening)
        if len(message) != int(length[1]):
            return self.answer(400)
        answer = self.context.seal(message)
        last, self.previous = getattr(self, "previous", None), answer
        if message == b"misbehave:replay":
            answer = last
        elif message == b"misbehave:corrupt":
            answer = answer[:-30] + bytes([answer[-30] ^ 1]) + answer[-29:]
        elif message == b"misbehave:plain":
            return self.answer(200, message, SOAP_TYPE)
        self.answer(200, answer, sealed)

    def answer(self, status, body=b"", content_type=None, authenticate=()):
        self.send_response(status)
        for value in authenticate:
            self.send_header("WWW-Authenticate", value)
        if content_type:
            self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def acts_for(credentials, elsewhere):
    """As whom, and with which ticket, the forwarded credentials let us speak to another service; nothing without them."""
    if credentials is None:
        return None
    name = gssapi.Name(elsewhere, gssapi.NameType.hostbased_service)
    context = gssapi.SecurityContext(name=name, creds=credentials, usage="initiate")
    # The token needs a service ticket, which only the KDC gives.
    return {"user": str(credentials.name), "token": len(context.step())}


def serve(elsewhere, bindings=None, tls=None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.bindings, server.elsewhere = bindings, elsewhere
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def main():
    # KRB5_KTNAME and KRB5_CONFIG say the rest. The argument is a service such as HTTP@elsewhere, for forwarded tickets.
    elsewhere = sys.argv[1]
    kind, key, algorithm, pss = next(certificates())
    certificate = certify(kind, key, algorithm, pss)
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "server.pem")
        with open(path, "wb") as file:
            file.write(pem.encode())
            file.write(
                key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            )
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(path)
    https = serve(elsewhere, binding(certificate.fingerprint(algorithm)), tls)
    tell(http=serve(elsewhere), https=https, ca=pem)
    sys.stdin.read()


if __name__ == "__main__":
    main()
