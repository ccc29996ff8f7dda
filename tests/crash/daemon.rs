//! The real binary on a directory, with or without the recorder.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{recording::recorder, wire::TOKEN};

pub const START_PATIENCE: Duration = Duration::from_secs(30);
/// Longer than any operation takes that had begun before the recorder was told to stop.
const STOP_WAIT: Duration = Duration::from_millis(30);

/// A running daemon. Killed when dropped.
pub struct Daemon {
    child: Child,
    pub address: String,
    stderr: PathBuf,
}

/// The files of a recorder, beside the data directory that it watches.
#[derive(Clone)]
pub struct Recorder {
    pub log: PathBuf,
    control: PathBuf,
    /// How many times as fast the daemon's monotonic clock runs.
    pub clock: u32,
}

/// Which operations fail; the fields correspond to `struct control` of the recorder.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kinds: u32,
    pub error: i32,
    /// How many operations still succeed.
    pub skip: i64,
    /// How many operations fail after those; all of them when negative.
    pub times: i64,
    /// What the path of an operation must contain, or after a `!` must not contain.
    pub filter: &'static str,
}

impl Daemon {
    /// Starts on `data`, with its log in `stderr`.
    ///
    /// # Errors
    /// What the daemon said when it does not come up.
    pub fn start(
        data: &Path,
        stderr: &Path,
        settings: &[(&str, &str)],
        recorder_files: Option<&Recorder>,
    ) -> Result<Self, String> {
        let announced = data.join("listen");
        let _ = fs::remove_file(&announced);
        let log = File::create(stderr).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamlined"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .env_clear()
            .env("STREAMLINED_SERVICE_TOKEN", TOKEN)
            .env("STREAMLINED_LOG", "warn")
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(files) = recorder_files {
            command
                .env("LD_PRELOAD", recorder())
                .env("RECORD_ROOT", data)
                .env("RECORD_LOG", &files.log)
                .env("RECORD_CONTROL", &files.control);
            if files.clock > 1 {
                command.env("RECORD_CLOCK", files.clock.to_string());
            }
        }
        let child = command.spawn().unwrap();
        let mut daemon = Self { child, address: String::new(), stderr: stderr.to_owned() };
        let began = Instant::now();
        loop {
            if let Ok(address) = fs::read_to_string(&announced) {
                address.trim().clone_into(&mut daemon.address);
                return Ok(daemon);
            }
            if let Some(status) = daemon.child.try_wait().unwrap() {
                return Err(format!("the start failed ({status}): {}", daemon.said()));
            }
            if began.elapsed() > START_PATIENCE {
                return Err(format!("the start takes too long: {}", daemon.said()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Everything that it logged.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    /// The lines of its log that tell of a panic.
    pub fn panics(&self) -> Vec<String> {
        let said = self.said();
        said.lines().filter(|line| line.contains("panicked")).map(str::to_owned).collect()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.stderr);
    }
}

impl Recorder {
    /// New files for a recording in `dir`.
    pub fn new(dir: &Path, clock: u32) -> Self {
        let files = Self { log: dir.join("recording"), control: dir.join("control"), clock };
        File::create(&files.log).unwrap();
        File::create(&files.control).unwrap().set_len(4096).unwrap();
        files
    }

    /// Length of the log: every operation that has ended is in it.
    pub fn length(&self) -> u64 {
        fs::metadata(&self.log).unwrap().len()
    }

    /// Lets no further operation begin and waits for the last one, so that the log ends with a
    /// whole operation and describes the directory as it is.
    pub fn stop(&self) {
        self.put(12, &1_i32.to_le_bytes());
        std::thread::sleep(STOP_WAIT);
    }

    pub fn arm(&self, fault: &Fault) {
        self.disarm();
        let mut filter = [0; 64];
        filter[..fault.filter.len()].copy_from_slice(fault.filter.as_bytes());
        self.put(16, &fault.skip.to_le_bytes());
        self.put(24, &fault.times.to_le_bytes());
        self.put(32, &[0; 16]);
        self.put(48, &filter);
        self.put(8, &fault.error.to_le_bytes());
        self.put(4, &fault.kinds.to_le_bytes());
        self.put(0, &1_u32.to_le_bytes());
    }

    pub fn disarm(&self) {
        self.put(0, &0_u32.to_le_bytes());
    }

    /// How many operations have matched the fault since it was armed, and how many of those failed.
    pub fn counted(&self) -> (u64, u64) {
        let mut bytes = [0; 16];
        File::open(&self.control).unwrap().read_exact_at(&mut bytes, 32).unwrap();
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        (number(0), number(8))
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(&self.control).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }
}
