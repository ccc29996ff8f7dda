//! One run of the daemon under the recorder, and its examination: at each cut, the directory is
//! rebuilt, a daemon is started on it, and its answers are checked.

use std::{
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    check::{QUOTA, check},
    clients::work,
    daemon::{Daemon, Recorder},
    dice::Dice,
    disk::{Disk, Mutation},
    ledger::{Action, Event, Ledger},
    recording::{Operation, Recording},
};

const WORKERS: usize = 2;
/// The free memory that is needed to rebuild directories there.
const MEMORY_ROOM_BYTES: u64 = 4 << 30;
/// Failures that are kept with their directories and shown.
const SHOWN_MAX: usize = 5;

/// How a recording is made.
#[derive(Clone)]
pub struct Plan {
    pub seed: u64,
    pub time: Duration,
    /// Whether the index is saved, and logs of the journal are removed, every few dozen commits.
    pub saving: bool,
    /// Whether lifetimes are short and the clock is fast, so that sweeps run all the time.
    pub expiring: bool,
}

/// A recording with the books that belong to it.
pub struct Session {
    pub plan: Plan,
    base: Disk,
    recording: Recording,
    /// What clients had been told before the recording began.
    ledger: Ledger,
    clients: Vec<Vec<Event>>,
    /// How many entries were made until the daemon had started.
    started: usize,
}

/// The outcome of some cuts.
#[derive(Debug, Default)]
pub struct Report {
    pub cuts: usize,
    /// Cuts after which something acknowledged was not as it should be, or the daemon panicked.
    pub losses: usize,
    pub failed_starts: usize,
    /// Log lines that say that the index was rebuilt.
    pub rebuilds: usize,
    /// Other lines of warning or error in the logs.
    pub troubles: usize,
    pub build: Duration,
    pub start: Duration,
    pub check: Duration,
    pub failures: Vec<String>,
}

impl Report {
    pub fn add(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.losses += other.losses;
        self.failed_starts += other.failed_starts;
        self.rebuilds += other.rebuilds;
        self.troubles += other.troubles;
        self.build += other.build;
        self.start += other.start;
        self.check += other.check;
        self.failures.extend(other.failures);
    }

    /// Shows the figures.
    ///
    /// # Panics
    /// With the failures, when there are any.
    pub fn prove(&self, what: &str) {
        let cuts = u32::try_from(self.cuts.max(1)).unwrap();
        let (build, start, check) = (self.build / cuts, self.start / cuts, self.check / cuts);
        println!(
            "{what}: {} cuts, {} losses, {} failed starts, {} rebuilds, {} other troubles; \
             a cut: {build:.1?} to build, {start:.1?} to start, {check:.1?} to check",
            self.cuts, self.losses, self.failed_starts, self.rebuilds, self.troubles,
        );
        let bad = self.losses + self.failed_starts + self.rebuilds;
        assert!(bad == 0, "{what}: {bad} cuts lost something\n{}", self.failures.join("\n"));
    }
}

/// A directory for files that are soon removed, in memory where there is room.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map_or(0, |stat| stat.f_bavail * stat.f_frsize);
    if room > MEMORY_ROOM_BYTES {
        return tempfile::tempdir_in(memory).unwrap();
    }
    tempfile::tempdir().unwrap()
}

impl Plan {
    pub fn settings(&self) -> Vec<(&'static str, &'static str)> {
        let mut settings = Vec::new();
        if self.saving {
            settings.push(("STREAMLINED_JOURNAL_BYTES", "32KiB"));
        }
        if self.expiring {
            settings.push(("STREAMLINED_RECLAIM_GRACE", "100ms"));
            settings.push(("STREAMLINED_UPLOAD_TTL", "600ms"));
        }
        settings
    }

    fn clock(&self) -> u32 {
        // The daemon sweeps once a minute.
        if self.expiring { 150 } else { 1 }
    }
}

