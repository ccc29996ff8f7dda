//! What clients were told: the state that a daemon must show, at any point of a recording.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Bytes that can be generated again from the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub seed: u64,
    pub size: usize,
}

impl Content {
    pub fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![0; self.size];
        blake3::Hasher::new().update(&self.seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }
}

/// The bytes of all contents, one after the other.
pub fn whole(contents: &[Content]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for content in contents {
        bytes.extend_from_slice(&content.bytes());
    }
    bytes
}

/// The protocol of an upload that is written in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    Tus,
    /// The IETF draft.
    Draft,
}

/// Where a file is to lie, and under which name. Names are never used twice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    pub user: String,
    pub folder: String,
    pub name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct File {
    pub target: Target,
    /// The parts that it was made of, in order.
    pub content: Vec<Content>,
    /// What `complete` answered.
    pub answer: Value,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Upload {
    pub target: Target,
    pub batch: Option<String>,
    /// Set when the plan is appended, piece by piece.
    pub dialect: Option<Dialect>,
    /// Whether it becomes a file only together with others, in a final upload of tus.
    pub is_partial: bool,
    /// The intended content, part by part.
    pub plan: Vec<Content>,
    /// The acknowledged parts by their index in the plan. For a while, one may have another content
    /// than planned.
    pub parts: BTreeMap<usize, Content>,
}

impl Upload {
    /// How many bytes were acknowledged.
    pub fn received(&self) -> usize {
        self.parts.values().map(|content| content.size).sum()
    }

    /// The index of a part that is not the planned one. The search begins at `first` and wraps
    /// around.
    pub fn unfinished(&self, first: usize) -> Option<usize> {
        let mut numbers = (0..self.plan.len()).map(|number| (number + first) % self.plan.len());
        numbers.find(|number| self.parts.get(number) != Some(&self.plan[*number]))
    }
}

/// A final upload. It becomes a file once all its partial uploads are whole, at the latest when it
/// is completed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Final {
    pub target: Target,
    pub partials: Vec<String>,
}

/// What a client asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Action {
    Put {
        target: Target,
        content: Content,
    },
    Init {
        mode: String,
        uploads: Vec<(Target, Vec<Content>)>,
    },
    Part {
        upload: String,
        number: usize,
        content: Content,
        raw: bool,
    },
    /// Begins an upload that is written in order.
    Begin {
        target: Target,
        plan: Vec<Content>,
        dialect: Dialect,
        is_partial: bool,
    },
    /// Makes a final upload of partial ones.
    Concatenate(Final),
    /// Appends the next piece of an upload. The last piece completes it.
    Append {
        upload: String,
        number: usize,
        offset: usize,
        content: Content,
        last: bool,
        dialect: Dialect,
    },
    /// Of an upload or a batch.
    Complete {
        upload: String,
        inline: bool,
    },
    Delete {
        key: String,
    },
    /// Of an upload or a batch.
    Abort {
        upload: String,
    },
    Token {
        user: String,
    },
}

/// One request, with the length of the recording when it began and when it was answered.
pub struct Event {
    pub action: Action,
    pub begun: u64,
    /// The length of the recording then, the status, and the answer.
    pub answered: Option<(u64, u16, Value)>,
}

/// What must be there, and what may or may not be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    pub files: BTreeMap<String, File>,
    pub deleted: BTreeSet<String>,
    /// Open uploads.
    pub uploads: BTreeMap<String, Upload>,
    /// Open batches and their uploads, ended or not.
    pub batches: BTreeMap<String, Vec<String>>,
    /// Open final uploads, of which some may be files by now.
    pub finals: BTreeMap<String, Final>,
    /// Files that final uploads may have become before they ended.
    pub joined: Vec<(Target, Vec<Content>)>,
    /// What `complete` answered for uploads and batches.
    pub completed: BTreeMap<String, Value>,
    pub aborted: BTreeSet<String>,
    /// User and token.
    pub tokens: Vec<(String, String)>,
    /// Requests that were never answered, or were answered with a failure that does not say what
    /// was done.
    pub doubts: Vec<Action>,
}

