"""An agent that knows an earlier contract alone: enrols, takes tasks by a stream and by polls, is cut off, delivers, goes.

    agent.py IMAGE ADDRESS CA_FILE TOKEN_FILE ADMIN_TOKEN_FILE SECRET_FILE SPEC_FILE

SPEC_FILE is the TaskSpec that it submits itself, as JSON of the earlier contract. SECRET_FILE is what each sealed secret must hold.
Ends with 0 and a line of JSON when everything was as that contract says; it knows nothing of Windows and makes the output up.
"""

import base64
import hashlib
import json
import queue
import sys
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import json_format

from contract import Contract, channel, open_secret, sealing_key

TIMEOUT = 30
OUTPUT = b"first half, then the connection breaks, second half"


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Agent:
    def __init__(self, image, address, ca, token, secret):
        self.contract = Contract(image)
        self.address, self.ca, self.secret = address, ca, secret
        self.key, public = sealing_key()
        self.enrol(token, public)
        self.sessions = 0
        self.heard = []

    def enrol(self, token, public):
        # The token carries the pin of the authority; the file must be the one that it means.
        pin = base64.urlsafe_b64decode(token.split(".")[-1] + "=")
        authority = x509.load_pem_x509_certificate(self.ca).public_key()
        info = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        assert hashlib.sha256(authority.public_bytes(*info)).digest() == pin, "the pin is of another authority"
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        enrol = self.contract.EnrollRequest(
            join_token=token,
            csr_der=request.public_bytes(serialization.Encoding.DER),
            sealing_key=public,
            name="of-an-earlier-version",
            tags=["old"],
            version="0.1.0",
        )
        with channel(self.address, self.ca) as open_channel:
            answer = self.contract.call(open_channel, "AgentService", "Enroll")(enrol, timeout=TIMEOUT)
        assert answer.agent_id and answer.certificate_pem and answer.not_after.seconds
        pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.agent_id = answer.agent_id
        self.identity = key.private_bytes(*pem), answer.certificate_pem.encode()
        self.ca = answer.ca_pem.encode()

    def channel(self):
        return channel(self.address, self.ca, *self.identity)

    def event(self, **what):
        return self.contract.AgentEvent(**what)

    def hello(self, *held, draining=False):
        return self.event(
            hello=self.contract.Hello(
                protocol=1,
                version="0.1.0",
                instance_id="one-process",
                tags=["old"],
                slots=2,
                capabilities=["connection_test", "command", "script"],
                held=held,
                draining=draining,
            )
        )

    def held(self, task, state, output_bytes):
        return self.contract.HeldTask(
            task=task, state=self.contract.value("HeldState", state), output_bytes=output_bytes
        )

    def output(self, task, start, end):
        stream = self.contract.value("OutputStream", "OUTPUT_STREAM_STDOUT")
        chunk = self.contract.OutputChunk(offset=start, stream=stream, data=OUTPUT[start:end])
        return self.event(output=self.contract.TaskOutput(task=task, chunk=chunk))

    def end(self, task):
        outcome = self.contract.value("TaskState", "TASK_STATE_SUCCEEDED")
        result = self.contract.TaskResult(outcome=outcome, exit_code=0, output_bytes=len(OUTPUT))
        return self.event(end=self.contract.TaskEnd(task=task, result=result))

    def check(self, assignment):
        """An assignment must be whole for who knows no other contract."""
        kind = assignment.spec.WhichOneof("kind")
        assert kind is not None, f"an assignment of a kind that the contract does not have: {assignment}"
        assert open_secret(self.key, self.agent_id, assignment) == self.secret, "the secret is another one"
        assert assignment.spec.target.host and assignment.lease.seconds > 0
        return assignment.task, kind


class Session:
    """One stream: what is said goes out in order, what comes is waited for by kind."""

    def __init__(self, agent, *first):
        self.agent, self.out, self.inbound = agent, queue.Queue(), queue.Queue()
        self.channel = agent.channel()
        for event in first:
            self.say(event)
        request = agent.contract.SessionRequest
        outbound = (request(events=[event]) for event in iter(self.out.get, None))
        self.stream = agent.contract.call(self.channel, "AgentService", "Session")(outbound)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        try:
            for response in self.stream:
                for event in response.events:
                    self.inbound.put(event)
        except Exception as error:  # The end of the stream, which whoever waits is told.
            self.inbound.put(error)

    def say(self, event):
        self.out.put(event)

    def until(self, kind):
        while True:
            event = self.inbound.get(timeout=TIMEOUT)
            if isinstance(event, Exception):
                raise event
            found = event.WhichOneof("event")
            # A control plane must say nothing to this side that the side cannot hear.
            assert found is not None, "an event that the contract does not have"
            self.agent.heard.append(found)
            if found == kind:
                return getattr(event, found)

    def cut(self):
        self.stream.cancel()
        self.out.put(None)
        self.channel.close()


