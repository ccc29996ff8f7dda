// In a headless Chromium, a page of another origin uploads and reads with a token, if that origin
// is allowed.
const assert = require("assert");
const http = require("http");
const chromium = require("./chromium");

const { SERVER, TOKEN } = process.env;

// Runs in the page: every kind of request for which the browser sends a preflight first.
async function ask([server, token]) {
  const own = { "X-Service-Token": token };
  const tus = { ...own, "Tus-Resumable": "1.0.0" };
  const stored = await fetch(`${server}/v1/files/content?user_id=u&filename=f.txt`,
    { method: "PUT", headers: own, body: "hello" });
  const { key } = await stored.json();
  const made = await fetch(`${server}/v1/tus?user_id=u`,
    { method: "POST", headers: { ...tus, "Upload-Length": "5", "Upload-Metadata": "filename dA==" } });
  const sent = await fetch(made.headers.get("Location"), {
    method: "PATCH", body: "hello",
    headers: { ...tus, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream" },
  });
  const read = await fetch(`${server}/v1/files/content/${encodeURI(key)}`,
    { headers: { ...own, Range: "bytes=1-2" } });
  const refused = await fetch(`${server}/v1/files/all`);
  const gone = await fetch(`${server}/v1/files/${encodeURI(key)}`, { method: "DELETE", headers: own });
  return [stored.status, made.status, sent.headers.get("Upload-Offset"), await read.text(),
    read.headers.get("ETag").length, (await refused.json()).code, gone.status];
}

async function main() {
  const site = http.createServer((_, answer) => {
    answer.setHeader("Content-Type", "text/html");
    answer.end("<!doctype html><title>page</title>");
  });
  await new Promise((resolve) => site.listen(Number(process.argv[2]), "127.0.0.1", resolve));
  const browser = await chromium();
  try {
    const page = await browser.newPage();
    await page.goto(`http://localhost:${site.address().port}/`);
    assert.deepEqual(await page.evaluate(ask, [SERVER, TOKEN]),
      [201, 201, "5", "el", 66, "unauthenticated", 200]);
    // The same page by another name of the machine is another origin.
    await page.goto(`http://127.0.0.1:${site.address().port}/`);
    await assert.rejects(page.evaluate(ask, [SERVER, TOKEN]), /Failed to fetch/);
  } finally {
    await browser.close();
    site.close();
  }
  console.log("all held");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
