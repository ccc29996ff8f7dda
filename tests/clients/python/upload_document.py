"""Runs every Python block of the first document unchanged, then uses its classes further."""

import base64
import types

import requests

from documents import SERVER, TOKEN, blocks

option_1, option_2, library, integration = blocks("upload-server.md", "python")


def run(code: str, name: str, **given) -> dict:
    space = {"__name__": name, **given}
    exec(compile(code, name, "exec"), space)
    return space


files = run(option_1, "option_1")["files"]
assert files == {"files": [], "total_count": 0, "total_size": 0}, files

space = run(option_2, "option_2")
assert space["response"].status_code == 200
claims = space["auth_client"].verify_token(space["user_jwt"])
assert claims["user_id"] == "user123", claims

# The example under `if __name__ == "__main__"` runs too.
space = run(library, "__main__")
client = space["client"]
session = space["UserSession"](SERVER, space["token_data"]["token"], "frontend-user")

# An empty file needs no part.
opened = session.init_upload("empty.txt", 0, folder="main/pictures")
done = session.complete_upload(opened["uploadId"], "renamed.txt")
assert done["filename"] == "renamed.txt" and done["folder"] == "main/pictures", done

content = bytes(range(256)) * 1000
opened = session.init_upload("ü photo #1.png", len(content), "main/pictures", "image/png")
chunk = base64.encodebytes(content).decode()
part = {"uploadId": opened["uploadId"], "partNumber": 0, "chunkBase64": chunk}
session.session.post(f"{SERVER}/v1/files/part", json=part).raise_for_status()
done = session.complete_upload(opened["uploadId"], "ü photo #1.png", folder="main/pictures")

listed = client.list_user_files("frontend-user", "main/pictures")
assert listed["total_count"] == 2 and listed["files"][0]["key"] == done["key"], listed
assert session.list_my_files("main") == listed
metadata = client.get_file_metadata(done["key"])
assert metadata["size"] == len(content) and metadata["mime"] == "image/png", metadata
got = requests.get(f"{SERVER}/{done['key']}", headers={"X-Service-Token": TOKEN})
assert got.content == content
assert client.delete_file(done["key"]) is True
assert session.list_my_files()["total_count"] == 1
assert client.get_jwks()["keys"][0]["kty"] == "RSA"
assert client.health_check()["status"] == "healthy"

# The web application of the integration example, with stand-ins for the parts of Django.
module = types.ModuleType("your_auth_client")
module.UploadServerClient = space["UploadServerClient"]
import sys

sys.modules["your_auth_client"] = module
settings = types.SimpleNamespace(UPLOAD_SERVICE_TOKEN=TOKEN)
views = run(integration, "views", settings=settings, JsonResponse=lambda data: data)
request = types.SimpleNamespace(user=types.SimpleNamespace(id="frontend-user"))
assert views["user_files_view"](request)["total_count"] == 1
assert views["generate_upload_token"](request)["token_type"] == "Bearer"
print("all held")
