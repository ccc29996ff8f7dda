"""PyJWT verifies our tokens through the key set, and the daemon accepts tokens that PyJWT
signs with our key."""

import glob
import os
import time

import jwt
import requests

from documents import SERVER, TOKEN

service = {"X-Service-Token": TOKEN}
made = requests.post(f"{SERVER}/v1/files/generate-token?user_id=u%40x.io", headers=service).json()
keys = jwt.PyJWKClient(f"{SERVER}/.well-known/jwks.json")
key = keys.get_signing_key_from_jwt(made["token"])
checks = {"algorithms": ["RS256"], "audience": "streamlined", "issuer": "streamlined"}
claims = jwt.decode(made["token"], key.key, **checks)
assert claims["user_id"] == "u@x.io" and claims["roles"] == "researcher", claims

(pem,) = glob.glob(os.path.join(os.environ["DATA_DIR"], "keys", "*.pem"))
private = open(pem).read()


def status(claims: dict, headers: dict | None = None, algorithm: str = "RS256", key=private) -> int:
    token = jwt.encode(claims, key, algorithm=algorithm, headers=headers)
    answer = requests.get(
        f"{SERVER}/v1/files/all?user_id=u", headers={"Authorization": f"Bearer {token}"}
    )
    return answer.status_code


now = int(time.time())
older_service = {"sub": "classification-service", "roles": "service", "iat": now, "exp": now + 60}
assert status(older_service) == 200
assert status(older_service, {"kid": key.key_id}) == 200
assert status(older_service, {"kid": "another"}) == 401
assert status({**older_service, "exp": now - 1}) == 401
assert status({**older_service, "nbf": now + 120}) == 401
assert status(older_service, algorithm="none", key=None) == 401
assert status(older_service, algorithm="RS512") == 401
assert status(older_service, algorithm="HS256", key="x" * 64) == 401
print("all held")
