"""Runs the commands of both documents in a shell."""

import json
import os
import pathlib
import re
import subprocess
import sys

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

(generate,) = (b for b in blocks("service-tokens.md", "bash") if "generate_service_token" in b)
# The lines between the commands are about the environment of another program.
commands = [line for line in generate.splitlines() if line.startswith("python ")]
os.environ["PATH"] = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
os.environ["STREAMLINED_DATA_DIR"] = os.environ["DATA_DIR"]
os.chdir(pathlib.Path(__file__).resolve().parents[3])
out = shell("\n".join(commands))
tokens = re.findall(r"^Token:\n(\S+)$", out, re.M)
assert len(tokens) == 2, out
token = tokens[-1]
assert f"  Authorization: Bearer {token}" in out

(download,) = (block for block in blocks("service-tokens.md", "bash") if "api/images" in block)
download = download.replace("http://localhost:8000", SERVER)
download = download.replace("<service_token>", token).replace("{image_id}", stored["id"])
assert shell(download.replace("curl ", "curl -sS ")) == "pixels"
print("all held")
