use std::os::unix::fs::PermissionsExt;

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn ring() -> (tempfile::TempDir, KeyRing) {
    let dir = tempfile::tempdir().unwrap();
    let ring = KeyRing::open(&dir.path().join("keys")).unwrap();
    (dir, ring)
}

fn at(seconds: u64) -> UnixMillis {
    NOW.after(Duration::from_secs(seconds))
}

#[test]
fn the_thumbprint_is_that_of_rfc_7638_section_3_1() {
    let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L\
             6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ\
             5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD\
             08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEg\
             U8awapJzKnqDKgw";
    let n = URL_SAFE_NO_PAD.decode(n).unwrap();
    let print = thumbprint(&n, &[1, 0, 1]);
    assert_eq!(print, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
}

#[test]
fn a_first_key_is_made_once_and_private() {
    let (dir, ring) = ring();
    let keys = dir.path().join("keys");
    let kid = ring.signer(NOW).unwrap().kid.clone();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&keys), 0o700);
    assert_eq!(mode(&keys.join(format!("{kid}.pem"))), 0o600);
    assert_eq!(KeyRing::open(&keys).unwrap().signer(NOW).unwrap().kid, kid);
    fs::write(keys.join("broken.pem"), "no key").unwrap();
    assert!(KeyRing::open(&keys).err().unwrap().to_string().contains("broken.pem"));
}

#[test]
fn a_new_key_is_published_first_and_the_old_one_stays_until_its_last_token_ends() {
    let (_dir, ring) = ring();
    let old = ring.signer_until(NOW, at(100).seconds()).unwrap().kid.clone();
    let new = ring.rotate(NOW, Duration::from_secs(50)).unwrap();
    let signer = |now| ring.signer(now).unwrap().kid.clone();
    assert_eq!(ring.keys().len(), 2, "published at once");
    assert_eq!((signer(NOW), signer(at(49))), (old.clone(), old.clone()));
    assert_eq!(signer(at(50)), new);
    // Tokens that the old key signs until the new one takes over count as well.
    ring.signer_until(at(49), at(DAY_SECONDS * 9).seconds()).unwrap();
    let gone = |now| ring.retire(now).unwrap();
    assert!(gone(at(51)).is_empty());
    let last = DAY_SECONDS * 10 + CLOCK_LEEWAY_SECONDS;
    assert!(gone(at(last)).is_empty());
    assert_eq!(gone(at(last + 1)), [old]);
    assert_eq!(ring.keys().len(), 1);
    assert!(gone(at(LIFE_SECONDS_MAX * 9)).is_empty(), "the last key stays, whatever the time");
    let again = KeyRing::open(&ring.dir).unwrap();
    assert_eq!(again.signer(at(50)).unwrap().kid, new);
}

/// A last expiry that could not be recorded keeps the key all the same, and is recorded when it can
/// be.
#[test]
fn what_is_not_noted_yet_is_remembered() {
    let (_dir, ring) = ring();
    let schedule = ring.dir.join("schedule.json");
    let away = ring.dir.join("away");
    let longest = at(DAY_SECONDS * 9).seconds();
    // A directory in place of the file can be neither read nor renamed over.
    fs::rename(&schedule, &away).unwrap();
    fs::create_dir(&schedule).unwrap();
    let old = ring.signer_meanwhile(NOW, longest).unwrap().kid.clone();
    assert!(ring.signer_until(NOW, longest).is_err());
    fs::remove_dir(&schedule).unwrap();
    fs::rename(&away, &schedule).unwrap();
    let noted = || Schedule::read(&ring.dir).unwrap().find(&old).unwrap().last_expiry;
    ring.reload().unwrap();
    assert_eq!(noted(), 0);
    ring.rotate(NOW, Duration::ZERO).unwrap();
    assert_eq!(noted(), longest + DAY_SECONDS);
    assert!(ring.retire(at(DAY_SECONDS)).unwrap().is_empty());
    // A file that is no schedule is not overwritten.
    fs::write(&schedule, "{").unwrap();
    assert!(ring.signer_meanwhile(at(1), at(2).seconds()).is_err());
}

#[test]
fn an_imported_key_verifies_and_never_signs() {
    let (dir, ring) = ring();
    let other = KeyRing::open(&dir.path().join("other")).unwrap();
    let foreign = other.signer(NOW).unwrap().kid.clone();
    let pem = fs::read_to_string(other.dir.join(format!("{foreign}.pem"))).unwrap();
    let own = ring.signer(NOW).unwrap().kid.clone();
    assert_eq!(ring.import(&pem, NOW).unwrap(), Some(foreign.clone()));
    assert_eq!(ring.import(&pem, NOW).unwrap(), None);
    assert!(ring.keys().iter().any(|key| key.kid == foreign));
    assert_eq!(ring.signer(NOW).unwrap().kid, own);
    ring.rotate(NOW, Duration::ZERO).unwrap();
    assert_ne!(ring.signer(at(9)).unwrap().kid, foreign);
    assert!(!ring.retire(at(LIFE_SECONDS_MAX - 1)).unwrap().contains(&foreign));
    assert!(ring.keys().iter().all(|key| key.kid != own), "its tokens were known to be over");
    for bad in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        assert_eq!(ring.import(bad, NOW).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

/// The tokens of an imported key are good here, and the key makes no other tokens good.
#[test]
fn an_imported_key_does_not_sign_when_it_is_the_only_one() {
    let (dir, ring) = ring();
    let other = KeyRing::open(&dir.path().join("other")).unwrap();
    let foreign = other.signer(NOW).unwrap().kid.clone();
    let pem = fs::read_to_string(other.dir.join(format!("{foreign}.pem"))).unwrap();
    ring.import(&pem, NOW).unwrap();
    let take_away = |ring: &KeyRing| {
        let own = ring.signer(NOW).unwrap().kid.clone();
        assert_ne!(own, foreign);
        fs::remove_file(ring.dir.join(format!("{own}.pem"))).unwrap();
    };
    take_away(&ring);
    ring.reload().unwrap();
    assert!(ring.signer(NOW).is_err());
    assert!(ring.retire(NOW).unwrap().is_empty());
    take_away(&ring);
    let again = KeyRing::open(&ring.dir).unwrap();
    take_away(&again);
    assert!(again.keys().iter().any(|key| key.kid == foreign));
}

#[test]
fn a_key_of_which_nothing_is_noted_is_kept_as_long_as_any_token_can_live() {
    let (_dir, ring) = ring();
    let old = ring.signer(NOW).unwrap().kid.clone();
    fs::remove_file(ring.dir.join("schedule.json")).unwrap();
    ring.reload().unwrap();
    ring.rotate(NOW, Duration::ZERO).unwrap();
    assert!(ring.retire(at(DAY_SECONDS * 365)).unwrap().is_empty());
    assert_eq!(ring.retire(at(LIFE_SECONDS_MAX * 2)).unwrap(), [old]);
}
