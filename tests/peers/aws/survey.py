#!/usr/bin/env python3
"""Tries what an emulator really enforces, and prints a table of what came: `survey.py`. README.md holds its output.

Every row does one thing with boto3 as a user or a session of its own, against emulators started by aws.py.
"""

import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import jwt
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric import rsa

import emulators
import metadata

CONTEXT = {"lictor:scope": "/", "lictor:secret": "web-password", "lictor:version": "1"}
ISSUER = "https://lictor.corp.example/oidc"
HOST = ISSUER.split("://")[1]
REGION = emulators.REGION


class Peer:
    """One aws.py."""

    def __init__(self, kind, *more):
        self.kind = kind
        self.directory = tempfile.TemporaryDirectory()
        path = os.path.join(self.directory.name, "port")
        command = [sys.executable, pathlib.Path(__file__).with_name("aws.py"), kind, "--port-file", path, *more]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        end = time.monotonic() + emulators.START
        while not os.path.exists(path):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{kind} did not start")
            time.sleep(0.05)
        self.url = f"http://127.0.0.1:{pathlib.Path(path).read_text().strip()}"

    def order(self, name, **arguments):
        return metadata.ask(self.url, name, arguments)

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.directory.cleanup()


class Try:
    """Everything a row may want."""

    def __init__(self, peer):
        self.peer, self.world = peer, peer.order("world", issuer=ISSUER, subject="lictor:manager:corp-kms")
        peer.order("enforce", on=True)
        self.key, self.other = self.world["key"], self.world["other_key"]
        self.signer = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def keys(self, user):
        user = self.world["users"][user]
        return {"aws_access_key_id": user["access_key_id"], "aws_secret_access_key": user["secret_access_key"]}

    def kms(self, user="full", region=REGION):
        return emulators.client(self.peer.url, "kms", self.keys(user) if isinstance(user, str) else user, region)

    def sts(self, user="full"):
        return emulators.client(self.peer.url, "sts", self.keys(user) if isinstance(user, str) else user)

    def administrator(self, service):
        made = self.peer.order("administrator")
        keys = {"aws_access_key_id": made["access_key_id"], "aws_secret_access_key": made["secret_access_key"]}
        return emulators.client(self.peer.url, service, keys)

    def data_key(self, **more):
        return self.kms().generate_data_key(**{"KeyId": self.key, "KeySpec": "AES_256", "EncryptionContext": CONTEXT} | more)

    def decrypt(self, blob, user="full", **more):
        return self.kms(user).decrypt(**{"CiphertextBlob": blob, "KeyId": self.key, "EncryptionContext": CONTEXT} | more)

    def assume(self, role="assumed", user="full", **more):
        arn = self.world["roles"].get(role, role)
        made = self.sts(user).assume_role(RoleArn=arn, RoleSessionName="survey", **more)["Credentials"]
        return {
            "aws_access_key_id": made["AccessKeyId"],
            "aws_secret_access_key": made["SecretAccessKey"],
            "aws_session_token": made["SessionToken"],
        }

    def web(self, key=None, **claims):
        if self.peer.kind == "moto":
            # It looks for the signature of a call that has none, and fails.
            self.peer.order("enforce", on=False)
        now = int(time.time())
        told = {"iss": ISSUER, "aud": "sts.amazonaws.com", "sub": "lictor:manager:corp-kms", "iat": now, "exp": now + 300} | claims
        token = jwt.encode(told, key or self.signer, algorithm="RS256")
        return self.sts("nobody").assume_role_with_web_identity(
            RoleArn=self.world["roles"]["oidc"], RoleSessionName="survey", WebIdentityToken=token
        )


def tampered(blob):
    return blob[:-1] + bytes([blob[-1] ^ 1])