impl Ledger {
    /// The state when the recording was this long.
    pub fn at(&self, clients: &[Vec<Event>], length: u64) -> Self {
        let mut ledger = self.clone();
        for event in clients.iter().flatten().filter(|event| event.begun <= length) {
            match &event.answered {
                Some((at, status, answer)) if *at <= length => {
                    ledger.answered(&event.action, *status, answer);
                }
                _ => ledger.doubts.push(event.action.clone()),
            }
        }
        ledger
    }

    /// Records an answer.
    pub fn answered(&mut self, action: &Action, status: u16, answer: &Value) {
        match status {
            200..300 => self.done(action, answer),
            // Only a request that came too late gets this: its session is over, or one of its
            // partial ones is.
            404 | 410 => self.over(action),
            400..500 => {}
            _ => self.doubts.push(action.clone()),
        }
    }

    fn over(&mut self, action: &Action) {
        if let Action::Concatenate(of) = action {
            self.uploads.retain(|id, _| !of.partials.contains(id));
        }
        let Some(id) = action.upload() else { return };
        if let Some(of) = self.finals.remove(id) {
            self.joined.push((of.target.clone(), self.content_of(&of).unwrap_or_default()));
            self.uploads.retain(|id, _| !of.partials.contains(id));
        } else {
            self.end(id);
            self.aborted.insert(id.to_owned());
        }
    }

    /// The content of a final upload; `None` when one of its partial uploads is no longer open.
    pub fn content_of(&self, of: &Final) -> Option<Vec<Content>> {
        let plans = of.partials.iter().map(|id| Some(self.uploads.get(id)?.plan.clone()));
        Some(plans.collect::<Option<Vec<_>>>()?.concat())
    }

    /// The final upload that a partial one is part of.
    pub fn final_of(&self, id: &str) -> Option<(&String, &Final)> {
        self.finals.iter().find(|(_, of)| of.partials.iter().any(|own| own == id))
    }

    fn done(&mut self, action: &Action, answer: &Value) {
        match action {
            Action::Put { target, content } => self.file(target, vec![*content], answer),
            Action::Init { mode, uploads } => {
                let id = word(answer, "uploadId");
                let batch = (mode == "batch").then(|| id.clone());
                let ids: Vec<String> = match answer["files"].as_array() {
                    Some(files) => files.iter().map(|file| word(file, "uploadId")).collect(),
                    None => vec![id],
                };
                for (id, (target, plan)) in ids.iter().zip(uploads) {
                    let (target, plan) = (target.clone(), plan.clone());
                    let batch = batch.clone();
                    let (dialect, is_partial, parts) = (None, false, BTreeMap::new());
                    let upload = Upload { target, batch, dialect, is_partial, plan, parts };
                    self.uploads.insert(id.clone(), upload);
                }
                if let Some(batch) = batch {
                    self.batches.insert(batch, ids);
                }
            }
            Action::Part { upload, number, content, .. }
            | Action::Append { upload, number, content, last: false, .. } => {
                if let Some(upload) = self.uploads.get_mut(upload) {
                    upload.parts.insert(*number, *content);
                }
            }
            Action::Begin { target, plan, dialect, is_partial } => {
                let (target, plan, dialect) = (target.clone(), plan.clone(), Some(*dialect));
                let (batch, is_partial, parts) = (None, *is_partial, BTreeMap::new());
                let upload = Upload { target, batch, dialect, is_partial, plan, parts };
                self.uploads.insert(word(answer, "uploadId"), upload);
            }
            Action::Concatenate(of) => {
                self.finals.insert(word(answer, "uploadId"), of.clone());
            }
            Action::Complete { upload, .. } | Action::Append { upload, .. } => {
                self.complete(upload, answer);
            }
            Action::Delete { key } => {
                self.files.remove(key);
                self.deleted.insert(key.clone());
            }
            Action::Abort { upload } => {
                self.end(upload);
                self.aborted.insert(upload.clone());
            }
            Action::Token { user } => self.tokens.push((user.clone(), word(answer, "token"))),
        }
    }

