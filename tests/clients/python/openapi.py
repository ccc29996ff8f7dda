"""Sends requests, and checks requests and answers against /openapi.json."""

import copy
import json
import os

import jsonschema_rs
import requests

SERVER = os.environ["SERVER"]
client = requests.Session()
client.headers["X-Service-Token"] = os.environ["TOKEN"]
description = client.get(SERVER + "/openapi.json").json()
# Here no object may have a member that is not described.
components = copy.deepcopy(description["components"])
for schema in components["schemas"].values():
    if "properties" in schema:
        schema["additionalProperties"] = False
PROBLEM = "application/problem+json"
asked = set()


def check(content, media, value):
    jsonschema_rs.validate({**content[media]["schema"], "components": components}, value)


def ask(method, template, status, code=None, headers=None, body=None, query=None, **names):
    """Sends a request, and holds its answer to what is described; a body is bytes or JSON."""
    operation = description["paths"][template][method]
    if not isinstance(body, (bytes, type(None))):
        check(operation["requestBody"]["content"], "application/json", body)
        body = json.dumps(body)
    answer = client.request(
        method, SERVER + template.format(**names), headers=headers, params=query, data=body,
    )
    told = (method, template, answer.status_code, answer.text)
    assert answer.status_code == status, told
    described = operation["responses"].get(str(status))
    assert described, ("not described", *told)
    asked.add((method, template))
    if method == "head" or "content" not in described:
        assert not answer.content, told
        return answer
    media = answer.headers["Content-Type"]
    assert (media == PROBLEM) == (code is not None), told
    check(described["content"], media, answer.json())
    if code is not None:
        assert answer.json()["code"] == code, told
    return answer
