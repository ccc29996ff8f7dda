//! Clients that make every kind of request, chosen by a seed, and keep the books.

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    daemon::{Daemon, Recorder},
    dice::Dice,
    ledger::{Action, Content, Dialect, Event, Final, Ledger, Target, Upload},
    wire::{Answer, Wire},
};

pub const USERS: [&str; 3] = ["ada", "bob@example.com", "cy"];
pub const FOLDERS: [&str; 4] = ["", "reports", "reports/2026", "pictures"];
const CLIENTS: usize = 4;

/// Lets several clients work on a daemon for a while. Answers what each of them asked and was told.
pub fn work(
    daemon: &Daemon,
    recorder: &Recorder,
    ledger: &Ledger,
    seed: u64,
    time: Duration,
) -> Vec<Vec<Event>> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let mut client = Client::new(daemon, ledger.share(number, CLIENTS), seed, number);
                scope.spawn(move || {
                    let began = Instant::now();
                    while began.elapsed() < time && client.step(recorder) {}
                    client.events
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

/// One client. No other client touches what it made.
pub struct Client {
    wire: Wire,
    dice: Dice,
    own: Ledger,
    contents: Vec<Content>,
    /// Is part of all names that this client gives, so that they are unique.
    mark: String,
    named: usize,
    pub events: Vec<Event>,
}

impl Client {
    pub fn new(daemon: &Daemon, own: Ledger, seed: u64, number: usize) -> Self {
        let mut dice = Dice::new(seed ^ (number as u64 + 1) << 48);
        let mark = format!("{:08x}", dice.number() >> 32);
        let wire = Wire::service(&daemon.address);
        let (contents, named, events) = (Vec::new(), 0, Vec::new());
        Self { wire, dice, own, contents, mark, named, events }
    }

    /// Makes one request; false when the daemon did not answer.
    pub fn step(&mut self, recorder: &Recorder) -> bool {
        let action = self.choose();
        let begun = recorder.length();
        let answer = send(&mut self.wire, &self.own, &action);
        let answered = answer.ok().map(|a| (recorder.length(), a.status, told(&a)));
        if let Some((_, status, answer)) = &answered {
            self.own.answered(&action, *status, answer);
        }
        let goes_on = answered.is_some();
        if !goes_on {
            self.own.doubts.push(action.clone());
        }
        self.events.push(Event { action, begun, answered });
        goes_on
    }

    /// What it was told so far.
    pub fn ledger(&self) -> &Ledger {
        &self.own
    }

    fn choose(&mut self) -> Action {
        let upload = self.dice.pick(&self.uploads()).cloned();
        let choice = self.dice.below(100);
        match upload {
            Some(id) if choice < 45 => self.go_on(&id),
            _ if choice < 75 => {
                let content = self.content();
                Action::Put { target: self.target(None), content }
            }
            _ if choice < 80 => self.init(),
            _ if choice < 85 => self.begin(),
            _ if choice < 95 => match self.key() {
                Some(key) => Action::Delete { key },
                None => self.init(),
            },
            _ if choice < 97 => match self.repeat() {
                Some(upload) => Action::Complete { upload, inline: false },
                None => self.init(),
            },
            _ => {
                self.named += 1;
                Action::Token { user: format!("{}-{}", self.mark, self.named) }
            }
        }
    }

    fn uploads(&self) -> Vec<String> {
        self.own.uploads.keys().cloned().collect()
    }

    fn key(&mut self) -> Option<String> {
        let keys: Vec<String> = self.own.files.keys().cloned().collect();
        self.dice.pick(&keys).cloned()
    }

    /// A completed upload whose file is still there.
    fn repeat(&mut self) -> Option<String> {
        let there = |answer: &Value| {
            answer["key"].as_str().is_some_and(|key| self.own.files.contains_key(key))
        };
        let completed = self.own.completed.iter().filter(|(_, answer)| there(answer));
        let ids: Vec<String> = completed.map(|(id, _)| id.clone()).collect();
        self.dice.pick(&ids).cloned()
    }

    /// The next request for an upload. Now and then it sends a part with a wrong content, which is
    /// replaced later.
    fn go_on(&mut self, id: &str) -> Action {
        let upload = &self.own.uploads[id];
        if upload.is_partial {
            return self.go_on_to_join(id);
        }
        let whole = upload.batch.clone().unwrap_or_else(|| id.to_owned());
        if self.dice.once_in(20) {
            return Action::Abort { upload: whole };
        }
        if let Some(append) = next_piece(id, upload) {
            return append;
        }
        let raw = self.dice.once_in(2);
        let first = if self.dice.once_in(2) { self.dice.below(4) } else { 0 };
        let open = match self.own.batches.get(&whole) {
            Some(ids) => ids.iter().find_map(|id| {
                let upload = self.own.uploads.get(id)?;
                Some((id.clone(), upload.unfinished(first)?))
            }),
            None => upload.unfinished(first).map(|number| (id.to_owned(), number)),
        };
        let Some((id, number)) = open else {
            return Action::Complete { upload: whole, inline: false };
        };
        let upload = &self.own.uploads[&id];
        if upload.batch.is_none()
            && upload.parts.is_empty()
            && upload.plan.len() == 1
            && self.dice.once_in(2)
        {
            return Action::Complete { upload: id, inline: true };
        }
        let mut content = upload.plan[number];
        if self.dice.once_in(6) {
            content = Content { seed: self.dice.number(), size: content.size };
        }
        Action::Part { upload: id, number, content, raw }
    }

    /// The next request for a partial upload, or for the final upload that it is part of.
    fn go_on_to_join(&mut self, id: &str) -> Action {
        let is_over = self.dice.once_in(20);
        if let Some((whole, of)) = self.own.final_of(id) {
            let upload = whole.clone();
            if self.own.content_of(of).is_none() {
                return Action::Abort { upload };
            }
            let mut pieces = of.partials.iter().map(|id| next_piece(id, &self.own.uploads[id]));
            return match pieces.find_map(|piece| piece) {
                Some(_) if is_over => Action::Abort { upload },
                Some(piece) => piece,
                None => Action::Complete { upload, inline: false },
            };
        }
        if is_over {
            return Action::Abort { upload: id.to_owned() };
        }
        let upload = self.own.uploads[id].clone();
        let piece = next_piece(id, &upload);
        // The partial uploads need not be whole: a final upload waits for them.
        if piece.is_none() || self.dice.once_in(4) {
            let joins = |(id, other): &(&String, &Upload)| {
                let same = other.is_partial && other.target.user == upload.target.user;
                same && self.own.final_of(id).is_none()
            };
            let partials = self.own.uploads.iter().filter(joins).map(|(id, _)| id.clone());
            let partials: Vec<_> = partials.take(3).collect();
            if partials.len() > 1 || self.dice.once_in(4) {
                let target = self.target(Some(&upload.target));
                return Action::Concatenate(Final { target, partials });
            }
        }
        piece.unwrap_or_else(|| {
            let target = self.target(Some(&upload.target));
            self.begin_at(target, Dialect::Tus, true)
        })
    }

    fn init(&mut self) -> Action {
        let mode = ["single", "chunked", "chunked", "batch"][self.dice.below(4)].to_owned();
        let target = self.target(None);
        let uploads = match mode.as_str() {
            "batch" => (0..2 + self.dice.below(3))
                .map(|_| (self.target(Some(&target)), vec![self.content()]))
                .collect(),
            "single" => vec![(target, vec![self.content()])],
            _ => {
                let parts = 2 + self.dice.below(3);
                let mut plan: Vec<Content> = (0..parts).map(|_| self.content()).collect();
                // Large parts of one size are assembled in place, in whatever order they come.
                if self.dice.once_in(2) {
                    let size = 70_000 + self.dice.below(60_000);
                    let seeds = plan.iter().map(|content| content.seed);
                    plan = seeds.map(|seed| Content { seed, size }).collect();
                }
                vec![(target, plan)]
            }
        };
        Action::Init { mode, uploads }
    }

    fn begin(&mut self) -> Action {
        let dialect = [Dialect::Tus, Dialect::Tus, Dialect::Draft][self.dice.below(3)];
        let is_partial = dialect == Dialect::Tus && self.dice.once_in(2);
        let target = self.target(None);
        self.begin_at(target, dialect, is_partial)
    }

    fn begin_at(&mut self, target: Target, dialect: Dialect, is_partial: bool) -> Action {
        let pieces = 1 + self.dice.below(if is_partial { 2 } else { 5 });
        // An empty piece at the end would come after the last byte.
        let piece = |content: Content| Content { size: content.size.max(1), ..content };
        let plan = (0..pieces).map(|_| piece(self.content())).collect();
        Action::Begin { target, plan, dialect, is_partial }
    }

    /// A new content, or now and then an earlier one, so that blobs are shared.
    fn content(&mut self) -> Content {
        if self.dice.once_in(4)
            && let Some(earlier) = self.dice.pick(&self.contents)
        {
            return *earlier;
        }
        let size = match self.dice.below(20) {
            0 => 0,
            1 => 1,
            2..=12 => 2_500 + self.dice.below(1_000),
            13..=15 => 58_000 + self.dice.below(7_500),
            16..=18 => 70_000 + self.dice.below(60_000),
            _ => 70_000 + self.dice.below(530_000),
        };
        let content = Content { seed: self.dice.number(), size };
        self.contents.push(content);
        content
    }

    /// A target with a new name, for the same user and in the same folder as `like`, if given.
    fn target(&mut self, like: Option<&Target>) -> Target {
        self.named += 1;
        let name = format!("{}-{}.bin", self.mark, self.named);
        if let Some(like) = like {
            return Target { name, ..like.clone() };
        }
        let user = USERS[self.dice.below(USERS.len())].to_owned();
        let folder = FOLDERS[self.dice.below(FOLDERS.len())].to_owned();
        Target { user, folder, name }
    }
}

/// The next piece of an upload that is written in order; `None` for any other upload, and when no
/// piece is left.
pub fn next_piece(id: &str, upload: &Upload) -> Option<Action> {
    let (dialect, number) = (upload.dialect?, upload.unfinished(0)?);
    Some(Action::Append {
        upload: id.to_owned(),
        number,
        offset: upload.received(),
        content: upload.plan[number],
        last: number + 1 == upload.plan.len() && !upload.is_partial,
        dialect,
    })
}

/// What the books keep of an answer: the id of a new upload, the JSON of another success, or the
/// text of a refusal.
fn told(answer: &Answer) -> Value {
    if let Some(id) = &answer.upload {
        return json!({"uploadId": id});
    }
    if (200..300).contains(&answer.status) { answer.json() } else { answer.text().into() }
}

/// Sends the request of an action.
pub fn send(wire: &mut Wire, ledger: &Ledger, action: &Action) -> std::io::Result<Answer> {
    match action {
        Action::Put { target, content } => {
            let Target { user, folder, name } = target;
            let path = format!("/v1/files/content?user_id={user}&folder={folder}&filename={name}");
            wire.send("PUT", &path, &content.bytes())
        }
        Action::Init { mode, uploads } => {
            let size = |plan: &[Content]| plan.iter().map(|content| content.size).sum::<usize>();
            let files = uploads.iter();
            let files: Value =
                files.map(|(to, plan)| json!({"name": to.name, "size": size(plan)})).collect();
            let Target { user, folder, .. } = &uploads[0].0;
            let meta = json!({"user_id": user, "mark": uploads.len()});
            let body = json!({"mode": mode, "files": files, "folder": folder, "meta": meta});
            wire.post("/v1/files/init", &body)
        }
        Action::Part { upload, number, content, raw: true } => {
            let path = format!("/v1/files/{upload}/parts/{}", number + 1);
            wire.send("PUT", &path, &content.bytes())
        }
        Action::Part { upload, number, content, raw: false } => {
            let content = STANDARD.encode(content.bytes());
            let body =
                json!({"uploadId": upload, "partNumber": number + 1, "chunkBase64": content});
            wire.post("/v1/files/part", &body)
        }
        Action::Begin { target, plan, dialect, is_partial } => {
            begin(wire, target, plan, *dialect, *is_partial)
        }
        Action::Concatenate(of) => {
            let urls: Vec<_> = of.partials.iter().map(|id| format!("/v1/tus/{id}")).collect();
            let concat = format!("upload-concat: final;{}\r\n", urls.join(" "));
            create(wire, &of.target, &concat)
        }
        Action::Append { upload, offset, content, last, dialect, .. } => {
            append(wire, upload, *offset, &content.bytes(), *last, *dialect)
        }
        Action::Complete { upload, inline: true } => {
            let content = STANDARD.encode(ledger.uploads[upload].plan[0].bytes());
            let body = json!({"uploadId": upload, "parts": [{"data": content}]});
            wire.post("/v1/files/complete", &body)
        }
        Action::Complete { upload, inline: false } => {
            wire.post("/v1/files/complete", &json!({"uploadId": upload}))
        }
        Action::Delete { key } => wire.send("DELETE", &format!("/v1/files/{key}"), b""),
        Action::Abort { upload } => wire.send("DELETE", &format!("/v1/files/{upload}"), b""),
        Action::Token { user } => {
            wire.post(&format!("/v1/files/generate-token?user_id={user}"), &json!({}))
        }
    }
}

fn begin(
    wire: &mut Wire,
    target: &Target,
    plan: &[Content],
    dialect: Dialect,
    is_partial: bool,
) -> std::io::Result<Answer> {
    let Target { user, folder, name } = target;
    let length: usize = plan.iter().map(|content| content.size).sum();
    match dialect {
        Dialect::Tus => {
            let concat = if is_partial { "upload-concat: partial\r\n" } else { "" };
            create(wire, target, &format!("upload-length: {length}\r\n{concat}"))
        }
        Dialect::Draft => {
            let path = format!("/v1/files/content?user_id={user}&folder={folder}&filename={name}");
            let headers = format!("upload-complete: ?0\r\nupload-length: {length}\r\n");
            wire.send_with("PUT", &path, &headers, b"")
        }
    }
}

/// Creates a tus upload, with more headers.
fn create(wire: &mut Wire, target: &Target, headers: &str) -> std::io::Result<Answer> {
    let Target { user, folder, name } = target;
    let pair = |(key, value): (&str, &String)| match value.as_str() {
        "" => key.to_owned(),
        value => format!("{key} {}", STANDARD.encode(value)),
    };
    let pairs = [("filename", name), ("folder", folder), ("user_id", user)].map(pair);
    let metadata = pairs.join(",");
    let headers = format!("tus-resumable: 1.0.0\r\n{headers}upload-metadata: {metadata}\r\n");
    wire.send_with("POST", "/v1/tus", &headers, b"")
}

fn append(
    wire: &mut Wire,
    upload: &str,
    offset: usize,
    bytes: &[u8],
    last: bool,
    dialect: Dialect,
) -> std::io::Result<Answer> {
    match dialect {
        Dialect::Tus => {
            let headers = format!(
                "tus-resumable: 1.0.0\r\nupload-offset: {offset}\r\n\
                 content-type: application/offset+octet-stream\r\n",
            );
            let answer = wire.send_with("PATCH", &format!("/v1/tus/{upload}"), &headers, bytes)?;
            if !last || answer.status != 204 {
                return Ok(answer);
            }
            // The upload is complete now. `complete` answers with the file that it became.
            wire.post("/v1/files/complete", &json!({"uploadId": upload}))
        }
        Dialect::Draft => {
            let headers = format!(
                "upload-complete: ?{}\r\nupload-offset: {offset}\r\n\
                 content-type: application/partial-upload\r\n",
                u8::from(last),
            );
            wire.send_with("PATCH", &format!("/v1/uploads/{upload}"), &headers, bytes)
        }
    }
}
