//! The shapes that requests and answers have in common.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::admin;
use crate::model::{
    limits::{
        ARCHIVE_FILES_MAX, BATCH_FILES_MAX, LINK_TTL_SECONDS, MIME_BYTES_MAX, NAME_BYTES_MAX,
        PART_NUMBER_MAX, USER_TOKEN_HOURS,
    },
    principal::Role,
};

pub fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

/// A media type: type, subtype, and parameters without commas.
const MIME_PATTERN: &str =
    "^([A-Za-z0-9!#$%&'*+.^_`|~-]+/[A-Za-z0-9!#$%&'*+.^_`|~-]+(;[ -+\\--~]*)?)?$";

/// Schemas, headers and security schemes; `codes` are all codes that a refusal can have.
pub fn components(codes: &BTreeSet<String>) -> Value {
    let mut schemas = json!({"Problem": problem(codes)});
    for group in [values(), requests(), files(), sessions(), service(), admin::schemas()] {
        if let (Value::Object(schemas), Value::Object(group)) = (&mut schemas, group) {
            schemas.extend(group);
        }
    }
    let roles = Role::ALL.map(Role::as_str).join(", ");
    let jwt = format!("A user's or a service's JWT (RS256). Roles, low to high: {roles}.");
    json!({
        "schemas": schemas,
        "headers": {
            "RequestId": header("string", "Id of the request in the daemon's log.", true),
            "Challenge": header("string", "`Bearer`.", true),
            "Size": header("string", "`bytes */SIZE`.", false),
            "RetryAfter": header("string", "Seconds to wait before a retry.", false),
        },
        "securitySchemes": {
            "serviceToken": {
                "type": "apiKey", "in": "header", "name": "X-Service-Token",
                "description": "An opaque token, or a service's JWT.",
            },
            "bearer": {
                "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": jwt,
            },
            "cookie": {
                "type": "apiKey", "in": "cookie", "name": "auth_token",
                "description": "A user's JWT.",
            },
        },
    })
}

fn header(kind: &str, about: &str, required: bool) -> Value {
    json!({"required": required, "schema": {"type": kind}, "description": about})
}

/// An object that requires all `properties`, except those named in `optional`.
pub fn object(properties: &Value, optional: &[&str]) -> Value {
    let names = properties.as_object().into_iter().flat_map(|members| members.keys());
    let required: Vec<_> = names.filter(|name| !optional.contains(&name.as_str())).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

pub fn array(items: &Value) -> Value {
    json!({"type": "array", "items": items})
}

/// The problem document (RFC 9457).
fn problem(codes: &BTreeSet<String>) -> Value {
    let kind = "`urn:streamlined:problem:CODE`, or a type registered with IANA.";
    let mut problem = object(
        &json!({
            "type": {"type": "string", "description": kind},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "A sentence for a person."},
            "code": {"enum": codes, "description": "A stable word for a program."},
            "request_id": {"type": "string", "description": "Same as X-Request-Id."},
            "missing": {"type": "array", "description": "Missing part numbers, file keys or ids."},
            "uploadId": {"type": "string", "description": "The upload that the error concerns."},
            "limit": {"type": "integer", "description": "Largest allowed size in bytes."},
            "quota": {"type": "integer"},
            "used": {"type": "integer"},
            "requested": {"type": "integer"},
            "expected-offset": {"type": "integer", "description": "Where the upload continues."},
            "provided-offset": {"type": "integer"},
        }),
        &[
            "missing",
            "uploadId",
            "limit",
            "quota",
            "used",
            "requested",
            "expected-offset",
            "provided-offset",
        ],
    );
    problem["description"] = json!("A refused request (RFC 9457).");
    problem
}

