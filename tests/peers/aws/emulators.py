"""Starts the emulators on loopback, and makes in them what tests ask for: see README.md."""

import base64
import ctypes
import functools
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

ACCOUNT = "111122223333"
REGION = "eu-central-1"
# Long for a start, since a machine may be busy; a start takes seconds.
START = 90.0


class Moto:
    """moto in threads of this process. `enforce` says whether it looks at policies and signatures."""

    def __init__(self):
        os.environ.setdefault("MOTO_ACCOUNT_ID", ACCOUNT)
        os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "false")
        import logging

        from moto import settings
        from moto.core.responses import ActionAuthenticatorMixin
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.settings, self.mixin = settings, ActionAuthenticatorMixin
        server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        wait_for(self.url + "/moto-api/", lambda: True)
        self.administrator = make_administrator(self.url, {"aws_access_key_id": ACCOUNT, "aws_secret_access_key": "none"})

    def enforce(self, order):
        self.mixin.request_count = 0
        self.settings.INITIAL_NO_AUTH_ACTION_COUNT = 0 if order["on"] else float("inf")
        return {}

    def close(self):
        pass


class Ministack:
    """ministack as a process of its own, which enforces policies."""

    def __init__(self):
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MINISTACK_"))}
        environment = keep | {
            "AUTH": "true",
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(listener.getsockname()[1]),
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "MINISTACK_REGION": REGION,
            "PERSIST_STATE": "0",
            "LOG_LEVEL": "ERROR",
            # It would listen on all addresses for MQTT, and look after containers of others.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "DOCKER_HOST": "unix:///dev/null",
        }
        self.process = subprocess.Popen(
            [sys.executable, pathlib.Path(__file__).with_name("ministack_server.py"), str(listener.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            pass_fds=[listener.fileno()],
            env=environment,
            preexec_fn=die_with_parent,
        )
        listener.close()
        wait_for(self.url + "/_ministack/health", lambda: self.process.poll() is None)
        self.administrator = make_administrator(self.url, {"aws_access_key_id": ACCOUNT, "aws_secret_access_key": "none"})

    def enforce(self, order):
        if not order["on"]:
            raise ValueError("ministack was started with AUTH=true")
        return {}

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def client(url, service, keys, region=REGION):
    """A client of the emulator with these keys alone: nothing of this machine's own settings counts, and nothing is checked here."""
    return made_client(url, service, region, **keys)


# Making one takes a third of a second.
@functools.lru_cache(maxsize=256)
def made_client(url, service, region, **keys):
    import boto3
    from botocore.config import Config

    session = boto3.session.Session(region_name=region, **keys)
    config = Config(retries={"total_max_attempts": 1}, read_timeout=60, connect_timeout=5, proxies={}, parameter_validation=False)
    return session.client(service, endpoint_url=url, config=config)


def call(url, administrator):
    """The order `call`: one operation of any service, by boto3. Bytes are base64 both ways."""

    def carry_out(order):
        keys = administrator
        if given := order.get("credentials"):
            keys = {
                "aws_access_key_id": given["access_key_id"],
                "aws_secret_access_key": given["secret_access_key"],
                "aws_session_token": given.get("session_token"),
            }
        operation = getattr(client(url, order["service"], keys, order.get("region", REGION)), order["operation"])
        parameters = dict(order.get("parameters", {}))
        for name in order.get("bytes", []):
            parameters[name] = base64.b64decode(parameters[name])
        answer = operation(**parameters)
        answer.pop("ResponseMetadata", None)
        return answer

    return carry_out


def make_administrator(url, keys):
    """A user who may do everything, so that orders work while policies are enforced."""
    iam = client(url, "iam", keys)
    name = "administrator-" + secrets.token_hex(4)
    iam.create_user(UserName=name)
    everything = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
    iam.put_user_policy(UserName=name, PolicyName="everything", PolicyDocument=everything)
    made = iam.create_access_key(UserName=name)["AccessKey"]
    return {"aws_access_key_id": made["AccessKeyId"], "aws_secret_access_key": made["SecretAccessKey"]}


def wait_for(url, alive):
    end = time.monotonic() + START
    while True:
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5):
                return
        except OSError as failure:
            if not alive() or time.monotonic() > end:
                raise RuntimeError(f"the emulator did not start: {failure}") from failure
        time.sleep(0.05)


def die_with_parent():
    # PR_SET_PDEATHSIG: nothing stays behind when this process is killed.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
