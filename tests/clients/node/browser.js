// A headless Chromium plays a sound from a signed URL, seeks in it, and downloads active pages
// instead of showing them.
const http = require("http");
const axios = require("axios");
const chromium = require("./chromium");

const { SERVER, TOKEN } = process.env;
const service = axios.create({ baseURL: SERVER, headers: { "X-Service-Token": TOKEN } });

// A minute of silence: 16 bit, mono, 44.1 kHz.
function sound() {
  const rate = 44100, bytes = 60 * rate * 2;
  const wav = Buffer.alloc(44 + bytes);
  wav.write("RIFF", 0); wav.writeUInt32LE(36 + bytes, 4); wav.write("WAVEfmt ", 8);
  wav.writeUInt32LE(16, 16); wav.writeUInt16LE(1, 20); wav.writeUInt16LE(1, 22);
  wav.writeUInt32LE(rate, 24); wav.writeUInt32LE(rate * 2, 28);
  wav.writeUInt16LE(2, 32); wav.writeUInt16LE(16, 34);
  wav.write("data", 36); wav.writeUInt32LE(bytes, 40);
  return wav;
}

async function link(filename, content, mime) {
  const query = new URLSearchParams({ user_id: "browser", filename });
  const headers = { "Content-Type": mime };
  const stored = await service.put(`/v1/files/content?${query}`, content, { headers });
  const params = { key: stored.data.key, disposition: "inline" };
  return (await service.get("/v1/files/signed-url", { params })).data.url;
}

async function main() {
  // Another site, whose page plays a file of the daemon.
  const site = http.createServer((_, answer) => {
    answer.setHeader("Content-Type", "text/html");
    answer.end("<!doctype html><title>player</title>");
  });
  await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));
  const browser = await chromium("--autoplay-policy=no-user-gesture-required");
  try {
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${site.address().port}/`);
    const wav = await link("sound.wav", sound(), "audio/wav");
    const statuses = [];
    page.on("response", (response) => response.url() === wav && statuses.push(response.status()));
    const played = await page.evaluate(async (url) => {
      const audio = new Audio(url);
      const happens = (event) => new Promise((resolve, reject) => {
        audio.addEventListener(event, resolve, { once: true });
        audio.addEventListener("error", () => reject(new Error(audio.error.message)), { once: true });
      });
      await Promise.all([happens("canplay"), audio.play()]);
      const seeked = happens("seeked");
      audio.currentTime = 50;
      await seeked;
      await happens("timeupdate");
      return { duration: audio.duration, at: audio.currentTime };
    }, wav);
    if (Math.abs(played.duration - 60) > 0.1 || played.at < 50) throw new Error(JSON.stringify(played));
    if (!statuses.includes(206)) throw new Error(`no range was asked for: ${statuses}`);

    // Active pages are downloads even when their links ask for inline.
    for (const [name, mime] of [["x.html", "text/html"], ["x.svg", "image/svg+xml"]]) {
      const evil = await link(name, "<svg xmlns='http://www.w3.org/2000/svg'><script>document.title='run'</script></svg>", mime);
      const other = await browser.newPage();
      const download = other.waitForEvent("download");
      await other.goto(evil).catch(() => {});
      if ((await download).suggestedFilename() !== name) throw new Error("another name");
      if ((await other.title()) === "run") throw new Error(`${name} ran`);
      await other.close();
    }
    console.log("all held");
  } finally {
    await browser.close();
    site.close();
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
