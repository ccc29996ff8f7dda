//! Maps a method and a path to an endpoint with typed fields. No I/O, no headers.

use hyper::Method;

use super::{
    Refusal,
    endpoint::{Access, Endpoint},
    message::fields,
    v1::{admin, resumable},
};
use crate::{
    app::{Error, link::Disposition},
    model::{
        id::{FileId, PartNumber},
        key::FileKey,
        principal::Role,
    },
};

/// Prefix of a path that ends in the token of a batch, which is the credential.
pub const BATCH: &str = "/v1/files/batch-download/";
const READ: &str = "GET, HEAD";

/// The access that a request needs to be told that its path or method leads nowhere.
pub fn hidden(path: &str) -> Access {
    const OPEN: [&str; 5] =
        ["/healthz", "/readyz", "/.well-known/jwks.json", "/openapi.json", "/docs"];
    if OPEN.contains(&path) {
        Access::Open
    } else if path.starts_with("/get/") || path.starts_with(BATCH) {
        Access::Link
    } else if path.starts_with("/storage/") {
        Access::Public
    } else {
        // The least role: every authenticated caller may be told that there is nothing.
        Access::Role(Role::Viewer)
    }
}

/// Finds the endpoint. The path is decoded once, as a whole, so that a key is the same whether its
/// slashes and letters were sent raw or percent-encoded.
///
/// # Errors
/// An unknown path, another method, a path that is not percent-encoded UTF-8, or an id, key or
/// number in it that cannot be one.
pub fn route(method: &Method, path: &str) -> Result<Endpoint, Refusal> {
    let path = decode(path)?;
    let read = *method == Method::GET || *method == Method::HEAD;
    let only = |allow: &'static str, endpoint: Result<Endpoint, Refusal>| {
        let allowed = allow.split(", ").any(|allowed| allowed == method.as_str());
        if allowed { endpoint } else { Err(Refusal::MethodNotAllowed { allow }) }
    };
    match path.as_str() {
        "/healthz" | "/readyz" => return only(READ, Ok(Endpoint::Health)),
        "/.well-known/jwks.json" => return only(READ, Ok(Endpoint::KeySet)),
        "/openapi.json" => return only(READ, Ok(Endpoint::Description)),
        "/docs" => return only(READ, Ok(Endpoint::Docs)),
        "/metrics" => return only(READ, Ok(Endpoint::Metrics)),
        "/v1/files/generate-token" => return only("POST", Ok(Endpoint::GenerateToken)),
        "/v1/files/init" => return only("POST", Ok(Endpoint::Init)),
        "/v1/files/part" => return only("POST", Ok(Endpoint::EncodedPart)),
        "/v1/files/complete" => return only("POST", Ok(Endpoint::Complete)),
        "/v1/files/content" if *method == Method::OPTIONS => {
            return Ok(Endpoint::ResumableOptions { upload: None });
        }
        "/v1/files/content" => return only("OPTIONS, PUT", Ok(Endpoint::PutContent)),
        "/v1/files/all" => return only(READ, Ok(Endpoint::ListFiles)),
        "/v1/files/uploads" => return only(READ, Ok(Endpoint::ListUploads)),
        "/v1/files/batch-download" => return only("POST", Ok(Endpoint::MintBatch)),
        "/v1/files/signed-url" if *method == Method::POST => return Ok(Endpoint::SignLinkForm),
        "/v1/files/signed-url" => return only("GET, HEAD, POST", Ok(Endpoint::SignLink)),
        _ => {}
    }
    if let Some(key) = path.strip_prefix("/v1/files/metadata/") {
        return only(READ, of_file(key, |key| Endpoint::Metadata { key }));
    }
    if let Some(key) = path.strip_prefix("/v1/files/content/") {
        return only(READ, of_file(key, |key| Endpoint::Content { key }));
    }
    if let Some(token) = path.strip_prefix(BATCH) {
        return only(READ, Ok(Endpoint::FetchBatch { token: token.into() }));
    }
    if path.starts_with("/storage/") {
        return only(READ, of_file(&path[1..], |key| Endpoint::Storage { key }));
    }
    if let Some(encoded) = path.strip_prefix("/get/") {
        return only(READ, linked_key(encoded).map(|key| Endpoint::RedeemLink { key }));
    }
    if let Some(path) = path.strip_prefix(admin::PREFIX) {
        return admin::route(method, path).map(Endpoint::Admin);
    }
    if let Some(upload) = super::v1::tus::within(&path) {
        return tus(method, upload);
    }
    if let Some(upload) = path.strip_prefix(resumable::PREFIX) {
        return upload_resource(method, upload);
    }
    if let Some(image) = path.strip_prefix("/api/images/") {
        return only(READ, self::image(image));
    }
    match path.strip_prefix("/v1/files/") {
        Some(key) if key.starts_with("storage/") => {
            only("DELETE", of_file(key, |key| Endpoint::DeleteFile { key }))
        }
        Some(upload) => match upload.split_once('/') {
            None if upload.is_empty() => Err(Refusal::NoRoute),
            None if read => Ok(Endpoint::UploadStatus { upload: fields::upload_id(upload)? }),
            None if *method == Method::DELETE => {
                Ok(Endpoint::AbortUpload { upload: fields::upload_id(upload)? })
            }
            None => Err(Refusal::MethodNotAllowed { allow: "GET, HEAD, DELETE" }),
            Some((upload, part)) => match part.strip_prefix("parts/") {
                Some(number) => only("PUT", raw_part(upload, number)),
                None => Err(Refusal::NoRoute),
            },
        },
        None => Err(Refusal::NoRoute),
    }
}

