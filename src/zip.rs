//! The ZIP format of stored entries, for archives whose length is known before the first byte.
//!
//! PKWARE's APPNOTE 6.3.10: a header before each content (section 4.3.7), the central directory
//! (4.3.12), and its end (4.3.14 to 4.3.16). Names are UTF-8 (4.4.4, bit 11); what does not fit 32
//! or 16 bits stands in Zip64 fields (4.5.3). Sizes and checksums come before a content, so that
//! readers that cannot seek take it too. No crate on crates.io writes this form without the
//! contents at hand, as the exact length needs it.

use time::OffsetDateTime;

use crate::model::time::UnixMillis;

/// What an entry's headers say. Its content follows the local one, as it is.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// A relative path of at most 65,535 bytes.
    pub name: &'a str,
    pub size: u64,
    pub modified: UnixMillis,
}

const UTF_8: u16 = 1 << 11;
const VERSION: u16 = 20;
const VERSION_ZIP64: u16 = 45;
const MADE_ON_UNIX: u16 = 3 << 8;
const REGULAR_FILE: u32 = 0o100_644 << 16;
/// Stands where the Zip64 field has the number.
const IN_ZIP64_32: u32 = u32::MAX;
const IN_ZIP64_16: u16 = u16::MAX;

const LOCAL_BYTES: u64 = 30;
const CENTRAL_BYTES: u64 = 46;
const TIME_BYTES: u64 = 9;
const ZIP64_HEAD_BYTES: u64 = 4;
const END_BYTES: u64 = 22;
const END_ZIP64_BYTES: u64 = 56 + 20;

impl Entry<'_> {
    fn is_large(&self) -> bool {
        self.size >= u64::from(IN_ZIP64_32)
    }

    fn name_bytes(&self) -> u64 {
        self.name.len() as u64
    }

    pub fn local_bytes(&self) -> u64 {
        let zip64 = if self.is_large() { ZIP64_HEAD_BYTES + 16 } else { 0 };
        LOCAL_BYTES + self.name_bytes() + TIME_BYTES + zip64
    }

    /// The header before the content.
    pub fn local(&self, crc32: u32) -> Vec<u8> {
        let mut header = Fields::begin(0x0403_4b50, self.local_bytes());
        let zip64 = if self.is_large() { vec![self.size, self.size] } else { Vec::new() };
        self.common(&mut header, crc32, &zip64);
        self.names(&mut header, &zip64);
        header.0
    }

    pub fn central_bytes(&self, offset: u64) -> u64 {
        let numbers = self.central_zip64(offset).len() as u64;
        let zip64 = if numbers > 0 { ZIP64_HEAD_BYTES + 8 * numbers } else { 0 };
        CENTRAL_BYTES + self.name_bytes() + TIME_BYTES + zip64
    }

    /// The record in the directory of an entry whose local header is at `offset`.
    pub fn central(&self, crc32: u32, offset: u64) -> Vec<u8> {
        let zip64 = self.central_zip64(offset);
        let mut record = Fields::begin(0x0201_4b50, self.central_bytes(offset));
        record.u16(MADE_ON_UNIX | VERSION_ZIP64);
        self.common(&mut record, crc32, &zip64);
        // No comment, the first disk, no internal attributes.
        record.u16(0).u16(0).u16(0).u32(REGULAR_FILE).u32(fitting_32(offset));
        self.names(&mut record, &zip64);
        record.0
    }

    fn central_zip64(&self, offset: u64) -> Vec<u64> {
        let mut numbers = if self.is_large() { vec![self.size, self.size] } else { Vec::new() };
        if offset >= u64::from(IN_ZIP64_32) {
            numbers.push(offset);
        }
        numbers
    }

    /// From the version that is needed to the lengths of what comes last.
    fn common(&self, header: &mut Fields, crc32: u32, zip64: &[u64]) {
        let (date, time) = dos_time(self.modified);
        let size = fitting_32(self.size);
        let zip64_bytes = if zip64.is_empty() { 0 } else { ZIP64_HEAD_BYTES + zip64_length(zip64) };
        header
            .u16(if zip64.is_empty() { VERSION } else { VERSION_ZIP64 })
            .u16(UTF_8)
            .u16(0)
            .u16(time)
            .u16(date)
            .u32(crc32)
            .u32(size)
            .u32(size)
            .u16(fitting_16(self.name_bytes()))
            .u16(fitting_16(TIME_BYTES + zip64_bytes));
    }

    fn names(&self, header: &mut Fields, zip64: &[u64]) {
        header.0.extend_from_slice(self.name.as_bytes());
        // Info-ZIP's "UT": the time of the last change in Unix seconds, as the one above is of no
        // time zone.
        let seconds = u32::try_from(self.modified.seconds()).unwrap_or(u32::MAX);
        header.u16(0x5455).u16(5);
        header.0.push(1);
        header.u32(seconds);
        if !zip64.is_empty() {
            header.u16(1).u16(fitting_16(zip64_length(zip64)));
            for number in zip64 {
                header.u64(*number);
            }
        }
    }
}

