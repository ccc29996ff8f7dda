"""Lets each request of schemathesis come from another address. Its checks send hundreds of requests
without credentials; from one address, these would count as guesses and be answered ever more
slowly."""

import itertools

import requests.adapters

addresses = itertools.count(10 << 24)
send = requests.adapters.HTTPAdapter.send


def from_elsewhere(self, request, **options):
    address = next(addresses).to_bytes(4, "big")
    request.headers["X-Forwarded-For"] = ".".join(map(str, address))
    return send(self, request, **options)


requests.adapters.HTTPAdapter.send = from_elsewhere
