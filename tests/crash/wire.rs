//! HTTP/1.1 on one connection, with only what the clients here need. Requests can be pipelined.

use std::{
    io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use serde_json::Value;

pub const TOKEN: &str = "an-opaque-token-for-crash-tests";
/// A daemon that does not answer within this time is at fault.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most pipelined requests on one connection.
const AHEAD_MAX: usize = 32;

pub struct Wire {
    address: String,
    credential: String,
    connection: Option<BufReader<TcpStream>>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub media_type: String,
    /// The last segment of `Location`, which is the id of a new upload.
    pub upload: Option<String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn text(&self) -> String {
        let body: String = String::from_utf8_lossy(&self.body).chars().take(300).collect();
        format!("{} {body}", self.status)
    }
}

impl Wire {
    /// A client with the service token.
    pub fn service(address: &str) -> Self {
        Self::new(address, format!("x-service-token: {TOKEN}"))
    }

    pub fn bearer(address: &str, token: &str) -> Self {
        Self::new(address, format!("authorization: Bearer {token}"))
    }

    fn new(address: &str, credential: String) -> Self {
        Self { address: address.to_owned(), credential, connection: None }
    }

    pub fn send(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.send_with(method, path, "", body)
    }

    /// As [`Wire::send`], with more headers, each with its line end.
    pub fn send_with(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> io::Result<Answer> {
        self.write(method, path, headers, body)?;
        self.read()
    }

    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send("GET", path, b"")
    }

    pub fn post(&mut self, path: &str, body: &Value) -> io::Result<Answer> {
        self.send("POST", path, body.to_string().as_bytes())
    }

    /// Requests many paths, pipelined: the next requests are sent before the first is answered.
    pub fn get_all(&mut self, paths: &[String]) -> io::Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(paths.len());
        for paths in paths.chunks(AHEAD_MAX) {
            for path in paths {
                self.write("GET", path, "", b"")?;
            }
            for _ in paths {
                answers.push(self.read()?);
            }
        }
        Ok(answers)
    }

    fn write(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<()> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: crash\r\n{}\r\n{headers}content-length: {}\r\n\r\n",
            self.credential,
            body.len(),
        )
        .into_bytes();
        request.extend_from_slice(body);
        let written = self.connected()?.get_mut().write_all(&request);
        // A daemon that refuses early may have closed the connection already; its answer can still
        // be read.
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }

    fn connected(&mut self) -> io::Result<&mut BufReader<TcpStream>> {
        if self.connection.is_none() {
            let stream = TcpStream::connect(&self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            self.connection = Some(BufReader::with_capacity(64 << 10, stream));
        }
        self.connection.as_mut().ok_or_else(|| ErrorKind::NotConnected.into())
    }

    fn read(&mut self) -> io::Result<Answer> {
        let answer = read_answer(self.connected()?);
        let closes = answer.as_ref().map_or(true, |(_, closes)| *closes);
        if closes && let Some(connection) = self.connection.take() {
            // The connection may be closed already.
            let _ = connection.get_ref().shutdown(Shutdown::Both);
        }
        answer.map(|(answer, _)| answer)
    }
}

/// The answer and whether the connection ends with it.
fn read_answer(from: &mut BufReader<TcpStream>) -> io::Result<(Answer, bool)> {
    let status = line(from)?;
    let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| Error::other("not an HTTP answer"))?;
    let mut answer = Answer { status, media_type: String::new(), upload: None, body: Vec::new() };
    let (mut length, mut closes) = (None, false);
    loop {
        let header = line(from)?;
        let Some((name, value)) = header.split_once(':') else { break };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok(),
            "content-type" => value.clone_into(&mut answer.media_type),
            "location" => answer.upload = value.rsplit('/').next().map(str::to_owned),
            "connection" => closes = value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    if status == 204 {
        return Ok((answer, closes));
    }
    if let Some(length) = length {
        answer.body.resize(length, 0);
        from.read_exact(&mut answer.body)?;
        return Ok((answer, closes));
    }
    loop {
        let size = usize::from_str_radix(&line(from)?, 16).map_err(Error::other)?;
        let filled = answer.body.len();
        answer.body.resize(filled + size, 0);
        from.read_exact(&mut answer.body[filled..])?;
        line(from)?;
        if size == 0 {
            return Ok((answer, closes));
        }
    }
}

fn line(from: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end().len());
    Ok(line)
}
