//! The real binary: started, stopped, killed, started again on the same directory.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use streamlined::auth::keyring::KeyRing;
use tempfile::TempDir;

use super::{Client, PATIENCE};

pub const BINARY: &str = env!("CARGO_BIN_EXE_streamlined");
pub const TOKEN: &str = "an-opaque-token-for-tests";

/// A daemon that is killed when the test ends. Its log must then hold no warning, error or panic
/// that the test does not expect.
pub struct Daemon {
    dir: TempDir,
    variables: Vec<(String, String)>,
    open_files_max: Option<u32>,
    child: Child,
    url: String,
    expected_trouble: Vec<&'static str>,
}

impl Daemon {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts with settings, named as in the configuration file.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        Self::under(settings, &[])
    }

    /// As [`Daemon::with`], with no more open files than this.
    pub fn with_open_files(files: u32, settings: &[(&str, &str)]) -> Self {
        Self::launched(tempfile::tempdir().unwrap(), variables(settings), Some(files))
    }

    /// Starts with settings, and with environment variables that are not settings.
    pub fn under(settings: &[(&str, &str)], environment: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut variables = variables(settings);
        variables.extend(environment.iter().map(owned));
        let dir = tempfile::tempdir().unwrap();
        lend_key(&dir.path().join("data"));
        Self::launched(dir, variables, None)
    }

    /// Starts with a data directory below a directory that the caller chooses. The daemon makes
    /// everything itself, its signing key too.
    pub fn within(dir: TempDir) -> Self {
        Self::launched(dir, variables(&[]), None)
    }

    /// Starts on a data directory that `prepare` has filled.
    pub fn prepared(prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        prepare(&dir.path().join("data"));
        let token = ("STREAMLINED_SERVICE_TOKEN".to_owned(), TOKEN.to_owned());
        Self::launched(dir, vec![token], None)
    }

    /// Starts on a data directory, which is moved.
    pub fn on(data: &Path) -> Self {
        Self::prepared(|empty| {
            fs::remove_dir(empty).unwrap();
            fs::rename(data, empty).unwrap();
        })
    }

    fn launched(
        dir: TempDir,
        variables: Vec<(String, String)>,
        open_files_max: Option<u32>,
    ) -> Self {
        let (child, url) = launch(dir.path(), &variables, open_files_max);
        Self { dir, variables, open_files_max, child, url, expected_trouble: Vec::new() }
    }

    /// Allows lines with this text in the log.
    pub fn expect_trouble(&mut self, text: &'static str) {
        self.expected_trouble.push(text);
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    pub fn port(&self) -> &str {
        self.address().rsplit(':').next().unwrap()
    }

    /// Sends a request to the admin socket and returns the whole answer.
    pub fn operator(&self, method: &str, path: &str) -> String {
        let mut socket = UnixStream::connect(self.dir().join("admin.sock")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client without a credential.
    pub fn anyone(&self) -> Client {
        Client::new(&self.url, &[])
    }

    pub fn service(&self) -> Client {
        Client::new(&self.url, &[("x-service-token", TOKEN)])
    }

    /// A client with a token of this user.
    pub fn user(&self, id: &str) -> Client {
        let answer = self
            .service()
            .post(&format!("/v1/files/generate-token?user_id={}", super::client::query(id)), "");
        self.bearer(answer.ok()["token"].as_str().unwrap())
    }

    pub fn bearer(&self, token: &str) -> Client {
        Client::new(&self.url, &[("authorization", &format!("Bearer {token}"))])
    }

    pub fn signal(&self, signal: Signal) {
        self::signal(&self.child, signal);
    }

    pub fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the daemon in good order.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        assert!(self.wait().success());
    }

    /// Ends the daemon with a signal and starts it again on the same directory.
    pub fn restart(&mut self, signal: Signal) {
        self.signal(signal);
        self.wait();
        self.resume();
    }

    /// Starts the daemon again after it has ended.
    pub fn resume(&mut self) {
        let _ = fs::remove_file(self.dir().join("listen"));
        (self.child, self.url) = launch(self.dir.path(), &self.variables, self.open_files_max);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Whether the metrics tell that this limit was hit.
    pub fn has_hit(&self, limit: &str) -> bool {
        let sample = format!("streamlined_limits_hit_total{{limit=\"{limit}\"}} ");
        self.operator("GET", "/metrics").contains(&sample)
    }

    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Begins the measurement of [`Daemon::peak_memory_kib`] anew.
    pub fn forget_peak_memory(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    /// The peak of resident memory so far, in KiB.
    pub fn peak_memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

pub fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
}

fn variables(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    let named = |(name, value): &(&str, &str)| {
        (format!("STREAMLINED_{}", name.to_uppercase()), (*value).to_owned())
    };
    let token = ("STREAMLINED_SERVICE_TOKEN".to_owned(), TOKEN.to_owned());
    std::iter::once(token).chain(settings.iter().map(named)).collect()
}

/// The command that runs the daemon; through prlimit(1) where open files are limited.
fn command(open_files: Option<u32>) -> Command {
    let Some(files) = open_files else { return Command::new(BINARY) };
    let mut command = Command::new("/usr/bin/prlimit");
    command.arg(format!("--nofile={files}:{files}")).arg(BINARY);
    command
}

/// Puts a signing key into a directory that a daemon is about to make its own, as its first start
/// would. Making an RSA key takes longer than most tests, so all of them share one, which the first
/// test makes.
fn lend_key(data: &Path) {
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("keys");
    if !shared.exists() {
        let maker = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let made = maker.path().join("keys");
        KeyRing::open(&made).unwrap();
        // Another test may have been faster.
        let _ = fs::rename(made, &shared);
    }
    let keys = data.join("keys");
    fs::create_dir_all(&keys).unwrap();
    for entry in fs::read_dir(shared).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), keys.join(entry.file_name())).unwrap();
    }
}

fn launch(dir: &Path, variables: &[(String, String)], open_files: Option<u32>) -> (Child, String) {
    let data = dir.join("data");
    let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let mut child = command(open_files)
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .env_clear()
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let began = Instant::now();
    loop {
        if let Ok(address) = fs::read_to_string(data.join("listen")) {
            return (child, format!("http://{}", address.trim()));
        }
        let log = || fs::read_to_string(dir.join("log")).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "the daemon ended: {}", log());
        assert!(began.elapsed() < PATIENCE, "the daemon does not listen: {}", log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
            return;
        }
        let log = self.log();
        let trouble = log.lines().filter(|line| {
            line.contains(r#""level":"WARN""#)
                || line.contains(r#""level":"ERROR""#)
                || line.contains("panicked")
        });
        let unexpected: Vec<&str> = trouble
            .filter(|line| !self.expected_trouble.iter().any(|t| line.contains(t)))
            .collect();
        assert!(unexpected.is_empty(), "unexpected trouble in the log: {unexpected:#?}");
    }
}
