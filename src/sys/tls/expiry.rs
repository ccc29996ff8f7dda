//! When a certificate expires: the one field of X.509 (RFC 5280 section 4.1) that is read here.

use time::{Date, Month, PrimitiveDateTime, Time};

use crate::model::time::UnixMillis;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// When a certificate expires; `None` if it is not a certificate in DER.
pub fn of(certificate: &[u8]) -> Option<UnixMillis> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // Skips serial number, algorithm and issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (SEQUENCE, validity, _) = element(fields)? else { return None };
    let (kind, text, _) = element(element(validity)?.2)?;
    time(kind, std::str::from_utf8(text).ok()?)
}

/// The tag and the content of the first element, and the bytes behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` for 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
fn time(kind: u8, text: &str) -> Option<UnixMillis> {
    let (year, rest) = match kind {
        UTC_TIME => {
            let year: i32 = text.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        GENERALIZED_TIME => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let number = |at: usize| rest.get(at..at + 2)?.parse::<u8>().ok();
    let date =
        Date::from_calendar_date(year, Month::try_from(number(0)?).ok()?, number(2)?).ok()?;
    let time = Time::from_hms(number(4)?, number(6)?, number(8)?).ok()?;
    let seconds = PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp();
    Some(UnixMillis(u64::try_from(seconds).ok()?.checked_mul(1000)?))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_found_in_either_form() {
        for (year, seconds) in [(2031, 1_924_992_000), (2061, 2_871_763_200)] {
            let mut params = CertificateParams::new(["a".repeat(40)]).unwrap();
            params.not_after = date_time_ymd(year, 1, 1);
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(of(certificate.der()), Some(UnixMillis(seconds * 1000)), "{year}");
        }
    }

    #[test]
    fn what_is_cut_has_no_end() {
        let params = CertificateParams::new(["a".into()]).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        for length in 0..120 {
            of(&certificate.der()[..length]);
        }
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(time(UTC_TIME, "991399999999Z"), None);
    }
}
