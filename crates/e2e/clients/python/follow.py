"""Follows streams with one library, and prints what the library shows to its program: one line of JSON each.

    python follow.py LIBRARY [NAME URL TOKEN]...

An empty TOKEN is none. None of these libraries comes back by itself, so `follow` is the loop that a program
needs; the stream named "bare" is followed without it.
"""

import asyncio
import json
import subprocess
import sys
import threading
import time

# Longer than this test may take. A program sets some 40 s: the edge sends a heartbeat every 15 s.
SILENCE_SECONDS = 120

printing = threading.Lock()


def tell(stream, **what):
    line = json.dumps({"stream": stream, "at": int(time.time() * 1000), **what})
    with printing:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class Refused(Exception):
    """The edge said no, and would say so again."""


def check(status):
    if 400 <= status < 500:
        raise Refused(f"status {status}")
    if status != 200:
        raise OSError(f"status {status}")


def follow(events, stream, url, token):
    last, wait_ms = "", 1000
    while True:
        headers = {"Accept": "text/event-stream"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if last:
            headers["Last-Event-ID"] = last
        try:
            for event, data, id, retry in events(stream, url, headers):
                last, wait_ms = id or last, int(retry or wait_ms)
                tell(stream, event=event, data=data, id=id)
                if event == "end":
                    return tell(stream, closed=True)
        except Refused as refused:
            tell(stream, error=str(refused))
            return tell(stream, closed=True)
        except Exception as error:  # whatever a broken connection is to this library
            tell(stream, error=repr(error))
        if stream == "bare":
            return tell(stream, closed=True)
        time.sleep(wait_ms / 1000)


def by_httpx_sse(stream, url, headers):
    import httpx
    import httpx_sse

    timeout = httpx.Timeout(10, read=SILENCE_SECONDS)
    with httpx.Client(timeout=timeout) as client:
        with httpx_sse.connect_sse(client, "GET", url, headers=headers) as source:
            check(source.response.status_code)
            tell(stream, open=source.response.headers.get("content-encoding"))
            for event in source.iter_sse():
                yield event.event, event.data, event.id, event.retry


def by_httpx_sse_without_zstandard(stream, url, headers):
    sys.modules["zstandard"] = None  # as where that package is not installed
    return by_httpx_sse(stream, url, headers)


def by_sseclient(stream, url, headers):
    import requests
    import sseclient

    with requests.get(url, headers=headers, stream=True, timeout=(10, SILENCE_SECONDS)) as response:
        check(response.status_code)
        tell(stream, open=response.headers.get("content-encoding"))
        for event in sseclient.SSEClient(response).events():
            yield event.event, event.data, event.id, event.retry


def by_aiohttp(stream, url, headers):
    loop = asyncio.new_event_loop()
    events = in_aiohttp(stream, url, headers)
    try:
        while True:
            yield loop.run_until_complete(anext(events))
    except StopAsyncIteration:
        return
    finally:
        loop.run_until_complete(events.aclose())
        loop.close()


async def in_aiohttp(stream, url, headers):
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, headers=headers) as response:
        check(response.status)
        tell(stream, open=response.headers.get("content-encoding"))
        parser, rest = Parser(), b""
        # Not by line: the library refuses lines of more than 128 KB.
        async for some in response.content.iter_any():
            *lines, rest = (rest + some).split(b"\n")
            for line in lines:
                if event := parser.take(line.decode()):
                    yield event


def by_curl(stream, url, headers):
    return by_plain_curl(stream, url, headers, "--compressed")


def by_plain_curl(stream, url, headers, *options):
    command = ["curl", "-sSNi", *options, url]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    curl = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        status, coding = 0, None
        for line in curl.stdout:
            name, _, value = line.strip().partition(" ")
            if name.startswith("HTTP/"):
                status = int(value[:3])
            elif name.lower() == "content-encoding:":
                coding = value
            elif not name:
                check(status)
                tell(stream, open=coding)
                break
        parser = Parser()
        for line in curl.stdout:
            if event := parser.take(line.removesuffix("\n")):
                yield event
        if curl.wait() != 0:
            raise OSError(curl.stderr.read())
    finally:
        curl.kill()
        curl.wait()


class Parser:
    """Events of lines, for what knows nothing of them."""

    def __init__(self):
        self.fields = {}

    def take(self, line):
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data" and "data" in self.fields:
                value = self.fields["data"] + "\n" + value
            self.fields[name] = value
            return None
        fields, self.fields = self.fields, {}
        if "data" not in fields:
            return None
        return fields.get("event", "message"), fields["data"], fields.get("id"), fields.get("retry")


LIBRARIES = {
    "httpx-sse": by_httpx_sse,
    "httpx-sse-without-zstandard": by_httpx_sse_without_zstandard,
    "sseclient-py": by_sseclient,
    "aiohttp": by_aiohttp,
    "curl": by_curl,
    "plain-curl": by_plain_curl,
}

events, streams = LIBRARIES[sys.argv[1]], sys.argv[2:]
for name, url, token in zip(streams[::3], streams[1::3], streams[2::3]):
    threading.Thread(target=follow, args=(events, name, url, token)).start()