/// Names are limited in bytes, which JSON Schema cannot count: the bounds here are in characters.
fn values() -> Value {
    let hex =
        |digits: usize| json!({"type": "string", "pattern": format!("^[0-9a-f]{{{digits}}}$")});
    let sent = json!({"type": "string", "pattern": "^[0-9a-fA-F]{64}$"});
    json!({
        "UploadId": {"type": "string", "pattern": "^[0-9a-fA-F]{32}$"},
        "FileId": {"type": "string", "format": "uuid"},
        "PartNumber": {"type": "integer", "minimum": 0, "maximum": PART_NUMBER_MAX},
        "Size": {"type": "integer", "minimum": 0, "maximum": u64::MAX},
        "Sha256": hex(64),
        "Blake3": hex(64),
        "SentSha256": sent,
        "Time": {"type": "string", "format": "date-time", "description": "RFC 3339, UTC."},
        "Key": {
            "type": "string", "pattern": "^storage/",
            "description": "storage/{user}/{folder/}{8 hex}_{filename}; never reused.",
        },
        "UserId": {
            "type": "string", "minLength": 1, "maxLength": NAME_BYTES_MAX,
            "pattern": r"^[^/\\#?%\u0000-\u001f\u007f-\u009f]+$",
            "not": {"enum": [".", ".."]},
            "description": "At most 255 bytes of UTF-8; not . or ..",
        },
        "FileName": {
            "type": "string", "minLength": 1, "maxLength": NAME_BYTES_MAX,
            "pattern": r"^[^/\\\u0000-\u001f\u007f-\u009f]+$",
            "not": {"enum": [".", ".."]},
            "description": "At most 255 bytes of UTF-8; not . or ..",
        },
        "Folder": {
            "type": "string",
            "pattern": r"^/*([^/\\\u0000-\u001f\u007f-\u009f]{1,255}/*){0,32}$",
            "not": {"pattern": r"(^|/)\.{1,2}(/|$)"},
            "description": "Up to 32 segments of at most 255 bytes; none is . or ..",
        },
        "Cursor": {"type": "string", "description": "`cursor` of the next page."},
        "Disposition": {"enum": ["inline", "attachment"]},
        "Ttl": {
            "type": "integer", "minimum": LINK_TTL_SECONDS.start(),
            "maximum": LINK_TTL_SECONDS.end(), "default": 3600, "description": "In seconds.",
        },
        "Hours": {
            "type": "integer", "minimum": USER_TOKEN_HOURS.start(),
            "maximum": USER_TOKEN_HOURS.end(), "default": 1,
        },
        "Mime": {"type": "string"},
        "Base64": {
            "type": "string", "contentEncoding": "base64", "pattern": base64_pattern(),
            "description": "The standard alphabet, padded; line breaks and spaces are skipped.",
        },
    })
}

fn base64_pattern() -> String {
    let (space, digit) = (r"[ \r\n]*", r"[A-Za-z0-9+/][ \r\n]*");
    let one = format!("({digit})[AQgw]{space}={space}={space}");
    let two = format!("({digit}){{2}}[AEIMQUYcgkosw048]{space}={space}");
    format!("^{space}(({digit}){{4}})*({one}|{two})?$")
}

fn completion(named: &Value) -> Value {
    let content = json!({"anyOf": [reference("Base64"), {"type": "null"}]});
    let digest = json!({"anyOf": [reference("SentSha256"), {"type": "null"}]});
    let known = json!({
        "blake3": digest, "sha256": digest, "proof": reference("SentSha256"),
    });
    object(
        &json!({
            "uploadId": reference("UploadId"),
            "sha256": digest,
            "parts": {
                "type": ["array", "null"],
                "items": {"type": "object", "properties": {"data": content}},
                "description": "The content inline, if no part was sent.",
            },
            "meta": named,
            "known": {
                "anyOf": [object(&known, &["blake3", "sha256"]), {"type": "null"}],
                "description": "Proof of having the content that init reported as known, \
                    with one digest of it at least.",
            },
            "receipt": {
                "type": ["boolean", "null"],
                "description": "Whether the answer includes a signed receipt.",
            },
        }),
        &["sha256", "parts", "meta", "known", "receipt"],
    )
}

