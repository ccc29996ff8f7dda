//! What clients were told: the state that a daemon owes them, at any point of a recording.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Bytes that can be made again.
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

/// The bytes of all, one behind another.
pub fn whole(contents: &[Content]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for content in contents {
        bytes.extend_from_slice(&content.bytes());
    }
    bytes
}

/// What an upload that is written in order is written in.
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
    /// In order, the parts it was made of.
    pub content: Vec<Content>,
    /// What `complete` said of it.
    pub answer: Value,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Upload {
    pub target: Target,
    pub batch: Option<String>,
    /// Its plan is appended, piece by piece.
    pub dialect: Option<Dialect>,
    /// It becomes a file only with others, as a final upload of tus.
    pub is_partial: bool,
    /// What the whole is to be, part by part.
    pub plan: Vec<Content>,
    /// What was taken; under a number of the plan may lie something else for a while.
    pub parts: BTreeMap<usize, Content>,
}

impl Upload {
    /// Bytes that were taken.
    pub fn received(&self) -> usize {
        self.parts.values().map(|content| content.size).sum()
    }

    /// A number, counted from 0, whose part is not the planned one; looked for from `first` on.
    pub fn unfinished(&self, first: usize) -> Option<usize> {
        let mut numbers = (0..self.plan.len()).map(|number| (number + first) % self.plan.len());
        numbers.find(|number| self.parts.get(number) != Some(&self.plan[*number]))
    }
}

/// What becomes a file of others once all of them are whole, at the latest when it is completed.
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
    /// Makes one upload of partial ones.
    Concatenate(Final),
    /// Its next piece; the last one completes it.
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

/// One request: lengths of the recording when it was begun and when it was answered.
pub struct Event {
    pub action: Action,
    pub begun: u64,
    /// With what was answered.
    pub answered: Option<(u64, u16, Value)>,
}

/// What stands, and what may or may not.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    pub files: BTreeMap<String, File>,
    pub deleted: BTreeSet<String>,
    /// Open ones.
    pub uploads: BTreeMap<String, Upload>,
    /// Open ones and their uploads, ended or not.
    pub batches: BTreeMap<String, Vec<String>>,
    /// Open ones, of which some may be files by now.
    pub finals: BTreeMap<String, Final>,
    /// Files that final uploads may have become before they were over.
    pub joined: Vec<(Target, Vec<Content>)>,
    /// What `complete` said, for uploads and batches.
    pub completed: BTreeMap<String, Value>,
    pub aborted: BTreeSet<String>,
    /// User and token.
    pub tokens: Vec<(String, String)>,
    /// Begun and never answered, or answered with a failure that does not say what was done.
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

    /// Takes an answer to the books.
    pub fn answered(&mut self, action: &Action, status: u16, answer: &Value) {
        match status {
            200..300 => self.done(action, answer),
            // Only what the client asked for too late: its session is over, or one of its partial ones.
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

    /// What a final upload is to be, unless a partial one is not open any more.
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

    /// Forgets an open upload, or a batch and its open uploads, or a final one but none of its own.
    fn end(&mut self, id: &str) {
        self.finals.remove(id);
        for id in self.batches.remove(id).unwrap_or_else(|| vec![id.to_owned()]) {
            if self.uploads.remove(&id).is_some() {
                self.aborted.insert(id);
            }
        }
    }

    /// The ids of uploads that an action speaks of.
    pub fn uploads_of<'a>(&'a self, action: &'a Action) -> Vec<&'a str> {
        if let Action::Concatenate(of) = action {
            return of.partials.iter().map(String::as_str).collect();
        }
        let Some(id) = action.upload() else { return Vec::new() };
        let of_final = self.finals.get(id).map(|of| &of.partials);
        let others = self.batches.get(id).into_iter().chain(of_final).flatten();
        std::iter::once(id).chain(others.map(String::as_str)).collect()
    }

    /// Everything that is open to one of several clients: each file and upload to one of them,
    /// none that is in doubt.
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
    /// The upload or batch that it speaks of.
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
