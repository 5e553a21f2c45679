"""Real servers for tests: each is a program on a free loopback port, in a folder of its own.

The fixtures of the same names (`fixtures.py`) start each server once for the whole run;
whoever uses one leaves it running and as it was. A test that stops, kills or freezes a
server, or wants other settings, runs its own:

    with Valkey(timeout=1) as valkey:
        valkey.kill()
        valkey.start()  # on the same port
"""

from __future__ import annotations

from ._certificates import Certificates
from ._haproxy import HAProxy
from ._mariadb import MariaDB
from ._memcached import Memcached
from ._nginx import Nginx
from ._pgbouncer import PgBouncer
from ._ports import LOOPBACK, free_port, free_ports
from ._postgres import Postgres, startup_message
from ._redis import RedisTLS
from ._server import Server, ServerDiedError
from ._valkey import Valkey

__all__ = [
    "LOOPBACK",
    "Certificates",
    "HAProxy",
    "MariaDB",
    "Memcached",
    "Nginx",
    "PgBouncer",
    "Postgres",
    "RedisTLS",
    "Server",
    "ServerDiedError",
    "Valkey",
    "free_port",
    "free_ports",
    "startup_message",
]
