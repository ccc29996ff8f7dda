//! Content between two syncs: which versions of its pages a disk may hold.

use std::{collections::BTreeMap, ops::Range};

use super::{dice::Dice, disk::Data};

const PAGE_BYTES: usize = 4096;

/// One change of a file's content.
#[derive(Clone)]
pub enum Change {
    /// `bytes` lie in the log.
    Write {
        offset: usize,
        bytes: Range<usize>,
    },
    Resize {
        size: usize,
    },
}

impl Change {
    pub fn size_after(&self, size: usize) -> usize {
        match self {
            Self::Write { offset, bytes } => size.max(offset + bytes.len()),
            Self::Resize { size } => *size,
        }
    }

    pub fn apply(self, content: &mut Vec<u8>, log: &[u8]) {
        content.resize(self.size_after(content.len()), 0);
        if let Self::Write { offset, bytes } = self {
            content[offset..offset + bytes.len()].copy_from_slice(&log[bytes]);
        }
    }

    /// The pages that it changes in a file of `size` bytes.
    fn pages(&self, size: usize) -> Range<usize> {
        let (from, to) = match self {
            Self::Write { offset, bytes } => (*offset, offset + bytes.len()),
            // Bytes that are cut off read as zeros if the file grows again.
            Self::Resize { size: to } => (*to, size),
        };
        from / PAGE_BYTES..to.div_ceil(PAGE_BYTES).max(from / PAGE_BYTES)
    }

    fn apply_to_page(&self, page: &mut [u8], start: usize, log: &[u8]) {
        match self {
            Self::Write { offset, bytes } => {
                let from = start.max(*offset);
                let to = (start + PAGE_BYTES).min(offset + bytes.len());
                let source = bytes.start + from - offset..bytes.start + to - offset;
                page[from - start..to - start].copy_from_slice(&log[source]);
            }
            Self::Resize { size } => page[size.saturating_sub(start).min(PAGE_BYTES)..].fill(0),
        }
    }
}

/// How the versions of one file's pages go together. A disk is most often behind or up to date for
/// a file as a whole, so these two cases are chosen half of the time.
enum Versions {
    Old,
    New,
    Any,
}

/// The content of a file after a cut.
pub fn settle(
    durable: &[u8],
    pending: &[(usize, Change)],
    log: &[u8],
    data: Data,
    dice: &mut Dice,
) -> Vec<u8> {
    if pending.is_empty() || matches!(data, Data::Drop) {
        return durable.to_vec();
    }
    let versions = match dice.below(4) {
        0 => Versions::Old,
        1 => Versions::New,
        _ => Versions::Any,
    };
    let (size, forced) = size_of(durable.len(), pending, data, &versions, dice);
    let mut touching: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut extent = durable.len();
    for (number, (_, change)) in pending.iter().enumerate() {
        for page in change.pages(extent) {
            touching.entry(page).or_default().push(number);
        }
        extent = extent.max(change.size_after(0));
    }
    let mut content = durable.to_vec();
    content.resize(size.max(durable.len()), 0);
    for (page, changes) in touching {
        let start = page * PAGE_BYTES;
        if start >= size {
            break;
        }
        // A page that an applied truncation cut off cannot have a version from before the
        // truncation.
        let least = changes.partition_point(|number| *number < forced);
        let taken = match versions {
            Versions::Old => least,
            Versions::New => changes.len(),
            Versions::Any => least + dice.below(changes.len() - least + 1),
        };
        let mut bytes = [0; PAGE_BYTES];
        let old = durable.get(start..).unwrap_or_default();
        let old = &old[..old.len().min(PAGE_BYTES)];
        bytes[..old.len()].copy_from_slice(old);
        for number in &changes[..taken] {
            pending[*number].1.apply_to_page(&mut bytes, start, log);
        }
        let end = (start + PAGE_BYTES).min(content.len());
        content[start..end].copy_from_slice(&bytes[..end - start]);
    }
    content.truncate(size);
    content
}

/// The size after a cut, and how many changes are certainly applied with it.
fn size_of(
    durable: usize,
    pending: &[(usize, Change)],
    data: Data,
    versions: &Versions,
    dice: &mut Dice,
) -> (usize, usize) {
    let mut sizes = vec![(durable, 0)];
    let (mut size, mut forced) = (durable, 0);
    for (number, (_, change)) in pending.iter().enumerate() {
        size = change.size_after(size);
        if matches!(change, Change::Resize { .. }) {
            forced = number + 1;
        } else if matches!(data, Data::Ext4) {
            // A write extends the file only once a sync covers it.
            size = size.min(sizes.last().map_or(durable, |(size, _)| *size));
        }
        sizes.push((size, forced));
    }
    match versions {
        Versions::Old => (durable, 0),
        Versions::New => *sizes.last().unwrap_or(&(durable, 0)),
        Versions::Any => sizes[dice.below(sizes.len())],
    }
}