def by_stream(agent, submit):
    """A task whose output is half sent when the connection breaks."""
    contract = agent.contract
    session = Session(agent, agent.hello())
    welcome = session.until("welcome")
    assert welcome.session_id and welcome.heartbeat_interval.seconds >= 1 and welcome.output_window > 0
    session.say(agent.event(credit=contract.Credit(total=1)))
    task_id = submit()
    task, kind = agent.check(session.until("assignment"))
    assert (task.task_id, kind) == (task_id, "command")
    session.say(agent.event(accepted=contract.Accepted(task=task)))
    session.say(agent.event(started=contract.Started(task=task)))
    half = len(OUTPUT) // 2
    session.say(agent.output(task, 0, half))
    assert session.until("output_ack").offset == half
    session.say(agent.event(heartbeat=contract.Heartbeat(sequence=1, held=[task], slots_used=1)))
    beat = session.until("heartbeat_ack")
    assert beat.sequence == 1 and not beat.stale
    session.cut()

    session = Session(agent, agent.hello(agent.held(task, "HELD_STATE_RUNNING", len(OUTPUT))))
    resume = session.until("welcome").resume
    go_on = contract.value("ResumeDecision", "RESUME_DECISION_CONTINUE")
    assert [(one.decision, one.output_acked) for one in resume] == [(go_on, half)], resume
    session.say(agent.output(task, half, len(OUTPUT)))
    session.say(agent.end(task))
    assert session.until("end_ack").task == task
    # Said again, as after a lost answer: the same answer.
    session.say(agent.end(task))
    assert session.until("end_ack").task == task
    session.cut()
    return task_id


def by_poll(agent, submit):
    """A task from poll to poll."""
    contract = agent.contract
    with agent.channel() as open_channel:
        poll = contract.call(open_channel, "AgentService", "Poll")

        def ask(*events, seconds=10):
            request = contract.PollRequest(events=events)
            request.wait.seconds = seconds
            answer = poll(request, timeout=TIMEOUT).events
            assert answer[0].WhichOneof("event") == "welcome"
            assert all(event.WhichOneof("event") for event in answer), answer
            return answer

        task_id = submit()
        credit = agent.event(credit=contract.Credit(total=1))
        for _ in range(5):
            given = [event.assignment for event in ask(agent.hello(), credit) if event.HasField("assignment")]
            if given:
                break
        task, _ = agent.check(given[0])
        assert task.task_id == task_id
        held = agent.hello(agent.held(task, "HELD_STATE_RUNNING", len(OUTPUT)))
        told = [agent.event(accepted=contract.Accepted(task=task)), agent.event(started=contract.Started(task=task))]
        answer = ask(held, *told, agent.output(task, 0, len(OUTPUT)), agent.end(task), seconds=0)
        for _ in range(5):
            if any(event.WhichOneof("event") == "end_ack" for event in answer):
                break
            answer = ask(agent.hello(agent.held(task, "HELD_STATE_ENDED", len(OUTPUT))), agent.end(task), seconds=1)
        else:
            raise AssertionError("the end was never acknowledged")
        # Draining, it gets nothing, and says good-bye to nobody.
        assert not [event for event in ask(agent.hello(draining=True), seconds=0) if event.HasField("assignment")]
    return task_id


class User:
    """What somebody's program of the earlier version asks of the control plane."""

    def __init__(self, contract, address, ca, token, spec):
        self.contract, self.spec = contract, spec
        self.channel, self.metadata = channel(address, ca), [("authorization", f"Bearer {token}")]

    def ask(self, method, request):
        return self.contract.call(self.channel, "TaskService", method)(request, metadata=self.metadata, timeout=TIMEOUT)

    def submit(self):
        spec = json_format.Parse(self.spec, self.contract.TaskSpec())
        return self.ask("SubmitTask", self.contract.SubmitTaskRequest(spec=spec)).task.task_id

    def judge(self, task_id):
        task = self.ask("GetTask", self.contract.GetTaskRequest(task_id=task_id)).task
        assert task.state == self.contract.value("TaskState", "TASK_STATE_SUCCEEDED"), task
        seen = self.ask("WatchTask", self.contract.WatchTaskRequest(task_id=task_id))
        told = b"".join(event.output.data for event in seen if event.WhichOneof("event") == "output")
        assert told == OUTPUT, told
        listed = self.ask("ListTasks", self.contract.ListTasksRequest()).tasks
        assert task_id in [task.task_id for task in listed]


def main(image, address, ca_file, token_file, admin_token_file, secret_file, spec_file):
    agent = Agent(image, address, read(ca_file), read(token_file).decode().strip(), read(secret_file))
    admin = read(admin_token_file).decode().strip()
    user = User(agent.contract, address, read(ca_file), admin, read(spec_file).decode())
    tasks = [by_stream(agent, user.submit), by_poll(agent, user.submit)]
    for task_id in tasks:
        user.judge(task_id)
    print(json.dumps({"agent_id": agent.agent_id, "tasks": tasks, "heard": sorted(set(agent.heard))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
