#!/usr/bin/env python3
"""Checks a receipt of a stored file offline: verify_receipt.py RECEIPT JWKS.json [CONTENT]. Needs PyJWT[crypto]."""

import hashlib
import json
import sys

import jwt

receipt = open(sys.argv[1]).read().strip()
header = jwt.get_unverified_header(receipt)
if header["typ"] != "streamlined-receipt+jwt":
    sys.exit("not a receipt")
key = jwt.PyJWKSet.from_dict(json.load(open(sys.argv[2])))[header["kid"]]
claims = jwt.decode(receipt, key, algorithms=["RS256"], audience="urn:streamlined:receipt")
if len(sys.argv) > 3:
    content = open(sys.argv[3], "rb")
    if hashlib.file_digest(content, "sha256").hexdigest() != claims["sha256"]:
        sys.exit("another content")
print(json.dumps(claims, indent=2))
