"""Checks the status, code and shape of answers about uploads against /openapi.json. Each comes from
a state that schemathesis does not reach."""

import base64

from openapi import SERVER, ask, client

INIT, COMPLETE, UPLOAD = "/v1/files/init", "/v1/files/complete", "/v1/files/{uploadId}"
PART, RAW_PART = "/v1/files/part", UPLOAD + "/parts/{partNumber}"
CONTENT, TUS, TUS_UPLOAD = "/v1/files/content", "/v1/tus", "/v1/tus/{uploadId}"
VERSION = {"Tus-Resumable": "1.0.0"}
BYTES = {**VERSION, "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
SAID = {"Upload-Metadata": "user_id " + base64.b64encode(b"u").decode()}
WRONG = "0" * 64


def init(mode="single", user="u", **file):
    files = [{"name": "f", "size": 3, **file}]
    body = {"mode": mode, "files": files, "meta": {"user_id": user}}
    return ask("post", INIT, 200, body=body).json()["uploadId"]


def tus_upload(headers):
    begun = ask("post", TUS, 201, headers={**VERSION, **SAID, **headers})
    return begun.headers["Location"].rsplit("/", 1)[1]


def encoded(upload, content=b"abc"):
    return {"uploadId": upload, "partNumber": 1, "chunkBase64": base64.b64encode(content).decode()}


# A batch and each of its files, before and after its end.
batch = init("batch")
status = ask("get", UPLOAD, 200, uploadId=batch).json()
of_batch = status["files"][0]["uploadId"]
ask("post", PART, 400, "not_for_a_batch", body=encoded(batch))
ask("put", RAW_PART, 400, "not_for_a_batch", body=b"abc", uploadId=batch, partNumber=1)
ask("put", RAW_PART, 200, body=b"abc", uploadId=of_batch, partNumber=1)
ask("get", UPLOAD, 200, uploadId=of_batch)
ask("post", COMPLETE, 200, body={"uploadId": batch})
ask("get", UPLOAD, 200, uploadId=batch)
ask("get", UPLOAD, 200, uploadId=of_batch)
ask("put", RAW_PART, 409, "upload_completed", body=b"abc", uploadId=of_batch, partNumber=1)

# An upload whose length is not known yet.
growing = tus_upload({"Upload-Defer-Length": "1"})
assert ask("get", UPLOAD, 200, uploadId=growing).json()["size"] is None
listed = ask("get", "/v1/files/uploads", 200, query={"user_id": "u"}).json()["uploads"]
assert growing in [it["uploadId"] for it in listed if it["size"] is None]
ask("patch", TUS_UPLOAD, 204, headers=BYTES, body=b"abc", uploadId=growing)
ask("get", UPLOAD, 200, uploadId=growing)
ask("post", COMPLETE, 200, body={"uploadId": growing})

# More than the user may hold.
client.patch(SERVER + "/v1/admin/users/few", json={"quota": 5}).raise_for_status()
few = init(user="few")
ask("post", PART, 413, "quota_exceeded", body=encoded(few, b"123456"))
ask("put", RAW_PART, 413, "quota_exceeded", body=b"123456", uploadId=few, partNumber=1)
query = {"filename": "f", "user_id": "few"}
ask("put", CONTENT, 413, "quota_exceeded", body=b"123456", query=query)

# Conditions, digests and codings.
query["user_id"] = "u"
for dialect in [{}, {"Upload-Complete": "?0"}, {"Upload-Complete": "?1"}]:
    conditional = {"If-Match": "*", **dialect}
    ask("put", CONTENT, 412, "precondition_failed", conditional, b"abc", query)
    misled = {**query, "folder": ".."}
    ask("put", CONTENT, 400, "invalid_folder", conditional, b"abc", misled)
ask("put", CONTENT, 400, "invalid_digest", {"Content-Digest": "sha-256=x"}, b"abc", query)
ask("put", CONTENT, 400, "encoded_content", {"Content-Encoding": "gzip"}, b"abc", query)
digest = {"Content-Digest": "sha-256=x"}
begin = {**BYTES, **SAID, "Upload-Length": "3", **digest}
ask("post", TUS, 400, "invalid_digest", begin, b"abc")
held = init(sha256=WRONG)
ask("patch", TUS_UPLOAD, 400, "invalid_digest", {**BYTES, **digest}, b"abc", uploadId=held)
ask("patch", TUS_UPLOAD, 400, "sha256_mismatch", BYTES, b"abc", uploadId=held)
ask("post", COMPLETE, 400, "sha256_mismatch", body={"uploadId": held})

# Files that were deleted.
gone = init(size=0)
key = ask("post", COMPLETE, 200, body={"uploadId": gone}).json()["key"]
client.delete(f"{SERVER}/v1/files/{key}").raise_for_status()
ask("post", COMPLETE, 410, "gone", body={"uploadId": gone})
ask("head", TUS_UPLOAD, 410, headers=VERSION, uploadId=gone)
ask("delete", TUS_UPLOAD, 410, "gone", VERSION, uploadId=gone)
ask("get", UPLOAD, 410, "gone", uploadId=gone)
ask("delete", UPLOAD, 410, "gone", uploadId=gone)
print("all held")
