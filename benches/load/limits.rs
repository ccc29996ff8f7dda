//! What the machine itself can do, in the same run.

use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

const SPAN: Duration = Duration::from_secs(2);

/// Repeats `work` for a while and answers how often a second it was done.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn often(span: Duration, mut work: impl FnMut(u64)) -> f64 {
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < span {
        work(count);
        count += 1;
    }
    count as f64 / began.elapsed().as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn rate(what: &str, bytes: usize, work: impl FnMut(u64)) {
    let each = often(SPAN, work);
    println!("  {what:<36} {each:>9.1}/s {:>8.1} MB/s", each * bytes as f64 / 1e6);
}

/// Files of so many bytes that one thread writes and syncs per second, one after the other. They
/// stay until the end, as the files of a server do: memory that was just freed is faster.
pub fn files_written(dir: &Path, bytes: u64, span: Duration) -> f64 {
    let (buffer, dir) = (vec![7; 1 << 20], tempfile::tempdir_in(dir).unwrap());
    often(span, |n| {
        let file = File::create(dir.path().join(n.to_string())).unwrap();
        for at in (0..bytes).step_by(buffer.len()) {
            let left = usize::try_from(bytes - at).unwrap_or(usize::MAX);
            file.write_all_at(&buffer[..buffer.len().min(left)], at).unwrap();
        }
        file.sync_data().unwrap();
    })
}

pub fn print(dir: &Path) {
    println!("the machine, one thread");
    let buffer = vec![7; 1 << 20];
    let file = File::create(dir.join("limit")).unwrap();
    rate("append 4 KiB and fdatasync", 4 << 10, |n| {
        file.write_all_at(&buffer[..4 << 10], n * (4 << 10)).unwrap();
        file.sync_data().unwrap();
    });
    std::fs::remove_file(dir.join("limit")).unwrap();
    rate("BLAKE3", buffer.len(), |_| {
        std::hint::black_box(blake3::hash(&buffer));
    });
    rate("SHA-256", buffer.len(), |_| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &buffer);
        std::hint::black_box(digest);
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let reader = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut into = vec![0; 256 << 10];
        while stream.read(&mut into).unwrap() > 0 {}
    });
    let mut stream = TcpStream::connect(address).unwrap();
    rate("loopback, two threads", buffer.len(), |_| stream.write_all(&buffer).unwrap());
    drop(stream);
    reader.join().unwrap();
}
