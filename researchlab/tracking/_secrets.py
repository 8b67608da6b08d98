"""Does this file look like a secret, which must not leave with a patch?"""

from __future__ import annotations

import re

# By name: what tools keep passwords and tokens in. Templates of such files are meant to be shared.
_NAME = re.compile(
    rb"""(?xi)
    \.env(rc|\.(?!example$|sample$|template$|dist$|defaults?$).+)?
    | [._]netrc | \.pypirc | \.pgpass | \.git-credentials | \.htpasswd
    | id_(rsa|dsa|ecdsa|ed25519)(_sk)?
    | .+\.(p12|pfx|jks|keystore|kdbx)
    """
)
# By content: a private key, alone or in the JSON file of a service account. Code that mentions one does not match.
_CONTENT = re.compile(rb'\s*-----BEGIN [A-Z ]*PRIVATE KEY-----|\s*\{.*"private_key"\s*:\s*"-----BEGIN ', re.DOTALL)


def looks_like_secret(path: bytes, data: bytes | None) -> bool:
    """Return whether a file should stay out of what is stored.

    Args:
        path: Its path; the last part counts.
        data: Its bytes, or None where it is too large to be a key.
    """
    named = _NAME.fullmatch(path.rpartition(b"/")[2]) is not None
    return named or (data is not None and _CONTENT.match(data) is not None)
