"""A network of one's own: scripts that break the loopback or use up ports where only they do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest


def run_in_namespace(script: str) -> Any:
    """Run a Python script in a new network namespace, with a loopback; return the JSON it prints.

    Skips the test where that is not possible. Root in the namespace needs not be root outside.
    """
    if sys.platform != "linux":
        pytest.skip("network namespaces are Linux's")
    unshare, ip = shutil.which("unshare"), shutil.which("ip")
    if unshare is None or ip is None:
        pytest.skip("needs the programs unshare and ip")
    inside = [unshare, "--net", "--map-root-user"]
    allowed = subprocess.run(
        [*inside, ip, "link", "set", "lo", "up"], capture_output=True, check=False
    )
    if allowed.returncode != 0:
        pytest.skip(f"network namespaces are not allowed here: {allowed.stderr.decode()}")
    setup = f"import subprocess; subprocess.run([{ip!r}, 'link', 'set', 'lo', 'up'], check=True)"
    done = subprocess.run(
        [*inside, sys.executable, "-c", f"{setup}\n{script}"],
        capture_output=True,
        check=False,
        timeout=40,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    return json.loads(done.stdout)
