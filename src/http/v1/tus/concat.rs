//! `Upload-Concat`: that an upload is a part of another, or which uploads it is made of.

use crate::{
    app::Error,
    model::{id::UploadId, upload::Mode},
};

#[derive(Debug, PartialEq, Eq)]
pub enum Concat {
    Partial,
    Final(Vec<UploadId>),
}

/// Uploads are named by their URLs, absolute or from a slash on, with whatever prefix a proxy has.
///
/// # Errors
/// [`Error::Invalid`] for anything but `partial` and `final;` with URLs of uploads.
pub fn parse(header: &str) -> Result<Concat, Error> {
    let invalid = || {
        let detail = "Upload-Concat must be partial, or final; followed by URLs of uploads.";
        Error::invalid("invalid_upload_concat", detail)
    };
    if header == "partial" {
        return Ok(Concat::Partial);
    }
    let urls = header.strip_prefix("final;").ok_or_else(invalid)?;
    let upload = |url: &str| {
        let (before, id) = url.rsplit_once('/')?;
        before.ends_with(super::PATH).then(|| UploadId::parse(id)).flatten()
    };
    let ids = urls.split_ascii_whitespace().map(|url| upload(url).ok_or_else(invalid));
    Ok(Concat::Final(ids.collect::<Result<_, _>>()?))
}

/// The `Upload-Concat` of an upload of this mode, for a HEAD; `None` for one that stands alone. The
/// uploads that it is made of are named by the URLs that clients were given, below `base`.
pub fn print(mode: Mode, partials: &[UploadId], base: &str) -> Option<String> {
    match mode {
        Mode::Partial | Mode::GrowingPartial => Some("partial".to_owned()),
        Mode::Final => {
            let url = |id| format!("{base}{}/{id}", super::PATH);
            let urls: Vec<_> = partials.iter().map(url).collect();
            Some(format!("final;{}", urls.join(" ")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_named_by_any_of_their_urls() {
        let (a, b) = (UploadId([0xab; 16]), UploadId([0x01; 16]));
        let header = format!("final;/v1/tus/{a}  https://x.example/store/v1/tus/{b}");
        let both = Concat::Final(vec![a, b]);
        assert_eq!(parse(&header).unwrap(), both);
        assert_eq!(
            parse(&print(Mode::Final, &[a, b], "https://x.example").unwrap()).unwrap(),
            both
        );
        assert_eq!(parse("partial").unwrap(), Concat::Partial);
        assert_eq!(parse("final;").unwrap(), Concat::Final(vec![]));
        for bad in ["", "Partial", "final", "final;x", "final;/v1/tus/", "final;/v1/tuš/00"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&format!("final;/v1/uploads/{a}")).is_err());
    }
}
