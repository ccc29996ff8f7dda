"""Runs the example that checks receipts, on valid receipts and on others."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import requests

from documents import SERVER, TOKEN

EXAMPLE = os.path.join(os.environ["CLIENTS"], "verify_receipt.py")
service = {"X-Service-Token": TOKEN}
content = os.urandom(100_000)
opened = requests.post(
    f"{SERVER}/v1/files/init",
    headers=service,
    json={"mode": "single", "files": [{"name": "r.bin", "size": len(content)}], "meta": {"user_id": "r"}},
).json()
upload = opened["uploadId"]
requests.put(f"{SERVER}/v1/files/{upload}/parts/1", content, headers=service).raise_for_status()
stored = requests.post(
    f"{SERVER}/v1/files/complete", headers=service, json={"uploadId": upload, "receipt": True}
).json()

directory = pathlib.Path(tempfile.mkdtemp())
(directory / "content").write_bytes(content)
(directory / "other").write_bytes(content[1:])
(directory / "jwks.json").write_text(requests.get(f"{SERVER}/.well-known/jwks.json").text)


def check(receipt: str, *more: str) -> subprocess.CompletedProcess:
    (directory / "receipt").write_text(receipt + "\n")
    command = [sys.executable, EXAMPLE, "receipt", "jwks.json", *more]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True)


good = check(stored["receipt"], "content")
assert good.returncode == 0, good.stderr
claims = json.loads(good.stdout)
for claim in ("key", "size", "sha256", "blake3"):
    assert claims[claim] == stored[claim], claims
assert claims["iss"] == "streamlined" and claims["server"] == SERVER, claims
assert check(stored["receipt"], "other").returncode != 0
head, payload, signature = stored["receipt"].split(".")
assert check(".".join([head, payload[:-2] + "AA", signature])).returncode != 0
made = requests.post(f"{SERVER}/v1/files/generate-token?user_id=r", headers=service).json()
assert check(made["token"]).returncode != 0
print("all held")
