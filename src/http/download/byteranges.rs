//! `multipart/byteranges`: several parts of one content in one answer (RFC 9110 section 14.6).

use std::{io, sync::Arc};

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};

use crate::{
    app::{App, Error},
    blob::Reader,
    http::message::body::chunks,
    model::{file::FileRecord, range::Slice},
    sys::random,
};

/// The parts of a multipart answer, and what stands between them.
pub struct ByteRanges {
    boundary: String,
    /// What comes before each part, and the range of the content that the part holds.
    parts: Vec<(String, Slice)>,
}

impl ByteRanges {
    pub fn new(mime: &str, size: u64, slices: &[Slice]) -> Self {
        // Random and new, so no stored content can contain it.
        let boundary = format!("{:016x}{:016x}", random::nonce(), random::nonce());
        let head = |(at, slice): (usize, &Slice)| {
            let line_end = if at == 0 { "" } else { "\r\n" };
            let (first, last) = (slice.start, slice.end - 1);
            let head = format!(
                "{line_end}--{boundary}\r\nContent-Type: {mime}\r\n\
                 Content-Range: bytes {first}-{last}/{size}\r\n\r\n"
            );
            (head, *slice)
        };
        let parts = slices.iter().enumerate().map(head).collect();
        Self { boundary, parts }
    }

    pub fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// What comes before each part, and the range of the content that the part holds.
    pub fn parts(&self) -> &[(String, Slice)] {
        &self.parts
    }

    /// What comes after the last part.
    pub fn tail(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }

    /// Bytes of the whole body.
    pub fn length(&self) -> u64 {
        let parts = self.parts.iter().map(|(head, slice)| head.len() as u64 + slice.len());
        parts.sum::<u64>() + self.tail().len() as u64
    }

    /// The whole body. Each part is opened when the one before it was sent.
    ///
    /// # Errors
    /// As [`App::open_content`], for the first part.
    pub async fn stream(
        self,
        app: Arc<App>,
        file: FileRecord,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, Error> {
        let first = match self.parts.first() {
            Some((_, slice)) => Some(app.open_content(&file, *slice).await?),
            None => None,
        };
        let tail = self.tail();
        let keeps = app.keep_deleted();
        let parts = stream::iter(self.parts).scan(first, move |first, (head, slice)| {
            let _ = &keeps;
            let opened = first.take();
            let (app, file) = (Arc::clone(&app), file.clone());
            let part = async move {
                let reader = match opened {
                    Some(reader) => reader,
                    None => open(&app, &file, slice).await?,
                };
                let head = stream::iter([Ok(Bytes::from(head))]);
                Ok::<_, io::Error>(head.chain(chunks(reader)))
            };
            std::future::ready(Some(stream::once(part).try_flatten()))
        });
        Ok(parts.flatten().chain(stream::iter([Ok(Bytes::from(tail))])))
    }
}

async fn open(app: &App, file: &FileRecord, slice: Slice) -> io::Result<Box<dyn Reader>> {
    app.open_content(file, slice).await.map_err(|error| {
        tracing::error!(%error, "a download was cut");
        io::Error::other(error)
    })
}
