"""tuspy uploads, is interrupted, and resumes from what the server has."""

import hashlib
import io
import os
import socket
import urllib.parse

import requests
from tusclient import client, exceptions

SERVER, TOKEN = os.environ["SERVER"], os.environ["TOKEN"]
service = {"X-Service-Token": TOKEN}
tus = client.TusClient(f"{SERVER}/v1/tus/", headers=service)
content = hashlib.shake_256(b"content").digest(3_000_000)
named = {"filename": "häuser.bin", "folder": "d", "user_id": "u", "note": "x"}


def uploader(**options):
    return tus.uploader(file_stream=io.BytesIO(content), metadata=named, **options)


def check(url):
    head = requests.head(url, headers={**service, "Tus-Resumable": "1.0.0"})
    assert head.headers["Upload-Offset"] == str(len(content)), head.headers
    key = head.headers["Upload-Key"]
    assert urllib.parse.unquote(key).endswith("_häuser.bin"), key
    got = requests.get(f"{SERVER}/v1/files/content/{key}", headers=service)
    assert got.content == content
    meta = requests.get(f"{SERVER}/v1/files/metadata/{key}", headers=service).json()
    assert (meta["folder"], meta["meta"]) == ("d", {"note": "x"}), meta


# Everything in one request, and in pieces with a checksum.
for options in [{}, {"chunk_size": 700_000, "upload_checksum": True}]:
    whole = uploader(**options)
    whole.upload()
    check(whole.url)

# The upload stops after two pieces; another client resumes it with the URL alone.
first = uploader(chunk_size=500_000)
first.upload(stop_at=1_000_000)
second = tus.uploader(file_stream=io.BytesIO(content), url=first.url, chunk_size=800_000)
assert second.offset == 1_000_000, second.offset
second.upload()
check(first.url)

# The connection is cut in the middle of a piece: bytes that came before are not sent again.
cut = uploader(chunk_size=500_000)
cut.upload(stop_at=500_000)
address = urllib.parse.urlsplit(SERVER)
with socket.create_connection((address.hostname, address.port)) as wire:
    head = (f"PATCH {urllib.parse.urlsplit(cut.url).path} HTTP/1.1\r\nHost: x\r\n"
            f"X-Service-Token: {TOKEN}\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 500000\r\n"
            "Content-Type: application/offset+octet-stream\r\nContent-Length: 2500000\r\n"
            "Expect: 100-continue\r\n\r\n")
    wire.sendall(head.encode())
    assert wire.recv(25).startswith(b"HTTP/1.1 100")
    wire.sendall(content[500_000:1_700_000])
    # A client with a wrong offset is refused, and another one resumes at the current offset.
stale = tus.uploader(file_stream=io.BytesIO(content), url=cut.url)
# The offset may be asked for before the daemon has read any of these bytes.
assert 500_000 <= stale.offset <= 1_700_000, stale.offset
stale.offset -= 1
try:
    stale.upload()
    raise AssertionError("a wrong offset is taken")
except exceptions.TusCommunicationError as error:
    assert error.status_code == 409, error.status_code
tus.uploader(file_stream=io.BytesIO(content), url=cut.url).upload()
check(cut.url)
print("all held")
