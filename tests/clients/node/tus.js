// tus-js-client uploads over connections that break, and resumes.
const assert = require('node:assert/strict');
const { createHash, randomBytes } = require('node:crypto');
const net = require('node:net');
const { Readable } = require('node:stream');
const tus = require('tus-js-client');

const { SERVER, TOKEN } = process.env;
const service = { 'X-Service-Token': TOKEN };

// A proxy that cuts one connection for each number in `cuts`, once more bytes than that came from
// the client.
async function breaking(cuts) {
  const target = new URL(SERVER);
  const left = [...cuts];
  const proxy = net.createServer((client) => {
    const server = net.connect(target.port, target.hostname);
    let came = 0;
    client.on('data', (bytes) => {
      came += bytes.length;
      server.write(bytes);
      if (left.length && came > left[0]) {
        left.shift();
        client.destroy();
        server.destroy();
      }
    });
    server.on('data', (bytes) => client.write(bytes));
    for (const [one, other] of [[client, server], [server, client]]) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
    }
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  return { proxy, left, base: `http://127.0.0.1:${proxy.address().port}` };
}

async function upload(content, cuts, options) {
  const { proxy, left, base } = await breaking(cuts);
  const requests = [];
  const url = await new Promise((resolve, reject) => {
    const upload = new tus.Upload(content, {
      endpoint: `${base}/v1/tus`,
      headers: service,
      retryDelays: [0, 50, 50, 100, 100],
      metadata: { filename: 'film ü.mp4', filetype: 'video/mp4', folder: 'films', user_id: 'u' },
      // `Location` names the daemon; the proxy that breaks connections stands before it.
      onBeforeRequest: (request) => { requests.push(request.getMethod()); },
      onUploadUrlAvailable() { upload.url = upload.url.replace(SERVER, base); },
      onError: reject,
      onSuccess: () => resolve(upload.url),
      ...options,
    });
    upload.start();
  });
  assert.equal(left.length, 0, 'the wire broke as often as it should');
  proxy.close();
  return { url: url.replace(base, SERVER), requests };
}

async function check({ url }, content) {
  const head = await fetch(url, { method: 'HEAD', headers: { ...service, 'Tus-Resumable': '1.0.0' } });
  assert.equal(head.headers.get('upload-offset'), String(content.length));
  const key = head.headers.get('upload-key');
  assert.match(decodeURIComponent(key), /^storage\/u\/films\/[0-9a-f]{8}_film ü\.mp4$/);
  const got = Buffer.from(await (await fetch(`${SERVER}/v1/files/content/${key}`, { headers: service })).arrayBuffer());
  const sum = (bytes) => createHash('sha256').update(bytes).digest('hex');
  assert.equal(sum(got), sum(content));
}

(async () => {
  const content = randomBytes(6_000_000);
  // One request for all, cut twice.
  const one = await upload(content, [1_000_000, 2_000_000], {});
  await check(one, content);
  assert.ok(one.requests.filter((method) => method === 'HEAD').length >= 2);
  // In one request for each piece.
  await check(await upload(content, [500_000], { chunkSize: 700_000 }), content);
  // With content in the creation; after a cut, the client would not know the URL of the upload.
  await check(await upload(content, [], { uploadDataDuringCreation: true }), content);
  // A stream of unknown length.
  const stream = Readable.from((function* pieces() {
    for (let at = 0; at < content.length; at += 100_000) yield content.subarray(at, at + 100_000);
  })());
  const deferred = { uploadLengthDeferred: true, chunkSize: 1_000_000 };
  await check(await upload(stream, [], deferred), content);
  // In three partial uploads side by side, of which a final upload makes one file.
  const parallel = { endpoint: `${SERVER}/v1/tus`, parallelUploads: 3, metadataForPartialUploads: { user_id: 'u' } };
  await check(await upload(content, [], parallel), content);
  // An empty file.
  await check(await upload(Buffer.alloc(0), [], {}), Buffer.alloc(0));
  // A small file, with the method in a header.
  await check(await upload(content.subarray(0, 999), [], { overridePatchMethod: true }), content.subarray(0, 999));
  // An upload that the client aborts.
  const gone = await new Promise((resolve, reject) => {
    const upload = new tus.Upload(content, {
      endpoint: `${SERVER}/v1/tus`, headers: service, metadata: { user_id: 'u' }, chunkSize: 1_000_000,
      onChunkComplete: () => upload.abort(true).then(() => resolve(upload.url), reject),
      onError: reject,
    });
    upload.start();
  });
  const head = await fetch(gone, { method: 'HEAD', headers: { ...service, 'Tus-Resumable': '1.0.0' } });
  assert.equal(head.status, 404);
  console.log('all held');
})();
