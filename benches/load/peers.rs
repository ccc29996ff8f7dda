//! The servers, each started on a directory of its own.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::client::{Job, Method, once};

const TOKEN: &str = "an-opaque-token-for-benches";
const RANGE: &str = "Range: bytes=33554000-33555023\r\n";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Durable, authenticated.
    Ours,
    /// `WebDAV` and sendfile, without syncs and without authentication: the ceiling.
    Nginx,
    /// The filer of `SeaweedFS`, with `fsync=true` in each request or without syncs.
    Filer { sync: bool },
}

pub struct Server {
    peer: Peer,
    address: String,
    child: Child,
}

fn spawn(program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Option<Child> {
    let mut command = Command::new(program);
    command.args(arguments).envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
}

impl Server {
    /// `None`, and a line about it, when the peer is not installed.
    pub fn start(peer: Peer, place: &Path) -> Option<Self> {
        let place = place.join(match peer {
            Peer::Ours => "ours",
            Peer::Nginx => "nginx",
            Peer::Filer { sync: true } => "weed-sync",
            Peer::Filer { sync: false } => "weed",
        });
        fs::create_dir(&place).unwrap();
        let dir = place.to_str().unwrap();
        let (address, child) = match peer {
            Peer::Ours => {
                let program = PathBuf::from(env!("CARGO_BIN_EXE_streamlined"));
                let address = "127.0.0.1:18092";
                let arguments = ["serve", "--data-dir", dir, "--listen", address];
                let variables =
                    [("STREAMLINED_SERVICE_TOKEN", TOKEN), ("STREAMLINED_LOG", "error")];
                (address, spawn(&program, &arguments, &variables))
            }
            Peer::Nginx => {
                let address = "127.0.0.1:18091";
                let config = place.join("nginx.conf");
                fs::write(&config, nginx_config(dir, address)).unwrap();
                let arguments = ["-c", config.to_str().unwrap(), "-g", "daemon off;"];
                (address, spawn("nginx".as_ref(), &arguments, &[]))
            }
            Peer::Filer { sync } => {
                let base: u16 = if sync { 18_100 } else { 18_200 };
                let ports = [0, 1, 2].map(|n| (base + n).to_string());
                let weed = std::env::var_os("WEED").unwrap_or_else(|| "weed".into());
                let dir = format!("-dir={dir}");
                let [master, volume, filer] = &ports;
                let arguments = [
                    "server".to_owned(),
                    dir,
                    "-ip=127.0.0.1".into(),
                    format!("-master.port={master}"),
                    format!("-volume.port={volume}"),
                    "-filer".into(),
                    format!("-filer.port={filer}"),
                    "-master.volumeSizeLimitMB=4096".into(),
                    "-volume.max=20".into(),
                ];
                let arguments = arguments.each_ref().map(String::as_str);
                let address = if sync { "127.0.0.1:18102" } else { "127.0.0.1:18202" };
                (address, spawn(weed.as_ref(), &arguments, &[]))
            }
        };
        let Some(child) = child else {
            println!("  ({} is not installed)", name(peer));
            return None;
        };
        let server = Self { peer, address: address.to_owned(), child };
        server.wait();
        Some(server)
    }

    /// Waits until the server takes files.
    fn wait(&self) {
        let began = Instant::now();
        while TcpStream::connect(&self.address).is_err() {
            assert!(began.elapsed() < Duration::from_mins(1), "{} does not start", self.name());
            std::thread::sleep(Duration::from_millis(50));
        }
        if matches!(self.peer, Peer::Filer { .. }) {
            // The volumes of the filer come up later than its port.
            std::thread::sleep(Duration::from_secs(8));
        }
    }

    pub fn name(&self) -> &'static str {
        name(self.peer)
    }

    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// What a row asks of this server; `None` where it has no such thing.
    pub fn job(&self, method: Method, bytes: u64) -> Option<Job> {
        let peer = self.peer;
        let put = || self.job_of(bytes, move |number| put(peer, number));
        match method {
            Method::Put => Some(put()),
            Method::Base64Part => (peer == Peer::Ours).then(|| self.parts(bytes)),
            Method::Get { range } => {
                let count = ((256 << 20) / bytes).clamp(1, 1_000);
                let paths: Vec<String> = (0..count).map(|_| stored(peer, &once(&put()))).collect();
                let head = move |number: u64| {
                    let path = &paths[usize::try_from(number).unwrap() % paths.len()];
                    let range = if range { RANGE } else { "" };
                    format!("GET {path} HTTP/1.1\r\n{range}{}", credential(peer))
                };
                Some(self.job_of(0, head))
            }
        }
    }

    fn job_of(&self, bytes: u64, head: impl Fn(u64) -> String + Send + Sync + 'static) -> Job {
        Job { address: self.address.clone(), head: Box::new(head), document: None, bytes }
    }

    /// Parts of one upload in base64. A part that is sent again replaces the earlier one.
    fn parts(&self, bytes: u64) -> Job {
        let head = |path: &str| {
            format!(
                "POST {path} HTTP/1.1\r\nContent-Type: application/json\r\n{}",
                credential(Peer::Ours)
            )
        };
        let init = head("/v1/files/init?user_id=u");
        let document =
            format!(r#"{{"mode":"chunked","files":[{{"name":"f","size":{}}}]}}"#, 1_u64 << 32);
        let init = Job {
            document: Some(Box::new(move |_| (document.clone(), String::new()))),
            ..self.job_of(0, move |_| init.clone())
        };
        let answer: serde_json::Value = serde_json::from_str(&once(&init).1).unwrap();
        let upload = answer["uploadId"].as_str().unwrap().to_owned();
        let document = move |number: u64| {
            let number = number % 1_000;
            let before =
                format!(r#"{{"uploadId":"{upload}","partNumber":{number},"chunkBase64":""#);
            (before, "\"}".to_owned())
        };
        let part = head("/v1/files/part");
        Job { document: Some(Box::new(document)), ..self.job_of(bytes, move |_| part.clone()) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn name(peer: Peer) -> &'static str {
    match peer {
        Peer::Ours => "streamlined",
        Peer::Nginx => "nginx, not durable",
        Peer::Filer { sync: true } => "SeaweedFS with fsync",
        Peer::Filer { sync: false } => "SeaweedFS, not durable",
    }
}

fn credential(peer: Peer) -> String {
    if peer == Peer::Ours { format!("X-Service-Token: {TOKEN}\r\n") } else { String::new() }
}

/// Where files lie: below one of a hundred users.
fn path(number: u64) -> String {
    format!("/u{}/{number}", number % 100)
}

fn put(peer: Peer, number: u64) -> String {
    let target = match peer {
        Peer::Ours => {
            format!("/v1/files/content?user_id=u{}&filename={number}", number % 100)
        }
        Peer::Filer { sync: true } => path(number) + "?fsync=true",
        Peer::Nginx | Peer::Filer { sync: false } => path(number),
    };
    format!("PUT {target} HTTP/1.1\r\n{}", credential(peer))
}

/// The path of the file that the `number`-th request stored.
fn stored(peer: Peer, (number, answer): &(u64, String)) -> String {
    if peer != Peer::Ours {
        return path(*number);
    }
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
    format!("/v1/files/content/{}", answer["key"].as_str().unwrap())
}

fn nginx_config(dir: &str, address: &str) -> String {
    format!(
        "user root; pid {dir}/pid; error_log {dir}/error; worker_processes auto;
        events {{ worker_connections 1024; }}
        http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
          client_max_body_size 0; client_body_buffer_size 128k;
          client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c;
          uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;
          server {{ listen {address}; root {dir}/files;
            dav_methods PUT; create_full_put_path on; }} }}"
    )
}
