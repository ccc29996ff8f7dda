// The Node block of the first document, run as it stands, with a stand-in for Express.
const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');

const { SERVER, TOKEN, SEEDS } = process.env;
const publicToken = 'ee6d52ece4fa6c4c8836820d2eb7feeb6c78cbf2e2661ef76c9f5a805fc16340';
const document = fs.readFileSync(path.join(SEEDS, 'upload-server.md'), 'utf8');
const [, code] = document.match(/```javascript\n([\s\S]*?)```/);
const routes = {};
const app = { get: (route, handler) => { routes[route] = handler; } };
const block = code
  .replaceAll('https://file-server.stream-lineai.com', SERVER)
  .replaceAll(publicToken, TOKEN);
const UploadServerClient =
  new Function('require', 'app', `${block}\nreturn UploadServerClient;`)(require, app);

(async () => {
  const client = new UploadServerClient(SERVER, TOKEN);
  const token = await client.generateUserToken('user 1', 2);
  assert.equal(token.expires_in, 7200);
  const axios = require('axios');
  const bearer = { Authorization: `Bearer ${token.token}` };
  const content = Buffer.from('hello'.repeat(1000));
  const stored = await axios.put(`${SERVER}/v1/files/content`, content, {
    headers: { ...bearer, 'Content-Type': 'application/octet-stream' },
    params: { filename: 'a&b=c ü.txt', folder: 'main/pictures' },
  });
  assert.equal(stored.status, 201);
  const listed = await client.listUserFiles('user 1', 'main');
  assert.equal(listed.files[0].key, stored.data.key);

  // The handler of the integration example.
  let answered;
  const request = { params: { userId: 'user 1' } };
  const response = {
    json: (value) => { answered = value; },
    status: (code) => { throw new Error(`answered ${code}`); },
  };
  await routes['/api/user/:userId/files'](request, response);
  assert.deepEqual(answered, listed);

  // A key pasted into a URL as it is.
  const got = await axios.get(`${SERVER}/${stored.data.key}`, {
    headers: bearer, responseType: 'arraybuffer',
  });
  assert.deepEqual(Buffer.from(got.data), content);
  const image = await axios.get(`${SERVER}/api/images/${stored.data.id}/download`, { headers: bearer });
  const linked = await axios.get(image.data.url, { responseType: 'arraybuffer' });
  assert.deepEqual(Buffer.from(linked.data), content);
  const error = await axios.get(`${SERVER}/v1/files/all`).catch((error) => error);
  assert.equal(error.response.data.code, 'unauthenticated');
  console.log('all held');
})();
