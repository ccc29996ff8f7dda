//! An upload session: what was declared, what arrived, when the parts make a file.

use super::{
    digest::{ContentHash, Sha256},
    file::CallerMeta,
    id::{FileId, PartNumber, UploadId},
    limits::PART_BYTES_SUGGESTED,
    locator::Locator,
    name::{FileName, Folder, UserId},
    range::Slice,
    time::UnixMillis,
};

/// A session that turns parts into one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    pub id: UploadId,
    pub owner: UserId,
    pub name: FileName,
    pub folder: Folder,
    pub mime: Option<Box<str>>,
    /// Bytes declared at init.
    pub size: u64,
    pub mode: Mode,
    /// The digest that the whole file must have, if it was declared at init.
    pub sha256: Option<Sha256>,
    pub meta: CallerMeta,
    pub expires: UnixMillis,
    /// Bytes of the parts that are recorded now.
    pub received: u64,
    /// Grows with every recorded part, so that a completion notices a part that came meanwhile.
    pub revision: u64,
    pub state: UploadState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Mode {
    Single,
    Chunked,
    Batch,
    /// Written in order, and completed by its last byte without another request.
    Stream,
    /// As [`Mode::Stream`], but the size is not declared yet.
    Growing,
    /// Becomes a file only with others, one behind the other, through their [`Mode::Final`] upload.
    Partial,
    /// As [`Mode::Partial`], but the size is not declared yet.
    GrowingPartial,
    /// Made of partial uploads. It takes no bytes of its own.
    Final,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum UploadState {
    Open,
    Completed(FileId),
}

impl Upload {
    /// The declared size of the file, once there is one.
    pub fn declared(&self) -> Option<u64> {
        self.mode.is_sized().then_some(self.size)
    }

    /// Bytes of the owner's quota that the session reserves: the declared size, or what was
    /// received if that is more.
    pub fn reserved(&self) -> u64 {
        match self.state {
            UploadState::Open => self.size.max(self.received),
            UploadState::Completed(_) => 0,
        }
    }
}

impl Mode {
    /// Whether the size was declared.
    pub fn is_sized(self) -> bool {
        !matches!(self, Mode::Growing | Mode::GrowingPartial | Mode::Final)
    }

    pub fn is_partial(self) -> bool {
        matches!(self, Mode::Partial | Mode::GrowingPartial)
    }

    /// Whether the client does not number its parts, but continues where the bytes end.
    pub fn is_in_order(self) -> bool {
        matches!(self, Mode::Stream | Mode::Growing) || self.is_partial()
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Single => "single",
            Mode::Chunked => "chunked",
            Mode::Batch => "batch",
            Mode::Stream => "stream",
            Mode::Growing => "growing",
            Mode::Partial => "partial",
            Mode::GrowingPartial => "growing_partial",
            Mode::Final => "final",
        }
    }

    /// The part size that init suggests for a file of `size` bytes, where a part may have at most
    /// `limit`.
    pub fn part_size(self, size: u64, limit: u64) -> u64 {
        let wanted = match self {
            Mode::Chunked => PART_BYTES_SUGGESTED.max(size.div_ceil(PARTS_SUGGESTED_MAX)),
            _ => size,
        };
        wanted.min(limit).max(1)
    }

    /// How many parts of that size make the file; an empty file still counts as one part.
    pub fn parts(self, size: u64, limit: u64) -> u64 {
        size.div_ceil(self.part_size(size, limit)).max(1)
    }
}

/// The most parts that init suggests, whatever the size, unless the limit of a part demands more.
const PARTS_SUGGESTED_MAX: u64 = 1_000;

/// A part that was acknowledged: its bytes are in the blob store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub number: PartNumber,
    pub size: u64,
    pub blake3: ContentHash,
    pub sha256: Sha256,
    pub place: Locator,
}

/// Where the next byte of a session goes that is written in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Tail {
    /// Bytes that follow one another from the first one on, without a gap.
    pub offset: u64,
    /// The number after that of the last part.
    pub next: u64,
    /// Missing numbers before the last part. While there are any, nothing can be appended.
    pub missing: Vec<u32>,
}

impl Tail {
    /// Whether all declared bytes are there.
    pub fn is_whole(&self, upload: &Upload) -> bool {
        self.missing.is_empty() && upload.declared() == Some(self.offset)
    }
}

