"""How is a file that looks like a secret known again, by a digest from which nobody guesses what is in it?

The sha256 of a password file can be tried out a billion times a second. Each try at a sealed digest costs the time and
the memory of one scrypt, and the salt keeps one table of tries from serving for many runs.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from researchlab.tracking.record import SealedRecord

_SALT_BYTES = 16
_COST, _BLOCKS, _PARALLEL = 2**14, 8, 1  # 16 MiB and about 50 ms


def seal(sha256: str) -> SealedRecord:
    """Return the sealed digest of a file.

    Args:
        sha256: The hex digest of its bytes.
    """
    salt = os.urandom(_SALT_BYTES)
    return SealedRecord(salt=salt.hex(), scrypt=_scrypt(sha256, salt))


def is_sealed(sealed: SealedRecord, sha256: str) -> bool:
    """Return whether a sealed digest is that of a file.

    Args:
        sealed: The sealed digest.
        sha256: The hex digest of the file's bytes.
    """
    return hmac.compare_digest(_scrypt(sha256, bytes.fromhex(sealed.salt)), sealed.scrypt)


def _scrypt(sha256: str, salt: bytes) -> str:
    return hashlib.scrypt(bytes.fromhex(sha256), salt=salt, n=_COST, r=_BLOCKS, p=_PARALLEL, dklen=32).hex()
