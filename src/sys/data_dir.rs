//! The data directory as a whole: its format and its lock.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::durable;

/// The layout that this program writes. Format 2 added the journal; a directory of format 1 gets
/// one when its metadata store is opened. 3 added trees behind the files of blobs; older files stay
/// without. 4 added parts that lie together in one file; uploads that were open before go on as
/// they are. 5 put the records of the index into runs: the index is made anew from the journal when
/// it is opened. 6 put the records of files among those of their owners: they are moved when the
/// index is opened.
const FORMAT: u32 = 6;
/// The oldest layout that this program reads.
const FORMAT_MIN: u32 = 1;

/// How long to wait for a directory that another process has locked, and how often to try.
const PATIENCE: Duration = Duration::from_secs(5);
const TRIED_EVERY: Duration = Duration::from_millis(20);

/// Takes the place of `FORMAT` while a backup is restored into a directory, which is incomplete
/// until then.
pub const RESTORING: &str = "RESTORING";

/// What a directory may hold before it becomes a data directory, besides settings and hidden files:
/// keys and certificates that were put or made there before, what lies at the top of a file system,
/// what this repository keeps in `data/`, and what a killed process left here.
const BEFORE: &[&str] =
    &["keys", "tls", "LOCK", "lost+found", "README.md", "FORMAT.tmp", "RESTORING.tmp"];

fn may_lie_before(name: &OsStr) -> bool {
    let is_hidden = name.as_encoded_bytes().starts_with(b".");
    let is_settings = Path::new(name).extension().is_some_and(|ending| ending == "toml");
    is_hidden || is_settings || BEFORE.iter().any(|known| name == *known)
}