/// Finds the tail from the parts in order of their numbers.
pub fn tail(parts: &[Part]) -> Tail {
    let mut tail = Tail { offset: 0, next: 1, missing: Vec::new() };
    for part in parts {
        let number = u64::from(part.number.0);
        tail.missing.extend((tail.next..number).filter_map(|number| u32::try_from(number).ok()));
        tail.next = number + 1;
        if tail.missing.is_empty() {
            tail.offset += part.size;
        }
    }
    tail
}

/// How many parts with lower numbers follow one another from the first number on, without a gap.
pub fn leading(parts: &[Part], number: u32) -> usize {
    let first = u32::from(parts.first().is_none_or(|part| part.number.0 != 0));
    let in_order = parts.iter().zip(first..).take_while(|(part, next)| part.number.0 == *next);
    in_order.filter(|(part, _)| part.number.0 < number).count()
}

/// Where in the whole file a part will lie. `length` bytes of the part are announced, and at most
/// `most` will come. The part lies behind those before it, or, when some of them are still to come,
/// where parts of one size put it. `lowest` is the lowest number of a part on its way, and `limit`
/// is the largest size of a part. The result is only a guess that keeps bytes from being copied.
pub fn span_of(
    upload: &Upload,
    parts: &[Part],
    lowest: u32,
    number: u32,
    length: Option<u64>,
    most: u64,
    limit: u64,
) -> Option<Slice> {
    let mut first = lowest.min(parts.first().map_or(1, |part| part.number.0)).min(1);
    let leading = leading(parts, number);
    let start = parts[..leading].iter().map(|part| part.size).sum::<u64>();
    let sizes = parts.iter().map(|part| part.size);
    let Some(declared) = upload.declared() else {
        let follows = leading == number.checked_sub(first)? as usize;
        return follows.then_some(Slice { start, end: start.saturating_add(most) });
    };
    let suggested = upload.mode.part_size(declared, limit);
    // If all other parts have the suggested size, the size of the last part tells its number, and
    // so whether numbers count from 0 or from 1.
    let all_fit = |first: u32| {
        let own = length.map(|length| (number, length));
        let mut all = parts.iter().map(|part| (part.number.0, part.size)).chain(own);
        all.all(|(number, length)| fits(declared, first, suggested, number, length))
    };
    if first == 1 && !all_fit(1) && all_fit(0) {
        first = 0;
    }
    let before = number.checked_sub(first)?;
    if leading == before as usize {
        let largest = length.unwrap_or_else(|| sizes.fold(suggested, u64::max).min(most));
        let end = start.saturating_add(largest).min(declared);
        return (start < end).then_some(Slice { start, end });
    }
    let largest = sizes.chain(length).max().unwrap_or(suggested);
    let size = [suggested, largest].into_iter().find(|size| {
        let all = parts.iter().all(|part| fits(declared, first, *size, part.number.0, part.size));
        all && (!parts.is_empty() || *size == suggested)
    })?;
    let start = at(first, size, number)?;
    let length = length.unwrap_or(size.min(declared.saturating_sub(start)));
    let fits = fits(declared, first, size, number, length);
    fits.then_some(Slice { start, end: start + length })
}

/// Where a part begins if those before it have one size and numbers run from `first`.
fn at(first: u32, size: u64, number: u32) -> Option<u64> {
    u64::from(number.saturating_sub(first)).checked_mul(size)
}

/// Whether a part of `length` bytes may begin there. A part of another size than the rest can only
/// be the last one.
fn fits(declared: u64, first: u32, size: u64, number: u32, length: u64) -> bool {
    let end = at(first, size, number).and_then(|start| start.checked_add(length));
    end.is_some_and(|end| if length == size { end <= declared } else { end == declared })
}

/// Where a part lies if a part 0 that is still to come tells that numbers count from 0. `length`
/// bytes of the part are expected. As [`span_of`], this is only a guess.
pub fn span_from_zero(
    upload: &Upload,
    parts: &[Part],
    number: u32,
    length: u64,
    limit: u64,
) -> Option<Slice> {
    let declared = upload.declared().filter(|_| parts.is_empty() && number > 0)?;
    let at = |size: u64| {
        let start = u64::from(number).checked_mul(size)?;
        Some(Slice { start, end: start.checked_add(length)? }).filter(|span| span.end <= declared)
    };
    // A part of another size than the suggested one is the last part, or as long as the others.
    let suggested = upload.mode.part_size(declared, limit);
    at(suggested).filter(|span| length == suggested || span.end == declared).or_else(|| at(length))
}