/// Where the directory lies and how many entries it has.
#[derive(Clone, Copy, Debug)]
pub struct Directory {
    pub entries: u64,
    pub offset: u64,
    pub bytes: u64,
}

impl Directory {
    fn is_large(&self) -> bool {
        self.entries >= u64::from(IN_ZIP64_16)
            || self.offset >= u64::from(IN_ZIP64_32)
            || self.bytes >= u64::from(IN_ZIP64_32)
    }

    pub fn end_bytes(&self) -> u64 {
        END_BYTES + if self.is_large() { END_ZIP64_BYTES } else { 0 }
    }

    /// What comes behind the directory.
    pub fn end(&self) -> Vec<u8> {
        let Self { entries, offset, bytes } = *self;
        let mut end = Fields(Vec::new());
        if self.is_large() {
            let at = offset + bytes;
            end.u32(0x0606_4b50).u64(44).u16(MADE_ON_UNIX | VERSION_ZIP64).u16(VERSION_ZIP64);
            end.u32(0).u32(0).u64(entries).u64(entries).u64(bytes).u64(offset);
            end.u32(0x0706_4b50).u32(0).u64(at).u32(1);
        }
        let entries = fitting_16(entries);
        end.u32(0x0605_4b50).u16(0).u16(0).u16(entries).u16(entries);
        end.u32(fitting_32(bytes)).u32(fitting_32(offset)).u16(0);
        end.0
    }
}

fn zip64_length(numbers: &[u64]) -> u64 {
    8 * numbers.len() as u64
}

fn fitting_32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(IN_ZIP64_32)
}

fn fitting_16(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(IN_ZIP64_16)
}

/// Date and time of section 4.4.6, in UTC; the format begins with 1980 and ends with 2107.
fn dos_time(at: UnixMillis) -> (u16, u16) {
    let seconds = i64::try_from(at.seconds()).unwrap_or(i64::MAX);
    let at = OffsetDateTime::from_unix_timestamp(seconds).ok();
    let Some(at) = at.filter(|at| (1980..=2107).contains(&at.year())) else { return (0x21, 0) };
    let year = u16::try_from(at.year() - 1980).unwrap_or(0);
    let date = year << 9 | u16::from(u8::from(at.month())) << 5 | u16::from(at.day());
    let (hour, minute, second) = at.to_hms();
    (date, u16::from(hour) << 11 | u16::from(minute) << 5 | u16::from(second / 2))
}

/// Little-endian fields one behind the other.
struct Fields(Vec<u8>);

impl Fields {
    fn begin(signature: u32, bytes: u64) -> Self {
        let mut fields = Self(Vec::with_capacity(usize::try_from(bytes).unwrap_or(0)));
        fields.u32(signature);
        fields
    }

    fn u16(&mut self, number: u16) -> &mut Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The readers of the tests elsewhere show that the form is right; this, that lengths are told
    /// right before there are bytes, on both sides of every limit.
    #[test]
    fn lengths_are_known_beforehand() {
        let modified = UnixMillis(1_700_000_000_000);
        for size in [0, 1, 0xffff_fffe, 0xffff_ffff, 1 << 40] {
            let entry = Entry { name: "ä/b.txt", size, modified };
            assert_eq!(entry.local(7).len() as u64, entry.local_bytes());
            for offset in [0, 0xffff_fffe, 0xffff_ffff, 1 << 50] {
                assert_eq!(entry.central(7, offset).len() as u64, entry.central_bytes(offset));
            }
        }
        for entries in [0, 0xfffe, 0xffff, 100_000] {
            for offset in [0, 0xffff_ffff] {
                let directory = Directory { entries, offset, bytes: 10 };
                assert_eq!(directory.end().len() as u64, directory.end_bytes());
            }
        }
    }

    #[test]
    fn times_outside_the_format_are_its_first() {
        assert_eq!(dos_time(UnixMillis(0)), (0x21, 0));
        assert_eq!(dos_time(UnixMillis(u64::MAX)), (0x21, 0));
        // 2023-11-14T22:13:20Z.
        let (date, time) = (0x576e, 0xb1aa);
        assert_eq!(dos_time(UnixMillis(1_700_000_000_000)), (date, time));
    }
}
