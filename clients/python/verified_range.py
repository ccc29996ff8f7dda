#!/usr/bin/env python3
"""Fetches a part of a file and checks it against the BLAKE3 of the whole, without the rest.

    verified_range.py URL BLAKE3 FIRST LAST > part

URL is any URL of a content: signed, or with the token in STREAMLINED_TOKEN. Standard library only.
"""

import os
import struct
import sys
import urllib.request

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
COLUMNS_AND_DIAGONALS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                         (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
CHUNK = 1024


def compress(cv, block, counter, flags):
    """BLAKE3 paper, section 2.2."""
    message = struct.unpack("<16I", block.ljust(64, b"\0"))
    state = [*cv, *IV[:4], counter & 0xFFFFFFFF, counter >> 32, len(block), flags]
    for _ in range(7):
        for at, (a, b, c, d) in enumerate(COLUMNS_AND_DIAGONALS):
            for word, right, left in ((message[2 * at], 16, 12), (message[2 * at + 1], 8, 7)):
                state[a] = (state[a] + state[b] + word) & 0xFFFFFFFF
                mixed = state[d] ^ state[a]
                state[d] = (mixed >> right | mixed << 32 - right) & 0xFFFFFFFF
                state[c] = (state[c] + state[d]) & 0xFFFFFFFF
                mixed = state[b] ^ state[c]
                state[b] = (mixed >> left | mixed << 32 - left) & 0xFFFFFFFF
        message = [message[at] for at in ORDER]
    return [state[at] ^ state[at + 8] for at in range(8)]


def chunk_hash(chunk, index, root):
    cv, last = IV, max(len(chunk) - 1, 0) // 64
    for at in range(last + 1):
        flags = (CHUNK_START if at == 0 else 0) | (CHUNK_END | root if at == last else 0)
        cv = compress(cv, chunk[64 * at:64 * at + 64], index, flags)
    return struct.pack("<8I", *cv)


def verified(proof, blake3, first, last):
    """The bytes first..=last, which a Bao slice proves; ValueError if it does not."""
    size, = struct.unpack("<Q", proof.read(8))
    if not first <= last or first >= size:
        raise ValueError(f"the range lies outside the {size} bytes that the proof speaks of")
    # A range that is cut to the size holds the last chunk, which proves the size too.
    last, part = min(last, size - 1), []

    def walk(start, length, wanted, root):
        if start > last or start + length <= first:
            return
        if length <= CHUNK:
            chunk = proof.read(length)
            if len(chunk) != length or chunk_hash(chunk, start // CHUNK, root) != wanted:
                raise ValueError(f"the bytes at {start} are not those of {blake3}")
            part.append(chunk[max(first - start, 0):last + 1 - start])
            return
        node = proof.read(64)
        if struct.pack("<8I", *compress(IV, node, 0, PARENT | root)) != wanted:
            raise ValueError(f"the tree at {start} is not that of {blake3}")
        left = CHUNK << ((length - 1) // CHUNK).bit_length() - 1
        walk(start, left, node[:32], 0)
        walk(start + left, length - left, node[32:], 0)

    walk(0, size, bytes.fromhex(blake3), ROOT)
    return b"".join(part)


def main(url, blake3, first, last):
    request = urllib.request.Request(f"{url}{'&' if '?' in url else '?'}proof={first}-{last}")
    if token := os.environ.get("STREAMLINED_TOKEN"):
        request.add_header("X-Service-Token", token)
    with urllib.request.urlopen(request) as proof:
        sys.stdout.buffer.write(verified(proof, blake3, int(first), int(last)))


if __name__ == "__main__":
    main(*sys.argv[1:])