pub fn decode(path: &str) -> Result<String, Refusal> {
    let detail = "The path is not percent-encoded UTF-8.";
    fields::percent_decoded(path).ok_or_else(|| Error::invalid("invalid_path", detail).into())
}

fn of_file(key: &str, endpoint: fn(FileKey) -> Endpoint) -> Result<Endpoint, Refusal> {
    Ok(endpoint(fields::file_key(key)?))
}

fn linked_key(encoded: &str) -> Result<FileKey, Refusal> {
    super::v1::links::decode_key(encoded).ok_or_else(|| Error::NotFound("file").into())
}

fn raw_part(upload: &str, number: &str) -> Result<Endpoint, Refusal> {
    let upload = fields::upload_id(upload)?;
    let part = fields::digits(number).and_then(PartNumber::new);
    let part = part.ok_or_else(super::v1::parts::invalid_number)?;
    Ok(Endpoint::RawPart { upload, part })
}

fn tus(method: &Method, upload: &str) -> Result<Endpoint, Refusal> {
    if *method == Method::OPTIONS {
        return Ok(Endpoint::TusOptions);
    }
    if upload.is_empty() {
        let allow = "OPTIONS, POST";
        let create = *method == Method::POST;
        return create.then_some(Endpoint::TusCreate).ok_or(Refusal::MethodNotAllowed { allow });
    }
    let upload = fields::upload_id(upload);
    match method.as_str() {
        "HEAD" => Ok(Endpoint::TusHead { upload: upload? }),
        "PATCH" => Ok(Endpoint::TusPatch { upload: upload? }),
        "DELETE" => Ok(Endpoint::TusDelete { upload: upload? }),
        _ => Err(Refusal::MethodNotAllowed { allow: "OPTIONS, HEAD, PATCH, DELETE" }),
    }
}

fn upload_resource(method: &Method, upload: &str) -> Result<Endpoint, Refusal> {
    let upload = fields::upload_id(upload);
    match method.as_str() {
        "OPTIONS" => Ok(Endpoint::ResumableOptions { upload: Some(upload?) }),
        "HEAD" => Ok(Endpoint::ResumableHead { upload: upload? }),
        "PATCH" => Ok(Endpoint::ResumablePatch { upload: upload? }),
        "DELETE" => Ok(Endpoint::ResumableDelete { upload: upload? }),
        _ => Err(Refusal::MethodNotAllowed { allow: resumable::ALLOWED }),
    }
}

