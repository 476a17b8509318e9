"""What the guide says of nginx: which tokens it lets through at its defaults, and with the lines that the guide shows."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dcaf import current_session
from dcaf.asgi import HeaderCarrier
from dcaf.testing import serving
from tests.asgi.wire import mounted
from tests.conftest import program

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "carriers.md"
START_S = 10.0
CONF = """
daemon off; pid nginx.pid; error_log stderr crit; events {{}}
http {{
  access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  {extra}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {url}; }} }}
}}
"""


async def store(request: Any) -> PlainTextResponse:
    current_session()["text"] = "x" * int(request.query_params["n"])
    return PlainTextResponse("ok")


def service(limit_bytes: int) -> Any:
    routes = [Route("/", store)]
    return mounted(Starlette(routes=routes), carriers=(HeaderCarrier(limit_bytes=limit_bytes),))


def shown() -> str:
    """The lines of the guide."""
    found = re.search(r"```text\n(proxy_buffer_size.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@contextmanager
def behind(url: str, folder: Path, extra: str) -> Iterator[int]:
    """nginx in front of a service; its port."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    (folder / "nginx.conf").write_text(CONF.format(extra=extra, port=port, url=url))
    with subprocess.Popen([program("nginx", Path("/usr/sbin/nginx")), "-p", str(folder), "-c", "nginx.conf"]) as process:
        end = time.monotonic() + START_S
        try:
            while time.monotonic() < end:
                with suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()


def status_of(port: int, length: int) -> int:
    """The status of an answer whose state is about that long."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", f"/?n={length}")
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(("extra", "statuses"), [("", [200, 200, 502, 502]), (shown(), [200, 200, 200, 200])])
def test_nginx_lets_through_what_the_guide_says(extra: str, statuses: list[int], tmp_path: Path) -> None:
    lengths = [100, 2_600, 3_000, 5_500]  # tokens of about 0.4, 3.7, 4.3 and 7.6 KB
    with serving(service(8_192)) as url, behind(url, tmp_path, extra) as port:
        assert [status_of(port, length) for length in lengths] == statuses
