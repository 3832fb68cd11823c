"""What the agent in the peer's sandboxes demands of tokens, and of forms."""

from __future__ import annotations

import hashlib
import string
from typing import Any, NoReturn

import jwt

from .wire import RefusedInside, Session, Wire, expect

LIFE = 300
LEEWAY = 60
_UNRESERVED = frozenset((string.ascii_letters + string.digits + "-._~/").encode())


def inside_of(path: str, query: str) -> str:
    """How the claim htu spells a decoded path and a raw query."""
    spelled = "".join(
        chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in path.encode()
    )
    return f"{spelled}?{query}" if query else spelled


class Tokens(Wire):
    claims: dict[str, Any]
    """Of the token of this request; empty where there is no key."""

    @property
    def is_form(self) -> bool:
        return (self.headers.get("Content-Type") or "").startswith("multipart/form-data")

    @property
    def is_bound(self) -> bool:
        return not self.claims.keys().isdisjoint({"htm", "htu"})

    def check_token(self, session: Session, path: str, query: str) -> None:
        """Refuse what the session's key did not sign for this request."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token or " " in token:
            raise RefusedInside(401, "Missing Authorization header", "TOKEN_MISSING")
        self.claims = self.verified(session, token)
        if "content_sha256" in self.claims:
            # Otherwise whoever sees a form go by has a token that is bound to nothing.
            invalid("the signature of a form is not a token")
        if self.is_bound:
            self.check_bound(session, inside_of(path, query))
        elif session.strict:
            invalid("the session is strict: sign jti, htm, htu, sid and body_sha256")
        if "jti" in self.claims:
            with self.state.lock:
                if self.claims["jti"] in session.used:
                    invalid("token was used before")
                session.used.add(self.claims["jti"])
        self.check_body()
        self.check_shape()

    def verified(self, session: Session, token: str) -> dict[str, Any]:
        assert session.key is not None
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                session.key,
                algorithms=["RS256"],
                leeway=LEEWAY,
                options={"require": ["exp"]},
            )
        except jwt.PyJWTError as error:
            invalid(str(error))
        expect(jwt.get_unverified_header(token) == {"alg": "RS256", "typ": "JWT"}, "JWT header")
        expect(claims.get("iss") == "sdk-client", "iss")
        return claims

    def check_bound(self, session: Session, inside: str) -> None:
        claims = self.claims
        if not isinstance(claims.get("iat"), int):
            invalid("iat is missing")
        if claims["exp"] - claims["iat"] > LIFE:
            invalid("token is valid for too long")
        if claims.get("sid") != session.id:
            invalid("token is for another session")
        if not isinstance(claims.get("jti"), str) or not claims["jti"]:
            invalid("jti is missing")
        if claims.get("htm") != self.command:
            invalid("token is for another method")
        if claims.get("htu") != inside:
            invalid("token is for another path")

    def check_body(self) -> None:
        signed = self.claims.get("body_sha256")
        if signed is None:
            # Whatever it is called: only a form can be signed in another way.
            if self.is_bound and self.command == "POST" and not self.is_form:
                invalid("body_sha256 is missing")
        elif signed != hashlib.sha256(self.seen.body).hexdigest():
            invalid("body_sha256 does not match the body")

    def check_shape(self) -> None:
        """No claim more or less than the contract has."""
        wanted = {"iss", "iat", "exp"}
        if self.is_bound:
            wanted |= {"jti", "sid", "htm", "htu"}
        if self.headers.get("Content-Type") == "application/json":
            wanted |= {"body_sha256"}
        expect(set(self.claims) == wanted, "claims")
        expect(self.claims["exp"] == self.claims["iat"] + LIFE, "exp")

    def check_form(
        self, session: Session, path: str, mode: str, content: bytes, signature: str | None
    ) -> None:
        """Refuse a form that does not end as its token demands."""
        if not self.is_bound or "body_sha256" in self.claims:
            expect(signature is None, "signature without a bound token")
            return
        if signature is None:
            invalid('the form has no field "signature"')
        signed = self.verified(session, signature)
        if signed.get("jti") != self.claims["jti"]:
            invalid("signature of the form is for another request")
        if (signed.get("path"), signed.get("mode")) != (path, mode):
            invalid("signature of the form is for another path or mode")
        if signed.get("content_sha256") != hashlib.sha256(content).hexdigest():
            invalid("content_sha256 does not match the file")
        wanted = {"iss", "iat", "exp", "jti", "path", "mode", "content_sha256"}
        expect(set(signed) == wanted, "claims of the form")
        expect(signed["exp"] == signed["iat"] + LIFE, "exp of the form")


def invalid(why: str) -> NoReturn:
    raise RefusedInside(
        401, "Invalid token", "TOKEN_INVALID", detail=f"JWT verification failed: {why}"
    )
