"""The order `world`: keys, users and roles that tests begin with, made by boto3. See README.md.

moto compares the Resource of a statement with "*" whatever the call names, so its world has "*" there. ministack compares it with
what the call names, so its world has the alias beside the key; AWS compares it with the key alone.
"""

import json

import emulators

KEY = "alias/lictor"
EXTERNAL_ID = "lictor-4711"
WRITE = ["kms:GenerateDataKey", "kms:Encrypt"]
READ = ["kms:Decrypt"]


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(actions, resource):
    return {"Effect": "Allow", "Action": actions, "Resource": resource}


def trust(principal, action="sts:AssumeRole", condition=None):
    statement = {"Effect": "Allow", "Principal": principal, "Action": action}
    return policy(statement | ({"Condition": condition} if condition else {}))


def make(emulator):
    """The order, which may be given once."""
    blunt = isinstance(emulator, emulators.Moto)

    def carry_out(order):
        region = order.get("region", emulators.REGION)
        keys = emulator.administrator
        kms = emulators.client(emulator.url, "kms", keys, region)
        iam = emulators.client(emulator.url, "iam", keys, region)
        account = emulators.ACCOUNT

        def key():
            return kms.create_key()["KeyMetadata"]["Arn"]

        world = {"account": account, "region": region, "external_id": EXTERNAL_ID, "alias": KEY}
        world["key"], world["other_key"], world["disabled_key"], world["pending_key"] = (key() for _ in range(4))
        world["alias_arn"] = f"arn:aws:kms:{region}:{account}:{KEY}"
        kms.create_alias(AliasName=KEY, TargetKeyId=world["key"])
        kms.disable_key(KeyId=world["disabled_key"].rpartition("/")[2])
        kms.schedule_key_deletion(KeyId=world["pending_key"].rpartition("/")[2], PendingWindowInDays=7)

        every = "*" if blunt else [value for name, value in world.items() if name.endswith(("key", "arn"))]
        documents = {
            "full": policy(allow(WRITE + READ, every)),
            "writer": policy(allow(WRITE, every)),
            "reader": policy(allow(READ, every)),
            "nobody": policy(allow(["s3:ListAllMyBuckets"], "*")),
        }
        users = world["users"] = {}
        for name, document in documents.items():
            user = f"lictor-{name}"
            iam.create_user(UserName=user)
            assume = allow(["sts:AssumeRole"], "*")
            iam.put_user_policy(UserName=user, PolicyName="kms", PolicyDocument=document)
            if name == "full":
                iam.put_user_policy(UserName=user, PolicyName="roles", PolicyDocument=policy(assume))
            made = iam.create_access_key(UserName=user)["AccessKey"]
            users[name] = {
                "arn": f"arn:aws:iam::{account}:user/{user}",
                "access_key_id": made["AccessKeyId"],
                "secret_access_key": made["SecretAccessKey"],
            }
        # moto knows trust in whoever is named alone.
        whole = {"AWS": "*"} if blunt else {"AWS": f"arn:aws:iam::{account}:root"}
        external = {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}}
        nobody = {"AWS": f"arn:aws:iam::{account}:user/lictor-nobody"}
        roles = {
            "machine": (whole, None, "full"),
            "assumed": (whole, None, "full"),
            "external": (whole, external, "full"),
            "reader": (whole, None, "reader"),
            "untrusting": (nobody, None, "full"),
        }
        made = world["roles"] = {}
        for name, (principal, condition, document) in roles.items():
            role = "lictor-agent" if name == "machine" else f"lictor-{name}"
            iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust(principal, condition=condition))
            iam.put_role_policy(RoleName=role, PolicyName="kms", PolicyDocument=documents[document])
            # A role may itself assume others: role chaining.
            iam.put_role_policy(RoleName=role, PolicyName="roles", PolicyDocument=policy(allow(["sts:AssumeRole"], "*")))
            made[name] = f"arn:aws:iam::{account}:role/{role}"
        if issuer := order.get("issuer"):
            host = issuer.split("://", 1)[1]
            provider = iam.create_open_id_connect_provider(
                Url=issuer, ClientIDList=["sts.amazonaws.com"], ThumbprintList=["0" * 40]
            )["OpenIDConnectProviderArn"]
            condition = {"StringEquals": {f"{host}:aud": "sts.amazonaws.com"}}
            if subject := order.get("subject"):
                condition["StringEquals"][f"{host}:sub"] = subject
            document = trust({"Federated": provider}, "sts:AssumeRoleWithWebIdentity", condition)
            iam.create_role(RoleName="lictor-oidc", AssumeRolePolicyDocument=document)
            iam.put_role_policy(RoleName="lictor-oidc", PolicyName="kms", PolicyDocument=documents["full"])
            made["oidc"] = f"arn:aws:iam::{account}:role/lictor-oidc"
        return world

    return carry_out
