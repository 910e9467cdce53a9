"""Passwords and keys that an address may hold: hidden in everything that a person reads."""

from __future__ import annotations

import re

SECRET_MASK = "***"
_SECRETS = r"[\w.-]*(?:passw(?:or)?d|pwd|passphrase|token|secret|credential|signature|key)[\w.-]*"
_USER = re.compile(r"(\b[A-Za-z][\w+.-]*://)(?!/)\S*@")
_OPTION = re.compile(rf"([?&;]{_SECRETS}=)[^&;\s'\"]+", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """A text whose addresses have lost what stands before an `@`, and the values of secret options.

    An address begins with `kind://` and ends with a blank. A password may hold any other sign,
    since everything up to the last `@` is taken for it; the path of a file is left as it is.
    """
    return _OPTION.sub(rf"\1{SECRET_MASK}", _USER.sub(rf"\1{SECRET_MASK}@", text))


def shown(address: str) -> str:
    """An address as it may be shown: the same, also where it holds blanks or names no kind."""
    kind, slashes, rest = address.rpartition("://") if "://" in address else ("", "", address)
    if "@" in rest and not rest.startswith("/"):
        address = f"{kind}{slashes}{SECRET_MASK}@{rest.rpartition('@')[2]}"
    return without_secrets(address)
