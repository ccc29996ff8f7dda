// jose verifies our tokens through the key set.
const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const jose = require('jose');

const { SERVER, TOKEN, STREAMLINED, DATA_DIR } = process.env;

(async () => {
  const response = await fetch(`${SERVER}/v1/files/generate-token?user_id=u`, {
    method: 'POST', headers: { 'X-Service-Token': TOKEN },
  });
  const { token } = await response.json();
  const keys = jose.createRemoteJWKSet(new URL(`${SERVER}/.well-known/jwks.json`));
  const options = { issuer: 'streamlined', audience: 'streamlined', algorithms: ['RS256'] };
  const { payload } = await jose.jwtVerify(token, keys, options);
  assert.equal(payload.user_id, 'u');
  const block = execFileSync(STREAMLINED, ['token', 'generate', 's', '--data-dir', DATA_DIR]);
  const service = block.toString().match(/^Token:\n(\S+)$/m)[1];
  const verified = await jose.jwtVerify(service, keys, { algorithms: ['RS256'] });
  assert.deepEqual([verified.payload.sub, verified.payload.roles], ['s', 'service']);
  await assert.rejects(jose.jwtVerify(`${token}x`, keys, options));
  console.log('all held');
})();
