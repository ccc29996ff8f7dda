//! Preconditions and ranges of a download (RFC 9110 sections 13 and 14).

use std::time::{Duration, SystemTime};

use hyper::{
    HeaderMap, Method,
    header::{
        HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
        RANGE,
    },
};

use crate::model::{
    range::{RangeSet, Slice},
    time::UnixMillis,
};

/// What identifies the current content.
pub struct Validators {
    /// The entity tag, with its quotes.
    pub etag: String,
    /// `None` where a date says nothing about the content. Conditions on dates are then ignored,
    /// and a date in `If-Range` does not match.
    pub modified: Option<SystemTime>,
}

impl Validators {
    pub fn dated(etag: String, modified: UnixMillis) -> Self {
        Self { etag, modified: Some(date_of(modified)) }
    }

    /// `Last-Modified` of an answer that is made `now`, never later than that: the clock may have
    /// been ahead when the content was stored (section 8.8.2.1).
    pub fn last_modified(&self, now: UnixMillis) -> Option<String> {
        self.modified.map(|modified| httpdate::fmt_http_date(modified.min(date_of(now))))
    }

    /// Whether the content is newer than the date in the header `name`; `None` without a valid
    /// date.
    fn is_newer_than(&self, headers: &HeaderMap, name: &HeaderName) -> Option<bool> {
        Some(self.modified? > date(headers, name)?)
    }
}

/// HTTP dates count whole seconds and end with the year 9999.
fn date_of(time: UnixMillis) -> SystemTime {
    const LAST: u64 = 253_402_300_799;
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.seconds().min(LAST))
}

/// How a download is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Whole,
    /// At least one range.
    Partial(Vec<Slice>),
    NotModified,
    PreconditionFailed,
    NotSatisfiable,
}

/// Decides in the order of section 13.2.2.
pub fn decide(method: &Method, headers: &HeaderMap, validators: &Validators, size: u64) -> Answer {
    if let Some(tags) = text(headers, &IF_MATCH) {
        if !matches(&tags, &validators.etag, &Comparison::Strong) {
            return Answer::PreconditionFailed;
        }
    } else if validators.is_newer_than(headers, &IF_UNMODIFIED_SINCE) == Some(true) {
        return Answer::PreconditionFailed;
    }
    if let Some(tags) = text(headers, &IF_NONE_MATCH) {
        if matches(&tags, &validators.etag, &Comparison::Weak) {
            return Answer::NotModified;
        }
    } else if validators.is_newer_than(headers, &IF_MODIFIED_SINCE) == Some(false) {
        return Answer::NotModified;
    }
    // Ranges are defined for GET alone (section 14.2). Empty content has no parts, so a range of it
    // is ignored, as a server may do.
    let applies = *method == Method::GET && size > 0 && range_applies(headers, validators);
    let range = text(headers, &RANGE).filter(|_| applies);
    let parts = range.and_then(|range| RangeSet::parse(&range)).map(|range| range.resolve(size));
    match parts {
        None => Answer::Whole,
        Some(parts) if parts.is_empty() => Answer::NotSatisfiable,
        Some(parts) => Answer::Partial(parts),
    }
}

/// Whether the preconditions let a request change the file (section 13.2.2, for methods other than
/// GET and HEAD).
pub fn permits(headers: &HeaderMap, validators: &Validators) -> bool {
    let holds = match text(headers, &IF_MATCH) {
        Some(tags) => matches(&tags, &validators.etag, &Comparison::Strong),
        None => validators.is_newer_than(headers, &IF_UNMODIFIED_SINCE) != Some(true),
    };
    let none = text(headers, &IF_NONE_MATCH);
    holds && none.is_none_or(|tags| !matches(&tags, &validators.etag, &Comparison::Weak))
}

/// Whether a request has preconditions that [`permits`] evaluates.
pub fn has_conditions(headers: &HeaderMap) -> bool {
    [IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE].iter().any(|name| headers.contains_key(name))
}

/// Whether a client's copy is the one that `etag` names.
pub fn is_fresh(headers: &HeaderMap, etag: &str) -> bool {
    text(headers, &IF_NONE_MATCH).is_some_and(|tags| matches(&tags, etag, &Comparison::Weak))
}

/// Whether `If-Range` lets the range apply (section 13.1.5): it names our strong tag, or the exact
/// date.
fn range_applies(headers: &HeaderMap, validators: &Validators) -> bool {
    match text(headers, &IF_RANGE) {
        None => true,
        Some(tag) if tag.starts_with('"') || tag.starts_with("W/") => tag == validators.etag,
        Some(_) => validators.modified.is_some_and(|at| date(headers, &IF_RANGE) == Some(at)),
    }
}

#[derive(PartialEq)]
enum Comparison {
    Strong,
    Weak,
}

/// Several lines of a header are one list (section 5.2).
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Vec<_> =
        headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}

