"""Downloads with requests, curl and the example that verifies ranges; REDbot's linter checks the
headers."""

import hashlib
import io
import os
import pathlib
import subprocess
import sys
import tempfile

import requests
from httplint import HttpResponseLinter
from httplint.note import levels

SERVER, TOKEN = os.environ["SERVER"], os.environ["TOKEN"]
sys.path.insert(0, os.environ["CLIENTS"])
import verified_range  # noqa: E402

service = requests.Session()
service.headers["X-Service-Token"] = TOKEN


def store(name, content, folder="d"):
    where = {"user_id": "reader", "folder": folder, "filename": name}
    answer = service.put(f"{SERVER}/v1/files/content", params=where, data=content)
    answer.raise_for_status()
    return answer.json()


content = hashlib.shake_256(b"content").digest(3_000_000)
file = store("häuser & co.bin", content)
url = f"{SERVER}/v1/files/content/{requests.utils.quote(file['key'])}"
signed = service.get(f"{SERVER}/v1/files/signed-url", params={"key": file["key"]}).json()["url"]

# curl resumes a download that broke, and takes the file name that the server gives.
with tempfile.TemporaryDirectory() as place:
    broken = pathlib.Path(place, "broken")
    broken.write_bytes(content[:1_234_567])
    subprocess.run(["curl", "-sSf", "-C", "-", "-o", broken, signed], check=True)
    assert broken.read_bytes() == content
    subprocess.run(["curl", "-sSfOJ", signed], check=True, cwd=place)
    assert len(list(pathlib.Path(place).iterdir())) == 2
    several = subprocess.run(["curl", "-sSf", "-r", "0-9,2000000-2000009", signed],
                             check=True, capture_output=True).stdout
    assert content[:10] in several and content[2_000_000:2_000_010] in several

# The example verifies a range, and refuses a proof that was changed.
for first, last in [(0, 0), (1_000_000, 1_010_000), (2_999_999, 2_999_999), (2_990_000, 9_000_000)]:
    proof = requests.get(f"{signed}&proof={first}-{last}").content
    part = verified_range.verified(io.BytesIO(proof), file["blake3"], first, last)
    assert part == content[first:last + 1], (first, last)
    for at in (9, 100, len(proof) - 1):
        changed = bytearray(proof)
        changed[at] ^= 1
        try:
            verified_range.verified(io.BytesIO(changed), file["blake3"], first, last)
        except ValueError:
            continue
        raise AssertionError(f"byte {at} of a proof may be changed")
for nothing in (bytes(8), (5).to_bytes(8, "little")):
    try:
        verified_range.verified(io.BytesIO(nothing), file["blake3"], 5, 9)
    except ValueError:
        continue
    raise AssertionError("a proof of nothing is taken")
command = [sys.executable, verified_range.__file__, url, file["blake3"], "5", "70000"]
told = subprocess.run(command, check=True, capture_output=True,
                      env={**os.environ, "STREAMLINED_TOKEN": TOKEN}).stdout
assert told == content[5:70_001]


# REDbot's linter finds nothing bad in any kind of answer. It takes every 206 for an answer with a
# single range, which has a Content-Range, so answers with several ranges are not given to it.
def lint(method, url, **headers):
    answer = service.request(method, url, headers=headers, stream=True)
    linter = HttpResponseLinter()
    linter.base_uri = url
    linter.is_head_response = method == "HEAD"
    linter.process_response_topline(b"HTTP/1.1", str(answer.status_code).encode(),
                                    answer.reason.encode())
    fields = [(name.encode(), value.encode()) for name, value in answer.raw.headers.items()]
    linter.process_headers(fields)
    if method != "HEAD":
        linter.feed_content(answer.raw.read())
    linter.finish_content(True)
    bad = [note for note in linter.notes if note.level == levels.BAD]
    assert not bad, (method, url, [(note.subject, str(note.summary)) for note in bad])
    return answer


for name in ("a.txt", "p.png", "x.html"):
    key = store(name, b"<p>some text that is of no matter</p>" * 99)["key"]
    link = service.get(f"{SERVER}/v1/files/signed-url", params={"key": key}).json()["url"]
    for target in (f"{SERVER}/v1/files/content/{key}", f"{SERVER}/{key}", link):
        whole = lint("GET", target)
        assert whole.status_code == 200
        lint("HEAD", target)
        etag = whole.headers["etag"]
        assert lint("GET", target, Range="bytes=5-9").status_code == 206
        assert lint("GET", target, **{"If-None-Match": etag}).status_code == 304
        assert lint("GET", target, Range="bytes=999999-").status_code == 416
        assert lint("GET", target, **{"If-Match": '"x"'}).status_code == 412
for path in ("/healthz", "/.well-known/jwks.json", "/v1/files/all?user_id=reader", "/nothing",
             f"/v1/files/metadata/{requests.utils.quote(file['key'])}"):
    lint("GET", SERVER + path)
print("all held")