    fn complete(&mut self, id: &str, answer: &Value) {
        if let Some(ids) = self.batches.remove(id) {
            for (id, answer) in ids.iter().zip(answer["files"].as_array().into_iter().flatten()) {
                self.complete(id, answer);
            }
        } else if let Some(of) = self.finals.remove(id) {
            let content = self.content_of(&of).unwrap_or_default();
            self.file(&of.target, content, answer);
            for id in of.partials {
                self.end(&id);
            }
        } else if let Some(upload) = self.uploads.remove(id) {
            self.file(&upload.target, upload.plan, answer);
        }
        self.completed.insert(id.to_owned(), answer.clone());
    }

    fn file(&mut self, target: &Target, content: Vec<Content>, answer: &Value) {
        let file = File { target: target.clone(), content, answer: answer.clone() };
        self.files.insert(word(answer, "key"), file);
    }

    /// Forgets an open upload, a batch with its open uploads, or a final upload without its partial
    /// ones.
    fn end(&mut self, id: &str) {
        self.finals.remove(id);
        for id in self.batches.remove(id).unwrap_or_else(|| vec![id.to_owned()]) {
            if self.uploads.remove(&id).is_some() {
                self.aborted.insert(id);
            }
        }
    }

    /// The ids of the uploads that an action is about.
    pub fn uploads_of<'a>(&'a self, action: &'a Action) -> Vec<&'a str> {
        if let Action::Concatenate(of) = action {
            return of.partials.iter().map(String::as_str).collect();
        }
        let Some(id) = action.upload() else { return Vec::new() };
        let of_final = self.finals.get(id).map(|of| &of.partials);
        let others = self.batches.get(id).into_iter().chain(of_final).flatten();
        std::iter::once(id).chain(others.map(String::as_str)).collect()
    }

    /// The share of one of several clients. Each file and each open upload belongs to one client;
    /// those that are in doubt, and the uploads of batches, belong to none.
    pub fn share(&self, client: usize, clients: usize) -> Self {
        let mut share = Self::default();
        let doubted: BTreeSet<&str> =
            self.doubts.iter().flat_map(|action| self.uploads_of(action)).collect();
        let deleting = |key: &str| {
            self.doubts.iter().any(|a| matches!(a, Action::Delete { key: k } if k == key))
        };
        let mine = |number: usize| number % clients == client;
        for (number, (key, file)) in self.files.iter().enumerate() {
            if mine(number) && !deleting(key) {
                share.files.insert(key.clone(), file.clone());
            }
        }
        let certain = |id: &String| !doubted.contains(id.as_str());
        for (number, (id, upload)) in self.uploads.iter().enumerate() {
            let alone = upload.batch.is_none() && self.final_of(id).is_none();
            if mine(number) && alone && certain(id) {
                share.uploads.insert(id.clone(), upload.clone());
            }
        }
        for (number, (id, of)) in self.finals.iter().enumerate() {
            if mine(number) && certain(id) && of.partials.iter().all(certain) {
                let partials = of.partials.iter();
                let open =
                    partials.filter_map(|id| Some((id.clone(), self.uploads.get(id)?.clone())));
                share.uploads.extend(open);
                share.finals.insert(id.clone(), of.clone());
            }
        }
        share
    }
}

impl Action {
    /// The upload or batch that it is about.
    pub fn upload(&self) -> Option<&str> {
        match self {
            Self::Part { upload, .. }
            | Self::Append { upload, .. }
            | Self::Complete { upload, .. }
            | Self::Abort { upload } => Some(upload),
            _ => None,
        }
    }

    /// Whether it makes files of an upload or a batch.
    pub fn completes(&self) -> bool {
        matches!(self, Self::Complete { .. } | Self::Append { last: true, .. })
    }
}

pub fn word(answer: &Value, member: &str) -> String {
    answer[member].as_str().unwrap_or_else(|| panic!("no {member} in {answer}")).to_owned()
}
