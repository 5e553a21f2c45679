"""Makes certificates for a server on the loopback address."""

from __future__ import annotations

import ssl

import trustme


def make_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a context for a server on 127.0.0.1, and one for clients that trust no other server."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf = authority.issue_cert("127.0.0.1")
    # The annotation of this method names pyOpenSSL, which need not be installed.
    leaf.configure_cert(server)  # pyright: ignore[reportUnknownMemberType]
    client = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode("ascii"))
    return server, client
