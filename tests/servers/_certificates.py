"""A certificate authority for one test run, and contexts for both sides of a handshake."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import final

import trustme


@final
class Certificates:
    """An authority, one server and one client certificate from it, as objects and as files.

    The server's certificate is good for `localhost`, `127.0.0.1` and `::1`. Nothing here is
    trusted by the machine, so a context that was not made here must refuse it.
    """

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.server = self.ca.issue_cert("localhost", "127.0.0.1", "::1")
        self.client = self.ca.issue_cert("client@conpool.test", common_name="client")
        self.ca_file = self._write(folder / "ca.pem", self.ca.cert_pem.bytes())
        self.server_cert = self._write_chain(folder / "server.pem", self.server)
        self.server_key = self._write(folder / "server.key", self.server.private_key_pem.bytes())
        self.client_cert = self._write_chain(folder / "client.pem", self.client)
        self.client_key = self._write(folder / "client.key", self.client.private_key_pem.bytes())

    def server_context(
        self,
        cert: trustme.LeafCert | None = None,
        *,
        alpn: Iterable[str] = (),
        require_client: bool = False,
    ) -> ssl.SSLContext:
        """A server's context with `cert` (default: the one for localhost)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Before 3.11.4 a client that is gone without a goodbye would look as if it had said one.
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        (cert or self.server).configure_cert(context)
        if protocols := list(alpn):
            context.set_alpn_protocols(protocols)
        if require_client:
            self.ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(
        self, *, alpn: Iterable[str] = (), with_certificate: bool = False
    ) -> ssl.SSLContext:
        """A client's context that trusts this authority and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        if protocols := list(alpn):
            context.set_alpn_protocols(protocols)
        if with_certificate:
            self.client.configure_cert(context)
        return context

    def _write_chain(self, path: Path, leaf: trustme.LeafCert) -> Path:
        return self._write(path, b"".join(pem.bytes() for pem in leaf.cert_chain_pems))

    @staticmethod
    def _write(path: Path, content: bytes) -> Path:
        path.write_bytes(content)
        path.chmod(0o644)  # servers may run as another user; none of this is a secret
        return path
