"""Serves ministack at a socket that is given: `ministack_server.py FD`. Its policies are told the condition keys of KMS.

ministack evaluates conditions, and knows no `kms:EncryptionContext:...`: a statement with one never allows anything. Here it is told
these keys as AWS documents them, from the request's own body. What follows from them is ministack's own decision.
"""

import asyncio
import json
import sys

from hypercorn.asyncio import serve
from hypercorn.config import Config
from ministack.core import iam_actions

of_tags = iam_actions.request_tag_context


def with_encryption_context(service, action, body, *more, **named):
    keys = dict(of_tags(service, action, body, *more, **named))
    if service == "kms":
        try:
            request = json.loads(body or b"{}")
        except ValueError:
            return keys
        context = request.get("EncryptionContext") or {}
        if isinstance(context, dict) and context:
            keys |= {f"kms:EncryptionContext:{name}": str(value) for name, value in context.items()}
            keys["kms:EncryptionContextKeys"] = list(context)
        if str(request.get("KeyId", "")).startswith("alias/"):
            keys["kms:RequestAlias"] = request["KeyId"]
    return keys


iam_actions.request_tag_context = with_encryption_context

from ministack.app import app  # noqa: E402 - after what it is to find there


def main():
    config = Config()
    config.bind = [f"fd://{sys.argv[1]}"]
    config.loglevel = "ERROR"
    config.keep_alive_timeout = 75
    asyncio.run(serve(app, config))


if __name__ == "__main__":
    main()