impl Session {
    /// Runs a daemon on `dir/data`, which exists, with clients that continue from `ledger`.
    pub fn record(dir: &Path, ledger: Ledger, plan: Plan) -> Self {
        let data = fs::canonicalize(dir.join("data")).unwrap();
        let base = Disk::read(&data);
        let books = scratch();
        let recorder = Recorder::new(books.path(), plan.clock());
        let stderr = books.path().join("stderr");
        let daemon = Daemon::start(&data, &stderr, &plan.settings(), Some(&recorder))
            .unwrap_or_else(|said| panic!("seed {}: {said}", plan.seed));
        let ready = recorder.length();
        let clients = work(&daemon, &recorder, &ledger, plan.seed, plan.time);
        recorder.stop();
        let said = daemon.said();
        assert_eq!(daemon.panics(), [""; 0]);
        drop(daemon);
        for event in clients.iter().flatten() {
            let status = event.answered.as_ref().map(|(_, status, _)| *status);
            let over = plan.expiring && matches!(status, Some(404 | 410));
            let done = status.is_some_and(|status| (200..300).contains(&status));
            assert!(done || over, "{:?} was answered {:?}: {said}", event.action, event.answered);
        }
        let recording = Recording::read(&recorder.log);
        let started = recording.entries_below(ready);
        let session = Self { plan, base, recording, ledger, clients, started };
        session.check_recording(&data);
        session
    }

    /// The recording has to explain every file of the directory and every byte.
    fn check_recording(&self, data: &Path) {
        let mut disk = self.base.clone();
        disk.advance(&self.recording, self.recording.entries.len(), None);
        let dir = scratch();
        let built = dir.path().join("data");
        disk.build_whole(&self.recording.log, &built);
        let mut dirs = vec![PathBuf::new()];
        while let Some(at) = dirs.pop() {
            let names = |root: &Path| -> Vec<String> {
                let entries = fs::read_dir(root.join(&at)).unwrap();
                let kept = entries.map(Result::unwrap);
                let kept = kept.filter(|entry| !entry.file_type().unwrap().is_socket());
                let mut names: Vec<_> = kept.map(|entry| entry.file_name()).collect();
                names.sort();
                names.into_iter().map(|name| name.into_string().unwrap()).collect()
            };
            assert_eq!(names(data), names(&built), "names in {}", at.display());
            for name in names(data) {
                let path = at.join(name);
                if data.join(&path).is_dir() {
                    dirs.push(path);
                } else {
                    let is = fs::read(data.join(&path)).unwrap();
                    let recorded = fs::read(built.join(&path)).unwrap();
                    let explained = is == recorded || is_but_for_holes(&path, &is, &recorded);
                    assert!(explained, "the recording does not explain {}", path.display());
                }
            }
        }
    }

    pub fn requests(&self) -> usize {
        self.clients.iter().map(Vec::len).sum()
    }

    /// How many final uploads were requested.
    pub fn concatenations(&self) -> usize {
        let events = self.clients.iter().flatten();
        events.filter(|event| matches!(event.action, Action::Concatenate(_))).count()
    }

    /// Points to cut at, in order, each with a seed. Half of them lie right at an answer, some
    /// within the start, and some right after a file was removed, when whatever it held must be
    /// elsewhere.
    pub fn cuts(&self, count: usize, dice: &mut Dice) -> Vec<(usize, u64)> {
        let events = self.clients.iter().flatten();
        let answers: Vec<u64> =
            events.filter_map(|event| event.answered.as_ref().map(|(at, ..)| *at)).collect();
        let entries = self.recording.entries.iter().enumerate();
        let removals: Vec<usize> = entries
            .filter(|(_, entry)| matches!(entry.operation, Operation::Unlink { .. }))
            .map(|(at, _)| at + 1)
            .collect();
        let mut cuts: Vec<(usize, u64)> = (0..count)
            .map(|_| {
                let at = match (dice.below(8), dice.pick(&answers)) {
                    (0..4, Some(answer)) => {
                        let cut = self.recording.entries_below(*answer);
                        cut + usize::from(self.recording.length_after(cut) < *answer)
                    }
                    (4, _) => dice.below(self.started + 1),
                    (5, _) => dice.pick(&removals).copied().unwrap_or(0),
                    _ => dice.below(self.recording.entries.len() + 1),
                };
                (at.min(self.recording.entries.len()), dice.number())
            })
            .collect();
        cuts.sort_unstable();
        cuts
    }

    /// Rebuilds a directory as it was at a cut, in `dir/data`, and answers what clients had been
    /// told by then.
    pub fn cut(&self, at: usize, seed: u64, dir: &Path) -> Ledger {
        let mut disk = self.base.clone();
        disk.advance(&self.recording, at, None);
        disk.build(&self.recording.log, &dir.join("data"), &mut Dice::new(seed));
        self.ledger.at(&self.clients, self.recording.length_after(at))
    }

