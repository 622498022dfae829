"""Verifies tokens of web identities as STS does: by the keys that their issuer publishes. No emulator does."""

import json
import ssl
import urllib.error
import urllib.request

import jwt


class Verifier:
    """Trusts the issuers that the order names, and asks them anew each time, where it says that they are reached."""

    def __init__(self, order):
        given = order["issuers"]
        self.issuers = given if isinstance(given, dict) else {issuer: issuer for issuer in given}
        self.audiences = order.get("audiences", ["sts.amazonaws.com"])
        context = ssl.create_default_context(cafile=order.get("ca_file"))
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))

    def refuses(self, token):
        """What STS would answer, or None."""
        try:
            issuer = jwt.decode(token, options={"verify_signature": False}).get("iss", "")
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.InvalidTokenError as error:
            return refusal("InvalidIdentityToken", f"The ID Token provided is not a valid JWT: {error}")
        if issuer not in self.issuers:
            return refusal("InvalidIdentityToken", f"No OpenIDConnect provider found in your account for {issuer}")
        try:
            keys = jwt.PyJWKSet.from_dict(self.get(self.discovered(issuer)))
            key = next((key for key in keys.keys if key.key_id == kid), None)
        except (OSError, ValueError, KeyError, jwt.PyJWTError) as error:
            return refusal("InvalidIdentityToken", f"Couldn't retrieve verification key from your identity provider: {error}")
        if key is None:
            return refusal("InvalidIdentityToken", "Couldn't retrieve verification key from your identity provider")
        try:
            jwt.decode(
                token,
                key.key,
                algorithms=["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"],
                audience=self.audiences,
                issuer=issuer,
                options={"require": ["iss", "sub", "aud", "exp", "iat"]},
            )
        except jwt.ExpiredSignatureError:
            return refusal("ExpiredTokenException", "Token expired: current date/time must be before the expiration date/time")
        except jwt.InvalidAudienceError:
            return refusal("InvalidIdentityToken", "Incorrect token audience")
        except jwt.InvalidTokenError as error:
            return refusal("InvalidIdentityToken", str(error))
        return None

    def discovered(self, issuer):
        document = self.get(issuer.rstrip("/") + "/.well-known/openid-configuration")
        if document["issuer"] != issuer:
            raise ValueError("the document is another issuer's")
        return document["jwks_uri"]

    def get(self, url):
        for issuer, place in self.issuers.items():
            if url.startswith(issuer):
                url = place.rstrip("/") + url.removeprefix(issuer.rstrip("/"))
                break
        with self.opener.open(url, timeout=10) as answer:
            return json.loads(answer.read(1 << 20))


def refusal(code, message):
    return {"code": code, "message": message, "status": 400}