fn requests() -> Value {
    let counted = json!({"type": "integer", "minimum": 0, "maximum": u64::MAX});
    let in_meta = json!({"anyOf": [reference("UserId"), counted, {"type": "null"}]});
    let folder = json!({"anyOf": [reference("Folder"), {"type": "null"}]});
    let meta = json!({
        "type": ["object", "null"],
        "properties": {
            "user_id": in_meta, "user_email": in_meta,
            "folder": folder,
        },
        "description": "The caller's own data, at most 4 KiB of JSON. A service names its user \
            here. `folder` counts if there is no `folder` beside `meta`.",
    });
    let named = json!({
        "type": ["object", "null"],
        "properties": {
            "user_id": in_meta, "user_email": in_meta,
            "filename": {"anyOf": [reference("FileName"), {"type": "null"}]},
            "folder": folder,
        },
        "description": "As in init; a member here overrides the same member of init.",
    });
    let file = object(
        &json!({
            "name": reference("FileName"),
            "size": reference("Size"),
            "mime": {
                "type": ["string", "null"], "maxLength": MIME_BYTES_MAX,
                "pattern": MIME_PATTERN, "description": "A media type.",
            },
            "sha256": {
                "anyOf": [reference("SentSha256"), {"type": "null"}],
                "description": "Checked at complete; also finds content that the owner has.",
            },
            "blake3": {
                "anyOf": [reference("SentSha256"), {"type": "null"}],
                "description": "Finds content that the owner has.",
            },
        }),
        &["mime", "sha256", "blake3"],
    );
    let init = |mode: Value, files_max: usize| {
        let files = json!({
            "type": "array", "items": file, "minItems": 1, "maxItems": files_max,
        });
        let members = json!({"mode": mode, "files": files, "folder": folder, "meta": meta});
        object(&members, &["folder", "meta"])
    };
    json!({
        "Init": {
            "description": "One file, unless the mode is batch.",
            "oneOf": [
                init(json!({"enum": ["single", "chunked"]}), 1),
                init(json!({"const": "batch"}), BATCH_FILES_MAX),
            ],
        },
        "EncodedPart": object(
            &json!({
                "uploadId": reference("UploadId"),
                "partNumber": reference("PartNumber"),
                "chunkBase64": reference("Base64"),
            }),
            &[],
        ),
        "Complete": completion(&named),
        "SignLink": object(
            &json!({
                "file_key": reference("Key"),
                "expires_in": {"anyOf": [reference("Ttl"), {"type": "null"}]},
                "disposition": {"anyOf": [reference("Disposition"), {"type": "null"}]},
                "user_id": in_meta, "user_email": in_meta,
            }),
            &["expires_in", "disposition", "user_id", "user_email"],
        ),
        "MintBatch": {
            "description": "Either `keys`, or a `folder` of a user.",
            "oneOf": [
                object(
                    &json!({
                        "keys": {
                            "type": "array", "items": reference("Key"), "minItems": 1,
                            "maxItems": ARCHIVE_FILES_MAX,
                        },
                        "folder": {"type": "null"},
                        "user_id": in_meta, "user_email": in_meta,
                    }),
                    &["folder", "user_id", "user_email"],
                ),
                object(
                    &json!({
                        "folder": reference("Folder"),
                        "keys": {"type": "null"},
                        "user_id": in_meta, "user_email": in_meta,
                    }),
                    &["keys", "user_id", "user_email"],
                ),
            ],
        },
    })
}

fn files() -> Value {
    let file = json!({
        "id": reference("FileId"), "key": reference("Key"), "filename": reference("FileName"),
        "folder": reference("Folder"), "size": reference("Size"), "mime": reference("Mime"),
        "sha256": reference("Sha256"), "blake3": reference("Blake3"),
        "createdAt": reference("Time"),
    });
    let mut metadata = file.clone();
    metadata["meta"] = json!({"type": "object"});
    let entry = object(
        &json!({
            "id": reference("FileId"), "key": reference("Key"),
            "filename": reference("FileName"), "size": reference("Size"),
            "mime": reference("Mime"), "created_at": reference("Time"),
            "folder": reference("Folder"),
        }),
        &[],
    );
    let mut stored = file.clone();
    stored["receipt"] =
        json!({"type": "string", "description": "A JWS in compact form, if requested."});
    let batch = json!({
        "uploadId": reference("UploadId"), "mode": {"const": "batch"},
        "files": array(&reference("Stored")),
    });
    json!({
        "File": object(&file, &[]),
        "Metadata": object(&metadata, &[]),
        "Stored": object(&stored, &["receipt"]),
        "Completed": {"oneOf": [reference("Stored"), object(&batch, &[])]},
        "FileList": object(
            &json!({
                "files": array(&entry), "total_count": reference("Size"),
                "total_size": reference("Size"), "next_cursor": reference("Cursor"),
            }),
            &["next_cursor"],
        ),
        "Deleted": object(
            &json!({"status": {"const": "deleted"}, "key": reference("Key")}), &[],
        ),
        "SignedLink": object(
            &json!({
                "url": {"type": "string"}, "signed_url": {"type": "string"},
                "expires_in": reference("Ttl"), "disposition": reference("Disposition"),
            }),
            &[],
        ),
        "ImageLink": object(
            &json!({
                "url": {"type": "string"}, "expires_in": reference("Ttl"),
                "filename": reference("FileName"),
            }),
            &[],
        ),
        "BatchToken": object(
            &json!({"token": {"type": "string"}, "expires_in": {"type": "integer"}}), &[],
        ),
    })
}

