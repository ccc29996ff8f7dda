//! Byte ranges applied to a size (RFC 9110 section 14.1.2). Arithmetic only.

use super::limits::RANGES_MAX;

/// About what one part of a multipart answer costs: ranges no further apart than this are sent as
/// one.
const PART_OVERHEAD_BYTES: u64 = 80;

/// Bytes `start..end` of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    pub start: u64,
    pub end: u64,
}

impl Slice {
    pub fn whole(size: u64) -> Self {
        Self { start: 0, end: size }
    }

    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether the two have bytes in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether one part for both costs no more than a part for each.
    fn is_near(self, other: Self) -> bool {
        let gap = self.start.max(other.start).saturating_sub(self.end.min(other.end));
        gap <= PART_OVERHEAD_BYTES
    }

    fn joined(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// One range of a `Range` header, before the size is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `first-` or `first-last`, both inclusive.
    From { first: u64, last: Option<u64> },
    /// `-length`.
    Suffix { length: u64 },
}

impl RangeSpec {
    /// Reads `first-last`, `first-` or `-length`; `None` for anything else.
    pub fn parse(spec: &str) -> Option<Self> {
        let (first, last) = spec.split_once('-')?;
        match (first, last) {
            ("", length) => Some(Self::Suffix { length: position(length)? }),
            (first, "") => Some(Self::From { first: position(first)?, last: None }),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                (first <= last).then_some(Self::From { first, last: Some(last) })
            }
        }
    }

    /// The slice of `size` bytes that is meant; `None` when it is empty.
    pub fn resolve(self, size: u64) -> Option<Slice> {
        let slice = match self {
            Self::From { first, last } => {
                let end = last.map_or(size, |last| last.saturating_add(1).min(size));
                Slice { start: first, end }
            }
            Self::Suffix { length } => Slice { start: size.saturating_sub(length), end: size },
        };
        (slice.start < slice.end).then_some(slice)
    }
}

/// The ranges that a whole `Range` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet(Vec<RangeSpec>);

impl RangeSet {
    /// Reads a header value. `None` for a value that the server ignores (section 14.2): another
    /// unit, bad syntax, more than [`RANGES_MAX`] ranges.
    pub fn parse(value: &str) -> Option<Self> {
        let (unit, set) = value.split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        // A list may have empty members (section 5.6.1.2).
        let members = set.split(',').map(str::trim).filter(|member| !member.is_empty());
        let specs: Vec<_> = members.take(RANGES_MAX + 1).map(RangeSpec::parse).collect();
        let is_bounded = (1..=RANGES_MAX).contains(&specs.len());
        specs.into_iter().collect::<Option<_>>().filter(|_| is_bounded).map(Self)
    }

    /// The parts of an answer, in the order in which they were asked for. All of them lie in the
    /// content, and none is near another. Empty when no range can be satisfied.
    pub fn resolve(&self, size: u64) -> Vec<Slice> {
        let mut parts: Vec<Slice> = Vec::new();
        for mut slice in self.0.iter().filter_map(|spec| spec.resolve(size)) {
            let mut at = parts.len();
            // Joined with one part, the range may come near another.
            while let Some(near) = parts.iter().position(|part| part.is_near(slice)) {
                slice = parts.remove(near).joined(slice);
                at = at.min(near);
            }
            parts.insert(at, slice);
        }
        parts
    }
}

/// Digits only; a number too large for any file counts as the largest.
fn position(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolve(value: &str, size: u64) -> Vec<(u64, u64)> {
        let parts = RangeSet::parse(value).unwrap().resolve(size);
        parts.into_iter().map(|part| (part.start, part.end)).collect()
    }

    #[test]
    fn reads_lists_of_the_three_forms_and_ignores_the_rest() {
        for (value, wanted) in [
            ("bytes=0-9", vec![(0, 10)]),
            ("Bytes=5-", vec![(5, 1000)]),
            ("bytes=-3", vec![(997, 1000)]),
            ("bytes=0-1,,  500-600 ,", vec![(0, 2), (500, 601)]),
            ("bytes=500-600,0-1", vec![(500, 601), (0, 2)]),
            ("bytes=500-600,0-1,590-999", vec![(500, 1000), (0, 2)]),
            ("bytes=0-1,900-, 200-300, 2-150", vec![(0, 301), (900, 1000)]),
            ("bytes=0-0,2000-,-1", vec![(0, 1), (999, 1000)]),
            ("bytes=2000-3000", vec![]),
        ] {
            assert_eq!(resolve(value, 1000), wanted, "{value}");
        }
        let many = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
        assert!(RangeSet::parse(&many(RANGES_MAX)).is_some());
        for ignored in [
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "items=0-1",
            "bytes=0-1,x",
            "bytes=9-1",
            "bytes =0-1",
            "bytes=+1-2",
            "bytes=--1",
            "bytes=1 - 2",
            &many(RANGES_MAX + 1),
        ] {
            assert_eq!(RangeSet::parse(ignored), None, "{ignored}");
        }
    }

    /// A range as it is written, and the positions that it means.
    fn written() -> impl Strategy<Value = (String, std::ops::Range<u64>)> {
        prop_oneof![
            (0u64..1200, 0u64..1200).prop_map(|(a, b)| {
                (format!("{}-{}", a.min(b), a.max(b)), a.min(b)..a.max(b) + 1)
            }),
            (0u64..1200).prop_map(|first| (format!("{first}-"), first..u64::MAX)),
        ]
    }

    proptest! {
        /// Checked against the definition: every byte that was asked for is there, once. No byte is
        /// there that is further from one that was asked for than a part costs.
        #[test]
        fn resolves_like_the_definition(
            size in 0u64..1000, ranges in prop::collection::vec(written(), 1..8),
        ) {
            let texts: Vec<_> = ranges.iter().map(|(text, _)| text.as_str()).collect();
            let parts = resolve(&format!("bytes={}", texts.join(", ")), size);
            let asked = |i: u64| ranges.iter().any(|(_, range)| range.contains(&i));
            for i in 0..size {
                let holds = |(start, end): &&(u64, u64)| (*start..*end).contains(&i);
                let times = parts.iter().filter(holds).count();
                if asked(i) {
                    prop_assert_eq!(times, 1);
                } else if times > 0 {
                    prop_assert!((i.saturating_sub(PART_OVERHEAD_BYTES)..i).any(asked));
                    prop_assert!((i..=i + PART_OVERHEAD_BYTES).any(asked));
                }
            }
            prop_assert!(parts.iter().all(|(start, end)| start < end && *end <= size));
        }

        #[test]
        fn a_suffix_is_the_end(size in 0u64..1000, length in 0u64..1200) {
            let parts = resolve(&format!("bytes=-{length}"), size);
            let wanted = (size.saturating_sub(length), size);
            prop_assert_eq!(parts, if length.min(size) > 0 { vec![wanted] } else { vec![] });
        }
    }
}
