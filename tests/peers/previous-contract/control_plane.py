"""A control plane that knows an earlier contract alone, for one agent and one task that it cuts the connection in the middle of.

    control_plane.py IMAGE USER SECRET_FILE WINRM_PORT

The first line on standard output is JSON: `address` and `token`. The second comes when the task is over and the agent has drained and
gone, or after a minute: `over`, `hello` (of each session), `events` (by kind, in order), `result` and `output`. It refuses what its
contract does not have. Client certificates are issued and not asked for: gRPC's Python server demands them of every call or of none, and
Enroll has none.
"""

import base64
import datetime
import hashlib
import ipaddress
import json
import secrets
import sys
import threading
from concurrent import futures

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import json_format

from contract import Contract, seal_secret

TIMEOUT = 60
LINES = 20
PEM = serialization.Encoding.PEM
DAY = datetime.timedelta(days=1)


class Authority:
    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an authority")])
        extensions = [(x509.BasicConstraints(ca=True, path_length=None), True)]
        self.certificate = self.issue(self.key.public_key(), self.name, extensions)

    def issue(self, public, subject, extensions):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - DAY).not_valid_after(now + DAY)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256())

    def pem(self):
        return self.certificate.public_bytes(PEM)

    def server(self):
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        usage = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH])
        leaf = self.issue(
            key.public_key(), x509.Name([]), [(x509.SubjectAlternativeName(names), True), (usage, False)]
        )
        private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return grpc.ssl_server_credentials([(private, leaf.public_bytes(PEM) + self.pem())])

    def pin(self):
        info = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        return hashlib.sha256(self.key.public_key().public_bytes(*info)).digest()


def text(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class ControlPlane:
    def __init__(self, contract, user, secret, port):
        self.contract, self.user, self.secret, self.port = contract, user, secret, port
        self.authority = Authority()
        self.token = f"lictor-join.t.{text(secrets.token_bytes(32))}.{text(self.authority.pin())}"
        self.task = contract.TaskRef(task_id="task-of-an-earlier-version", epoch=1)
        self.output, self.result, self.events, self.hellos = b"", None, [], []
        self.over = threading.Event()

    def serve(self):
        server = grpc.server(futures.ThreadPoolExecutor(8))
        handlers = {}
        for method, behaviour in (("Enroll", self.enrol), ("Session", self.session)):
            found = next(one for one in self.contract.methods("AgentService") if one.name == method)
            kind = grpc.unary_unary_rpc_method_handler if method == "Enroll" else grpc.stream_stream_rpc_method_handler
            request = getattr(self.contract, found.input_type.name)
            handlers[method] = kind(behaviour, request.FromString, lambda message: message.SerializeToString())
        service = grpc.method_handlers_generic_handler("lictor.v1.AgentService", handlers)
        server.add_generic_rpc_handlers((service,))
        port = server.add_secure_port("127.0.0.1:0", self.authority.server())
        server.start()
        return server, port

    def enrol(self, request, context):
        if request.join_token != self.token:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "another token")
        self.sealing_key = request.sealing_key
        csr = x509.load_der_x509_csr(request.csr_der)
        assert csr.is_signature_valid and len(request.sealing_key) == 32
        usage = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH])
        leaf = self.authority.issue(csr.public_key(), x509.Name([]), [(usage, False)])
        self.agent_id = "agent-1"
        answer = self.contract.EnrollResponse(
            agent_id=self.agent_id, certificate_pem=leaf.public_bytes(PEM), ca_pem=self.authority.pem()
        )
        answer.not_after.FromDatetime(leaf.not_valid_after_utc)
        return answer

    def event(self, **what):
        event = self.contract.ServerEvent(**what)
        return self.contract.SessionResponse(events=[event])

    def assignment(self):
        assignment = self.contract.Assignment(task=self.task)
        assignment.lease.seconds = 30
        spec = {
            "target": {"host": "127.0.0.1", "connection": {
                "scheme": "SCHEME_HTTP", "port": self.port, "auth": "AUTH_KIND_NEGOTIATE",
                "messageEncryption": "MESSAGE_ENCRYPTION_AUTO",
            }},
            "credential": "ntlm",
            "command": {"commandLine": f"sim.exe lines {LINES} 100"},
            "timeout": "60s",
        }
        json_format.ParseDict(spec, assignment.spec)
        assignment.identity.name, assignment.identity.version = "ntlm", 1
        assignment.identity.username = self.user
        seal_secret(self.sealing_key, self.agent_id, assignment, self.secret)
        return assignment

    def session(self, requests, context):
        # Whether a drained agent says so before it goes is its own affair; that it goes is what counts.
        context.add_callback(lambda: self.result is not None and self.over.set())
        number = len(self.hellos)
        for request in requests:
            for event in request.events:
                kind = event.WhichOneof("event")
                if kind is None:
                    # As the earlier version's control plane did.
                    yield self.event(goodbye=self.contract.Goodbye(detail="an event without content"))
                    return
                self.events.append(kind)
                answers, cut = self.take(kind, getattr(event, kind), number)
                yield from answers
                if cut:
                    return

    def take(self, kind, event, number):
        """What is answered, and whether the connection breaks behind it."""
        contract = self.contract
        if kind == "hello":
            assert event.protocol == 1 and event.instance_id and event.slots, event
            self.hellos.append(json_format.MessageToDict(event))
            welcome = contract.Welcome(session_id=str(number), output_window=65536)
            welcome.heartbeat_interval.seconds, welcome.lease.seconds = 1, 30
            for held in event.held:
                resume = welcome.resume.add(task=held.task, output_acked=len(self.output))
                resume.decision = contract.value("ResumeDecision", "RESUME_DECISION_CONTINUE")
            return [self.event(welcome=welcome)], False
        if kind == "credit" and number == 0 and event.total:
            return [self.event(assignment=self.assignment())], False
        if kind == "output":
            assert event.task == self.task and event.chunk.offset == len(self.output), event
            self.output += event.chunk.data
            ack = contract.OutputAck(task=self.task, offset=len(self.output))
            # What is stored and what was acknowledged are two things: the answer is lost.
            return ([], True) if number == 0 else ([self.event(output_ack=ack)], False)
        if kind == "end":
            self.result = json_format.MessageToDict(event.result)
            answers = [contract.EndAck(task=self.task), contract.Drain(reason="that was all")]
            return [self.event(end_ack=answers[0]), self.event(drain=answers[1])], False
        if kind == "heartbeat":
            return [self.event(heartbeat_ack=contract.HeartbeatAck(sequence=event.sequence))], False
        return [], False


def main(image, user, secret_file, port):
    with open(secret_file, "rb") as file:
        control_plane = ControlPlane(Contract(image), user, file.read(), int(port))
    server, listening = control_plane.serve()
    print(json.dumps({"address": f"127.0.0.1:{listening}", "token": control_plane.token}), flush=True)
    over = control_plane.over.wait(TIMEOUT)
    told = {
        "over": over,
        "hello": control_plane.hellos,
        "events": control_plane.events,
        "result": control_plane.result,
        "output": control_plane.output.decode(),
    }
    print(json.dumps(told), flush=True)
    server.stop(1).wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
