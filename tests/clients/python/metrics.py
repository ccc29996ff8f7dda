"""Reads `/metrics` with Prometheus' own parser and checks it against the rules of promlint and
against the requests made. The dashboard and the alerts are valid PromQL and name only metrics that
exist."""

import json
import os
import re
import socket
from http.client import HTTPConnection
from pathlib import Path

import promql_parser
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
# Methods and paths that a client makes up become no labels. (After one more refusal, answers would
# be delayed.)
for made_up in range(18):
    assert requests.request(f"M{made_up}", f"{SERVER}/made/up/{made_up}").status_code == 401
assert requests.put(put, data=b"y", headers={**AS_SERVICE, "Content-Digest": "sha-256=:AAAA:"}).status_code == 400
assert requests.get(f"{SERVER}/healthz", headers={"X-Long": "x" * (100 << 10)}).status_code == 431
after = of_operator()


def more(name, **labels):
    return value(after, name, **labels) - value(before, name, **labels)


requests_total = "streamlined_http_requests_total"
got = {"method": "GET", "route": "/v1/files/content/{key}"}
assert more(requests_total, **got, status="200") == 3
assert more("streamlined_http_request_duration_seconds_count", **got) == 3
assert more(requests_total, method="PUT", route="/v1/files/content", status="201") == 1
assert more(requests_total, method="other", route="none", status="401") == 18
assert more("streamlined_refusals_total", code="unauthenticated") == 19
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

# The port serves /metrics, too, to those whom the configuration allows.
assert requests.get(f"{SERVER}/metrics").status_code == 401
on_port = requests.get(f"{SERVER}/metrics", headers=AS_SERVICE)
assert on_port.status_code == 200
assert set(families(on_port.text)) == set(found)

root = Path(os.environ["SEEDS"]).parents[2]
monitoring = root / "docs/monitoring"
alerts = yaml.safe_load((monitoring / "alerts.yml").read_text())
rules = [rule for group in alerts["groups"] for rule in group["rules"]]
dashboard = json.loads((monitoring / "grafana.json").read_text())
targets = [target for panel in dashboard["panels"] for target in panel["targets"]]

# The labels of each name. Prometheus adds `instance` and `job`, and the metric `up`.
added = {"instance", "job"}
labels = {"up": added}
for name, family in found.items():
    for suffix in {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""]):
        labels[name + suffix] = set(added)
    for sample in family.samples:
        labels[sample.name] |= set(sample.labels)
# Metrics that are shown only with TLS, and labels of events that have not happened here.
labels["streamlined_tls_certificate_expiry_timestamp_seconds"] = added
for name, more_labels in {
    "streamlined_tls_handshakes_total": {"outcome"},
}.items():
    assert labels[name] == added, f"{name} can be seen, so it need not be told"
    labels[name] = added | more_labels

described = requests.get(f"{SERVER}/openapi.json").json()["components"]["schemas"]["Problem"]
row = re.search("^\\| which limit is met \\|.*$", (monitoring / "README.md").read_text(), re.M)[0]
values = {
    "code": set(described["properties"]["code"]["enum"]),
    "limit": set(re.findall("`([a-z_]+)`", row)) - {"streamlined_limits_hit_total", "header_timeout"},
}
source = "".join(path.read_text() for path in (root / "src/http").rglob("*.rs"))
counted = set(re.findall(r'LIMITS\s*\.of\("([a-z_]+)"\)', source))
assert len(counted) > 5 and counted <= values["limit"], counted - values["limit"]
assert all(f'"{limit}"' in source for limit in values["limit"]), values["limit"]


def names_of(expression):
    """The metrics in a query. Checks that it parses and uses only existing labels and values."""
    query = promql_parser.parse(expression.replace("$__rate_interval", "5m"))
    kept, names = [], set()

    def look(node):
        if isinstance(node, promql_parser.VectorSelector):
            names.add(node.name)
            assert node.name in labels, f"{node.name} is not shown: {expression}"
            for matcher in node.matchers.matchers:
                assert matcher.name in labels[node.name], f"{node.name} by {matcher.name}"
                known = values.get(matcher.name)
                assert known is None or set(matcher.value.split("|")) <= known, matcher
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            kept.extend(node.modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier and node.modifier.matching:
            kept.extend(node.modifier.matching.labels)

    promql_parser.walk(query, look)
    told = set.union(*(labels[name] for name in names))
    assert set(kept) <= told, f"{expression} keeps {set(kept) - told}"
    return names, set(kept) or told


named = set()
for rule in rules:
    names, told = names_of(rule["expr"])
    text = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.([a-z]+)", text)) <= told, rule
    named |= names
for target in targets:
    names, told = names_of(target["expr"])
    assert set(re.findall(r"{{([a-z]+)}}", target.get("legendFormat", ""))) <= told, target
    named |= names
for variable in dashboard["templating"]["list"]:
    if variable["type"] == "query":
        name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
        assert label in labels[name], variable
        named.add(name)
assert len(named) > 25 and len(rules) > 10 and len(targets) > 20
for rule in rules:
    assert rule["annotations"]["summary"] and rule["labels"]["severity"], rule
print("all held")
