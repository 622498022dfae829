"""A loopback WinRM-like acceptor built on pyspnego and pypsrp. See README.md beside this file."""

import argparse
import base64
import datetime
import hashlib
import http.server
import ipaddress
import json
import os
import re
import ssl
import sys
import tempfile
import threading

import spnego
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from pypsrp.encryption import WinRMEncryption
from spnego._ntlm_raw.messages import Authenticate, AvFlags, AvId, NTClientChallengeV2
from spnego.channel_bindings import GssChannelBindings

PROTOCOL = WinRMEncryption.SPNEGO
SEALED_TYPE = 'multipart/encrypted;protocol="%s";boundary="Encrypted Boundary"' % PROTOCOL
SOAP_TYPE = "application/soap+xml;charset=UTF-8"
# The framing that Windows takes, byte for byte; HTTP.sys refuses a line break before the closing boundary.
OPENING = re.compile(
    rb"--Encrypted Boundary\r\n"
    rb"\tContent-Type: application/HTTP-SPNEGO-session-encrypted\r\n"
    rb"\tOriginalContent: type=application/soap\+xml;charset=UTF-8;Length=(\d+)\r\n"
    rb"--Encrypted Boundary\r\n"
    rb"\tContent-Type: application/octet-stream\r\n"
    rb"\x10\x00\x00\x00"
)
CLOSING = b"--Encrypted Boundary--\r\n"
OUTPUT = threading.Lock()


