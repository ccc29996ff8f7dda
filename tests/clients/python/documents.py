"""Code blocks of the integration documents, with this server and token in place of theirs."""

import os
import re

SERVER = os.environ["SERVER"]
TOKEN = os.environ["TOKEN"]
PUBLIC_TOKEN = "ee6d52ece4fa6c4c8836820d2eb7feeb6c78cbf2e2661ef76c9f5a805fc16340"


def blocks(document: str, language: str) -> list[str]:
    path = os.path.join(os.environ["SEEDS"], document)
    with open(path, encoding="utf-8") as file:
        found = re.findall(rf"```{language}\n(.*?)```", file.read(), re.S)
    assert found, f"no {language} in {document}"
    return [
        block.replace("https://file-server.stream-lineai.com", SERVER).replace(PUBLIC_TOKEN, TOKEN)
        for block in found
    ]
