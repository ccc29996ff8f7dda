#!/usr/bin/env python3
"""Peak memory of the daemon while a large file passes through every path in and out.

    cargo build --release && benches/memory.py [GIB]

Starts target/release/streamlined on a temporary directory below target/. Prints VmHWM, which is
reset before each path.
"""

import base64
import http.client
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZE = int(float(sys.argv[1] if len(sys.argv) > 1 else 2) * (1 << 30)) // 3145728 * 3145728
PIECE = os.urandom(3145728)  # a multiple of three bytes: its base64 needs no padding
TOKEN = "a-token-for-the-memory-benchmark"


def pieces(text: bytes, head: bytes = b"", tail: bytes = b"", times: int = SIZE // len(PIECE)):
    if head:
        yield head
    for _ in range(times):
        yield text
    if tail:
        yield tail


with tempfile.TemporaryDirectory(dir=ROOT / "target") as directory:
    data = pathlib.Path(directory) / "data"
    daemon = subprocess.Popen(
        [ROOT / "target/release/streamlined", "serve", "--data-dir", data, "--listen", "127.0.0.1:0"],
        env={**os.environ, "STREAMLINED_SERVICE_TOKEN": TOKEN, "STREAMLINED_LOG": "warn"},
        stdout=subprocess.DEVNULL,
    )
    while not (data / "listen").exists():
        time.sleep(0.05)
    host = (data / "listen").read_text().strip()

    def call(method: str, path: str, body=None, length=None):
        connection = http.client.HTTPConnection(host)
        headers = {"X-Service-Token": TOKEN}
        if length is not None:
            headers["Content-Length"] = str(length)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        if path.startswith("/v1/files/content/"):
            read = 0
            while chunk := answer.read(1 << 20):
                read += len(chunk)
            assert read == SIZE, read
            return None
        text = answer.read()
        assert answer.status in (200, 201), text
        return json.loads(text)

    def memory(name: str) -> int:
        status = pathlib.Path(f"/proc/{daemon.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name))

    def measured(what: str, run):
        pathlib.Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")
        began = time.monotonic()
        result = run()
        took = time.monotonic() - began
        print(f"{what:28} {memory('VmHWM') / 1024:7.1f} MiB  {SIZE / took / 1e6:7.0f} MB/s")
        return result

    def init() -> str:
        body = {"mode": "chunked", "files": [{"name": "f", "size": SIZE}], "meta": {"user_id": "u"}}
        return call("POST", "/v1/files/init", json.dumps(body))["uploadId"]

    def complete(upload: str):
        return call("POST", "/v1/files/complete", json.dumps({"uploadId": upload}))

    print(f"{SIZE / (1 << 30):.2f} GiB; idle {memory('VmRSS') / 1024:.1f} MiB")
    upload = init()
    encoded = base64.b64encode(PIECE)
    head, tail = b'{"chunkBase64":"', b'","uploadId":"%s","partNumber":1}' % upload.encode()
    length = len(head) + len(encoded) * (SIZE // len(PIECE)) + len(tail)
    measured("one base64 part", lambda: call("POST", "/v1/files/part", pieces(encoded, head, tail), length))
    measured("complete of one part", lambda: complete(upload))
    upload = init()

    def raw_parts():
        per_part = SIZE // len(PIECE) // 8
        left, number = SIZE // len(PIECE), 0
        while left:
            times = min(per_part, left)
            body = pieces(PIECE, times=times)
            call("PUT", f"/v1/files/{upload}/parts/{number}", body, times * len(PIECE))
            left, number = left - times, number + 1

    measured("raw parts", raw_parts)
    done = measured("complete of raw parts", lambda: complete(upload))
    path = "/v1/files/content?user_id=u&filename=g"
    measured("content in one request", lambda: call("PUT", path, pieces(PIECE), SIZE))
    measured("download", lambda: call("GET", f"/v1/files/content/{done['key']}"))
    daemon.send_signal(signal.SIGTERM)
    daemon.wait()
