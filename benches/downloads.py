#!/usr/bin/env python3
"""Downloads against nginx, which serves the same bytes from files with sendfile and asks nobody who
is asking: requests and MB a second, the two alternating in one run.

    benches/downloads.py [SECONDS [ROUNDS]]

Needs nginx and wrk (Debian). Builds the daemon, works in a temporary directory, cleans up.
"""

import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

SECONDS, ROUNDS = int((sys.argv + ["5"])[1]), int((sys.argv + ["5", "3"])[2])
ROOT = pathlib.Path(__file__).resolve().parent.parent
TOKEN = "an-opaque-token-for-benches"
NGINX, OURS = "127.0.0.1:18091", "127.0.0.1:18092"
ROWS = [  # what, bytes of the file, range, connections
    ("4 KiB", 4 << 10, None, 32),
    ("1 MiB", 1 << 20, None, 8),
    ("64 MiB", 64 << 20, None, 2),
    ("1 KiB of 64 MiB", 64 << 20, "bytes=33554000-33555023", 32),
]


def nginx(place):
    config = place / "nginx.conf"
    config.write_text(f"""
        pid {place}/pid; error_log {place}/error; worker_processes auto;
        events {{ worker_connections 1024; }}
        http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
          client_body_temp_path {place}/a; proxy_temp_path {place}/b; fastcgi_temp_path {place}/c;
          uwsgi_temp_path {place}/d; scgi_temp_path {place}/e;
          server {{ listen {NGINX}; root {place}/files; }} }}""")
    return subprocess.Popen(["nginx", "-c", config, "-g", "daemon off;"])


def ours(place):
    subprocess.run(["cargo", "build", "--release", "--locked", "-q"], cwd=ROOT, check=True)
    environment = {**os.environ, "STREAMLINED_SERVICE_TOKEN": TOKEN, "STREAMLINED_LOG": "warn"}
    serve = [ROOT / "target/release/streamlined", "serve", "--data-dir", place / "data", "--listen", OURS]
    return subprocess.Popen(serve, env=environment, stdout=subprocess.DEVNULL)


def store(name, content):
    url = f"http://{OURS}/v1/files/content?user_id=bench&filename={name}"
    request = urllib.request.Request(url, content, {"X-Service-Token": TOKEN}, method="PUT")
    return json.load(urllib.request.urlopen(request))["key"]


def measure(url, byte_range, connections):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "-H", f"X-Service-Token: {TOKEN}"]
    command += ["-H", f"Range: {byte_range}"] if byte_range else []
    told = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in told, told
    requests = float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1])
    rate, unit = re.search(r"Transfer/sec:\s+([\d.]+)([KMG])B", told).groups()
    return requests, float(rate) * {"K": 1 / 1024, "M": 1, "G": 1024}[unit]


def main():
    place = pathlib.Path(tempfile.mkdtemp())
    servers = []
    try:
        (place / "files").mkdir()
        os.chmod(place, 0o755)
        servers = [nginx(place), ours(place)]
        time.sleep(2)
        print(f"{'':16} {'nginx/s':>10} {'ours/s':>10} {'ratio':>6} {'nginx MB/s':>11} {'ours MB/s':>10}")
        for what, size, byte_range, connections in ROWS:
            name, content = what.replace(" ", "_"), os.urandom(size)
            (place / "files" / name).write_bytes(content)
            urls = [f"http://{NGINX}/{name}", f"http://{OURS}/v1/files/content/{store(name, content)}"]
            rounds = [[measure(url, byte_range, connections) for url in urls] for _ in range(ROUNDS)]
            (theirs, their_mb), (own, own_mb) = (
                [statistics.median(figures) for figures in zip(*(r[i] for r in rounds))] for i in (0, 1))
            print(f"{what:16} {theirs:10,.0f} {own:10,.0f} {own / theirs:6.2f} {their_mb:11,.0f} {own_mb:10,.0f}")
    finally:
        for server in servers:
            server.terminate()
            server.wait()
        shutil.rmtree(place)


main()
