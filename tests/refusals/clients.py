"""Clients that post a body which is refused, and what each reads: ``413 body-too-large``, or an error's name."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import aiohttp
import httpx2
import requests

Client: TypeAlias = Callable[[str, bytes, dict[str, str], int], Counter[str]]
"""Posts a body with some headers so many times; counts what it read."""

TIMEOUT_S: Final = 20.0


def by_httpx(url: str, body: bytes, headers: dict[str, str], tries: int) -> Counter[str]:
    """httpx2, a connection a request."""
    found: Counter[str] = Counter()
    for _ in range(tries):
        try:
            answer = httpx2.post(url, content=body, headers=headers, timeout=TIMEOUT_S)
            found[f"{answer.status_code} {_code(answer.text)}"] += 1
        except httpx2.HTTPError as error:
            found[type(error).__name__] += 1
    return found


def by_requests(url: str, body: bytes, headers: dict[str, str], tries: int) -> Counter[str]:
    """requests, which reads nothing before it has sent everything."""
    found: Counter[str] = Counter()
    for _ in range(tries):
        try:
            answer = requests.post(url, data=body, headers=headers, timeout=TIMEOUT_S)
            found[f"{answer.status_code} {_code(answer.text)}"] += 1
        except requests.RequestException as error:
            found[type(error).__name__] += 1
    return found


def by_aiohttp(url: str, body: bytes, headers: dict[str, str], tries: int) -> Counter[str]:
    """aiohttp, which reads while it sends."""

    async def post() -> Counter[str]:
        found: Counter[str] = Counter()
        for _ in range(tries):
            try:
                timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
                async with (
                    aiohttp.ClientSession(timeout=timeout) as session,
                    session.post(url, data=body, headers=headers) as answer,
                ):
                    found[f"{answer.status} {_code(await answer.text())}"] += 1
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                found[type(error).__name__] += 1
        return found

    return asyncio.run(post())


def curl(program: str) -> Client:
    """curl, with what it does before a large body: it asks first (Expect: 100-continue)."""

    def post(url: str, body: bytes, headers: dict[str, str], tries: int) -> Counter[str]:
        found: Counter[str] = Counter()
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(body)
            said = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
            command = [
                program,
                "-s",
                "-m",
                str(int(TIMEOUT_S)),
                "-w",
                "\n%{http_code}",
                *said,
                "--data-binary",
                f"@{file.name}",
                url,
            ]
            for _ in range(tries):
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                text, _, status = done.stdout.rpartition("\n")
                found[f"{status} {_code(text)}" if done.returncode == 0 or text else f"curl {done.returncode}"] += 1
        return found

    return post


def fetch(node: str) -> Client:
    """The fetch of Node.js."""

    def post(url: str, body: bytes, headers: dict[str, str], tries: int) -> Counter[str]:
        script, encoding = Path(__file__).with_name("client.mjs"), headers.get("content-encoding", "identity")
        command = [node, str(script), url, str(len(body) - len(b'{"a":""}')), encoding, str(tries)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S * tries)
        return Counter(done.stdout.splitlines())

    return post


def _code(text: str) -> str:
    found = text.partition('"code":"')[2].partition('"')[0]
    return found or "no problem"
