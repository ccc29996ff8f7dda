//! One operation of the description, and its form in `OpenAPI`.

use serde_json::{Map, Value, json};

use super::schemas::reference;
use crate::{http::endpoint::Access, model::principal::Role};

/// What a person writes about an endpoint. Path, method, role and path parameters are not part of
/// it: they come from the router.
pub struct Operation {
    pub tag: &'static str,
    pub summary: &'static str,
    pub detail: &'static str,
    /// Parameters of the query and of headers.
    pub parameters: Vec<Value>,
    pub body: Option<Value>,
    pub answers: Vec<(&'static str, Value)>,
    /// Codes by status. Codes that any endpoint of its kind may return are added to them.
    pub refusals: Vec<(&'static str, Vec<&'static str>)>,
}

/// Codes of requests that reach no endpoint.
pub const ANYWHERE: [&str; 3] = ["no_route", "method_not_allowed", "not_found"];

impl Operation {
    pub fn new(tag: &'static str, summary: &'static str) -> Self {
        let (parameters, answers) = (Vec::new(), Vec::new());
        Self { tag, summary, detail: "", parameters, body: None, answers, refusals: Vec::new() }
    }

    pub fn detail(self, detail: &'static str) -> Self {
        Self { detail, ..self }
    }

    /// Adds a query parameter of which an empty value counts as absent.
    pub fn query(self, name: &str, schema: &Value, about: &str) -> Self {
        let or_empty = json!({"anyOf": [schema, {"const": ""}]});
        self.exact_query(name, &or_empty, about)
    }

    /// Adds a query parameter of which an empty value counts as a value.
    pub fn exact_query(mut self, name: &str, schema: &Value, about: &str) -> Self {
        self.parameters.push(parameter("query", name, schema, about, false));
        self
    }

    pub fn required_query(mut self, name: &str, schema: &Value, about: &str) -> Self {
        self.parameters.push(parameter("query", name, schema, about, true));
        self
    }

    pub fn header(mut self, name: &str, about: &str) -> Self {
        self.parameters.push(parameter("header", name, &json!({"type": "string"}), about, false));
        self
    }

    pub fn required_header(mut self, name: &str, about: &str) -> Self {
        self.parameters.push(parameter("header", name, &json!({"type": "string"}), about, true));
        self
    }

    pub fn json_body(self, schema: &str) -> Self {
        let content = json!({"application/json": {"schema": reference(schema)}});
        let body = Some(json!({"required": true, "content": content}));
        Self { body, ..self }.refuses("400", &["invalid_json", "json_too_deep"])
    }

    /// Adds a body of any type.
    pub fn raw_body(self) -> Self {
        self.body_of("*/*")
    }

    pub fn body_of(self, media_type: &str) -> Self {
        let content = json!({media_type: {}});
        Self { body: Some(json!({"required": false, "content": content})), ..self }
    }

    pub fn answers_json(self, status: &'static str, about: &str, schema: &str) -> Self {
        let content = json!({"application/json": {"schema": reference(schema)}});
        self.answers_with(status, about, &content)
    }

    pub fn answers_with(mut self, status: &'static str, about: &str, content: &Value) -> Self {
        let headers = json!({"X-Request-Id": {"$ref": "#/components/headers/RequestId"}});
        let mut answer = json!({"description": about, "headers": headers});
        if !content.is_null() {
            answer["content"] = content.clone();
        }
        self.answers.push((status, answer));
        self
    }

    pub fn answers_nothing(self, status: &'static str, about: &str) -> Self {
        self.answers_with(status, about, &Value::Null)
    }

    /// Adds headers that the answer added last may have.
    pub fn in_headers(mut self, names: &[&str]) -> Self {
        if let Some((_, answer)) = self.answers.last_mut() {
            for name in names {
                answer["headers"][*name] = json!({"schema": {"type": "string"}});
            }
        }
        self
    }

    pub fn refuses(mut self, status: &'static str, codes: &[&'static str]) -> Self {
        match self.refusals.iter_mut().find(|(known, _)| *known == status) {
            Some((_, known)) => {
                let more = codes.iter().filter(|code| !known.contains(code));
                let more: Vec<_> = more.copied().collect();
                known.extend(more);
            }
            None => self.refusals.push((status, codes.to_vec())),
        }
        self
    }

    /// The operation object under `method`, for an endpoint with `access`.
    pub fn object(mut self, id: &str, method: &str, path: Vec<Value>, access: Access) -> Value {
        self = self.refuses_as_all(access);
        let is_head = method == "HEAD";
        let mut responses = Map::new();
        for (status, mut answer) in self.answers {
            if is_head {
                answer.as_object_mut().map(|answer| answer.remove("content"));
            }
            responses.insert(status.to_owned(), answer);
        }
        for (status, codes) in self.refusals {
            match responses.get_mut(status) {
                // Health itself answers 503, and may also be refused with it.
                Some(answer) if !is_head => {
                    answer["content"]["application/problem+json"] = problem(&codes);
                }
                Some(_) => {}
                None => drop(responses.insert(status.to_owned(), refusal(status, &codes, is_head))),
            }
        }
        let mut parameters = path;
        parameters.extend(self.parameters);
        let mut object = json!({
            "operationId": id,
            "tags": [self.tag],
            "summary": self.summary,
            "security": security(access),
            "responses": responses,
        });
        if !self.detail.is_empty() {
            object["description"] = self.detail.into();
        }
        if !parameters.is_empty() {
            object["parameters"] = parameters.into();
        }
        if let Some(body) = self.body {
            object["requestBody"] = body;
        }
        if let Access::Role(role) = access {
            object["x-least-role"] = role.as_str().into();
        }
        object
    }

