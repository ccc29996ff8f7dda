//! HTTP requests, and checks of the answers.

use serde_json::{Value, json};
use ureq::{Agent, http};

use super::base64;

#[derive(Clone)]
pub struct Client {
    agent: Agent,
    base: String,
    headers: Vec<(String, String)>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
}

impl Client {
    pub fn new(base: &str, headers: &[(&str, &str)]) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).build();
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Self { agent: config.new_agent(), base: base.to_owned(), headers }
    }

    /// The same client with another header.
    #[must_use]
    pub fn header(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    /// The same client without any header, and so without a credential.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        Self { headers: Vec::new(), ..self.clone() }
    }

    /// The same client for a daemon whose address may have changed.
    #[must_use]
    pub fn moved(&self, daemon: &super::Daemon) -> Self {
        Self { base: daemon.url().to_owned(), ..self.clone() }
    }

    /// Sends a request; `path` may be a whole URL.
    pub fn send(&self, method: &str, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        let url = if path.starts_with("http") { path.into() } else { self.base.clone() + path };
        let mut request = http::Request::builder().method(method).uri(url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = body.into();
        let answer = if body.is_empty() && matches!(method, "GET" | "HEAD" | "DELETE" | "OPTIONS") {
            self.agent.run(request.body(()).unwrap())
        } else {
            self.agent.run(request.body(body).unwrap())
        };
        let (head, body) = answer.unwrap().into_parts();
        let body = body.into_with_config().limit(u64::MAX).read_to_vec().unwrap();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "")
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, "")
    }

    /// Deletes a file that an answer named.
    pub fn delete_file(&self, file: &Value) -> Answer {
        self.delete(&format!("/v1/files/{}", encode(file["key"].as_str().unwrap())))
    }

    pub fn put(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send("PUT", path, body)
    }

    #[expect(clippy::needless_pass_by_value, reason = "`json!` values and texts as they come")]
    pub fn post(&self, path: &str, body: impl ToString) -> Answer {
        self.send("POST", path, body.to_string())
    }

    /// Opens a single upload of `size` bytes and returns its id.
    pub fn init(&self, name: &str, size: usize) -> String {
        let init = json!({"mode": "single", "files": [{"name": name, "size": size}]});
        self.post("/v1/files/init", init).ok()["uploadId"].as_str().unwrap().to_owned()
    }

    pub fn part(&self, upload: &str, number: u64, bytes: &[u8]) -> Answer {
        let part = json!({"uploadId": upload, "partNumber": number, "chunkBase64": base64(bytes)});
        self.post("/v1/files/part", part)
    }

    pub fn complete(&self, upload: &str) -> Answer {
        self.post("/v1/files/complete", json!({"uploadId": upload}))
    }

    /// Stores a file in one request and returns the JSON answer, which is that of `complete`.
    pub fn store(&self, name: &str, folder: &str, bytes: &[u8]) -> Value {
        let path = format!("/v1/files/content?filename={}&folder={}", query(name), query(folder));
        let answer = self.put(&path, bytes);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()
    }

    /// Stores a file while the daemon may die. Returns its key, or `None` when no answer came.
    pub fn try_put(&self, path: &str, bytes: &[u8]) -> Option<String> {
        let mut request = http::Request::builder().method("PUT").uri(self.base.clone() + path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let answer = self.agent.run(request.body(bytes).unwrap()).ok()?;
        let body = answer.into_body().read_to_vec().ok()?;
        let answer: Value = serde_json::from_slice(&body).ok()?;
        answer["key"].as_str().map(str::to_owned)
    }

    pub fn content(&self, key: &str) -> Answer {
        self.get(&format!("/v1/files/content/{}", encode(key)))
    }

    /// The names of the listed files, in the order of the list.
    pub fn names(&self, query: &str) -> Vec<String> {
        let list = self.get(&format!("/v1/files/all{query}")).ok();
        let files = list["files"].as_array().unwrap();
        files.iter().map(|file| file["filename"].as_str().unwrap().to_owned()).collect()
    }
}

/// Percent-encodes a path, except its slashes.
pub fn encode(path: &str) -> String {
    path.split('/').map(query).collect::<Vec<_>>().join("/")
}

/// Percent-encodes a query value.
pub fn query(value: &str) -> String {
    percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The JSON of an answer that must be a 200.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }

    /// Checks that this is a refusal in the promised form with this status and code, and returns
    /// its problem document.
    pub fn refused(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        for member in ["type", "title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        problem
    }
}
