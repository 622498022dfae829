"""Holds what tests/peers/aws stands in for to what clients of AWS expect, by botocore: metadata, containers, and the front.

The emulators' own faults are in tests/peers/aws/README.md. Needs tests/peers/aws/requirements.txt.
Runs alone: .venv/bin/python tests/deploy/test_aws_peers.py
"""

import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/peers/aws"))

import emulators  # noqa: E402
import jwt  # noqa: E402
from botocore.credentials import ContainerProvider, InstanceMetadataProvider  # noqa: E402
from botocore.exceptions import ClientError, ConnectionClosedError  # noqa: E402
from botocore.utils import InstanceMetadataFetcher  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # noqa: E402
from survey import Peer  # noqa: E402

ISSUER = "https://lictor.corp.example"


class Metadata(unittest.TestCase):
    """Instance metadata, version 2."""

    def setUp(self):
        self.peer = Peer("imds")
        self.addCleanup(self.peer.close)

    def load(self):
        fetcher = InstanceMetadataFetcher(timeout=2, num_attempts=1, base_url=self.peer.url, env={})
        return InstanceMetadataProvider(fetcher).load()

    def get(self, path, method="GET", **headers):
        request = urllib.request.Request(self.peer.url + path, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, ""

    def token(self, seconds="60"):
        return self.get("/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds=seconds)

    def test_a_client_gets_the_session_of_the_role(self):
        found = self.load().get_frozen_credentials()
        self.assertTrue(found.access_key.startswith("ASIA") and found.token)
        self.assertEqual(self.peer.order("calls")["calls"], {"token": 1, "get": 2, "role": 1, "credentials": 1, "sessions": 1})

    def test_nothing_without_a_token_of_this_server_that_is_still_good(self):
        path = "/latest/meta-data/placement/region"
        self.assertEqual(self.get(path)[0], 401)
        self.assertEqual(self.get(path, X_aws_ec2_metadata_token="x" * 56)[0], 401)
        status, headers, token = self.token()
        self.assertEqual((status, headers["X-aws-ec2-metadata-token-ttl-seconds"]), (200, "60"))
        self.assertEqual(self.get(path, X_aws_ec2_metadata_token=token)[2], "eu-central-1")
        self.peer.order("expire")
        self.assertEqual(self.get(path, X_aws_ec2_metadata_token=token)[0], 401)

    def test_a_token_is_asked_for_properly_and_not_through_a_proxy(self):
        for seconds in ("0", "21601", "-1", "1.5", "", "x", "٦"):
            with self.subTest(seconds):
                self.assertEqual(self.token(seconds.encode().decode("latin-1"))[0], 400)
        self.assertEqual(self.get("/latest/api/token", "PUT")[0], 400)
        self.assertEqual(self.get("/latest/api/token")[0], 405)
        forwarded = self.get("/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="60", X_Forwarded_For="192.0.2.1")
        self.assertEqual(forwarded[0], 403)
        self.assertEqual(self.token("1")[0], 200)
        self.assertEqual(self.token("21600")[0], 200)

    def test_sessions_are_made_anew_when_they_have_ended(self):
        first = self.load().get_frozen_credentials().access_key
        self.assertEqual(self.load().get_frozen_credentials().access_key, first)
        self.peer.order("expire")
        self.assertNotEqual(self.load().get_frozen_credentials().access_key, first)
        self.peer.order("lifetime", seconds=900)
        _, _, token = self.token()
        document = json.loads(self.get("/latest/meta-data/iam/security-credentials/lictor-agent", X_aws_ec2_metadata_token=token)[2])
        left = datetime.datetime.fromisoformat(document["Expiration"]) - datetime.datetime.now(datetime.timezone.utc)
        self.assertTrue(890 < left.total_seconds() <= 900, left)

    def test_faults_come_as_ordered(self):
        self.peer.order("faults", faults=[{"on": "token", "do": "answer", "status": 403, "times": 1}])
        self.assertEqual(self.token()[0], 403)
        self.assertEqual(self.token()[0], 200)
        self.peer.order("faults", faults=[{"on": "token", "do": "hang"}])
        self.assertIsNone(self.load(), "botocore gives up, and asks for nothing without a token")
        self.assertNotIn("credentials", self.peer.order("calls")["calls"])


class Container(unittest.TestCase):
    """The endpoint of ECS and of EKS Pod Identity."""

    def test_a_client_gets_a_session_for_the_token_in_the_file(self):
        with tempfile.TemporaryDirectory() as directory:
            token = pathlib.Path(directory, "token")
            token.write_text("first\n")
            peer = Peer("ecs", "--token-file", str(token))
            self.addCleanup(peer.close)
            told = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": peer.url + "/v1/credentials"}
            with self.assertRaises(Exception):
                ContainerProvider(environ=dict(told)).load()
            told["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = str(pathlib.Path(directory, "client"))
            pathlib.Path(directory, "client").write_text("first")
            self.assertTrue(ContainerProvider(environ=dict(told)).load().access_key.startswith("ASIA"))
            token.write_text("second\n")
            with self.assertRaises(Exception):
                ContainerProvider(environ=dict(told)).load()


class Front(unittest.TestCase):
    """Counting, and faults to order."""

    @classmethod
    def setUpClass(cls):
        cls.peer = Peer("ministack")
        cls.addClassCleanup(cls.peer.close)
        cls.world = cls.peer.order("world", issuer=ISSUER)
        user = cls.world["users"]["full"]
        cls.keys = {"aws_access_key_id": user["access_key_id"], "aws_secret_access_key": user["secret_access_key"]}

    def setUp(self):
        self.peer.order("reset")
        self.kms = emulators.client(self.peer.url, "kms", self.keys)
        self.sts = emulators.client(self.peer.url, "sts", self.keys)

    def make(self, kms=None):
        return (kms or self.kms).generate_data_key(KeyId=self.world["key"], KeySpec="AES_256")

    def code(self, act):
        with self.assertRaises(ClientError) as caught:
            act()
        return caught.exception.response["Error"]["Code"]

    def test_errors_come_in_the_protocol_of_the_call_and_as_often_as_ordered(self):
        self.peer.order("rules", rules=[
            {"action": "kms:GenerateDataKey", "skip": 1, "times": 2, "do": "error", "code": "ThrottlingException"},
            {"action": "sts:GetCallerIdentity", "do": "error", "code": "ExpiredToken", "status": 403, "message": "a < b"},
        ])  # fmt: skip
        self.make()
        self.assertEqual([self.code(self.make) for _ in range(2)], ["ThrottlingException"] * 2)
        self.make()
        self.assertEqual(self.code(self.sts.get_caller_identity), "ExpiredToken")
        calls = self.peer.order("calls")["calls"]
        self.assertEqual(calls["kms:GenerateDataKey"], {"calls": 4, "200": 2, "400 ThrottlingException": 2})
        self.assertEqual(calls["sts:GetCallerIdentity"], {"calls": 1, "403 ExpiredToken": 1})
        self.assertEqual(len(self.peer.order("log")["log"]), 5)

    def test_answers_are_lost_before_and_after(self):
        for when, reached in (("before", "- drop"), ("after", "200")):
            self.peer.order("reset")
            self.peer.order("rules", rules=[{"do": "drop", "when": when, "times": 1}])
            with self.assertRaises(ConnectionClosedError):
                self.make()
            self.assertEqual(self.peer.order("calls")["calls"]["kms:GenerateDataKey"], {"calls": 1, reached: 1})

    def test_what_hangs_ends_with_the_rules(self):
        self.peer.order("rules", rules=[{"do": "hang"}])
        caught = []

        def ask():
            try:
                self.make()
            except ConnectionClosedError as error:
                caught.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        while "kms:GenerateDataKey" not in self.peer.order("calls")["calls"]:
            time.sleep(0.01)
        self.peer.order("rules", rules=[])
        asking.join(20)
        self.assertEqual(len(caught), 1)

    def test_sessions_end_when_it_is_said(self):
        def session():
            made = self.sts.assume_role(RoleArn=self.world["roles"]["assumed"], RoleSessionName="test")["Credentials"]
            keys = {"aws_access_key_id": made["AccessKeyId"], "aws_secret_access_key": made["SecretAccessKey"]}
            return made, keys | {"aws_session_token": made["SessionToken"]}

        made, keys = session()
        kms = emulators.client(self.peer.url, "kms", keys)
        self.make(kms)
        self.assertEqual(self.peer.order("expire")["access_key_ids"], [made["AccessKeyId"]])
        self.assertEqual(self.code(lambda: self.make(kms)), "ExpiredTokenException")
        self.assertEqual(self.code(emulators.client(self.peer.url, "sts", keys).get_caller_identity), "ExpiredToken")
        self.peer.order("sessions", lifetime=0)
        made, keys = session()
        self.assertLessEqual(made["Expiration"], datetime.datetime.now(datetime.timezone.utc))
        self.assertEqual(self.code(lambda: self.make(emulators.client(self.peer.url, "kms", keys))), "ExpiredTokenException")
        self.make()

    def test_a_rule_that_does_not_exist_is_refused(self):
        for rule in ({"do": "nonsense"}, {"do": "error"}, {"do": "drop", "acton": "kms:Decrypt"}, {}):
            with self.subTest(rule), self.assertRaises(urllib.error.HTTPError):
                self.peer.order("rules", rules=[rule])

    def test_tokens_are_verified_by_their_issuers_keys(self):
        key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        issuer = Issuer(key)
        self.addCleanup(issuer.close)
        self.peer.order("tokens", issuers={ISSUER: issuer.url})
        role = self.world["roles"]["oidc"]

        def assume(signer=key, kid="one", **claims):
            now = int(time.time())
            told = {"iss": ISSUER, "sub": "any", "aud": "sts.amazonaws.com", "iat": now, "exp": now + 600} | claims
            token = jwt.encode(told, signer, algorithm="ES256", headers={"kid": kid})
            return self.sts.assume_role_with_web_identity(RoleArn=role, RoleSessionName="test", WebIdentityToken=token)

        assume()
        self.assertEqual(self.code(lambda: assume(other)), "InvalidIdentityToken")
        self.assertEqual(self.code(lambda: assume(kid="two")), "InvalidIdentityToken")
        self.assertEqual(self.code(lambda: assume(aud="another")), "InvalidIdentityToken")
        self.assertEqual(self.code(lambda: assume(iss="https://another.corp.example")), "InvalidIdentityToken")
        self.assertEqual(self.code(lambda: assume(exp=int(time.time()) - 1)), "ExpiredTokenException")
        issuer.close()
        self.assertEqual(self.code(assume), "InvalidIdentityToken")


class Issuer:
    """Discovery and keys of one issuer."""

    def __init__(self, key):
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) | {"kid": "one", "use": "sig", "alg": "ES256"}
        documents = {
            "/.well-known/openid-configuration": {"issuer": ISSUER, "jwks_uri": ISSUER + "/.well-known/jwks.json"},
            "/.well-known/jwks.json": {"keys": [public]},
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = json.dumps(documents[self.path]).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Ending(unittest.TestCase):
    """Nothing stays behind."""

    def children(self, pid):
        return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    def ended(self, pid):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                if pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    return True
            except FileNotFoundError:
                return True
            time.sleep(0.02)
        return False

    def test_the_emulator_ends_with_its_parent(self):
        for how in ("standard input", signal.SIGTERM, signal.SIGKILL):
            with self.subTest(how):
                peer = Peer("ministack")
                (child,) = self.children(peer.process.pid)
                if how == "standard input":
                    peer.process.stdin.close()
                else:
                    os.kill(peer.process.pid, how)
                self.assertEqual(peer.process.wait(20), -9 if how == signal.SIGKILL else 0)
                self.assertTrue(self.ended(child))
                peer.process.stdin.close()
                peer.directory.cleanup()

    def test_it_listens_on_loopback_alone(self):
        peer = Peer("ministack")
        self.addCleanup(peer.close)
        (child,) = self.children(peer.process.pid)
        listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines()
        ours = [line.split()[3] for line in listening if f"pid={child}," in line or f"pid={peer.process.pid}," in line]
        self.assertEqual(len(ours), 2, ours)
        self.assertTrue(all(place.startswith("127.0.0.1:") for place in ours), ours)


if __name__ == "__main__":
    unittest.main()
