"""Runs the policies of docs/secrets.md as they stand, against an emulator of AWS that enforces them.

Nothing in them is replaced but the key's ARN. What should pass passes, and what is beyond is denied. tests/peers/aws/README.md says
what the emulator, ministack, can judge; the policies that it cannot judge are only handed to it.

Needs tests/peers/aws/requirements.txt. Runs alone: .venv/bin/python tests/deploy/test_secrets.py
"""

import json
import pathlib
import re
import secrets
import sys
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/peers/aws"))

import emulators  # noqa: E402
import jwt  # noqa: E402
from botocore.exceptions import ClientError  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: E402
from survey import Peer  # noqa: E402

PAGE = ROOT / "docs/secrets.md"
KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER_ACCOUNT = "444455556666"
DENIED = {"AccessDenied", "AccessDeniedException"}

# Services assume these roles, and nobody is a service at the emulator.
ONLY_READ = {"trust-ec2", "trust-pod-identity"}


def policies(text=None):
    """The page's policies by name."""
    text = PAGE.read_text() if text is None else text
    named = re.findall(r"<!-- policy: ([a-z0-9-]+) -->\n```json\n(.*?)```", text, re.DOTALL)
    return {name: json.loads(document) for name, document in named}


def context(scope="/", secret="web-password"):
    return {"lictor:scope": scope, "lictor:secret": secret, "lictor:version": "1"}


class Page(unittest.TestCase):
    def test_every_policy_of_the_page_has_a_name_of_its_own(self):
        text = PAGE.read_text()
        blocks = text.count("```json\n")
        self.assertEqual(blocks, len(policies()), "a block without a name, or a name that is there twice")
        self.assertGreater(blocks, 8)

    def test_every_policy_is_run(self):
        tested = {name.removeprefix("test_").replace("_", "-") for name in dir(Policies) if name.startswith("test_")}
        tested = {name for name in policies() if any(name in re.split(r"-and-", test) for test in tested)}
        self.assertEqual(set(policies()) - tested - ONLY_READ, set())
        self.assertEqual(tested & ONLY_READ, set())