/// Whether the parts received so far make a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Completeness {
    Complete,
    /// Part numbers that are missing.
    Missing(Vec<u32>),
    /// No number is missing, but the size is not the declared one.
    SizeDiffers {
        declared: u64,
        received: u64,
    },
}

/// Decides from the declared size and the parts in order of their numbers.
///
/// Numbers run from 0 when part 0 is there. They also do when bytes are missing and the suggested
/// size fits every part if numbers run from 0, but not if they run from 1. Otherwise the first
/// number is 1. A missing tail can be named only when the client cut the file at the suggested
/// size; otherwise only the sizes show that it is missing.
pub fn completeness(upload: &Upload, parts: &[Part], limit: u64) -> Completeness {
    let Upload { mode, size: declared, .. } = *upload;
    let received: u64 = parts.iter().map(|part| part.size).sum();
    let part_size = mode.part_size(declared, limit);
    let all_fit = |first: u32| {
        let fits = |part: &Part| fits(declared, first, part_size, part.number.0, part.size);
        parts.iter().all(|part| part.size > 0 && fits(part))
    };
    let has_first = parts.first().is_some_and(|part| part.number.0 == 0);
    let tells = received < declared && !parts.is_empty() && !all_fit(1) && all_fit(0);
    let first = u32::from(!has_first && !tells);
    let mut missing = Vec::new();
    let mut next = first;
    for part in parts {
        missing.extend(next..part.number.0);
        next = part.number.0 + 1;
    }
    if received < declared && parts.iter().all(|part| part.size == part_size) {
        let end = u64::from(first) + mode.parts(declared, limit);
        missing.extend(next..u32::try_from(end).unwrap_or(u32::MAX));
    }
    if !missing.is_empty() {
        Completeness::Missing(missing)
    } else if received != declared && mode.is_sized() {
        Completeness::SizeDiffers { declared, received }
    } else {
        Completeness::Complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No limit on the size of a part.
    const ANY: u64 = u64::MAX;

    fn parts(sizes: &[(u32, u64)]) -> Vec<Part> {
        let part = |&(number, size)| Part {
            number: PartNumber(number),
            size,
            blake3: ContentHash([0; 32]),
            sha256: Sha256([0; 32]),
            place: Locator(Box::default()),
        };
        sizes.iter().map(part).collect()
    }

    fn upload(mode: Mode, size: u64) -> Upload {
        Upload {
            id: UploadId([1; 16]),
            owner: UserId::parse("u").unwrap(),
            name: FileName::parse("x").unwrap(),
            folder: Folder::default(),
            mime: None,
            size,
            mode,
            sha256: None,
            meta: CallerMeta::default(),
            expires: UnixMillis(0),
            received: 0,
            revision: 0,
            state: UploadState::Open,
        }
    }

    #[test]
    fn numbers_run_from_zero_or_one_without_gaps() {
        let check =
            |size, sizes: &[_]| completeness(&upload(Mode::Chunked, size), &parts(sizes), ANY);
        assert_eq!(check(3, &[(0, 1), (1, 2)]), Completeness::Complete);
        assert_eq!(check(3, &[(1, 1), (2, 2)]), Completeness::Complete);
        assert_eq!(check(3, &[(0, 1), (2, 2)]), Completeness::Missing(vec![1]));
        assert_eq!(check(3, &[(3, 3)]), Completeness::Missing(vec![1, 2]));
        assert_eq!(check(0, &[]), Completeness::Complete);
        assert_eq!(check(0, &[(1, 0)]), Completeness::Complete);
        let differs = Completeness::SizeDiffers { declared: 4, received: 3 };
        assert_eq!(check(4, &[(1, 1), (2, 2)]), differs);
        let none_of_5 = completeness(&upload(Mode::Single, 5), &parts(&[(1, 0)]), ANY);
        assert_eq!(none_of_5, Completeness::SizeDiffers { declared: 5, received: 0 });
    }

    #[test]
    fn a_short_last_part_tells_that_numbers_run_from_zero() {
        let full = PART_BYTES_SUGGESTED;
        let chunked = upload(Mode::Chunked, 2 * full + 5);
        let check = |sizes: &[_]| completeness(&chunked, &parts(sizes), ANY);
        assert_eq!(check(&[(1, full), (2, 5)]), Completeness::Missing(vec![0]));
        assert_eq!(check(&[(2, 5)]), Completeness::Missing(vec![0, 1]));
        assert_eq!(check(&[(1, full), (3, 5)]), Completeness::Missing(vec![2]));
        assert_eq!(check(&[(1, full), (2, full)]), Completeness::Missing(vec![3]));
        // All bytes are there, in parts of another size.
        assert_eq!(check(&[(1, 2 * full + 5)]), Completeness::Complete);
        let of_three = completeness(
            &upload(Mode::Chunked, 3 * full),
            &parts(&[(1, 2 * full), (2, full)]),
            ANY,
        );
        assert_eq!(of_three, Completeness::Complete);
        let differs = Completeness::SizeDiffers { declared: 2 * full + 5, received: full + 7 };
        assert_eq!(check(&[(1, full), (2, 7)]), differs);
    }

    #[test]
    fn the_tail_is_behind_the_last_part_unless_one_is_missing() {
        let check = |sizes: &[_]| {
            let Tail { offset, next, missing } = tail(&parts(sizes));
            (offset, next, missing)
        };
        assert_eq!(check(&[]), (0, 1, vec![]));
        assert_eq!(check(&[(0, 3)]), (3, 1, vec![]));
        assert_eq!(check(&[(1, 3), (2, 4)]), (7, 3, vec![]));
        assert_eq!(check(&[(0, 3), (3, 4), (5, 1)]), (3, 6, vec![1, 2, 4]));
        assert_eq!(check(&[(2, 4)]), (0, 3, vec![1]));
        let any = completeness(&upload(Mode::Growing, 0), &parts(&[(1, 3), (2, 4)]), ANY);
        assert_eq!(any, Completeness::Complete);
    }

    #[test]
    fn a_part_belongs_behind_those_before_it_or_where_its_size_puts_it() {
        let full = PART_BYTES_SUGGESTED;
        let span = |upload: &Upload, sizes: &[_], lowest, number, length: Option<u64>| {
            let span = span_of(upload, &parts(sizes), lowest, number, length, 4 * full, ANY);
            span.map(|span| (span.start, span.end))
        };
        let chunked = upload(Mode::Chunked, 3 * full + 5);
        let last = (3 * full, 3 * full + 5);
        // In order, in any size.
        assert_eq!(span(&chunked, &[(1, 7)], 2, 2, Some(9)), Some((7, 16)));
        assert_eq!(span(&chunked, &[(0, 7)], 1, 1, None), Some((7, 7 + full)));
        assert_eq!(span(&chunked, &[(1, 3 * full)], 2, 2, Some(9)), Some(last));
        // In a window, of the suggested size, counted from 1 and from 0.
        assert_eq!(span(&chunked, &[], 1, 3, Some(full)), Some((2 * full, 3 * full)));
        assert_eq!(span(&chunked, &[], 0, 3, Some(5)), Some(last));
        assert_eq!(span(&chunked, &[(4, 5)], 2, 2, Some(full)), Some((full, 2 * full)));
        assert_eq!(span(&chunked, &[], 1, 3, None), Some((2 * full, 3 * full)));
        assert_eq!(span(&chunked, &[], 1, 4, None), Some(last));
        // Of another size, once a part of that size is there.
        assert_eq!(span(&chunked, &[], 2, 2, Some(9)), None);
        assert_eq!(span(&chunked, &[(1, 9)], 3, 3, Some(9)), Some((18, 27)));
        assert_eq!(span(&chunked, &[(1, 9)], 3, 3, Some(8)), None);
        assert_eq!(span(&chunked, &[(1, 9), (3, 8)], 4, 4, Some(9)), None);
        // The last part, which came first, tells that numbers count from 0.
        assert_eq!(span(&chunked, &[], 3, 3, Some(5)), Some(last));
        assert_eq!(span(&chunked, &[(3, 5)], 2, 2, Some(full)), Some((2 * full, 3 * full)));
        assert_eq!(span(&chunked, &[(3, 5)], 1, 1, Some(full)), Some((full, 2 * full)));
        assert_eq!(span(&chunked, &[(1, full), (3, 5)], 2, 2, None), Some((2 * full, 3 * full)));
        assert_eq!(span(&chunked, &[(1, full), (3, 5)], 0, 0, Some(full)), Some((0, full)));
        assert_eq!(
            span(&upload(Mode::Chunked, full + 5), &[], 1, 1, Some(5)),
            Some((full, full + 5))
        );
        assert_eq!(span(&upload(Mode::Chunked, 2 * full), &[], 1, 1, Some(full)), Some((0, full)));
        let growing = upload(Mode::Growing, 0);
        assert_eq!(span(&growing, &[(1, 9)], 2, 2, None), Some((9, 9 + 4 * full)));
        assert_eq!(span(&growing, &[(1, 9)], 3, 3, Some(9)), None);
        assert_eq!(span(&upload(Mode::Single, 9), &[(1, 9)], 2, 2, Some(1)), None);
    }

    #[test]
    fn a_part_belongs_further_behind_when_numbers_count_from_0() {
        let full = PART_BYTES_SUGGESTED;
        let chunked = upload(Mode::Chunked, 3 * full + 5);
        let span = |upload: &Upload, sizes: &[_], number, length| {
            let span = span_from_zero(upload, &parts(sizes), number, length, ANY);
            span.map(|span| (span.start, span.end))
        };
        assert_eq!(span(&chunked, &[], 1, full), Some((full, 2 * full)));
        assert_eq!(span(&chunked, &[], 2, full), Some((2 * full, 3 * full)));
        assert_eq!(span(&chunked, &[], 3, 5), Some((3 * full, 3 * full + 5)));
        // Of a size of its own.
        assert_eq!(span(&chunked, &[], 1, 7), Some((7, 14)));
        assert_eq!(span(&chunked, &[], 3, full), None);
        assert_eq!(span(&upload(Mode::Single, 20), &[], 1, 7), Some((7, 14)));
        assert_eq!(span(&upload(Mode::Single, 20), &[], 1, 20), None);
        // Nothing is left to tell, or no size is declared.
        assert_eq!(span(&chunked, &[], 0, full), None);
        assert_eq!(span(&chunked, &[(1, full)], 2, full), None);
        assert_eq!(span(&upload(Mode::Growing, 0), &[], 1, 7), None);
    }

    #[test]
    fn a_missing_tail_of_suggested_parts_is_named() {
        let full = PART_BYTES_SUGGESTED;
        let chunked = upload(Mode::Chunked, full * 3);
        let check = |sizes: &[_]| completeness(&chunked, &parts(sizes), ANY);
        assert_eq!(check(&[]), Completeness::Missing(vec![1, 2, 3]));
        assert_eq!(check(&[(1, full)]), Completeness::Missing(vec![2, 3]));
        assert_eq!(check(&[(0, full), (1, full)]), Completeness::Missing(vec![2]));
        assert_eq!(check(&[(0, full), (1, full), (2, full)]), Completeness::Complete);
        // Cut at the limit of a part.
        let small = upload(Mode::Chunked, 25);
        let limited = |sizes: &[_]| completeness(&small, &parts(sizes), 10);
        assert_eq!(limited(&[(1, 10), (2, 10)]), Completeness::Missing(vec![3]));
        assert_eq!(limited(&[(1, 10), (2, 5)]), Completeness::Missing(vec![0]));
        assert_eq!(
            completeness(&upload(Mode::Single, 5), &parts(&[]), ANY),
            Completeness::Missing(vec![1])
        );
    }

    #[test]
    fn suggested_parts_cover_the_file_within_the_limit() {
        for size in [0, 1, PART_BYTES_SUGGESTED, PART_BYTES_SUGGESTED + 1, 5 << 30, 1 << 50] {
            for mode in [Mode::Single, Mode::Chunked, Mode::Batch, Mode::Stream] {
                let (part, count) = (mode.part_size(size, ANY), mode.parts(size, ANY));
                assert!(part * count >= size && (count - 1) * part <= size, "{size}");
                assert!(count <= u64::from(super::super::limits::PART_NUMBER_MAX));
            }
        }
    }
}
