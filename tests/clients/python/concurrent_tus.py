"""aiotus uploads over a connection that breaks, and uploads several parts of one file side by
side."""

import asyncio
import hashlib
import io
import os
import urllib.parse

import aiohttp
import aiotus
import requests
import yarl

SERVER, TOKEN = os.environ["SERVER"], os.environ["TOKEN"]
made = requests.post(f"{SERVER}/v1/files/generate-token?user_id=u", headers={"X-Service-Token": TOKEN})
user = {"Authorization": f"Bearer {made.json()['token']}"}
content = hashlib.shake_256(b"content").digest(6_000_000)
named = {"filename": "häuser.bin".encode(), "folder": b"d", "note": b"x"}


async def breaking(cuts):
    """A proxy that cuts one connection for each number in `cuts`, once more request bytes than that
    came over it. `Location` names the daemon; the proxy puts its own address there."""
    left = list(cuts)
    address = urllib.parse.urlsplit(SERVER)

    async def pump(source, sink, is_request, own):
        came = 0
        try:
            while data := await source.read(65536):
                came += len(data)
                if is_request and left and came > left[0]:
                    left.pop(0)
                    return
                if not is_request:
                    data = data.replace(address.netloc.encode(), own.encode())
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass

    async def connected(reader, writer):
        host, port = writer.get_extra_info("sockname")[:2]
        to, out = await asyncio.open_connection(address.hostname, address.port)
        pumps = [asyncio.create_task(pump(reader, out, True, f"{host}:{port}")),
                 asyncio.create_task(pump(to, writer, False, f"{host}:{port}"))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for sink in (writer, out):
            sink.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    return server, left, f"http://{host}:{port}"


async def check(session, location):
    location = yarl.URL(SERVER + location.path)
    async with session.head(location, headers={**user, "Tus-Resumable": "1.0.0"}) as head:
        assert head.headers["Upload-Offset"] == str(len(content)), head.headers
        key = head.headers["Upload-Key"]
    assert urllib.parse.unquote(key).endswith("_häuser.bin"), key
    async with session.get(yarl.URL(f"{SERVER}/v1/files/content/{key}", encoded=True), headers=user) as got:
        assert await got.read() == content


async def main():
    config = aiotus.RetryConfiguration(retry_attempts=6, max_retry_period_seconds=0.2)
    async with aiohttp.ClientSession() as session:
        server, left, base = await breaking([1_000_000, 2_000_000])
        location = await aiotus.upload(
            f"{base}/v1/tus", io.BytesIO(content), named, session, config, user)
        assert location is not None and not left, (location, left)
        await check(session, location)
        said = await aiotus.metadata(location, session, config, user)
        assert (said["filename"], said["note"]) == (named["filename"], b"x"), said
        server.close()
        # In pieces that are uploaded side by side and concatenated, one of which breaks.
        server, left, base = await breaking([1_500_000])
        thirds = [io.BytesIO(content[at:at + 2_000_000]) for at in range(0, len(content), 2_000_000)]
        location = await aiotus.upload_multiple(
            f"{base}/v1/tus", thirds, named, session, config, user)
        assert location is not None and not left, (location, left)
        await check(session, location)
        server.close()
        async with session.get(f"{SERVER}/v1/files/all", headers=user) as listed:
            assert (await listed.json())["total_count"] == 2


asyncio.run(main())
print("all held")
