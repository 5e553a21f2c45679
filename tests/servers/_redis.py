"""Redis behind TLS. The wheels are built without it, Debian's package with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, final

from ._certificates import Certificates
from ._server import Server, program


@final
class RedisTLS(Server):
    """Redis that speaks nothing but TLS. `clients` says whether they must show a certificate."""

    label = "Redis with TLS"

    def __init__(
        self, certificates: Certificates, *, clients: Literal["no", "optional", "yes"] = "optional"
    ) -> None:
        self._binary = program(self.label, "redis-server")
        self._certificates = certificates
        self._clients = clients
        super().__init__()

    def command(self) -> Sequence[str | Path]:
        certificates = self._certificates
        # fmt: off
        return [
            self._binary,
            "--bind", self.host,
            "--port", "0",
            "--tls-port", str(self.port),
            "--tls-cert-file", certificates.server_cert,
            "--tls-key-file", certificates.server_key,
            "--tls-ca-cert-file", certificates.ca_file,
            "--tls-auth-clients", self._clients,
            "--dir", self.folder,
            "--save", "",
        ]
        # fmt: on

    def is_ready(self) -> bool:
        context = self._certificates.client_context(with_certificate=True)
        return self.ask(b"PING\r\n", context=context) == b"+PONG\r\n"