class Policies(unittest.TestCase):
    """Each test is named after the policies that it runs."""

    @classmethod
    def setUpClass(cls):
        cls.peer = Peer("ministack")
        cls.addClassCleanup(cls.peer.close)
        made = cls.peer.order("administrator")
        cls.administrator = keys(made["access_key_id"], made["secret_access_key"])
        cls.page = policies()
        cls.signer = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def setUp(self):
        kms = self.client("kms", self.administrator)
        self.key, self.other = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))

    def client(self, service, who):
        return emulators.client(self.peer.url, service, who)

    def document(self, name):
        return json.dumps(self.page[name]).replace(KEY, self.key)

    def role(self, name, policy=None, trust=None, account=emulators.ACCOUNT):
        """Makes a role, or makes it anew."""
        who = self.administrator if account == emulators.ACCOUNT else keys(account, "none")
        iam = self.client("iam", who)
        try:
            iam.delete_role_policy(RoleName=name, PolicyName="one")
        except ClientError:
            pass
        try:
            iam.delete_role(RoleName=name)
        except ClientError:
            pass
        everybody = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}, "Action": "sts:AssumeRole"}
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust or json.dumps({"Version": "2012-10-17", "Statement": [everybody]}))
        if policy:
            iam.put_role_policy(RoleName=name, PolicyName="one", PolicyDocument=policy)
        return f"arn:aws:iam::{account}:role/{name}"

    def assume(self, who, arn, **more):
        made = self.client("sts", who).assume_role(RoleArn=arn, RoleSessionName="lictor", **more)["Credentials"]
        return keys(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])

    def session(self, name, policy=None):
        return self.assume(self.administrator, self.role(name, policy))

    def wrapped(self, told=None, key=None):
        """A data key, as somebody made it who may."""
        kms = self.client("kms", self.administrator)
        return kms.generate_data_key(KeyId=key or self.key, KeySpec="AES_256", EncryptionContext=told or context())["CiphertextBlob"]

    def denied(self, act, *arguments, **named):
        with self.assertRaises(ClientError) as caught:
            act(*arguments, **named)
        self.assertIn(caught.exception.response["Error"]["Code"], DENIED)

    def may_not_manage(self, kms):
        self.denied(kms.describe_key, KeyId=self.key)
        self.denied(kms.schedule_key_deletion, KeyId=self.key, PendingWindowInDays=7)
        self.denied(kms.put_key_policy, KeyId=self.key, PolicyName="default", Policy="{}")
        self.denied(kms.create_grant, KeyId=self.key, GranteePrincipal=f"arn:aws:iam::{OTHER_ACCOUNT}:root", Operations=["Decrypt"])

    def test_reader(self):
        kms = self.client("kms", self.session("reader", self.document("reader")))
        kms.decrypt(CiphertextBlob=self.wrapped(), KeyId=self.key, EncryptionContext=context())
        foreign = {"application": "another"}
        self.denied(kms.decrypt, CiphertextBlob=self.wrapped(foreign), KeyId=self.key, EncryptionContext=foreign)
        self.denied(kms.decrypt, CiphertextBlob=self.wrapped(key=self.other), KeyId=self.other, EncryptionContext=context())
        self.denied(kms.generate_data_key, KeyId=self.key, KeySpec="AES_256", EncryptionContext=context())
        self.denied(kms.encrypt, KeyId=self.key, Plaintext=b"x", EncryptionContext=context())
        self.denied(kms.re_encrypt, CiphertextBlob=self.wrapped(), SourceEncryptionContext=context(), DestinationKeyId=self.other)
        self.may_not_manage(kms)

    def test_writer(self):
        kms = self.client("kms", self.session("writer", self.document("writer")))
        made = kms.generate_data_key(KeyId=self.key, KeySpec="AES_256", EncryptionContext=context())
        kms.encrypt(KeyId=self.key, Plaintext=b"x", EncryptionContext=context())
        self.denied(kms.decrypt, CiphertextBlob=made["CiphertextBlob"], KeyId=self.key, EncryptionContext=context())
        self.denied(kms.generate_data_key, KeyId=self.key, KeySpec="AES_256")
        self.denied(kms.encrypt, KeyId=self.key, Plaintext=b"x", EncryptionContext={"application": "another"})
        self.denied(kms.generate_data_key, KeyId=self.other, KeySpec="AES_256", EncryptionContext=context())
        self.may_not_manage(kms)

    def test_reader_of_scope(self):
        kms = self.client("kms", self.session("reader-of-scope", self.document("reader-of-scope")))
        for scope in ("platform", "platform/production"):
            kms.decrypt(CiphertextBlob=self.wrapped(context(scope)), KeyId=self.key, EncryptionContext=context(scope))
        for scope in ("/", "account", "shop", "platforms", "shop/platform"):
            with self.subTest(scope):
                told = context(scope)
                self.denied(kms.decrypt, CiphertextBlob=self.wrapped(told), KeyId=self.key, EncryptionContext=told)
        tested = context(secret="test") | {"lictor:version": "0"}
        kms.decrypt(CiphertextBlob=self.wrapped(tested), KeyId=self.key, EncryptionContext=tested)
        for told in (context(secret="test"), context() | {"lictor:version": "0"}):
            self.denied(kms.decrypt, CiphertextBlob=self.wrapped(told), KeyId=self.key, EncryptionContext=told)
        self.denied(kms.generate_data_key, KeyId=self.key, KeySpec="AES_256", EncryptionContext=tested)
        self.denied(kms.decrypt, CiphertextBlob=self.wrapped(tested, self.other), KeyId=self.other, EncryptionContext=tested)
        told = context("platform")
        self.denied(kms.decrypt, CiphertextBlob=self.wrapped(told, self.other), KeyId=self.other, EncryptionContext=told)
        self.denied(kms.generate_data_key, KeyId=self.key, KeySpec="AES_256", EncryptionContext=told)

    def test_key(self):
        """Alone: the roles have no policies of their own but the last, which may do everything by its own."""
        blob = self.wrapped()
        foreign = {"application": "another"}
        foreign_blob = self.wrapped(foreign)
        sessions = {name: self.session(name) for name in ("lictor-agent", "lictor-writer", "key-administrator")}
        everything = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
        sessions["stranger"] = self.session("stranger", everything)
        kms = {name: self.client("kms", session) for name, session in sessions.items()}
        self.client("kms", self.administrator).put_key_policy(KeyId=self.key, PolicyName="default", Policy=self.document("key"))
        reading = {"CiphertextBlob": blob, "KeyId": self.key, "EncryptionContext": context()}
        writing = {"KeyId": self.key, "KeySpec": "AES_256", "EncryptionContext": context()}
        for name in ("lictor-agent", "lictor-writer"):
            kms[name].decrypt(**reading)
            self.denied(kms[name].decrypt, CiphertextBlob=foreign_blob, KeyId=self.key, EncryptionContext=foreign)
            self.may_not_manage(kms[name])
        kms["lictor-writer"].generate_data_key(**writing)
        kms["lictor-writer"].encrypt(KeyId=self.key, Plaintext=b"x", EncryptionContext=context())
        self.denied(kms["lictor-writer"].generate_data_key, KeyId=self.key, KeySpec="AES_256")
        self.denied(kms["lictor-writer"].generate_data_key_without_plaintext, **writing)
        self.denied(kms["lictor-agent"].generate_data_key, **writing)
        kms["key-administrator"].describe_key(KeyId=self.key)
        for name in ("key-administrator", "stranger"):
            self.denied(kms[name].decrypt, **reading)
            self.denied(kms[name].generate_data_key, **writing)

    def test_trust_assume_role_and_assume_role(self):
        agent = self.session("lictor-agent", self.document("assume-role"))
        arn = self.role("lictor-kms", trust=self.document("trust-assume-role"), account=OTHER_ACCOUNT)
        self.assume(agent, arn, ExternalId="9b2f6c1e")
        self.denied(self.assume, agent, arn)
        # Tags are an action of their own, and could be what other policies go by.
        self.denied(self.assume, agent, arn, ExternalId="9b2f6c1e", Tags=[{"Key": "team", "Value": "web"}])
        self.denied(self.client("kms", agent).decrypt, CiphertextBlob=self.wrapped(), KeyId=self.key, EncryptionContext=context())
        self.denied(self.assume, agent, arn, ExternalId="9b2f6c1f")
        # Another role that would like to, and may as far as its own account goes.
        another = self.session("lictor-writer", self.document("assume-role"))
        self.denied(self.assume, another, arn, ExternalId="9b2f6c1e")
        # Another role of that account.
        elsewhere = self.role("everything", trust=self.document("trust-assume-role"), account=OTHER_ACCOUNT)
        self.denied(self.assume, agent, elsewhere, ExternalId="9b2f6c1e")

    def by_token(self, name, issuer, subject):
        iam = self.client("iam", self.administrator)
        iam.create_open_id_connect_provider(Url=issuer, ClientIDList=["sts.amazonaws.com"], ThumbprintList=["0" * 40])
        arn = self.role(f"by-token-{secrets.token_hex(4)}", trust=self.document(name))

        def assume(**claims):
            now = int(time.time())
            told = {"iss": issuer, "aud": "sts.amazonaws.com", "sub": subject, "iat": now, "exp": now + 600} | claims
            token = jwt.encode(told, self.signer, algorithm="RS256")
            # Nobody signs this call.
            sts = self.client("sts", self.administrator)
            sts.assume_role_with_web_identity(RoleArn=arn, RoleSessionName="lictor", WebIdentityToken=token)

        assume()
        self.denied(assume, aud="lictor")
        self.denied(assume, iss="https://another.corp.example")
        self.denied(assume, sub=subject + "-2")
        self.denied(assume, sub="")
        return assume

    def test_trust_irsa(self):
        issuer = "https://oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE"
        assume = self.by_token("trust-irsa", issuer, "system:serviceaccount:lictor:lictor-agent")
        self.denied(assume, sub="system:serviceaccount:another:lictor-agent")

    def test_trust_oidc(self):
        assume = self.by_token("trust-oidc", "https://lictor.corp.example", "scope:account:secret-manager:corp-kms")
        self.denied(assume, sub="scope:platform:secret-manager:corp-kms")

    def test_those_that_are_only_read_are_taken(self):
        for name in sorted(ONLY_READ):
            with self.subTest(name):
                self.role(f"only-read-{name}", trust=self.document(name))


def keys(identifier, secret, token=None):
    return {"aws_access_key_id": identifier, "aws_secret_access_key": secret, "aws_session_token": token}


if __name__ == "__main__":
    unittest.main()
