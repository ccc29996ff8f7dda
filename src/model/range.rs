//! A single byte range against a size (RFC 9110 section 14.1.2). Arithmetic only.

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
}

/// What a `Range` header asks for, before the size is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `bytes=first-` or `bytes=first-last`, both inclusive.
    From { first: u64, last: Option<u64> },
    /// `bytes=-length`.
    Suffix { length: u64 },
}

/// What an answer holds once the size is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    Slice(Slice),
    Unsatisfiable,
}

impl RangeSpec {
    /// Reads a header value. `None` is anything that a server ignores (section 14.2): another
    /// unit, bad syntax, or several ranges, which we answer with the whole.
    pub fn parse(value: &str) -> Option<Self> {
        let (unit, spec) = value.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = spec.trim().split_once('-')?;
        match (first, last) {
            ("", length) => Some(Self::Suffix { length: position(length)? }),
            (first, "") => Some(Self::From { first: position(first)?, last: None }),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                (first <= last).then_some(Self::From { first, last: Some(last) })
            }
        }
    }

    pub fn resolve(self, size: u64) -> Resolved {
        let slice = match self {
            Self::From { first, last } => {
                let end = last.map_or(size, |last| last.saturating_add(1).min(size));
                Slice { start: first, end }
            }
            Self::Suffix { length } => Slice { start: size.saturating_sub(length), end: size },
        };
        if slice.start < slice.end { Resolved::Slice(slice) } else { Resolved::Unsatisfiable }
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

    #[test]
    fn reads_the_three_forms_and_ignores_the_rest() {
        let from = |first, last| Some(RangeSpec::From { first, last });
        assert_eq!(RangeSpec::parse("bytes=0-9"), from(0, Some(9)));
        assert_eq!(RangeSpec::parse("Bytes=5-"), from(5, None));
        assert_eq!(RangeSpec::parse("bytes=-3"), Some(RangeSpec::Suffix { length: 3 }));
        for ignored in [
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "items=0-1",
            "bytes=0-1,3-4",
            "bytes=9-1",
            "bytes=+1-2",
            "bytes=--1",
        ] {
            assert_eq!(RangeSpec::parse(ignored), None, "{ignored}");
        }
    }

    proptest! {
        /// Against the definition: byte `i` is served exactly when it lies in the asked range.
        #[test]
        fn resolves_like_the_definition(size in 0u64..40, a in 0u64..50, b in 0u64..50) {
            let (first, last) = (a.min(b), a.max(b));
            for (spec, wanted) in [
                (format!("bytes={first}-{last}"), (first..=last).collect::<Vec<_>>()),
                (format!("bytes={first}-"), (first..size).collect()),
                (format!("bytes=-{a}"), (size.saturating_sub(a)..size).collect()),
            ] {
                let wanted: Vec<u64> = wanted.into_iter().filter(|i| *i < size).collect();
                match RangeSpec::parse(&spec).unwrap().resolve(size) {
                    Resolved::Unsatisfiable => prop_assert!(wanted.is_empty()),
                    Resolved::Slice(s) => {
                        prop_assert_eq!((s.start..s.end).collect::<Vec<_>>(), wanted);
                    }
                }
            }
        }
    }
}
