//! A disk that loses its power: what it holds at a point of a recording.
//!
//! The content of a file is durable as it was at the start of the file's last completed sync. What
//! may survive of later writes is chosen by [`Data`], and of later changes of names by [`Names`].

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::FileTypeExt,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{
    dice::Dice,
    pages::{Change, settle},
    recording::{Operation, Recording, SyncCall},
};

/// What survives of content that no sync covers.
#[derive(Clone, Copy, Debug)]
pub enum Data {
    /// Nothing.
    Drop,
    /// Each page in any version. A write does not extend the file before a sync covers it; a resize
    /// may.
    Ext4,
    /// Each page in any version, and any size that the file had.
    Pages,
}

/// What survives of names that no sync covers.
#[derive(Clone, Copy, Debug)]
pub enum Names {
    /// Only changes that a sync of that very directory made durable.
    Strict,
    /// All changes up to some point at or after the last sync, as in a file system with a journal.
    Ordered,
}

/// Syncs that are treated as not done, to test that the harness notices.
pub struct Mutation {
    pub name: &'static str,
    /// The beginnings of paths below the data directory.
    pub prefixes: &'static [&'static str],
    pub calls: &'static [SyncCall],
}

/// A data directory, all of it durable before a recording, and changed as the recording advances.
#[derive(Clone)]
pub struct Disk {
    nodes: Vec<Node>,
    by_inode: HashMap<u64, usize>,
    /// Syncs in progress, by number: the node of each and the entry at which it began.
    syncing: HashMap<u64, (usize, usize)>,
    /// The entry up to which a journalling file system has written its journal.
    journalled: usize,
    /// How many entries were applied.
    at: usize,
}

#[derive(Clone)]
enum Node {
    File { durable: Vec<u8>, pending: Vec<(usize, Change)>, size: usize, is_new: bool },
    Dir { durable: BTreeMap<String, usize>, pending: Vec<(usize, NameChange)> },
}

#[derive(Clone)]
enum NameChange {
    Add(String, usize),
    Remove(String),
}

const ROOT: usize = 0;

impl Disk {
    /// Reads a directory as it stands.
    pub fn read(root: &Path) -> Self {
        let (nodes, by_inode) = (Vec::new(), HashMap::new());
        let mut disk = Self { nodes, by_inode, syncing: HashMap::new(), journalled: 0, at: 0 };
        disk.scan(root);
        disk
    }