def with_policy(at, statement, act):
    """Acts as a new user with this one statement."""
    iam = at.administrator("iam")
    name = f"survey-{time.monotonic_ns()}"
    iam.create_user(UserName=name)
    document = {"Version": "2012-10-17", "Statement": [statement]}
    iam.put_user_policy(UserName=name, PolicyName="one", PolicyDocument=json.dumps(document))
    made = iam.create_access_key(UserName=name)["AccessKey"]
    return act({"aws_access_key_id": made["AccessKeyId"], "aws_secret_access_key": made["SecretAccessKey"]})


def with_key_policy(at, statements, act):
    kms = at.administrator("kms")
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    key = kms.create_key()["KeyMetadata"]["Arn"]
    kms.put_key_policy(KeyId=key.rpartition("/")[2], PolicyName="default", Policy=document)
    return act(key)


def root(at):
    return {"AWS": f"arn:aws:iam::{at.world['account']}:root"}


def allow(actions, resource, **more):
    return {"Effect": "Allow", "Action": actions, "Resource": resource} | more


def skewed(at):
    """A request whose signature is an hour old."""
    import botocore.auth

    real = botocore.auth.get_current_datetime
    botocore.auth.get_current_datetime = lambda *_, **__: datetime.datetime.utcnow() - datetime.timedelta(hours=1)
    try:
        return at.sts().get_caller_identity()["Arn"]
    finally:
        botocore.auth.get_current_datetime = real


def short(at):
    session = at.assume(DurationSeconds=1)
    time.sleep(1.5)
    return at.sts(session).get_caller_identity()["Arn"]


def short_for_kms(at):
    session = at.assume(DurationSeconds=1)
    time.sleep(1.5)
    at.kms(session).generate_data_key(KeyId=at.key, KeySpec="AES_256")


