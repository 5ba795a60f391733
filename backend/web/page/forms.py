"""Forms: they must come from a page of ours, and the answer names who sent them.

A page of another site can make a browser post a form with the user's password. It cannot read our pages, so it does not
have the token that our forms carry. `origins` refuses it a second time by its Origin header.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import b64decode
from urllib.parse import parse_qsl

from fastapi import Request

from backend.errors import ContentTypeError, ForbiddenError, TooLargeError
from backend.web.page.view import Form

TOKEN_FIELD = "token"  # noqa: S105  the name of a field
MOST_BYTES = 256 * 1024  # a lasso names up to 20,000 tasks
_KIND = "application/x-www-form-urlencoded"


def token(secret: str) -> str:
    """Return the token that our forms carry; `secret` is this installation's."""
    return hmac.new(secret.encode(), b"forms of the page", hashlib.sha256).hexdigest()


async def read(request: Request, secret: str) -> Form:
    """Return a posted form. Raises ForbiddenError without our token, ContentTypeError, TooLargeError."""
    where = request.url.path
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _KIND:
        raise ContentTypeError("this is not a form", where=where, fix=f"send Content-Type: {_KIND}")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise TooLargeError(f"the form has more than {MOST_BYTES} bytes", where=where, fix="choose fewer tasks")
    fields = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=1000))
    if not hmac.compare_digest(fields.pop(TOKEN_FIELD, "").encode(), token(secret).encode()):
        fix = "open the page of the backend, and press the button there"
        raise ForbiddenError("the form does not come from a page of this backend", where=where, fix=fix)
    return Form(fields, who(request))


def who(request: Request) -> str:
    """Return who sent a request: the user name of Basic auth, else the address of the browser."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            return b64decode(encoded, validate=True).decode("utf-8", "replace").partition(":")[0][:80]
        except binascii.Error:
            pass  # without a password on the server nobody checked this header
    return request.client.host if request.client else "somebody"
