// Uppy in a headless Chromium, behind a proxy that puts a prefix before every path and cuts
// requests. Uppy resumes by itself, and also after a reload of the page.
const assert = require('node:assert/strict');
const { createHash } = require('node:crypto');
const http = require('node:http');
const esbuild = require('esbuild');
const chromium = require('./chromium');

const { SERVER, TOKEN } = process.env;
const service = { 'X-Service-Token': TOKEN };
const SIZE = 5_000_000;

// What the page runs: an upload of bytes that are the same each time.
const PAGE = `
import Uppy from '@uppy/core';
import Tus from '@uppy/tus';
window.upload = async (token, retryDelays, lastModified) => {
  const bytes = Uint8Array.from({ length: ${SIZE} }, (_, at) => (at * 7 + (at >> 8)) & 255);
  const uppy = new Uppy({ autoProceed: false });
  uppy.use(Tus, {
    endpoint: '/store/v1/tus', retryDelays, headers: { Authorization: 'Bearer ' + token },
  });
  const data = new File([bytes], 'film.bin', { type: 'video/mp4', lastModified });
  uppy.addFile({ name: 'film ü.bin', type: 'video/mp4', data, meta: { folder: 'films' } });
  const { successful, failed } = await uppy.upload();
  return { url: successful[0]?.uploadURL, failed: failed.map((file) => file.error) };
};`;

async function main() {
  const bundled = esbuild.buildSync({
    stdin: { contents: PAGE, resolveDir: process.cwd() },
    bundle: true, write: false, format: 'iife', platform: 'browser',
  });
  const script = bundled.outputFiles[0].text;

  // Each number cuts one PATCH, once more bytes of it than that have come.
  const cuts = [];
  const asked = [];
  const proxy = http.createServer((request, answer) => {
    if (!request.url.startsWith('/store/')) {
      answer.setHeader('Content-Type', 'text/html; charset=utf-8');
      answer.end(`<!doctype html><title>upload</title><script>${script.replaceAll('</script', '<\\/script')}</script>`);
      return;
    }
    const cut = request.method === 'PATCH' ? cuts.shift() : undefined;
    const seen = { method: request.method, bytes: 0, status: 0 };
    asked.push(seen);
    const options = { method: request.method, headers: request.headers };
    const onward = http.request(SERVER + request.url.slice('/store'.length), options, (from) => {
      seen.status = from.statusCode;
      answer.writeHead(from.statusCode, from.headers);
      from.pipe(answer);
    });
    onward.on('error', () => request.socket.destroy());
    request.on('data', (bytes) => {
      seen.bytes += bytes.length;
      onward.write(bytes);
      if (seen.bytes > cut) {
        // The bytes that were passed on get time to arrive before the cut.
        request.pause();
        setTimeout(() => { onward.destroy(); request.socket.destroy(); }, 100);
      }
    });
    request.on('end', () => onward.end());
  });
  const { port } = new URL(await location());
  await new Promise((resolve) => proxy.listen(port, '127.0.0.1', resolve));

  const made = await fetch(`${SERVER}/v1/files/generate-token?user_id=u`, { method: 'POST', headers: service });
  const { token } = await made.json();
  const browser = await chromium();
  const expected = createHash('sha256').update(
    Uint8Array.from({ length: SIZE }, (_, at) => (at * 7 + (at >> 8)) & 255)).digest('hex');
  async function check(url) {
    assert.ok(url.startsWith(`http://127.0.0.1:${port}/store/v1/tus/`), url);
    const headers = { ...service, 'Tus-Resumable': '1.0.0' };
    const head = await fetch(url.replace(`http://127.0.0.1:${port}/store`, SERVER), { method: 'HEAD', headers });
    const key = head.headers.get('upload-key');
    assert.match(decodeURIComponent(key), /^storage\/u\/films\/[0-9a-f]{8}_film ü\.bin$/);
    const file = await (await fetch(`${SERVER}/v1/files/metadata/${key}`, { headers: service })).json();
    assert.deepEqual([file.sha256, file.size, file.mime], [expected, SIZE, 'video/mp4']);
  }
  try {
    const page = await browser.newPage();
    const open = () => page.goto(`http://127.0.0.1:${port}/`);
    await open();
    // The upload is cut twice, and resumes by itself from what the daemon has.
    cuts.push(1_500_000, 1_000_000);
    const upload = (delays, of) =>
      page.evaluate(([token, delays, of]) => window.upload(token, delays, of), [token, delays, of]);
    const whole = await upload([50, 100, 200], 1);
    assert.deepEqual([whole.failed, cuts], [[], []]);
    await check(whole.url);
    const sent = asked.filter(({ method }) => method === 'PATCH').map(({ bytes }) => bytes);
    assert.equal(sent.length, 3);
    assert.ok(sent[2] < SIZE - 1_500_000, `all was sent again: ${sent}`);

    // The upload is cut and not retried; then the page is reloaded and the same file chosen again.
    asked.length = 0;
    cuts.push(2_000_000);
    const broken = await upload([], 2);
    assert.equal(broken.failed.length, 1);
    await open();
    asked.length = 0;
    const resumed = await upload([], 2);
    assert.deepEqual(resumed.failed, []);
    await check(resumed.url);
    assert.deepEqual(asked.map(({ method }) => method), ['HEAD', 'PATCH']);
    assert.ok(asked[1].bytes < SIZE - 1_000_000, `nothing was kept: ${asked[1].bytes}`);
    console.log('all held');
  } finally {
    await browser.close();
    proxy.close();
    proxy.closeAllConnections();
  }
}

// The URL that the daemon gives for an upload.
async function location() {
  const headers = { ...service, 'Tus-Resumable': '1.0.0', 'Upload-Length': '1' };
  const created = await fetch(`${SERVER}/v1/tus?user_id=probe`, { method: 'POST', headers });
  return created.headers.get('location');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
