// Reads archives of batch downloads with yauzl, which is strict about what it reads.
const axios = require("axios");
const yauzl = require("yauzl");

const { SERVER, TOKEN } = process.env;
const service = axios.create({ baseURL: SERVER, headers: { "X-Service-Token": TOKEN } });

async function main() {
  const contents = new Map();
  for (const [name, size] of [["ä.txt", 100000], ["b.bin", 10], ["empty", 0]]) {
    const content = Buffer.alloc(size, name);
    const query = new URLSearchParams({ user_id: "zip", folder: "top", filename: name });
    await service.put(`/v1/files/content?${query}`, content);
    contents.set(name, content);
  }
  const batch = { folder: "top", user_id: "zip" };
  const { token } = (await service.post("/v1/files/batch-download", batch)).data;
  const url = `${SERVER}/v1/files/batch-download/${token}`;
  const archive = (await axios.get(url, { responseType: "arraybuffer" })).data;
  const options = { lazyEntries: true, validateEntrySizes: true, strictFileNames: true };
  const zip = await new Promise((resolve, reject) =>
    yauzl.fromBuffer(Buffer.from(archive), options, (error, zip) => (error ? reject(error) : resolve(zip))));
  let found = 0;
  await new Promise((resolve, reject) => {
    zip.on("error", reject);
    zip.on("end", resolve);
    zip.on("entry", (entry) => {
      zip.openReadStream(entry, async (error, stream) => {
        if (error) return reject(error);
        const chunks = [];
        for await (const chunk of stream) chunks.push(chunk);
        const same = Buffer.concat(chunks).equals(contents.get(entry.fileName));
        if (!same) return reject(new Error(`${entry.fileName} differs`));
        found += 1;
        zip.readEntry();
      });
    });
    zip.readEntry();
  });
  if (found !== contents.size) throw new Error(`${found} entries`);
  console.log("all held");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
