//! The tree of another server, read without following any link.

use std::{
    fs::File,
    io::{self, Read},
    ops::ControlFlow,
    path::Path,
};

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat2, statat},
};

use crate::model::{limits::FOLDER_SEGMENTS_MAX, time::UnixMillis};

/// The directory that holds `storage/`. Paths in it are those of keys.
pub struct Tree {
    root: OwnedFd,
}

/// An entry of the tree, with its path.
pub enum Found {
    File(FoundFile),
    Other { path: String, why: String },
}

pub struct FoundFile {
    pub path: String,
    pub size: u64,
    pub modified: UnixMillis,
    pub has_side: bool,
}

/// The top directory of the tree, with which every key begins.
pub const TOP: &str = "storage";
const SIDE: &str = ".meta";
const SIDE_BYTES_MAX: u64 = 1 << 20;
/// `storage`, the user, and the deepest folder.
const DEPTH_MAX: usize = FOLDER_SEGMENTS_MAX + 2;
const INSIDE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

impl Tree {
    /// Opens a directory that holds `storage/`, or `storage/` itself.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let dir = dir.canonicalize()?;
        let above = dir.parent().filter(|_| dir.file_name().is_some_and(|name| name == TOP));
        let root = match above {
            Some(above) if !dir.join(TOP).is_dir() => above,
            _ => &dir,
        };
        let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let tree = Self { root };
        tree.dir(TOP).map_err(|error| {
            io::Error::new(error.kind(), format!("there is no {TOP}/ in it: {error}"))
        })?;
        Ok(tree)
    }

    fn dir(&self, path: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat2(&self.root, path, flags, Mode::empty(), INSIDE)?)
    }

    /// Opens a file. It is refused if it is no regular file any more.
    pub fn file(&self, path: &str) -> io::Result<File> {
        // Opening a pipe without a writer must not block.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat2(&self.root, path, flags, Mode::empty(), INSIDE)?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(file.into())
    }

    /// The content of the side file of a file.
    pub fn side(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        self.file(&format!("{path}{SIDE}"))?.take(SIDE_BYTES_MAX + 1).read_to_end(&mut text)?;
        if text.len() as u64 > SIDE_BYTES_MAX {
            return Err(io::Error::other("it is larger than 1 MiB"));
        }
        Ok(text)
    }

    /// Passes every entry of the tree except directories and side files to `told`, until that
    /// breaks.
    pub fn walk(&self, mut told: impl FnMut(Found) -> ControlFlow<()>) {
        let mut dirs = vec![TOP.to_owned()];
        while let Some(dir) = dirs.pop() {
            let listed = self.list(&dir, &mut dirs, &mut told);
            let flow = listed
                .unwrap_or_else(|error| told(Found::Other { path: dir, why: error.to_string() }));
            if flow.is_break() {
                return;
            }
        }
    }

    fn list(
        &self,
        dir: &str,
        dirs: &mut Vec<String>,
        told: &mut impl FnMut(Found) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        let fd = self.dir(dir)?;
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let path = format!("{dir}/{}", name.to_string_lossy());
            let found = match (name.to_str(), statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW)) {
                (Err(_), _) => Found::Other { path, why: "its name is not UTF-8".into() },
                // The entry was removed meanwhile.
                (_, Err(rustix::io::Errno::NOENT)) => continue,
                (_, Err(error)) => Found::Other { path, why: error.to_string() },
                (Ok(name), Ok(stat)) => match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => match file(&fd, name, path, &stat) {
                        Some(found) => found,
                        None => continue,
                    },
                    FileType::Directory if path.split('/').count() <= DEPTH_MAX => {
                        dirs.push(path);
                        continue;
                    }
                    FileType::Directory => Found::Other {
                        path,
                        why: "a folder inside more than 31 other folders".into(),
                    },
                    FileType::Symlink => {
                        Found::Other { path, why: "a symbolic link, which is not followed".into() }
                    }
                    _ => Found::Other { path, why: "not a regular file".into() },
                },
            };
            if told(found).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// A file, unless it is the side file of another. A file whose name ends as those of side files do
/// is a file of its own if it has a side file itself.
fn file(dir: impl AsFd, name: &str, path: String, stat: &Stat) -> Option<Found> {
    let is_there = |name: &str| statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    let has_side = is_there(&format!("{name}{SIDE}"));
    if !has_side && let Some(of) = name.strip_suffix(SIDE) {
        let why = "a side file without its file".into();
        return (!is_there(of)).then_some(Found::Other { path, why });
    }
    let millis =
        stat.st_mtime.saturating_mul(1000).saturating_add_unsigned(stat.st_mtime_nsec / 1_000_000);
    Some(Found::File(FoundFile {
        path,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: UnixMillis(u64::try_from(millis).unwrap_or(0)),
        has_side,
    }))
}
