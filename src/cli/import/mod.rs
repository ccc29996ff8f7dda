//! `import DIR`: takes over the tree of the server of the first integration document.
//!
//! One thread walks the tree and reads side files, one task asks which keys are listed already, and
//! several connections bring contents at the same time, so that their commits share syncs. Short
//! queues connect them: memory does not grow with the tree.

mod bring;
mod report;
pub(crate) mod side;
mod tree;

use std::{ops::ControlFlow, path::PathBuf, sync::Arc};

use clap::Args;
use hyper::Method;
use serde_json::{Value, json};
use tokio::{
    sync::{
        Mutex,
        mpsc::{self, Receiver, Sender},
    },
    task::{JoinSet, spawn_blocking},
};

use self::{
    bring::Carrier,
    report::Report,
    tree::{Found, FoundFile, Tree},
};
use super::{
    Failures, Place,
    door::{self, Connection, Door},
};
use crate::http::operator::import::{self, Described};

/// Import the files of the server that this daemon replaces; they keep their keys.
///
/// DIR holds files `storage/USER/FOLDER/8HEX_NAME`, each with a side file of the same name plus
/// `.meta`. Nothing in DIR is changed. Files that are imported already are skipped, so the command
/// can be repeated after an interruption, and once more when the old server has stopped. The exit
/// status is 1 when something was left out.
#[derive(Args)]
pub struct Import {
    /// Directory that holds storage/, or storage/ itself.
    dir: PathBuf,
    /// Read and check everything, but change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// How many files are brought at the same time.
const CARRIERS: usize = 32;
/// How many keys are asked for in one request.
const ASKED_KEYS: usize = 128;

/// A file of the tree that may be taken over.
struct Candidate {
    described: Described,
    size: u64,
}

/// A candidate to bring, or to compare with the file that is listed under its key.
struct Job {
    candidate: Candidate,
    listed: Option<Value>,
}

pub(super) fn run(import: &Import) -> Result<(), Failures> {
    let config = import.place.configure()?;
    let tree = Tree::open(&import.dir).map_err(Failures::at(import.dir.display()))?;
    // A dry run creates nothing, least of all in a wrong place.
    if !import.dry_run {
        door::prepare(&config)?;
    }
    let door = Arc::new(Door::open(&config)?);
    let report = Arc::new(Report::begin(&tree, import.json));
    let tree = Arc::new(tree);
    door::runtime()?.block_on(async {
        let outcome = all(&tree, &report, &door, import.dry_run).await;
        door.close().await;
        outcome
    })?;
    report.end()
}

async fn all(
    tree: &Arc<Tree>,
    report: &Arc<Report>,
    door: &Arc<Door>,
    dry: bool,
) -> Result<(), Failures> {
    let (found, batches) = mpsc::channel(2);
    let (queue, jobs) = mpsc::channel(CARRIERS);
    let jobs = Arc::new(Mutex::new(jobs));
    let mut working = JoinSet::new();
    working.spawn(ask(door.connect().await?, batches, queue));
    for _ in 0..CARRIERS {
        let (tree, report, door) = (Arc::clone(tree), Arc::clone(report), Arc::clone(door));
        let carrier = Carrier { tree, report, door, dry };
        working.spawn(carrier.work(Arc::clone(&jobs)));
    }
    let (tree, report) = (Arc::clone(tree), Arc::clone(report));
    let walking = spawn_blocking(move || walk(&tree, &report, &found));
    // The first failure ends the other tasks, as the set is dropped; what was brought stays.
    while let Some(ended) = working.join_next().await {
        ended.map_err(Failures::at("import"))??;
    }
    walking.await.map_err(Failures::at("import"))
}

/// Finds candidates, and reports everything that cannot be one.
fn walk(tree: &Tree, report: &Report, batches: &Sender<Vec<Candidate>>) {
    let mut batch = Vec::with_capacity(ASKED_KEYS);
    tree.walk(|found| {
        match found {
            Found::Other { path, why } => report.skipped(&path, 0, &why),
            Found::File(file) => match describe(tree, report, &file) {
                Ok(described) => batch.push(Candidate { described, size: file.size }),
                Err(why) => report.skipped(&file.path, file.size, &why),
            },
        }
        if batch.len() < ASKED_KEYS {
            return ControlFlow::Continue(());
        }
        match batches.blocking_send(std::mem::take(&mut batch)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    // If the receiver is gone, it has failed and reports that itself.
    let _ = batches.blocking_send(batch);
}

fn describe(tree: &Tree, report: &Report, file: &FoundFile) -> Result<Described, String> {
    let mut described = side::of_path(&file.path, file.modified)?;
    if file.has_side {
        let text = tree.side(&file.path).map_err(|error| format!("its side file: {error}"))?;
        side::add(&mut described, &text, file.size)?;
    } else {
        report.without_side_file();
    }
    if side::let_go_of_large_meta(&mut described) {
        report.without_meta();
    }
    // What the daemon would refuse is refused here, before its content is sent.
    import::foreign(described.clone()).map_err(|error| error.to_string())?;
    Ok(described)
}

/// Asks which candidates are listed already.
async fn ask(
    mut connection: Connection,
    mut batches: Receiver<Vec<Candidate>>,
    queue: Sender<Job>,
) -> Result<(), Failures> {
    while let Some(batch) = batches.recv().await {
        let keys: Vec<&str> = batch.iter().map(|of| of.described.key.as_str()).collect();
        let asked = door::json(&json!({ "keys": keys }));
        let answer = connection.ask(&Method::POST, "/import/known", asked).await?;
        let mut answer = answer.accepted()?;
        let mut listed = answer["files"].as_array_mut().into_iter().flatten();
        for candidate in batch {
            let listed = listed.next().map(Value::take).filter(|listed| !listed.is_null());
            if queue.send(Job { candidate, listed }).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
