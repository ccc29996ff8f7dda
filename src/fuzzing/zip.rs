//! Archives, read as ZIP readers do.

use super::{NOW, text};
use crate::zip::{Directory, Entry};

/// A reader of ZIP finds in an archive of the input's lines exactly those lines.
pub fn zip(input: &[u8]) {
    let Some(input) = text(input) else { return };
    let lines: Vec<&str> = input.split('\n').take(64).collect();
    let (mut archive, mut directory, mut placed) = (Vec::new(), Vec::new(), Vec::new());
    for line in &lines {
        let entry = Entry { name: line, size: line.len() as u64, modified: NOW };
        let (crc32, offset) = (crc32fast::hash(line.as_bytes()), archive.len() as u64);
        let local = entry.local(crc32);
        assert_eq!(local.len() as u64, entry.local_bytes());
        archive.extend_from_slice(&local);
        archive.extend_from_slice(line.as_bytes());
        let central = entry.central(crc32, offset);
        assert_eq!(central.len() as u64, entry.central_bytes(offset));
        directory.extend_from_slice(&central);
        placed.push(offset);
    }
    let (offset, bytes) = (archive.len() as u64, directory.len() as u64);
    let end = Directory { entries: lines.len() as u64, offset, bytes };
    archive.extend_from_slice(&directory);
    assert_eq!(end.end().len() as u64, end.end_bytes());
    archive.extend_from_slice(&end.end());
    assert_eq!(unzip(&archive), Some(lines.iter().map(|line| (*line, line.as_bytes())).collect()));
}

/// Names and contents of an archive without Zip64, read from its end, as readers do.
fn unzip(archive: &[u8]) -> Option<Vec<(&str, &[u8])>> {
    let u16 = |at: usize| {
        let bytes = archive.get(at..)?.first_chunk()?;
        Some(usize::from(u16::from_le_bytes(*bytes)))
    };
    let u32 = |at: usize| u32::from_le_bytes(*archive.get(at..)?.first_chunk()?).try_into().ok();
    let end = archive.len().checked_sub(22)?;
    let (mut at, mut found): (usize, _) = (u32(end + 16)?, Vec::new());
    for _ in 0..u16(end + 10)? {
        let (crc32, size, local): (usize, usize, usize) =
            (u32(at + 16)?, u32(at + 24)?, u32(at + 42)?);
        let (name, extra) = (u16(at + 28)?, u16(at + 30)?);
        let of_directory = archive.get(at + 46..at + 46 + name)?;
        at += 46 + name + extra;
        let of_local = archive.get(local + 30..local + 30 + u16(local + 26)?)?;
        let content = local + 30 + u16(local + 26)? + u16(local + 28)?;
        let content = archive.get(content..content + size)?;
        let agree = of_directory == of_local
            && u32(local + 14)? == crc32
            && crc32fast::hash(content) as usize == crc32;
        found.push((text(of_directory).filter(|_| agree)?, content));
    }
    (at == end).then_some(found)
}
