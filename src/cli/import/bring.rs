//! A connection that brings contents, one after the other.

use std::{
    fs::File,
    io::{self, Read},
    sync::{Arc, Mutex as StdMutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{Method, Uri, body::Frame, http::uri::InvalidUri};
use serde_json::Value;
use tokio::{
    io::AsyncReadExt,
    sync::{Mutex, mpsc::Receiver},
    task::spawn_blocking,
};

use super::{Candidate, Job, report::Report, tree::Tree};
use crate::{
    blob::Digests,
    cli::{
        Failures,
        door::{self, Connection, Door, RequestBody},
    },
    model::{digest::Sha256, limits::TRANSFER_BUFFER_BYTES},
};

pub struct Carrier {
    pub tree: Arc<Tree>,
    pub report: Arc<Report>,
    pub door: Arc<Door>,
    pub dry: bool,
}

/// Why a file was not brought.
enum Failed {
    /// The file is left out, and others go on.
    Skipped(String),
    /// The import cannot go on.
    Stopped(Failures),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Skipped(error.to_string())
    }
}

/// The error of reading a file whose content was half sent.
type Trouble = Arc<StdMutex<Option<io::Error>>>;

impl Carrier {
    /// Takes jobs until there are no more.
    pub async fn work(self, jobs: Arc<Mutex<Receiver<Job>>>) -> Result<(), Failures> {
        let mut connection = None;
        loop {
            let next = jobs.lock().await.recv().await;
            let Some(Job { candidate, listed }) = next else { return Ok(()) };
            let done = match &listed {
                Some(listed) => self.compare(&candidate, listed).await,
                None if self.dry => self.check(&candidate).await,
                None => self.bring(&candidate, &mut connection).await,
            };
            let Candidate { described, size } = &candidate;
            match done {
                Ok(()) if listed.is_some() => self.report.known(*size),
                Ok(()) => self.report.taken(*size),
                Err(Failed::Skipped(why)) => self.report.skipped(&described.key, *size, &why),
                Err(Failed::Stopped(why)) => return Err(why),
            }
        }
    }

    /// Compares a file with the one that is listed under its key.
    async fn compare(&self, candidate: &Candidate, listed: &Value) -> Result<(), Failed> {
        let told = candidate.described.sha256.as_deref().and_then(Sha256::parse);
        let same = listed["size"] == candidate.size && {
            let sha256 = match told {
                Some(sha256) => sha256,
                None => self.sha256(candidate).await?,
            };
            listed["sha256"] == sha256.to_string()
        };
        let why = "a file with this key and other content is listed already; that file stays";
        if same { Ok(()) } else { Err(Failed::Skipped(why.into())) }
    }

    /// Reads a file as if it were brought, and checks its digest.
    async fn check(&self, candidate: &Candidate) -> Result<(), Failed> {
        let sha256 = self.sha256(candidate).await?;
        let told = candidate.described.sha256.as_deref().and_then(Sha256::parse);
        match told.filter(|told| *told != sha256) {
            Some(told) => {
                Err(Failed::Skipped(format!("the content has SHA-256 {sha256}, not {told}")))
            }
            None => Ok(()),
        }
    }

    async fn sha256(&self, candidate: &Candidate) -> Result<Sha256, Failed> {
        let file = self.open(candidate).await?;
        Ok(blocking(move || Digests::of(file)).await?.sha256)
    }

    async fn open(&self, candidate: &Candidate) -> Result<File, Failed> {
        let (tree, path) = (Arc::clone(&self.tree), candidate.described.key.clone());
        blocking(move || tree.file(&path)).await
    }

    /// Sends a file. If somebody else has stored it meanwhile, it counts as brought all the same.
    async fn bring(
        &self,
        candidate: &Candidate,
        connection: &mut Option<Connection>,
    ) -> Result<(), Failed> {
        let file = self.open(candidate).await?;
        let trouble = Trouble::default();
        let body = content(file, Arc::clone(&trouble)).await?;
        let mut open = match connection.take() {
            Some(open) => open,
            None => self.door.connect().await.map_err(Failed::Stopped)?,
        };
        let described = serde_json::to_string(&candidate.described)
            .map_err(|error| Failed::Skipped(error.to_string()))?;
        let path = format!("/import?file={}", door::encoded(&described));
        let skipped = |error: InvalidUri| Failed::Skipped(format!("its metadata: {error}"));
        Uri::try_from(&path).map_err(skipped)?;
        let answer = match open.ask(&Method::PUT, &path, body).await {
            Ok(answer) => answer,
            Err(failure) => {
                let trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
                return Err(trouble.map_or(Failed::Stopped(failure), Failed::from));
            }
        };
        *connection = Some(open);
        if answer.status.is_client_error() {
            return Err(Failed::Skipped(answer.detail().to_owned()));
        }
        answer.accepted().map(drop).map_err(Failed::Stopped)
    }
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failed> {
    let done = spawn_blocking(job).await.map_err(Failures::at("import"));
    Ok(done.map_err(Failed::Stopped)??)
}

/// A file as a request body: whole if it is small, else a buffer at a time.
async fn content(mut file: File, trouble: Trouble) -> Result<RequestBody, Failed> {
    let (file, begin) = blocking(move || {
        let mut begin = Vec::new();
        (&mut file).take(TRANSFER_BUFFER_BYTES as u64).read_to_end(&mut begin)?;
        Ok((file, Bytes::from(begin)))
    })
    .await?;
    if begin.len() < TRANSFER_BUFFER_BYTES {
        return Ok(Full::new(begin).map_err(|never| match never {}).boxed_unsync());
    }
    let state = (tokio::fs::File::from_std(file), Some(begin));
    let chunks = stream::try_unfold(state, move |(mut file, begin)| {
        let trouble = Arc::clone(&trouble);
        async move {
            if let Some(begin) = begin {
                return Ok(Some((Frame::data(begin), (file, None))));
            }
            let mut buffer = BytesMut::with_capacity(TRANSFER_BUFFER_BYTES);
            match file.read_buf(&mut buffer).await {
                Ok(0) => Ok(None),
                Ok(_) => Ok(Some((Frame::data(buffer.freeze()), (file, None)))),
                Err(error) => {
                    let cut = io::Error::from(error.kind());
                    *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    Err(cut)
                }
            }
        }
    });
    Ok(StreamBody::new(chunks).boxed_unsync())
}
