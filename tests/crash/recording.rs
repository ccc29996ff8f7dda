//! The log of `recorder.c`, as operations in their order.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
};

/// Everything that a daemon did to the files of its data directory.
pub struct Recording {
    pub log: Vec<u8>,
    pub entries: Vec<Entry>,
}

pub struct Entry {
    /// Length of the log including this entry: a cut at or behind it comes after the operation.
    pub end: u64,
    pub operation: Operation,
}

/// Files and directories are named by their inode.
#[derive(Debug)]
pub enum Operation {
    Create {
        inode: u64,
        dir: u64,
        name: String,
        is_dir: bool,
    },
    /// `bytes` lie in the log.
    Write {
        inode: u64,
        offset: usize,
        bytes: Range<usize>,
    },
    Resize {
        inode: u64,
        size: usize,
    },
    Link {
        inode: u64,
        dir: u64,
        name: String,
    },
    Unlink {
        dir: u64,
        name: String,
    },
    Rename {
        inode: u64,
        from: (u64, String),
        to: (u64, String),
    },
    SyncStart {
        inode: u64,
        number: u64,
        call: SyncCall,
        path: String,
    },
    SyncEnd {
        number: u64,
        ok: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncCall {
    Fsync,
    Fdatasync,
}

/// The size of the recorder's `struct entry`.
const HEAD_BYTES: usize = 48;

impl Recording {
    /// # Panics
    /// When the log is not one of the recorder's.
    pub fn read(path: &Path) -> Self {
        let log = fs::read(path).unwrap();
        let mut entries = Vec::new();
        let mut at = 0;
        // A process that was killed in the middle of an entry leaves half of it.
        while let Some((operation, end)) = operation(&log, at) {
            entries.push(Entry { end: end as u64, operation });
            at = end;
        }
        Self { log, entries }
    }

    /// How many entries lie entirely below this length of the log.
    pub fn entries_below(&self, length: u64) -> usize {
        self.entries.partition_point(|entry| entry.end <= length)
    }

    /// The length of the log after so many entries.
    pub fn length_after(&self, entries: usize) -> u64 {
        entries.checked_sub(1).map_or(0, |last| self.entries[last].end)
    }
}

fn operation(log: &[u8], at: usize) -> Option<(Operation, usize)> {
    let head = log.get(at..at + HEAD_BYTES)?;
    let word = |place: usize| u32::from_le_bytes(head[place..place + 4].try_into().unwrap());
    let long = |place: usize| u64::from_le_bytes(head[place..place + 8].try_into().unwrap());
    let size = |number: u64| usize::try_from(number).unwrap();
    let short = |place: usize| usize::from(u16::from_le_bytes([head[place], head[place + 1]]));
    let (first, second, data) = (short(4), short(6), word(0) as usize);
    let names = at + HEAD_BYTES;
    let bytes = names + first + second..names + first + second + data;
    let text = |range: Range<usize>| String::from_utf8(log.get(range)?.to_vec()).ok();
    let first = text(names..names + first)?;
    let second = text(names + first.len()..bytes.start)?;
    log.get(bytes.clone())?;
    let (kind, detail, inode) = (word(8), word(12), long(16));
    let (dir, other_dir, number) = (long(24), long(32), long(40));
    let end = bytes.end;
    let operation = match kind {
        1 => Operation::Create { inode, dir, name: first, is_dir: false },
        2 => Operation::Create { inode, dir, name: first, is_dir: true },
        3 => Operation::Write { inode, offset: size(number), bytes },
        4 => Operation::Resize { inode, size: size(number) },
        5 => Operation::Link { inode, dir, name: first },
        6 => Operation::Unlink { dir, name: first },
        7 => Operation::Rename { inode, from: (dir, first), to: (other_dir, second) },
        8 => {
            let call = if detail == 0 { SyncCall::Fsync } else { SyncCall::Fdatasync };
            Operation::SyncStart { inode, number, call, path: first }
        }
        9 => Operation::SyncEnd { number, ok: detail == 0 },
        kind => panic!("an entry of kind {kind} at {at}"),
    };
    Some((operation, end))
}

/// Compiles the recorder, once for each version of it, and answers the library's path.
pub fn recorder() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/recorder.c");
    let version = blake3::hash(&fs::read(&source).unwrap()).to_hex();
    let library =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("recorder-{}.so", &version[..16]));
    if !library.exists() {
        // Another test may compile it at the same time. Each compiles under a name of its own, and
        // the last rename counts.
        let own = library.with_extension(format!("{}.so", std::process::id()));
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([&own, &source])
            .args(["-ldl", "-lpthread"])
            .output();
        let compiled = match compiled {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                panic!("a C compiler is needed as `cc` to build the recorder of file operations")
            }
            compiled => compiled.unwrap(),
        };
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "the recorder does not compile: {said}");
        fs::rename(own, &library).unwrap();
    }
    library
}