fn image(path: &str) -> Result<Endpoint, Refusal> {
    let (id, disposition) = match path.split_once('/') {
        Some((id, "download")) => (id, Disposition::Attachment),
        Some((id, "preview")) => (id, Disposition::Inline),
        _ => return Err(Refusal::NoRoute),
    };
    let id = FileId::parse(id).ok_or(Error::NotFound("file"))?;
    Ok(Endpoint::Image { id, disposition })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::UploadId;

    fn get(path: &str) -> Result<Endpoint, Refusal> {
        route(&Method::GET, path)
    }

    fn key(key: &str) -> FileKey {
        FileKey::parse(key).unwrap()
    }

    #[test]
    fn a_key_is_the_same_raw_and_encoded() {
        let wanted = Endpoint::Metadata { key: key("storage/u@x.io/a b/ü_1.txt") };
        for path in [
            "/v1/files/metadata/storage/u@x.io/a%20b/ü_1.txt",
            "/v1/files/metadata/storage%2Fu%40x.io%2Fa%20b%2F%C3%BC_1.txt",
        ] {
            assert_eq!(get(path).unwrap(), wanted, "{path}");
        }
        let delete = route(&Method::DELETE, "/v1/files/storage%2Fu%2Fk").unwrap();
        assert_eq!(delete, Endpoint::DeleteFile { key: key("storage/u/k") });
    }

    #[test]
    fn traversal_finds_nothing() {
        for path in [
            "/storage/../keys/x.pem",
            "/storage/u/..%2f..%2fkeys",
            "/storage/%2e%2e/x",
            "/v1/files/metadata/%2Fetc%2Fpasswd",
            "/v1/files/content/storage/u/%00",
        ] {
            assert!(matches!(get(path), Err(Refusal::App(Error::NotFound(_)))), "{path}");
        }
        for path in ["/storage/u/%", "/storage/u/%4", "/storage/u/%zz", "/storage/u/%ff"] {
            let refused = get(path);
            assert!(matches!(refused, Err(Refusal::App(Error::Invalid { .. }))), "{path}");
        }
    }

    #[test]
    fn another_method_names_the_right_ones() {
        for (method, path, wanted) in [
            (Method::POST, "/v1/files/all", "GET, HEAD"),
            (Method::GET, "/v1/files/init", "POST"),
            (Method::DELETE, "/v1/files/signed-url", "GET, HEAD, POST"),
            (Method::PUT, "/v1/files/00000000000000000000000000000000", "GET, HEAD, DELETE"),
            (Method::GET, "/v1/files/00000000000000000000000000000000/parts/1", "PUT"),
        ] {
            let refused = route(&method, path);
            let Err(Refusal::MethodNotAllowed { allow }) = refused else { panic!("{path}") };
            assert_eq!(allow, wanted, "{path}");
        }
        for path in ["/", "/v1", "/v1/files/", "/v2/files/all", "/v1/files/x/y", "//healthz"] {
            assert!(matches!(get(path), Err(Refusal::NoRoute)), "{path}");
        }
    }

    #[test]
    fn parts_are_numbers() {
        let put = |number: &str| {
            let path = format!("/v1/files/{}/parts/{number}", "0a".repeat(16));
            route(&Method::PUT, &path)
        };
        let upload = UploadId([0x0a; 16]);
        assert_eq!(put("0").unwrap(), Endpoint::RawPart { upload, part: PartNumber(0) });
        for bad in ["", "-1", "+1", "1.0", "10001", "99999999999999999999", "one"] {
            assert!(matches!(put(bad), Err(Refusal::App(Error::Invalid { .. }))), "{bad}");
        }
    }
}