    /// Examines cuts; with a mutation, until one of them is found to lose something.
    pub fn examine(&self, cuts: &[(usize, u64)], without: Option<&Mutation>) -> Report {
        let next = AtomicUsize::new(0);
        let report = Mutex::new(Report::default());
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    let mut disk = self.base.clone();
                    let dir = scratch();
                    while let Some((at, seed)) = cuts.get(next.fetch_add(1, Ordering::SeqCst)) {
                        disk.advance(&self.recording, *at, without);
                        let one = self.examine_one(&disk, *at, *seed, dir.path(), without);
                        let mut report = report.lock().unwrap();
                        report.add(one);
                        let noticed = without.is_some() && !report.failures.is_empty();
                        if noticed || report.failures.len() >= SHOWN_MAX {
                            next.store(cuts.len(), Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        report.into_inner().unwrap()
    }

    fn examine_one(
        &self,
        disk: &Disk,
        at: usize,
        seed: u64,
        dir: &Path,
        without: Option<&Mutation>,
    ) -> Report {
        let began = Instant::now();
        let data = dir.join("data");
        let log = &self.recording.log;
        let model = disk.build(log, &data, &mut Dice::new(seed));
        let ledger = self.ledger.at(&self.clients, self.recording.length_after(at));
        let build = began.elapsed();
        let mut report = verify(dir, &ledger, self.plan.expiring, seed);
        report.build = build;
        fs::remove_dir_all(&data).unwrap();
        if without.is_none() && !report.failures.is_empty() {
            let kept = tempfile::Builder::new().prefix("crash-").tempdir().unwrap().keep();
            disk.build(log, &kept.join("data"), &mut Dice::new(seed));
            let books = serde_json::to_vec(&(&ledger, self.plan.expiring, seed)).unwrap();
            fs::write(kept.join("books"), books).unwrap();
            let (kept, entries) = (kept.display(), self.recording.entries.len());
            report.failures.insert(
                0,
                format!(
                    "run {}, cut {at} of {entries} ({} until the start), seed {seed}: {model}\n  \
                     CRASH_CASE={kept} cargo nextest run --test crash --run-ignored all \
                     replay_a_case",
                    self.plan.seed, self.started,
                ),
            );
            report.failures = vec![report.failures.join("\n  ")];
        }
        report
    }
}

/// Starts a daemon on `dir/data` and checks it against the ledger.
pub fn verify(dir: &Path, ledger: &Ledger, expiring: bool, seed: u64) -> Report {
    let began = Instant::now();
    let mut report = Report { cuts: 1, ..Report::default() };
    let stderr = dir.join("stderr");
    match Daemon::start(&dir.join("data"), &stderr, &[QUOTA], None) {
        Err(said) => {
            report.failed_starts = 1;
            report.failures.push(said);
        }
        Ok(daemon) => {
            report.start = began.elapsed();
            let began = Instant::now();
            let mut wrong = check(&daemon.address, ledger, expiring, Dice::new(seed));
            report.check = began.elapsed();
            wrong.extend(daemon.panics());
            let said = daemon.said();
            let lines = said
                .lines()
                .filter(|line| ["\"WARN\"", "\"ERROR\""].iter().any(|word| line.contains(word)));
            let (rebuilds, troubles): (Vec<&str>, _) = lines.partition(|line| is_rebuild(line));
            report.rebuilds = rebuilds.len();
            // The journal can rebuild the index, but a power cut alone must never make that
            // necessary.
            report.failures.extend(rebuilds.into_iter().map(str::to_owned));
            for line in &troubles {
                println!("other trouble: {line}");
            }
            report.troubles = troubles.len();
            if !wrong.is_empty() {
                report.losses = 1;
                report
                    .failures
                    .push(wrong.into_iter().take(SHOWN_MAX).collect::<Vec<_>>().join("\n  "));
                report.failures.push(said);
            }
        }
    }
    report
}

/// Whether a line of the log tells that the index was rebuilt.
pub fn is_rebuild(line: &str) -> bool {
    line.to_lowercase().contains("rebuil")
}

/// Whether an assembly differs from its recording by holes only. The recorder does not see how a
/// hole is punched, because that is a system call of its own. The recording keeps the bytes that
/// were there, which no record names.
fn is_but_for_holes(path: &Path, is: &[u8], recorded: &[u8]) -> bool {
    let mut bytes = is.iter().zip(recorded);
    let is_assembly = path.extension().is_some_and(|name| name == "assembly");
    is_assembly && is.len() == recorded.len() && bytes.all(|(is, was)| is == was || *is == 0)
}