/// The date in a header; `None` also for one that cannot be read (section 13.1.3).
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    text(headers, name).and_then(|date| httpdate::parse_http_date(&date).ok())
}

/// Our tags contain no comma, so the list can be split at commas.
fn matches(list: &str, etag: &str, comparison: &Comparison) -> bool {
    list.split(',').map(str::trim).any(|tag| {
        let weak = tag.strip_prefix("W/");
        tag == "*" || tag == etag || (*comparison == Comparison::Weak && weak == Some(etag))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(sent: &[(HeaderName, &str)]) -> Answer {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(name, value.parse().unwrap());
        }
        // 1994-11-15T12:45:26Z and some milliseconds.
        let validators = Validators::dated("\"tag\"".into(), UnixMillis(784_903_526_700));
        decide(&Method::GET, &headers, &validators, 10)
    }

    const SAME: &str = "Tue, 15 Nov 1994 12:45:26 GMT";
    const EARLIER: &str = "Tue, 15 Nov 1994 12:45:25 GMT";

    #[test]
    fn conditions_hold_in_the_order_of_the_rfc() {
        for (sent, wanted) in [
            (vec![], Answer::Whole),
            (vec![(IF_NONE_MATCH, "\"tag\"")], Answer::NotModified),
            (vec![(IF_NONE_MATCH, "\"a\", W/\"tag\"")], Answer::NotModified),
            (vec![(IF_NONE_MATCH, "*")], Answer::NotModified),
            (vec![(IF_NONE_MATCH, "\"a\""), (IF_MODIFIED_SINCE, SAME)], Answer::Whole),
            (vec![(IF_MODIFIED_SINCE, SAME)], Answer::NotModified),
            (vec![(IF_MODIFIED_SINCE, EARLIER)], Answer::Whole),
            (vec![(IF_MODIFIED_SINCE, "yesterday")], Answer::Whole),
            (vec![(IF_MATCH, "\"tag\"")], Answer::Whole),
            (vec![(IF_MATCH, "*")], Answer::Whole),
            (vec![(IF_MATCH, "W/\"tag\"")], Answer::PreconditionFailed),
            (vec![(IF_MATCH, "\"a\""), (IF_NONE_MATCH, "\"tag\"")], Answer::PreconditionFailed),
            (vec![(IF_UNMODIFIED_SINCE, EARLIER)], Answer::PreconditionFailed),
            (vec![(IF_MATCH, "\"tag\""), (IF_UNMODIFIED_SINCE, EARLIER)], Answer::Whole),
        ] {
            assert_eq!(answer(&sent), wanted, "{sent:?}");
        }
    }

    #[test]
    fn nothing_was_modified_after_its_answer() {
        let at = |time| Validators::dated(String::new(), UnixMillis(time));
        let told = |time, now| at(time).last_modified(UnixMillis(now)).unwrap();
        assert_eq!(told(784_903_526_700, 784_903_526_000), SAME);
        assert_eq!(told(784_903_525_999, 784_903_526_000), EARLIER);
        assert_eq!(told(u64::MAX, 784_903_526_999), SAME);
    }

    #[test]
    fn ranges_apply_to_the_same_content_only() {
        let part = || Answer::Partial(vec![Slice { start: 2, end: 5 }]);
        for (sent, wanted) in [
            (vec![], part()),
            (vec![(IF_RANGE, "\"tag\"")], part()),
            (vec![(IF_RANGE, "W/\"tag\"")], Answer::Whole),
            (vec![(IF_RANGE, "\"other\"")], Answer::Whole),
            (vec![(IF_RANGE, SAME)], part()),
            (vec![(IF_RANGE, EARLIER)], Answer::Whole),
            (vec![(IF_NONE_MATCH, "\"tag\"")], Answer::NotModified),
        ] {
            let sent = [vec![(RANGE, "bytes=2-4")], sent].concat();
            assert_eq!(answer(&sent), wanted, "{sent:?}");
        }
        let changes = |name: HeaderName, value: &str| {
            let validators = Validators::dated("\"tag\"".into(), UnixMillis(784_903_526_700));
            permits(&HeaderMap::from_iter([(name, value.parse().unwrap())]), &validators)
        };
        assert!(changes(IF_MATCH, "\"tag\"") && !changes(IF_MATCH, "\"a\""));
        assert!(changes(IF_NONE_MATCH, "\"a\"") && !changes(IF_NONE_MATCH, "*"));
        assert!(changes(IF_UNMODIFIED_SINCE, SAME) && !changes(IF_UNMODIFIED_SINCE, EARLIER));
        assert_eq!(answer(&[(RANGE, "bytes=10-")]), Answer::NotSatisfiable);
        assert_eq!(answer(&[(RANGE, "bytes=2-2,4-4")]), part());
        assert_eq!(answer(&[(RANGE, "bytes=2-2"), (RANGE, "bytes=4-4")]), Answer::Whole);
    }
}