ROWS = [
    ("**IAM policies of users**", None),
    ("a user whose policy allows Decrypt, asked to decrypt", lambda at: at.decrypt(at.data_key()["CiphertextBlob"], "reader")),
    ("the same user, asked for a data key", lambda at: at.kms("reader").generate_data_key(KeyId=at.key, KeySpec="AES_256")),
    ("a user without any policy on KMS, asked to decrypt", lambda at: at.decrypt(at.data_key()["CiphertextBlob"], "nobody")),
    (
        "a policy that names this key",
        lambda at: with_policy(at, allow("kms:GenerateDataKey", at.key), lambda keys: at.kms(keys).generate_data_key(KeyId=at.key, KeySpec="AES_256")),
    ),
    (
        "a policy that names another key",
        lambda at: with_policy(at, allow("kms:GenerateDataKey", at.other), lambda keys: at.kms(keys).generate_data_key(KeyId=at.key, KeySpec="AES_256")),
    ),
    (
        "a policy that names this key, in a call that names its alias (AWS allows it)",
        lambda at: with_policy(
            at, allow("kms:GenerateDataKey", at.key), lambda keys: at.kms(keys).generate_data_key(KeyId=at.world["alias"], KeySpec="AES_256")
        ),
    ),
    (
        "a condition on `kms:EncryptionContext:lictor:scope` that the call meets",
        lambda at: with_policy(
            at,
            allow("kms:GenerateDataKey", "*", Condition={"StringEquals": {"kms:EncryptionContext:lictor:scope": "/"}}),
            lambda keys: at.kms(keys).generate_data_key(KeyId=at.key, KeySpec="AES_256", EncryptionContext=CONTEXT),
        ),
    ),
    (
        "the same condition, and a call of another scope",
        lambda at: with_policy(
            at,
            allow("kms:GenerateDataKey", "*", Condition={"StringEquals": {"kms:EncryptionContext:lictor:scope": "/"}}),
            lambda keys: at.kms(keys).generate_data_key(KeyId=at.key, KeySpec="AES_256", EncryptionContext={"lictor:scope": "shop"}),
        ),
    ),
    ("**Key policies**", None),
    (
        "a key policy that allows the account; the user's own policy allows the rest",
        lambda at: with_key_policy(
            at, [allow("kms:*", "*", Principal=root(at))], lambda key: with_policy(
                at, allow("kms:GenerateDataKey", "*"), lambda keys: at.kms(keys).generate_data_key(KeyId=key, KeySpec="AES_256"))
        ),
    ),
    (
        "a key policy that allows only another user",
        lambda at: with_key_policy(
            at,
            [allow("kms:*", "*", Principal={"AWS": at.world["users"]["nobody"]["arn"]})],
            lambda key: with_policy(at, allow("kms:GenerateDataKey", "*"), lambda keys: at.kms(keys).generate_data_key(KeyId=key, KeySpec="AES_256")),
        ),
    ),
    (
        "a key policy that denies GenerateDataKey",
        lambda at: with_key_policy(
            at,
            [allow("kms:*", "*", Principal=root(at)), {"Effect": "Deny", "Principal": "*", "Action": "kms:GenerateDataKey", "Resource": "*"}],
            lambda key: with_policy(at, allow("kms:GenerateDataKey", "*"), lambda keys: at.kms(keys).generate_data_key(KeyId=key, KeySpec="AES_256")),
        ),
    ),
    ("**Ciphertext and keys**", None),
    ("Decrypt with the right context", lambda at: at.decrypt(at.data_key()["CiphertextBlob"])),
    ("with another context", lambda at: at.decrypt(at.data_key()["CiphertextBlob"], EncryptionContext=CONTEXT | {"lictor:version": "2"})),
    ("with none", lambda at: at.kms().decrypt(CiphertextBlob=at.data_key()["CiphertextBlob"], KeyId=at.key)),
    ("of a ciphertext with its last bit flipped", lambda at: at.decrypt(tampered(at.data_key()["CiphertextBlob"]))),
    ("of a ciphertext with a bit flipped in its middle", lambda at: at.decrypt(flipped_middle(at.data_key()["CiphertextBlob"]))),
    ("of bytes that are no ciphertext", lambda at: at.decrypt(b"no ciphertext at all, but long enough to be one")),
    ("of a ciphertext of another key, naming this one", lambda at: at.decrypt(at.data_key(KeyId=at.other)["CiphertextBlob"])),
    ("of a ciphertext of another key, naming none", lambda at: at.kms().decrypt(CiphertextBlob=at.data_key(KeyId=at.other)["CiphertextBlob"], EncryptionContext=CONTEXT)["KeyId"] == at.other),
    ("in another region, naming no key", lambda at: at.kms(region="us-east-1").decrypt(CiphertextBlob=at.data_key()["CiphertextBlob"], EncryptionContext=CONTEXT)),
    ("GenerateDataKey in another region, by the key's ARN", lambda at: at.kms(region="us-east-1").generate_data_key(KeyId=at.key, KeySpec="AES_256")),
    ("GenerateDataKey by an alias", lambda at: at.data_key(KeyId=at.world["alias"])["KeyId"] == at.key),
    ("by the alias' ARN", lambda at: at.data_key(KeyId=at.world["alias_arn"])["KeyId"] == at.key),
    ("by an alias that is not there", lambda at: at.data_key(KeyId="alias/nothing")),
    ("by a key id that is not there", lambda at: at.data_key(KeyId="00000000-0000-4000-8000-000000000000")),
    ("with a disabled key", lambda at: at.data_key(KeyId=at.world["disabled_key"])),
    ("with a key pending deletion", lambda at: at.data_key(KeyId=at.world["pending_key"])),
    ("with an empty value in the context (AWS says nothing of it)", lambda at: at.data_key(EncryptionContext={"lictor:scope": ""})),
    ("Encrypt of 4,097 bytes", lambda at: at.kms().encrypt(KeyId=at.key, Plaintext=b"x" * 4097)),
    ("**Credentials**", None),
    ("GetCallerIdentity of a user", lambda at: at.sts().get_caller_identity()["Arn"]),
    ("of a session", lambda at: at.sts(at.assume()).get_caller_identity()["Arn"]),
    ("with a wrong secret access key", lambda at: at.sts(at.keys("full") | {"aws_secret_access_key": "x" * 40}).get_caller_identity()["Arn"]),
    ("Decrypt with a wrong secret access key", lambda at: at.decrypt(at.data_key()["CiphertextBlob"], at.keys("full") | {"aws_secret_access_key": "x" * 40})),
    ("with an access key id that is not there", lambda at: at.decrypt(at.data_key()["CiphertextBlob"], at.keys("full") | {"aws_access_key_id": "AKIA" + "A" * 16})),
    ("a session with another session token", lambda at: at.sts(at.assume() | {"aws_session_token": "x" * 100}).get_caller_identity()["Arn"]),
    ("a signature one hour old", skewed),
    ("**AssumeRole**", None),
    ("a role that trusts the caller", lambda at: at.sts(at.assume()).get_caller_identity()["Arn"]),
    ("a role that trusts another user alone", lambda at: at.assume("untrusting")),
    ("a caller whose own policy has no sts:AssumeRole", lambda at: at.assume(user="reader")),
    ("the external id that is asked for", lambda at: at.assume("external", ExternalId=at.world["external_id"])),
    ("another external id", lambda at: at.assume("external", ExternalId="another-4711")),
    ("no external id", lambda at: at.assume("external")),
    ("a role that is not there", lambda at: at.assume(f"arn:aws:iam::{at.world['account']}:role/nothing")),
    ("DurationSeconds 899 (AWS: 900 at least)", lambda at: at.assume(DurationSeconds=899)),
    ("DurationSeconds 43201 (AWS: 43200 at most)", lambda at: at.assume(DurationSeconds=43201)),
    ("DurationSeconds 7200 of a role whose maximum is 3600", lambda at: at.assume(DurationSeconds=7200)),
    ("role chaining for 7200 s (AWS: 3600 at most)", lambda at: at.assume(user=at.assume(), DurationSeconds=7200)),
    ("a session of 1 s, used after it", short),
    ("the same session, used for KMS after it", short_for_kms),
    ("a session whose role may only decrypt, asked for a data key", lambda at: at.kms(at.assume("reader")).generate_data_key(KeyId=at.key, KeySpec="AES_256")),
    ("**AssumeRoleWithWebIdentity** (moto without `enforce`: with it, the answer is 500)", None),
    ("a token with the right audience and subject", lambda at: at.web()["AssumedRoleUser"]["Arn"]),
    ("another audience", lambda at: at.web(aud="another")),
    ("another subject", lambda at: at.web(sub="lictor:manager:another")),
    ("another issuer", lambda at: at.web(iss="https://another.corp.example")),
    ("an expired token", lambda at: at.web(exp=int(time.time()) - 600)),
    ("a token that somebody else signed (no JWKS is fetched)", lambda at: at.web(key=at.stranger)),
]  # fmt: skip


def flipped_middle(blob):
    middle = len(blob) // 2
    return blob[:middle] + bytes([blob[middle] ^ 1]) + blob[middle + 1 :]


def outcome(act, at):
    try:
        came = act(at)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        # moto answers in XML where JSON is spoken, so no code is read from it.
        return "refused, without a code" if code == "403" else f"refused: {code}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    if isinstance(came, str):
        return f"allowed: `{came}`"
    return "wrong answer" if came is False else "allowed"


def main():
    columns = {}
    for kind in ("moto", "ministack"):
        peer = Peer(kind)
        try:
            at = Try(peer)
            columns[kind] = [outcome(act, at) if act else "" for _, act in ROWS]
        finally:
            peer.close()
    print("| tried | moto 5.2.5, `enforce` | ministack 1.5.33 |\n|---|---|---|")
    for (name, _), moto, ministack in zip(ROWS, columns["moto"], columns["ministack"], strict=True):
        print(f"| {name} | {moto} | {ministack} |")


if __name__ == "__main__":
    main()
