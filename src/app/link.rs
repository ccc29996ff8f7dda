//! Signed URLs: minting and redeeming.

use super::{App, Error, Result};
use crate::model::{file::FileRecord, key::FileKey, limits::LINK_TTL_SECONDS};

/// How a browser is to treat the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    Inline,
    Attachment,
}

impl Disposition {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "inline" => Some(Self::Inline),
            "attachment" => Some(Self::Attachment),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Attachment => "attachment",
        }
    }
}

/// The content of a signed URL.
pub struct Link {
    pub key: FileKey,
    /// Unix seconds.
    pub expires: u64,
    pub disposition: Option<Disposition>,
    pub signature: String,
}

impl App {
    /// Signs a link to a file that the caller may read, for `ttl` seconds.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a time outside 1 s to 7 days.
    pub fn mint_link(
        &self,
        file: &FileRecord,
        ttl: u64,
        disposition: Option<Disposition>,
    ) -> Result<Link> {
        if !LINK_TTL_SECONDS.contains(&ttl) {
            let detail = "A link must be valid for 1 to 604800 seconds.";
            return Err(Error::invalid("invalid_ttl", detail));
        }
        let expires = self.clock.now().seconds() + ttl;
        let word = disposition.map(Disposition::as_str);
        let signature = self.links.sign(&file.key, expires, word);
        Ok(Link { key: file.key.clone(), expires, disposition, signature })
    }

    /// The file of a link, and for how many more seconds the link is valid.
    ///
    /// # Errors
    /// [`Error::LinkRefused`] for a wrong signature or an expired link; [`Error::NotFound`] for a
    /// file that was deleted.
    pub async fn redeem_link(&self, link: &Link) -> Result<(FileRecord, u64)> {
        let word = link.disposition.map(Disposition::as_str);
        if !self.links.verify(&link.key, link.expires, word, &link.signature) {
            let detail = "The link's signature is wrong.";
            return Err(Error::LinkRefused { code: "link_invalid", detail });
        }
        let left = link.expires.saturating_sub(self.clock.now().seconds());
        if left == 0 {
            let detail = "The link has expired.";
            return Err(Error::LinkRefused { code: "link_expired", detail });
        }
        Ok((self.file_for_anyone(&link.key).await?, left))
    }
}
