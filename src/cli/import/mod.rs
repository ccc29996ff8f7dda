//! `import DIR`: takes over the tree of the first document's server.
//!
//! One thread walks the tree and reads side files, one task asks which keys are listed already, and
//! some connections bring contents at the same time, so that their commits share syncs. Between
//! them stand short queues: memory does not grow with the tree.

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

/// Take over the files of the server that this one replaces, under the keys that they have.
///
/// DIR holds `storage/USER/FOLDER/8HEX_NAME`, each with a side file that adds `.meta`. Nothing in
/// it is changed. What is listed already is passed over, so that the command can be given again
/// after a break and once more when the old server has stopped. Exit status 1 when something was
/// left out.
#[derive(Args)]
pub struct Import {
    /// The directory that holds storage/, or that one itself.
    dir: PathBuf,
    /// Read and check everything, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Files that are brought at the same time.
const CARRIERS: usize = 32;
/// Keys that are asked for in one request.
const ASKED_KEYS: usize = 128;

/// A file of the tree that may be taken over.
struct Candidate {
    described: Described,
    size: u64,
}

/// One to bring, or to compare with what is listed under its key.
struct Job {
    candidate: Candidate,
    listed: Option<Value>,
}

pub(super) fn run(import: &Import) -> Result<(), Failures> {
    let config = import.place.configure()?;
    let tree = Tree::open(&import.dir).map_err(Failures::at(import.dir.display()))?;
    // A trial leaves nothing behind, least of all in a wrong place.
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
    // The first that fails ends the others with the set; what was brought stays.
    while let Some(ended) = working.join_next().await {
        ended.map_err(Failures::at("import"))??;
    }
    walking.await.map_err(Failures::at("import"))
}

/// Finds candidates; what cannot be one is reported.
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
    // Who does not listen any more has failed, and says so.
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
    // What the daemon would refuse is refused here, and its content not sent.
    import::foreign(described.clone()).map_err(|error| error.to_string())?;
    Ok(described)
}

/// Finds out what is listed already.
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