def tell(**fields):
    with OUTPUT:
        print(json.dumps(fields), flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One handler serves one connection: what is bound to the connection lives here.
    context = None
    encryption = None
    previous = b""
    tokens = 0

    def do_POST(self):
        length = self.headers.get("Content-Length")
        if length is None:
            return self.answer(411)
        body = self.rfile.read(int(length))
        authorization = self.headers.get("Authorization")
        if authorization is not None:
            if self.encryption is not None:
                # Credentials must never be sent again on an authenticated connection.
                tell(event="resent")
                return self.answer(400)
            return self.authenticate(authorization, body)
        if self.encryption is None:
            return self.challenge()
        self.serve(body)

    def challenge(self, token=None):
        fields = ["Negotiate" + (" " + base64.b64encode(token).decode() if token else "")]
        fields.append('Basic realm="WSMAN, not Negotiate", CredSSP')
        self.answer(401, authenticate=fields)

    def authenticate(self, authorization, body):
        scheme, _, value = authorization.partition(" ")
        token = base64.b64decode(value, validate=True)
        words = self.path.strip("/").split("/")
        if scheme != "Negotiate" or body or words[0] not in ("ntlm", "negotiate"):
            return self.answer(400)
        if self.context is None:
            if (words[0] == "ntlm") != token.startswith(b"NTLMSSP\0"):
                return self.answer(400)
            bindings = None
            if "bound" in words:
                bindings = self.server.bindings
            elif "mitm" in words:
                bindings = binding(hashlib.sha256(b"the certificate of somebody else").digest())
            self.context = spnego.server(protocol=words[0], channel_bindings=bindings)
        self.tokens += 1
        try:
            reply = self.context.step(token)
        except spnego.exceptions.SpnegoError as error:
            print("rejected:", error, file=sys.stderr, flush=True)
            self.context = None
            return self.challenge()
        if not self.context.complete:
            return self.challenge(reply)
        tell(event="authenticated", mechanism=words[0], user=self.context.client_principal, tokens=self.tokens, **evidence(token))
        self.encryption = WinRMEncryption(self.context, PROTOCOL)
        fields = ["Negotiate " + base64.b64encode(reply).decode()] if reply else []
        self.answer(200, authenticate=fields)

    def serve(self, body):
        sealed = self.headers.get("Content-Type") == SEALED_TYPE
        if not sealed:
            if "sealed" in self.path.split("/"):
                return self.answer(500)
            return self.answer(200, body, SOAP_TYPE)
        opening = OPENING.match(body)
        if not opening or not body.endswith(CLOSING):
            return self.answer(400)
        if len(body) != opening.end() + 16 + int(opening[1]) + len(CLOSING):
            return self.answer(400)
        message = self.encryption.unwrap_message(body, "Encrypted Boundary")
        order = message[10:] if message.startswith(b"misbehave:") else b""
        if order == b"silent":
            self.rfile.read(1)
            self.close_connection = True
            return None
        _, answer = self.encryption.wrap_message(message)
        status, content_type = 200, SEALED_TYPE
        last, self.previous = self.previous, answer
        if order == b"truncate":
            answer = answer[:-40]
        elif order in (b"plain", b"plain500"):
            answer, content_type, status = message, SOAP_TYPE, 200 if order == b"plain" else 500
        elif order == b"length":
            answer = re.sub(rb"Length=\d+", b"Length=%d" % (len(message) + 1), answer, count=1)
        elif order == b"malformed":
            answer = answer.replace(b"OriginalContent", b"OtherContent", 1)
        elif order == b"corrupt":
            answer = answer[:-30] + bytes([answer[-30] ^ 1]) + answer[-29:]
        elif order == b"replay":
            answer = last
        elif order == b"exchange":
            answer = answer.replace(b"--Encrypted Boundary", b"-- Encrypted Boundary")
        elif order == b"unauthorized":
            return self.challenge()
        elif order == b"empty400":
            answer, content_type, status = b"", None, 400
        elif order == b"close":
            self.answer(200, answer[: len(answer) // 2], SEALED_TYPE, length=len(answer))
            self.close_connection = True
            return None
        return self.answer(status, answer, content_type)

    def answer(self, status, body=b"", content_type=None, authenticate=(), length=None):
        self.send_response(status)
        for value in authenticate:
            self.send_header("WWW-Authenticate", value)
        if content_type:
            self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def evidence(token):
    """What the initiator put into its AUTHENTICATE_MESSAGE, raw or inside SPNEGO."""
    message = Authenticate.unpack(token[token.index(b"NTLMSSP\0") :])
    pairs = NTClientChallengeV2.unpack(message.nt_challenge_response[16:]).av_pairs
    return {
        # pyspnego has verified it by now, if the flag says that there is one.
        "mic": bool(pairs.get(AvId.flags, 0) & AvFlags.mic) and message.mic not in (None, b"\0" * 16),
        "bindings": any(pairs.get(AvId.channel_bindings, b"")),
    }


def binding(digest):
    return GssChannelBindings(application_data=b"tls-server-end-point:" + digest)


def certificates():
    """Self-signed certificates for localhost, by the kind of their signature."""
    small = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    curve = ec.generate_private_key(ec.SECP384R1())
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA512()), salt_length=padding.PSS.DIGEST_LENGTH)
    yield "rsa-sha256", small, hashes.SHA256(), None
    yield "ecdsa-sha384", curve, hashes.SHA384(), None
    yield "rsa-pss-sha512", small, hashes.SHA512(), pss


def certify(kind, key, algorithm, pss):
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "acceptor " + kind)])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    return builder.sign(key, algorithm, rsa_padding=pss)


def serve(bindings=None, tls=None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.bindings = bindings
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--user-file", required=True)
    os.environ["NTLM_USER_FILE"] = parser.parse_args().user_file
    https, authorities = {}, ""
    with tempfile.TemporaryDirectory() as folder:
        for kind, key, algorithm, pss in certificates():
            certificate = certify(kind, key, algorithm, pss)
            pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
            path = os.path.join(folder, kind + ".pem")
            with open(path, "wb") as file:
                file.write(pem.encode())
                file.write(
                    key.private_bytes(
                        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                    )
                )
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(path)
            # RFC 5929: the digest of the certificate's own signature (none of these is MD5 or SHA-1).
            https[kind] = serve(binding(certificate.fingerprint(algorithm)), tls)
            authorities += pem
    tell(http=serve(), https=https, ca=authorities)
    sys.stdin.read()


if __name__ == "__main__":
    main()
