"""Reads archives of batch downloads with Python's zipfile and Info-ZIP's unzip."""

import hashlib
import io
import os
import subprocess
import tempfile
import zipfile

import requests

SERVER, TOKEN = os.environ["SERVER"], os.environ["TOKEN"]
service = requests.Session()
service.headers["X-Service-Token"] = TOKEN
files = [
    ("plan.pdf", "a", 200_000), ("plan.pdf", "a", 10), ("Plan.PDF", "a/b", 70_000), ("leer", "a", 0),
    ("日本語 ü.txt", "a/ñ", 5000), ("c:evil|name?.txt", "a", 3),
]
stored = []
for name, folder, size in files:
    content = hashlib.shake_256(f"{name}{size}".encode()).digest(size)
    where = {"user_id": "zip", "folder": folder, "filename": name}
    answer = service.put(f"{SERVER}/v1/files/content", params=where, data=content)
    answer.raise_for_status()
    stored.append((answer.json()["key"], content))


def fetch(batch):
    minted = service.post(f"{SERVER}/v1/files/batch-download", json=batch)
    minted.raise_for_status()
    url = f"{SERVER}/v1/files/batch-download/{minted.json()['token']}"
    answer = requests.get(url)
    answer.raise_for_status()
    assert int(answer.headers["content-length"]) == len(answer.content)
    with tempfile.TemporaryDirectory() as place:
        path = os.path.join(place, "batch.zip")
        with open(path, "wb") as archive:
            archive.write(answer.content)
        tested = subprocess.run(["unzip", "-t", path], capture_output=True, text=True)
        assert tested.returncode == 0, tested.stdout + tested.stderr
        # With LANG unset, unzip may not show every name; it is enough that it finds no errors.
        assert "No errors detected" in tested.stdout
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    assert not any(info.flag_bits & 8 for info in archive.infolist())
    return {info.filename: archive.read(info) for info in archive.infolist()}


contents = [content for _, content in stored]
names = ["plan.pdf", "plan (2).pdf", "Plan (3).PDF", "leer", "日本語 ü.txt", "c_evil_name_.txt"]
assert fetch({"keys": [key for key, _ in stored]}) == dict(zip(names, contents))
folder = fetch({"folder": "a", "user_id": "zip"})
names = ["plan (2).pdf", "plan.pdf", "b/Plan.PDF", "leer", "ñ/日本語 ü.txt", "c_evil_name_.txt"]
assert folder == dict(zip(names, contents)), folder.keys()
print("all held")