    fn scan(&mut self, path: &Path) -> usize {
        let about = fs::symlink_metadata(path).unwrap();
        if let Some(known) = self.by_inode.get(&about.ino()) {
            return *known;
        }
        let node = self.nodes.len();
        self.by_inode.insert(about.ino(), node);
        if about.is_dir() {
            self.nodes.push(Node::Dir { durable: BTreeMap::new(), pending: Vec::new() });
            for entry in fs::read_dir(path).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_socket() {
                    // The daemon makes its sockets anew at every start, so none is part of the
                    // model.
                    continue;
                }
                let child = self.scan(&entry.path());
                let name = entry.file_name().into_string().unwrap();
                self.names(node).0.insert(name, child);
            }
        } else {
            let durable = fs::read(path).unwrap();
            let (pending, size) = (Vec::new(), durable.len());
            self.nodes.push(Node::File { durable, pending, size, is_new: false });
        }
        node
    }

    fn names(
        &mut self,
        dir: usize,
    ) -> (&mut BTreeMap<String, usize>, &mut Vec<(usize, NameChange)>) {
        match &mut self.nodes[dir] {
            Node::Dir { durable, pending } => (durable, pending),
            Node::File { .. } => panic!("a file where a directory was recorded"),
        }
    }

    fn node(&self, inode: u64) -> usize {
        self.by_inode[&inode]
    }

    /// Applies the recording up to `entries`, without the syncs that a mutation covers.
    pub fn advance(&mut self, recording: &Recording, entries: usize, without: Option<&Mutation>) {
        while self.at < entries {
            let at = self.at;
            self.take(at, &recording.entries[at].operation, &recording.log, without);
            self.at += 1;
        }
    }

    fn take(&mut self, at: usize, operation: &Operation, log: &[u8], without: Option<&Mutation>) {
        match operation {
            Operation::Create { inode, dir, name, is_dir } => {
                let node = self.nodes.len();
                self.by_inode.insert(*inode, node);
                self.nodes.push(if *is_dir {
                    Node::Dir { durable: BTreeMap::new(), pending: Vec::new() }
                } else {
                    let (durable, pending) = (Vec::new(), Vec::new());
                    Node::File { durable, pending, size: 0, is_new: true }
                });
                self.rename(at, *dir, NameChange::Add(name.clone(), node));
            }
            Operation::Write { inode, offset, bytes } => {
                let change = Change::Write { offset: *offset, bytes: bytes.clone() };
                self.change(at, *inode, change);
            }
            Operation::Resize { inode, size } => {
                self.change(at, *inode, Change::Resize { size: *size });
            }
            Operation::Link { inode, dir, name } => {
                let node = self.node(*inode);
                self.rename(at, *dir, NameChange::Add(name.clone(), node));
            }
            Operation::Unlink { dir, name } => {
                self.rename(at, *dir, NameChange::Remove(name.clone()));
            }
            Operation::Rename { inode, from, to } => {
                let node = self.node(*inode);
                self.rename(at, from.0, NameChange::Remove(from.1.clone()));
                self.rename(at, to.0, NameChange::Add(to.1.clone(), node));
            }
            Operation::SyncStart { inode, number, call, path } => {
                let lost = without.is_some_and(|mutation| mutation.covers(*call, path));
                if !lost {
                    self.syncing.insert(*number, (self.node(*inode), at));
                }
            }
            Operation::SyncEnd { number, ok } => {
                if let Some((node, began)) = self.syncing.remove(number)
                    && *ok
                {
                    self.synced(node, began, log);
                }
            }
        }
    }

    fn rename(&mut self, at: usize, dir: u64, change: NameChange) {
        let dir = self.node(dir);
        self.names(dir).1.push((at, change));
    }

    fn change(&mut self, at: usize, inode: u64, change: Change) {
        let node = self.node(inode);
        match &mut self.nodes[node] {
            Node::File { pending, size, .. } => {
                *size = change.size_after(*size);
                pending.push((at, change));
            }
            Node::Dir { .. } => panic!("a directory was written to"),
        }
    }

    /// Changes from before the start of a sync are durable at its end. The file system also writes
    /// its journal if the sync covers a change of a name or a size, or a new file; a sync that
    /// covers only content leaves names as they are.
    fn synced(&mut self, node: usize, began: usize, log: &[u8]) {
        let journalled = match &mut self.nodes[node] {
            Node::Dir { durable, pending } => {
                let covered = pending.partition_point(|(at, _)| *at < began);
                pending.drain(..covered).for_each(|(_, change)| change.apply(durable));
                covered > 0
            }
            Node::File { durable, pending, is_new, .. } => {
                let covered = pending.partition_point(|(at, _)| *at < began);
                let before = durable.len();
                for (_, change) in pending.drain(..covered) {
                    change.apply(durable, log);
                }
                std::mem::take(is_new) || durable.len() != before
            }
        };
        if journalled {
            self.journalled = self.journalled.max(began);
        }
    }

    /// Builds in `target`, which must not exist, what the disk holds after a cut here. Answers
    /// which models were chosen.
    pub fn build(&self, log: &[u8], target: &Path, dice: &mut Dice) -> String {
        let data = [Data::Drop, Data::Ext4, Data::Pages][dice.below(3)];
        let names = [Names::Strict, Names::Ordered][dice.below(2)];
        let journalled = match dice.below(4) {
            0 => self.journalled,
            1 => self.at,
            _ => self.journalled + dice.below(self.at - self.journalled + 1),
        };
        let names_until = matches!(names, Names::Ordered).then_some(journalled);
        self.write(target, names_until, &mut |node| {
            let Node::File { durable, pending, .. } = node else { return Vec::new() };
            settle(durable, pending, log, data, dice)
        });
        format!("data {data:?}, names {names:?}")
    }

    /// Builds what a process that was killed here leaves: the result of everything it did.
    pub fn build_whole(&self, log: &[u8], target: &Path) {
        self.write(target, Some(self.at), &mut |node| {
            let Node::File { durable, pending, .. } = node else { return Vec::new() };
            let mut content = durable.clone();
            for (_, change) in pending {
                change.clone().apply(&mut content, log);
            }
            content
        });
    }

    fn write(
        &self,
        target: &Path,
        names_until: Option<usize>,
        content: &mut dyn FnMut(&Node) -> Vec<u8>,
    ) {
        let mut written: HashMap<usize, PathBuf> = HashMap::new();
        let mut dirs = vec![(ROOT, target.to_owned())];
        while let Some((dir, path)) = dirs.pop() {
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            for (name, node) in self.names_at(dir, names_until) {
                let path = path.join(name);
                if matches!(self.nodes[node], Node::Dir { .. }) {
                    dirs.push((node, path));
                } else if let Some(first) = written.get(&node) {
                    fs::hard_link(first, path).unwrap();
                } else {
                    fs::write(&path, content(&self.nodes[node])).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
                    written.insert(node, path);
                }
            }
        }
    }

    fn names_at(&self, dir: usize, until: Option<usize>) -> BTreeMap<String, usize> {
        let Node::Dir { durable, pending } = &self.nodes[dir] else { return BTreeMap::new() };
        let mut names = durable.clone();
        for (_, change) in pending.iter().take_while(|(at, _)| until.is_some_and(|u| *at < u)) {
            change.clone().apply(&mut names);
        }
        names
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Add(name, node) => names.insert(name, node),
            Self::Remove(name) => names.remove(&name),
        };
    }
}

impl Mutation {
    fn covers(&self, call: SyncCall, path: &str) -> bool {
        self.calls.contains(&call) && self.prefixes.iter().any(|prefix| path.starts_with(prefix))
    }
}
