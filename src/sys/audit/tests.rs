use serde_json::json;

use super::*;

const KEEP: Retention = Retention { file_bytes: 1 << 20, keep: Duration::from_hours(24) };

fn line(n: usize) -> Value {
    json!({ "event": "test", "n": n })
}

fn record(dir: &Path, retention: Retention, lines: usize) {
    let log = AuditLog::open(dir, retention).unwrap();
    for n in 0..lines {
        log.record(&line(n));
    }
}

fn only_file(dir: &Path) -> PathBuf {
    dir.join(name(files(dir).unwrap()[0]))
}

#[test]
fn a_log_is_whole_over_new_starts_and_files() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(verify(dir.path()), Ok(Verified { lines: 0, first: 0, last: 0 }));
    let small = Retention { file_bytes: 1, ..KEEP };
    for retention in [KEEP, KEEP, small, small] {
        record(dir.path(), retention, 5);
        let log = AuditLog::open(dir.path(), retention).unwrap();
        log.record(&line(0));
    }
    assert_eq!(verify(dir.path()), Ok(Verified { lines: 24, first: 1, last: 24 }));
    assert!(files(dir.path()).unwrap().len() > 2);
}

#[test]
fn every_edit_and_every_cut_is_found() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), KEEP, 6);
    let path = only_file(dir.path());
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let without = |at: usize| {
        let kept = lines.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, line)| *line);
        kept.collect::<Vec<_>>().join("\n") + "\n"
    };
    let mut changed: Vec<String> = (0..6).map(without).collect();
    for n in 0..6 {
        changed.push(whole.replacen(&format!("\"n\":{n}"), "\"n\":77", 1));
    }
    let swapped = [lines[0], lines[2], lines[1], lines[3], lines[4], lines[5]].join("\n") + "\n";
    changed.extend([swapped, String::new(), whole[..whole.len() - 9].to_owned(), whole.repeat(2)]);
    for text in changed {
        fs::write(&path, &text).unwrap();
        assert!(verify(dir.path()).is_err(), "{text}");
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(verify(dir.path()).map(|found| found.last), Ok(6));
}

#[test]
fn a_file_that_is_missing_between_others_is_found() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..4 {
        record(dir.path(), Retention { file_bytes: 1, ..KEEP }, 1);
    }
    let all = files(dir.path()).unwrap();
    assert_eq!(all.len(), 4);
    fs::remove_file(dir.path().join(name(all[1]))).unwrap();
    assert!(verify(dir.path()).is_err());
}

#[test]
fn what_a_crash_cut_short_is_dropped_and_a_cut_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), KEEP, 3);
    let path = only_file(dir.path());
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{whole}{{\"event\":\"half")).unwrap();
    record(dir.path(), KEEP, 1);
    assert_eq!(verify(dir.path()).map(|found| found.last), Ok(4));
    let kept: Vec<&str> = whole.lines().take(2).collect();
    fs::write(&path, kept.join("\n") + "\n").unwrap();
    record(dir.path(), KEEP, 1);
    assert!(fs::read_to_string(&path).unwrap().contains("audit_cut"));
    assert_eq!(verify(dir.path()).map(|found| found.last), Ok(4));
}

#[test]
fn old_files_go_and_what_is_left_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let passing = Retention { file_bytes: 1, keep: Duration::ZERO };
    for _ in 0..5 {
        record(dir.path(), passing, 1);
    }
    assert_eq!(files(dir.path()).unwrap(), [5]);
    assert_eq!(verify(dir.path()), Ok(Verified { lines: 1, first: 5, last: 5 }));
}

#[test]
fn lines_that_are_lost_are_counted_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = AuditLog::open(dir.path(), KEEP).unwrap();
    log.lost.fetch_add(3, Ordering::Relaxed);
    log.record(&line(1));
    drop(log);
    let text = fs::read_to_string(only_file(dir.path())).unwrap();
    assert!(text.lines().next().unwrap().contains(r#""lost":3"#), "{text}");
    assert_eq!(verify(dir.path()).map(|found| found.last), Ok(2));
}

#[test]
fn no_file_goes_by_a_clock_that_leapt() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention { file_bytes: 1, keep: Duration::ZERO };
    let mut writer = Writer::open(dir.path(), retention, Arc::default()).unwrap();
    let mut files_after = |trust: Trust| {
        writer.trust = trust;
        for n in 0..3 {
            writer.seal(line(n).to_string().as_bytes());
            writer.write().unwrap();
            writer.rotate_when_due().unwrap();
        }
        files(dir.path()).unwrap().len()
    };
    assert_eq!(files_after(Trust::Waits), 4);
    assert_eq!(files_after(Trust::Good), 1);
}

/// Long or many lines do not make the daemon use more memory while the disk is full.
#[test]
fn what_cannot_be_written_is_kept_up_to_a_bound_and_the_rest_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let one_file = Retention { file_bytes: 1 << 30, ..KEEP };
    let mut writer = Writer::open(dir.path(), one_file, Arc::default()).unwrap();
    let unwritable = File::open(dir.path().join("head")).unwrap();
    let good = std::mem::replace(&mut writer.file, unwritable);
    let long = json!({ "event": "x".repeat(100 << 10) }).to_string().into_bytes();
    writer.take(vec![line(1).to_string().into()]);
    let first = writer.sealed.clone();
    for _ in 0..60 {
        writer.take(vec![long.clone()]);
    }
    assert!(writer.sealed.len() < SEALED_BYTES_MAX + (101 << 10));
    assert!(writer.sealed.starts_with(&first));
    let lost = writer.lost.load(Ordering::Relaxed);
    assert!((15..25).contains(&lost), "{lost}");
    assert_eq!(verify(dir.path()).unwrap().lines, 0);
    writer.file = good;
    writer.failed = None;
    writer.take(Vec::new());
    writer.take(vec![line(2).to_string().into()]);
    assert!(writer.sealed.is_empty() && writer.sealed.capacity() <= 2 * SEALED_BYTES_KEPT);
    writer.sync().unwrap();
    let text = fs::read_to_string(only_file(dir.path())).unwrap();
    assert!(text.contains(&format!(r#""event":"audit_gap","lost":{lost}"#)), "{lost}");
    // The first line, the kept ones of the 60, the line about the gap, and the one after it.
    assert_eq!(verify(dir.path()).map(|found| found.last), Ok(1 + 60 - lost + 2));
}