fn sessions() -> Value {
    let state = json!({"enum": ["open", "completed"]});
    let part =
        object(&json!({"partNumber": reference("PartNumber"), "size": reference("Size")}), &[]);
    let size = json!({
        "anyOf": [reference("Size"), {"type": "null"}],
        "description": "The declared size; null until it is declared.",
    });
    let upload = json!({
        "uploadId": reference("UploadId"), "state": state, "received": array(&part),
        "bytesReceived": reference("Size"), "size": size, "expiresAt": reference("Time"),
    });
    let of_batch = object(
        &json!({
            "uploadId": reference("UploadId"), "name": reference("FileName"), "state": state,
            "bytesReceived": reference("Size"), "size": reference("Size"),
            "expiresAt": reference("Time"),
        }),
        &[],
    );
    let batch = json!({
        "uploadId": reference("UploadId"), "mode": {"const": "batch"}, "state": state,
        "received": {
            "type": "array", "maxItems": 0,
            "description": "Always empty: parts belong to the uploads of its files.",
        },
        "bytesReceived": reference("Size"), "size": reference("Size"),
        "expiresAt": reference("Time"), "files": array(&of_batch),
    });
    let listed = object(
        &json!({
            "uploadId": reference("UploadId"), "state": state, "name": reference("FileName"),
            "folder": reference("Folder"), "size": size,
            "bytesReceived": reference("Size"), "missing": array(&reference("PartNumber")),
            "expiresAt": reference("Time"), "sha256": reference("Sha256"),
        }),
        &["sha256"],
    );
    let range = json!({"offset": reference("Size"), "length": reference("Size")});
    let known = json!({"ranges": array(&object(&range, &[])), "expiresAt": reference("Time")});
    let known = object(&known, &[]);
    let opened = json!({
        "uploadId": reference("UploadId"), "name": reference("FileName"), "known": known,
    });
    let opened = object(&opened, &["known"]);
    json!({
        "Opened": object(
            &json!({
                "uploadId": reference("UploadId"), "mode": {"enum": ["single", "chunked", "batch"]},
                "partSize": reference("Size"), "parts": {"type": "integer"},
                "expiresAt": reference("Time"), "files": array(&opened), "known": known,
            }),
            &["files", "known"],
        ),
        "PartTaken": object(
            &json!({
                "status": {"const": "success"}, "partNumber": reference("PartNumber"),
                "size": reference("Size"),
            }),
            &[],
        ),
        // The status of a batch has all members of the status of an upload, and more.
        "UploadStatus": {"anyOf": [object(&upload, &[]), object(&batch, &[])]},
        "Aborted": object(
            &json!({"status": {"const": "aborted"}, "uploadId": reference("UploadId")}), &[],
        ),
        "UploadList": object(
            &json!({"uploads": array(&listed), "next_cursor": reference("Cursor")}),
            &["next_cursor"],
        ),
    })
}

fn service() -> Value {
    let store = json!({"enum": ["ok", "read_only"]});
    let scrub = object(
        &json!({
            "last_completed": {"type": ["string", "null"], "format": "date-time"},
            "running": {"type": "boolean"}, "overdue": {"type": "boolean"},
        }),
        &[],
    );
    let text = json!({"type": "string"});
    let key = object(
        &json!({
            "kty": {"const": "RSA"}, "use": {"const": "sig"}, "alg": {"const": "RS256"},
            "kid": text, "n": text, "e": text,
        }),
        &[],
    );
    json!({
        "UserToken": object(
            &json!({
                "token": text, "user_id": reference("UserId"), "expires_in": {"type": "integer"},
                "token_type": {"const": "Bearer"},
            }),
            &[],
        ),
        "Health": object(
            &json!({
                "status": {"enum": ["healthy", "unhealthy"]}, "disk_free_gb": {"type": "number"},
                "writable": {"type": "boolean"},
                "stores": object(&json!({"index": store, "blobs": store}), &[]),
                "version": text, "damaged_blobs": {"type": ["integer", "null"]},
                "scrub": {"anyOf": [scrub, {"type": "null"}]},
            }),
            &[],
        ),
        "KeySet": object(&json!({"keys": array(&key)}), &[]),
    })
}
