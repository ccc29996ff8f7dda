"""`/metrics` read by Prometheus' own parser, held to the rules of promlint and to what was done;
the dashboard and the alerts name nothing that is not there."""

import json
import os
import re
import socket
from http.client import HTTPConnection
from pathlib import Path

import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

SERVER, TOKEN = os.environ["SERVER"], os.environ["TOKEN"]
AS_SERVICE = {"X-Service-Token": TOKEN}


class Operator(HTTPConnection):
    """The admin socket."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["DATA_DIR"] + "/admin.sock")


def of_operator():
    operator = Operator("admin")
    operator.request("GET", "/metrics")
    answer = operator.getresponse()
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.read().decode()


def families(text):
    parsed = list(text_string_to_metric_families(text))
    by_name = {family.name: family for family in parsed}
    assert len(by_name) == len(parsed), "a family comes twice"
    return by_name


def value(text, name, **labels):
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return 0


before = of_operator()
content = b"x" * 100_000
put = f"{SERVER}/v1/files/content?user_id=u&filename=f"
key = requests.put(put, data=content, headers=AS_SERVICE).json()["key"]
for _ in range(3):
    assert requests.get(f"{SERVER}/v1/files/content/{key}", headers=AS_SERVICE).content == content
assert requests.get(f"{SERVER}/v1/files/all").status_code == 401
# What a client makes up becomes no label.
for made_up in range(30):
    assert requests.request(f"M{made_up}", f"{SERVER}/made/up/{made_up}").status_code == 401
assert requests.put(put, data=b"y", headers={**AS_SERVICE, "Content-Digest": "sha-256=:AAAA:"}).status_code == 400
after = of_operator()


def more(name, **labels):
    return value(after, name, **labels) - value(before, name, **labels)


requests_total = "streamlined_http_requests_total"
got = {"method": "GET", "route": "/v1/files/content/{key}"}
assert more(requests_total, **got, status="200") == 3
assert more("streamlined_http_request_duration_seconds_count", **got) == 3
assert more(requests_total, method="PUT", route="/v1/files/content", status="201") == 1
assert more(requests_total, method="other", route="none", status="401") == 30
assert more("streamlined_refusals_total", code="unauthenticated") == 31
assert more("streamlined_refusals_total", code="invalid_digest") == 1
assert more("streamlined_http_body_bytes_total", direction="in") >= len(content)
assert more("streamlined_http_body_bytes_total", direction="out") >= 3 * len(content)
assert more("streamlined_sync_duration_seconds_count", store="file") == 1
assert more("streamlined_sync_duration_seconds_count", store="index") >= 1
assert more("streamlined_commit_batch_size_count", store="index") >= 1
assert value(after, "streamlined_transfers_open", direction="in") == 0
assert value(after, "streamlined_queue_waiting", queue="index") == 0
assert value(after, "streamlined_store_writable", store="blobs") == 1
assert 1 << 20 < value(after, "process_resident_memory_bytes") < 1 << 30
assert value(after, "process_open_fds") > 5

found = families(after)
for name, family in found.items():
    assert re.fullmatch(r"(streamlined|process)_[a-z_]+", name), name
    assert family.documentation, name
    assert family.type in ("counter", "gauge", "histogram"), name
    # The parser takes `_total` off the name of a counter.
    assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_info_total")), name
    assert not re.search(r"milli|micro|minutes|hours|kilo|mega|_ms\b|percent", name), name
    assert f"# HELP {name}" in after and f"# TYPE {name}" in after, name
    seen = set()
    for sample in family.samples:
        if family.type == "counter":
            assert sample.name == name + "_total" and sample.value >= 0, sample
        identity = (sample.name, *sorted(sample.labels.items()))
        assert identity not in seen, sample
        seen.add(identity)
        assert all(re.fullmatch(r"[a-z]+", label) for label in sample.labels), sample
    if family.type == "histogram":
        infinite = [s for s in family.samples if s.labels.get("le") == "+Inf"]
        counts = [s for s in family.samples if s.name == name + "_count"]
        assert infinite and [s.value for s in infinite] == [s.value for s in counts], name
    assert len(family.samples) < 3000, f"{name} has {len(family.samples)} samples"
assert len(found) > 35, sorted(found)

# The port has it too, for whom it is configured.
assert requests.get(f"{SERVER}/metrics").status_code == 401
on_port = requests.get(f"{SERVER}/metrics", headers=AS_SERVICE)
assert on_port.status_code == 200
assert set(families(on_port.text)) == set(found)

monitoring = Path(os.environ["SEEDS"]).parents[2] / "docs/monitoring"
alerts = yaml.safe_load((monitoring / "alerts.yml").read_text())
rules = [rule for group in alerts["groups"] for rule in group["rules"]]
dashboard = json.loads((monitoring / "grafana.json").read_text())
shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
# Only shown with TLS.
there = set(found) | {"streamlined_tls_certificate_expiry_timestamp_seconds"}
there |= {name + "_total" for name, family in found.items() if family.type == "counter"}
for name, family in found.items():
    if family.type == "histogram":
        there |= {name + "_bucket", name + "_sum", name + "_count"}
named = set()
for expression in shown + [rule["expr"] for rule in rules]:
    names = set(re.findall(r"\b(?:streamlined|process)_[a-z_]+", expression))
    assert names <= there | {"process"}, names - there
    named |= names
assert len(named) > 25 and len(rules) > 10 and len(shown) > 20
for rule in rules:
    assert rule["annotations"]["summary"] and rule["labels"]["severity"], rule
print("all held")