    /// Adds the refusals that come before a handler, or from the layers below any handler.
    fn refuses_as_all(mut self, access: Access) -> Self {
        let reads_parameters = ["invalid_path", "invalid_query", "duplicate_parameter"];
        self = self
            .refuses("400", &reads_parameters)
            .refuses("400", &["encoded_content", "invalid_host"]);
        if self.body.is_some() {
            self = self.refuses("400", &["body_aborted"]).refuses("408", &["body_timeout"]);
            self = self.refuses("413", &["too_large"]);
        }
        match access {
            Access::Open => {}
            Access::Role(Role::Viewer) | Access::Public | Access::Link => {
                self = self.refuses("401", &["unauthenticated"]);
                self = self.refuses("403", &["out_of_scope"]);
            }
            Access::Role(_) => {
                self = self.refuses("401", &["unauthenticated"]);
                self = self.refuses("403", &["forbidden", "out_of_scope"]);
            }
        }
        if access != Access::Open {
            // A service may name what cannot be a user id.
            self = self.refuses("400", &["unclear_client", "invalid_user_id"]);
            self = self.refuses("429", &["too_many_requests"]);
        }
        self.refuses("500", &["internal"]).refuses("503", &["busy", "unavailable"])
    }
}

fn parameter(place: &str, name: &str, schema: &Value, about: &str, required: bool) -> Value {
    json!({
        "in": place, "name": name, "required": required, "schema": schema, "description": about,
    })
}

/// The parameters that paths have in braces: the name, a value that the router accepts, the name of
/// the schema if it has one, and a description.
const IN_PATH: [(&str, &str, &str, &str); 8] = [
    ("uploadId", "00000000000000000000000000000000", "UploadId", ""),
    ("partNumber", "1", "PartNumber", "Numbers start at 0 or at 1."),
    ("id", "01890000-0000-7000-8000-000000000000", "FileId", ""),
    ("key", "storage/u/f", "", "The file's key; its slashes may be raw or percent-encoded."),
    ("user", "u", "", "The user's id."),
    ("path", "f", "", "The rest of the key; its slashes may be raw or percent-encoded."),
    ("encodedKey", "c3RvcmFnZS91L2Y", "", "The file's key in base64url."),
    ("token", "t", "", "The id or name of a service token; for a batch download, its token."),
];

/// The parameters that a path template has in braces.
pub fn in_path(template: &str) -> Vec<Value> {
    let names = template.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let known = names.filter_map(|name| IN_PATH.iter().find(|(known, ..)| *known == name));
    let described = known.map(|(name, _, shape, about)| {
        let schema = match *shape {
            "" => json!({"type": "string", "minLength": 1}),
            shape => reference(shape),
        };
        parameter("path", name, &schema, about, true)
    });
    described.collect()
}

/// A path of the template, with values that the router accepts.
pub fn sample(template: &str) -> String {
    let put = |path: String, (name, sample, ..): &(&str, &str, &str, &str)| {
        path.replace(&format!("{{{name}}}"), sample)
    };
    IN_PATH.iter().fold(template.to_owned(), put)
}

fn refusal(status: &str, codes: &[&str], is_head: bool) -> Value {
    let mut headers = json!({"X-Request-Id": {"$ref": "#/components/headers/RequestId"}});
    match status {
        "401" => headers["WWW-Authenticate"] = reference_of("headers", "Challenge"),
        "416" => headers["Content-Range"] = reference_of("headers", "Size"),
        "503" => headers["Retry-After"] = reference_of("headers", "RetryAfter"),
        _ => {}
    }
    let mut answer = json!({"description": codes.join(", "), "headers": headers});
    if !is_head {
        answer["content"] = json!({"application/problem+json": problem(codes)});
    }
    answer
}

fn reference_of(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

fn problem(codes: &[&str]) -> Value {
    let narrowed = json!({"properties": {"code": {"enum": codes}}});
    json!({"schema": {"allOf": [reference("Problem"), narrowed]}})
}

/// Any one of these credentials is enough. The names in the brackets are least roles (`OpenAPI`
/// 3.1, section 4.8.30).
fn security(access: Access) -> Value {
    match access {
        Access::Open => json!([]),
        Access::Link => json!([{}]),
        Access::Public => json!([{"serviceToken": []}, {"bearer": []}, {"cookie": []}]),
        Access::Role(Role::Service) => {
            json!([{"serviceToken": ["service"]}, {"bearer": ["service"]}])
        }
        Access::Role(role) => {
            let role = role.as_str();
            json!([{"serviceToken": [role]}, {"bearer": [role]}, {"cookie": [role]}])
        }
    }
}
