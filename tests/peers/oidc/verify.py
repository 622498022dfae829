"""Checks tokens of an OpenID Connect issuer as a relying party does.

Reads lines from standard input: an audience, a space, a token. Writes a line of JSON for each: the claims, or the name of PyJWT's error.
"""

import argparse
import json
import sys
import urllib.parse
import urllib.request

import jwt

TIMEOUT = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--issuer", required=True, help="URL of the issuer, as tokens have it")
    parser.add_argument("--base", required=True, help="where to ask in place of the issuer's host")
    arguments = parser.parse_args()

    def moved(url: str) -> str:
        parts = urllib.parse.urlsplit(url)
        here = urllib.parse.urlsplit(arguments.issuer)
        if (parts.scheme, parts.netloc) != (here.scheme, here.netloc):
            sys.exit(f"{url} is not the issuer's")
        return arguments.base + parts.path

    with urllib.request.urlopen(moved(f"{arguments.issuer}/.well-known/openid-configuration"), timeout=TIMEOUT) as answer:
        discovery = json.load(answer)
    if discovery["issuer"] != arguments.issuer:
        sys.exit(f"the document is of {discovery['issuer']}")
    keys = jwt.PyJWKClient(moved(discovery["jwks_uri"]), timeout=TIMEOUT)
    for line in sys.stdin:
        audience, token = line.split()
        try:
            claims = jwt.decode(
                token,
                keys.get_signing_key_from_jwt(token).key,
                algorithms=discovery["id_token_signing_alg_values_supported"],
                audience=audience,
                issuer=arguments.issuer,
                options={"require": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"]},
            )
            verdict = {"claims": claims}
        except jwt.PyJWTError as error:
            verdict = {"refused": type(error).__name__}
        print(json.dumps(verdict), flush=True)


if __name__ == "__main__":
    main()
