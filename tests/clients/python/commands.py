"""The commands of both documents, through a shell."""

import json
import os
import re
import subprocess

import requests

from documents import SERVER, TOKEN, blocks

user = requests.post(
    f"{SERVER}/v1/files/generate-token?user_id=test-user", headers={"X-Service-Token": TOKEN}
).json()["token"]
stored = requests.put(
    f"{SERVER}/v1/files/content?filename=cell.png&user_id=test-user",
    data=b"pixels",
    headers={"X-Service-Token": TOKEN},
).json()


def shell(command: str) -> str:
    done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, check=True)
    return done.stdout


(curls,) = (block for block in blocks("upload-server.md", "bash") if "curl" in block)
curls = curls.replace("your-service-token", TOKEN).replace("your-generated-jwt", user)
out = shell(curls)
answers, rest = [], out
decoder = json.JSONDecoder()
while rest.strip():
    answer, end = decoder.raw_decode(rest.lstrip())
    answers.append(answer)
    rest = rest.lstrip()[end:]
assert [sorted(answer) for answer in answers] == [
    ["files", "total_count", "total_size"],
    ["expires_in", "token", "token_type", "user_id"],
    ["files", "total_count", "total_size"],
], answers

# `python scripts/generate_service_token.py NAME` is `streamlined token generate NAME` here.
(generate,) = (b for b in blocks("service-tokens.md", "bash") if "generate_service_token" in b)
commands = re.findall(r"^python scripts/generate_service_token.py (.*)$", generate, re.M)
assert len(commands) == 2, generate
environment = f"STREAMLINED_DATA_DIR={os.environ['DATA_DIR']}"
for arguments in commands:
    out = shell(f"{environment} {os.environ['STREAMLINED']} token generate {arguments}")
token = re.search(r"^Token:\n(\S+)$", out, re.M).group(1)
assert f"  Authorization: Bearer {token}" in out

(download,) = (block for block in blocks("service-tokens.md", "bash") if "api/images" in block)
download = download.replace("http://localhost:8000", SERVER)
download = download.replace("<service_token>", token).replace("{image_id}", stored["id"])
assert shell(download.replace("curl ", "curl -sS ")) == "pixels"
print("all held")
