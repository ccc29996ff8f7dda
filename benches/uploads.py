#!/usr/bin/env python3
"""What it costs to complete uploads, to keep them open, to take many parts, and to take each dialect.

    cargo build --release && benches/uploads.py [GIB of the largest, GIB of a dialect's]

Starts target/release/streamlined on temporary directories below target/, which it deletes. For each
size, parts are sent in order, in a window of four, and backwards. Of an upload of 10,000 parts it is
printed how long a part takes behind how many others. The throughput of each dialect is printed beside
that of a plain sequential write of as many bytes with an fsync, in the same run.
"""

import base64
import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LARGEST = float(sys.argv[1] if len(sys.argv) > 1 else 10)
DIALECT = int(float(sys.argv[2] if len(sys.argv) > 2 else 4) * (1 << 30))
TOKEN = "a-token-for-the-uploads-benchmark"
MIB = 1 << 20
PIECE = os.urandom(8 * MIB)


class Daemon:
    def __init__(self, data: pathlib.Path):
        self.process = subprocess.Popen(
            [ROOT / "target/release/streamlined", "serve", "--data-dir", data, "--listen", "127.0.0.1:0"],
            env={
                **os.environ,
                "STREAMLINED_SERVICE_TOKEN": TOKEN,
                "STREAMLINED_LOG": "warn",
                "STREAMLINED_FILE_BYTES_MAX": "64GiB",
            },
            stdout=subprocess.DEVNULL,
        )
        while not (data / "listen").exists():
            time.sleep(0.05)
        self.host = (data / "listen").read_text().strip()

    def connection(self):
        return http.client.HTTPConnection(self.host)

    def call(self, connection, method, path, body=None, headers=None):
        # The head and the body in two writes: the body is not copied.
        connection.putrequest(method, path)
        headers = {"X-Service-Token": TOKEN, **(headers or {})}
        if body is not None:
            headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        if body is not None:
            connection.send(body)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status in (200, 201, 204), text
        return answer, text

    def init(self, connection, size):
        body = {"mode": "chunked", "files": [{"name": "f", "size": size}], "meta": {"user_id": "u"}}
        opened = json.loads(self.call(connection, "POST", "/v1/files/init", json.dumps(body).encode())[1])
        return opened["uploadId"], opened["partSize"]

    def part(self, connection, upload, number, size, part_size):
        left = min(part_size, size - (number - 1) * part_size)
        body = memoryview(PIECE)[:left] if left <= len(PIECE) else (PIECE * (left // len(PIECE) + 1))[:left]
        self.call(connection, "PUT", f"/v1/files/{upload}/parts/{number}", body)

    def complete(self, upload):
        began = time.monotonic()
        # A new connection, because one that idled during a large upload is closed by now.
        self.call(self.connection(), "POST", "/v1/files/complete", json.dumps({"uploadId": upload}).encode())
        return time.monotonic() - began

    def memory(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


@contextlib.contextmanager
def daemon():
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as directory:
        running = Daemon(pathlib.Path(directory) / "data")
        try:
            yield running
        finally:
            running.process.terminate()
            running.process.wait()


def numbers(size, part_size):
    return range(1, -(-size // part_size) + 1)


def send(running, upload, size, part_size, order):
    if order == "window":
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            lines = [running.connection() for _ in range(4)]
            one = lambda number: running.part(lines[number % 4], upload, number, size, part_size)
            # Each connection sends one part at a time.
            each = lambda line: [one(n) for n in numbers(size, part_size) if n % 4 == line]
            list(pool.map(each, range(4)))
        return
    line = running.connection()
    ordered = numbers(size, part_size)
    for number in ordered if order == "in order" else reversed(ordered):
        running.part(line, upload, number, size, part_size)


def completions():
    print("seconds to complete, by size and order of the parts (in brackets: MB/s that they came in)")
    for mib in (1, 16, 256, 1024, 4096, 10240):
        if mib > LARGEST * 1024:
            continue
        size, row = mib * MIB, f"{mib:6} MiB"
        for order in ("in order", "window", "backwards"):
            with daemon() as running:
                line = running.connection()
                upload, part_size = running.init(line, size)
                began = time.monotonic()
                send(running, upload, size, part_size, order)
                rate = size / (time.monotonic() - began) / 1e6
                row += f"  {order} {running.complete(upload):7.4f} ({rate:4.0f})"
        print(row, flush=True)


def open_uploads():
    with daemon() as running:
        line = running.connection()
        before = running.memory()
        for _ in range(1000):
            upload, _ = running.init(line, 64 * MIB)
            running.call(line, "PUT", f"/v1/files/{upload}/parts/1", memoryview(PIECE)[: 256 << 10])
        grown = running.memory() - before
        print(f"1,000 open uploads with 256 KiB each: {grown / 1024:.1f} MiB, from {before / 1024:.1f} MiB")


def many_parts():
    print("milliseconds for a part of 128 KiB, one at a time, by how many are there (medians of 200)")
    each, last = 128 << 10, 10_000
    with daemon() as running:
        line, took = running.connection(), []
        upload, _ = running.init(line, last * each)
        for number in range(1, last + 1):
            began = time.monotonic()
            running.part(line, upload, number, last * each, each)
            took.append(time.monotonic() - began)
        row = (f"{at:6} {statistics.median(took[at : at + 200]) * 1e3:5.2f}" for at in (0, 1000, 5000, 9800))
        print("  ".join(row), f" complete {running.complete(upload):.3f} s", flush=True)


def plain(size):
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as directory:
        began = time.monotonic()
        with open(pathlib.Path(directory) / "plain", "wb", buffering=0) as file:
            for _ in range(size // len(PIECE)):
                file.write(PIECE)
            os.fsync(file.fileno())
        return size / (time.monotonic() - began) / 1e6


def raw(running, line):
    upload, part_size = running.init(line, DIALECT)
    send(running, upload, DIALECT, part_size, "in order")
    running.complete(upload)


def encoded(running, line):
    upload, part_size = running.init(line, DIALECT)
    content = base64.b64encode(PIECE)
    for number in range(1, DIALECT // len(PIECE) + 1):
        head = b'{"uploadId":"%s","partNumber":%d,"chunkBase64":"' % (upload.encode(), number)
        running.call(line, "POST", "/v1/files/part", b"".join((head, content, b'"}')))
    running.complete(upload)


def tus(running, line):
    version = {"Tus-Resumable": "1.0.0"}
    created, _ = running.call(
        line, "POST", "/v1/tus?user_id=u", b"", {**version, "Upload-Length": str(DIALECT)}
    )
    location = created.getheader("Location")
    path = location[location.index("/v1/tus/") :]
    for at in range(0, DIALECT, len(PIECE)):
        headers = {"Upload-Offset": str(at), "Content-Type": "application/offset+octet-stream"}
        running.call(line, "PATCH", path, PIECE, {**version, **headers})


def whole(running, line):
    line.putrequest("PUT", "/v1/files/content?user_id=u&filename=f")
    line.putheader("X-Service-Token", TOKEN)
    line.putheader("Content-Length", str(DIALECT))
    line.endheaders()
    for _ in range(DIALECT // len(PIECE)):
        line.send(PIECE)
    answer = line.getresponse()
    assert answer.status == 201, answer.read()


def dialects():
    print(f"MB/s of one upload of {DIALECT / (1 << 30):.0f} GiB, and as a part of a plain write's")
    for name, upload in (("raw parts", raw), ("tus", tus), ("base64", encoded), ("content", whole)):
        before = plain(DIALECT)
        with daemon() as running:
            line = running.connection()
            began = time.monotonic()
            upload(running, line)
            rate = DIALECT / (time.monotonic() - began) / 1e6
        write = (before + plain(DIALECT)) / 2
        print(f"{name:10} {rate:6.0f}  plain {write:6.0f}  {rate / write:4.2f}", flush=True)


completions()
open_uploads()
many_parts()
dialects()