/// Creates the directory if it is missing, private to its owner, and checks that it is one of ours.
/// Answers whether it is new.
///
/// # Errors
/// When the directory cannot be created, holds other files but no `FORMAT`, or was written by a
/// newer version.
pub fn prepare(dir: &Path) -> io::Result<bool> {
    durable::create_dir_all(dir)?;
    // Two processes that start on an empty directory would write the same file.
    let _alone = durable::lock_dir(dir)?;
    if dir.join("FORMAT").exists() {
        return check(dir).map(|()| false);
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if ["meta", "journal", "blobs", "staging", RESTORING].iter().any(|ours| name == *ours) {
            return check(dir).map(|()| false);
        }
        if !may_lie_before(&name) {
            return Err(io::Error::other(format!(
                "{} holds {} and is not a data directory of streamlined: a new one needs an empty \
                 directory",
                dir.display(),
                name.display(),
            )));
        }
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    mark(dir).map(|()| true)
}

/// Checks that the directory is one of ours, in a layout that this program reads.
///
/// # Errors
/// When it has no `FORMAT`, was written by a newer version, or cannot be read.
pub fn check(dir: &Path) -> io::Result<()> {
    let path = dir.join("FORMAT");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir.join(RESTORING).exists() => {
            return Err(io::Error::other(format!(
                "{} is being restored, or its restore was interrupted: run the restore again",
                dir.display(),
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(io::Error::other(format!(
                "{} has no FORMAT file: it is not a data directory of streamlined, or its disk is \
                 not mounted",
                dir.display(),
            )));
        }
        read => read?,
    };
    match text.trim().parse::<u32>() {
        Ok(FORMAT_MIN..=FORMAT) => Ok(()),
        Ok(newer) if newer > FORMAT => Err(io::Error::other(format!(
            "{} has format {newer}, this program reads up to {FORMAT}: use a newer version",
            dir.display(),
        ))),
        _ => Err(io::Error::other(format!("{}: not a format number", path.display()))),
    }
}

/// Raises `FORMAT`, so that older versions refuse the directory, before the first byte of the
/// newest layout is written. A directory without `FORMAT` is not a whole data directory and gets
/// none.
///
/// # Errors
/// When `FORMAT` cannot be read or written.
pub fn stamp(dir: &Path) -> io::Result<()> {
    if !is_stamped(dir)? {
        mark(dir)?;
        tracing::info!(format = FORMAT, "the data directory has a new format");
    }
    Ok(())
}

/// Whether older versions refuse the directory, or it is no data directory for them.
///
/// # Errors
/// When `FORMAT` cannot be read.
pub fn is_stamped(dir: &Path) -> io::Result<bool> {
    match fs::read_to_string(dir.join("FORMAT")) {
        Ok(format) => Ok(format == format!("{FORMAT}\n")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Writes `FORMAT`, which makes a data directory of what is there.
///
/// # Errors
/// When `FORMAT` cannot be written.
pub fn mark(dir: &Path) -> io::Result<()> {
    durable::write_file(&dir.join("FORMAT"), format!("{FORMAT}\n").as_bytes())
}

/// Locks the directory for as long as the handle lives: against every other daemon, and against
/// every backup that would be written there.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when another process holds the directory.
pub fn lock(dir: &Path) -> io::Result<File> {
    durable::try_lock(&dir.join("LOCK"))?.ok_or_else(|| {
        let why = format!("{} is in use by another daemon, a command or a backup", dir.display());
        io::Error::new(io::ErrorKind::WouldBlock, why)
    })
}

/// Repeats an attempt for some seconds as long as another process holds the directory: a command on
/// data does for a moment, as does a daemon that starts or stops. Blocks.
///
/// # Errors
/// That of the last attempt.
pub fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && began.elapsed() < PATIENCE =>
            {
                thread::sleep(TRIED_EVERY);
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_certificates_may_lie_there_before() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".gitkeep", "tls", "keys", "streamlined.toml"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert!(prepare(dir.path()).unwrap());
        assert!(!prepare(dir.path()).unwrap());
        fs::remove_file(dir.path().join("FORMAT")).unwrap();
        fs::write(dir.path().join("index.html"), "").unwrap();
        assert!(prepare(dir.path()).unwrap_err().to_string().contains("holds index.html"));
    }

    #[test]
    fn only_our_own_format_opens() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        // If a disk is not mounted, nobody should be told to make a new directory.
        let missing = check(&inner).unwrap_err().to_string();
        assert!(missing.contains("not mounted") && !missing.contains("serve"), "{missing}");
        prepare(&inner).unwrap();
        prepare(&inner).unwrap();
        fs::write(inner.join("FORMAT"), "1\n").unwrap();
        prepare(&inner).unwrap();
        stamp(&inner).unwrap();
        assert_eq!(fs::read_to_string(inner.join("FORMAT")).unwrap(), "6\n");
        fs::write(inner.join("FORMAT"), "7\n").unwrap();
        assert!(prepare(&inner).unwrap_err().to_string().contains("newer"));
        fs::write(inner.join("FORMAT"), "").unwrap();
        assert!(prepare(&inner).is_err());
        fs::remove_file(inner.join("FORMAT")).unwrap();
        fs::create_dir(inner.join("blobs")).unwrap();
        assert!(prepare(&inner).unwrap_err().to_string().contains("FORMAT"));
    }

    #[test]
    fn what_is_kept_from_us_is_tried_again_and_nothing_else_is() {
        let mut tries = 0;
        let mut fail = |times, kind: io::ErrorKind| {
            tries = 0;
            let outcome = patiently(|| {
                tries += 1;
                if tries > times { Ok(tries) } else { Err(kind.into()) }
            });
            outcome.map_err(|error| error.kind())
        };
        assert_eq!(fail(2, io::ErrorKind::WouldBlock), Ok(3));
        assert_eq!(fail(2, io::ErrorKind::NotFound), Err(io::ErrorKind::NotFound));
        assert_eq!(tries, 1);
    }

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert!(lock(dir.path()).is_err());
        drop(held);
        assert!(lock(dir.path()).is_ok());
    }
}
