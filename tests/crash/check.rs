//! Checks the answers of a daemon against the ledger.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    clients::{FOLDERS, USERS, next_piece, send},
    dice::Dice,
    ledger::{Action, Content, File, Final, Ledger, Target, Upload, whole, word},
    wire::{Answer, Wire},
};

/// With this quota an init of [`HUGE_BYTES`] is refused, and the refusal says how much is used.
pub const QUOTA: (&str, &str) = ("STREAMLINED_QUOTA_BYTES", "4GiB");
const HUGE_BYTES: u64 = (5 << 30) - 1;
/// How many completions are repeated, and how many tokens are tried.
const REPEATED_MAX: usize = 12;
const TOKENS_MAX: usize = 4;
/// All files of a user are listed each time. Of their contents, the newest [`READ_NEWEST`] are read
/// back each time, the others once in [`READ_ONCE_IN`] times, and once in [`WHOLE_ONCE_IN`] times
/// all.
const READ_NEWEST: usize = 24;
const READ_ONCE_IN: usize = 16;
const WHOLE_ONCE_IN: usize = 12;
/// One in so many open uploads is completed.
const FINISH_ONCE_IN: usize = 8;

pub struct Check<'a> {
    address: &'a str,
    wire: Wire,
    ledger: &'a Ledger,
    /// Whether sessions may have expired meanwhile.
    expiring: bool,
    dice: Dice,
    wrong: Vec<String>,
}

/// Everything that is wrong with the daemon at `address`. Completes some of its open uploads.
pub fn check(address: &str, ledger: &Ledger, expiring: bool, dice: Dice) -> Vec<String> {
    let wire = Wire::service(address);
    let mut check = Check { address, wire, ledger, expiring, dice, wrong: Vec::new() };
    for user in USERS {
        check.user(user);
    }
    check.gone();
    check.completed();
    check.tokens();
    if check.dice.once_in(2) {
        check.finish_uploads();
    }
    check.wrong
}

impl Check<'_> {
    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(what());
        }
    }

    fn get(&mut self, path: &str) -> Option<Answer> {
        match self.wire.get(path) {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.wrong.push(format!("GET {path}: {error}"));
                None
            }
        }
    }

    fn json(&mut self, path: &str) -> Value {
        let Some(answer) = self.get(path) else { return Value::Null };
        self.expect(answer.status == 200, || format!("GET {path}: {}", answer.text()));
        answer.json()
    }

    /// The answers in the order of the paths. A missing one is reported as wrong.
    fn get_all(&mut self, paths: Vec<String>) -> Vec<(String, Option<Answer>)> {
        if let Ok(answers) = self.wire.get_all(&paths) {
            return paths.into_iter().zip(answers.into_iter().map(Some)).collect();
        }
        self.wire = Wire::service(self.address);
        paths.into_iter().map(|path| (path.clone(), self.get(&path))).collect()
    }

    fn user(&mut self, user: &str) {
        let list = self.json(&format!("/v1/files/all?user_id={user}"));
        let listed: Vec<Value> = list["files"].as_array().cloned().unwrap_or_default();
        let by_key: BTreeMap<&str, &Value> =
            listed.iter().filter_map(|entry| Some((entry["key"].as_str()?, entry))).collect();
        for (key, file) in self.ledger.files.iter().filter(|(_, f)| f.target.user == user) {
            match by_key.get(key.as_str()) {
                Some(entry) => self.entry(file, entry),
                None => self.expect(self.deletion_doubted(key), || format!("{key} is not listed")),
            }
        }
        let all = self.dice.once_in(WHOLE_ONCE_IN);
        let mut expected = BTreeMap::new();
        for (place, entry) in listed.iter().enumerate() {
            let key = word(entry, "key");
            let hash = match self.ledger.files.get(&key) {
                Some(file) => Some(word(&file.answer, "blake3")),
                None => self.unacknowledged(user, entry),
            };
            if all || place < READ_NEWEST || self.dice.once_in(READ_ONCE_IN) {
                expected.insert(key, hash);
            }
        }
        for folder in FOLDERS {
            let below = |entry: &&Value| {
                let rest = entry["folder"].as_str().and_then(|own| own.strip_prefix(folder));
                rest.is_some_and(|rest| {
                    folder.is_empty() || rest.is_empty() || rest.starts_with('/')
                })
            };
            let files: Vec<&Value> = listed.iter().filter(below).collect();
            self.totals(user, folder, &files);
        }
        self.contents(&expected);
        let open = self.uploads(user);
        self.used(user, listed.iter().filter_map(|entry| entry["size"].as_u64()).sum(), open);
    }

    fn entry(&mut self, file: &File, entry: &Value) {
        let mut told = file.answer.clone();
        if let Some(told) = told.as_object_mut() {
            let created = told.remove("createdAt").unwrap_or_default();
            told.insert("created_at".into(), created);
            told.retain(|member, _| !matches!(member.as_str(), "sha256" | "blake3"));
        }
        self.expect(told == *entry, || format!("listed as {entry}, acknowledged as {told}"));
    }

    fn totals(&mut self, user: &str, folder: &str, files: &[&Value]) {
        let list = self.json(&format!("/v1/files/all?user_id={user}&folder={folder}&limit=1"));
        let size: u64 = files.iter().filter_map(|file| file["size"].as_u64()).sum();
        let told = (list["total_count"].as_u64(), list["total_size"].as_u64());
        self.expect(told == (Some(files.len() as u64), Some(size)), || {
            let listed = files.len();
            format!("{user}/{folder}: {told:?} counted, {listed} of {size} bytes are listed")
        });
    }

    /// The hash of the content that a request in doubt would have stored under this entry. An entry
    /// that no request explains is wrong.
    fn unacknowledged(&mut self, user: &str, entry: &Value) -> Option<String> {
        let made_by = |target: &Target| target.user == user && entry["filename"] == target.name;
        let mut content: Option<Vec<Content>> = None;
        for doubt in &self.ledger.doubts {
            match doubt {
                Action::Put { target, content: own } if made_by(target) => {
                    content = Some(vec![*own]);
                }
                doubt if doubt.completes() => {
                    let ids = self.ledger.uploads_of(doubt);
                    let mut uploads = ids.iter().filter_map(|id| self.ledger.uploads.get(*id));
                    if let Some(upload) = uploads.find(|upload| made_by(&upload.target)) {
                        content = Some(upload.plan.clone());
                    }
                }
                _ => {}
            }
        }
        content = content.or_else(|| self.joined(user, entry));
        if content.is_none() {
            let deleted = self.ledger.deleted.contains(&word(entry, "key"));
            let why = if deleted { "was deleted" } else { "nobody asked for it" };
            self.wrong.push(format!("listed, but {why}: {entry}"));
        }
        Some(blake3::hash(&whole(&content?)).to_hex().to_string())
    }

    /// The content under this entry when a final upload, not known to be a file, has become it.
    fn joined(&self, user: &str, entry: &Value) -> Option<Vec<Content>> {
        let made_by = |target: &Target| target.user == user && entry["filename"] == target.name;
        let finals = self.finals().filter(|of| made_by(&of.target) && self.may_be_file(of));
        let over = self.ledger.joined.iter().filter(|(target, _)| made_by(target));
        let over = over.map(|(_, content)| content.clone());
        finals.filter_map(|of| self.ledger.content_of(of)).chain(over).next()
    }

    /// The final uploads that exist, and those that may exist.
    fn finals(&self) -> impl Iterator<Item = &Final> {
        let doubted = self.ledger.doubts.iter().filter_map(|doubt| match doubt {
            Action::Concatenate(of) => Some(of),
            _ => None,
        });
        self.ledger.finals.values().chain(doubted)
    }

    /// Whether all bytes of a final upload may have arrived.
    fn may_be_file(&self, of: &Final) -> bool {
        let may_be_whole = |id: &String| {
            let upload = self.ledger.uploads.get(id);
            upload.is_some_and(|upload| {
                upload.unfinished(0).is_none_or(|number| {
                    let is_it = |doubt: &&Action| {
                        matches!(doubt, Action::Append { number: own, .. } if *own == number)
                    };
                    number + 1 == upload.plan.len() && self.doubts(id, upload).iter().any(is_it)
                })
            })
        };
        of.partials.iter().all(may_be_whole)
    }

    fn deletion_doubted(&self, key: &str) -> bool {
        let mut doubts = self.ledger.doubts.iter();
        doubts.any(|doubt| matches!(doubt, Action::Delete { key: own } if own == key))
    }

    /// Reads files back: bytes, hashes and metadata have to agree.
    fn contents(&mut self, expected: &BTreeMap<String, Option<String>>) {
        let content = |key: &String| format!("/v1/files/content/{key}");
        let metadata = |key: &String| format!("/v1/files/metadata/{key}");
        let contents = self.get_all(expected.keys().map(content).collect());
        let metadata = self.get_all(expected.keys().map(metadata).collect());
        for (((key, hash), (_, content)), (_, about)) in expected.iter().zip(contents).zip(metadata)
        {
            let (Some(content), Some(about)) = (content, about) else { continue };
            let own = blake3::hash(&content.body).to_hex().to_string();
            self.expect(content.status == 200, || format!("{key}: {}", content.text()));
            self.expect(hash.as_ref().is_none_or(|hash| *hash == own), || {
                format!("{key}: {} other bytes than acknowledged", content.body.len())
            });
            let mut about = about.json();
            self.expect(about["blake3"] == own.as_str(), || format!("{key} is not {about}"));
            if let (Some(file), Some(about)) = (self.ledger.files.get(key), about.as_object_mut()) {
                about.remove("meta");
                let same = file.answer.as_object() == Some(about);
                self.expect(same, || format!("{key} is {about:?}, it was {}", file.answer));
            }
        }
    }

    /// Checks the open uploads of a user and answers how many bytes they reserve.
    fn uploads(&mut self, user: &str) -> u64 {
        let (mut open, mut cursor, mut seen) = (0, String::new(), BTreeSet::new());
        loop {
            let path = format!("/v1/files/uploads?user_id={user}&limit=100{cursor}");
            let page = self.json(&path);
            for upload in page["uploads"].as_array().into_iter().flatten() {
                let bytes = |member: &str| upload[member].as_u64().unwrap_or(0);
                open += bytes("size").max(bytes("bytesReceived"));
                seen.insert(word(upload, "uploadId"));
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let own = self.ledger.uploads.iter().filter(|(_, upload)| upload.target.user == user);
        for (id, upload) in own {
            self.upload(id, upload, seen.contains(id));
        }
        let finals = self.ledger.finals.iter().filter(|(_, of)| of.target.user == user);
        for (id, of) in finals {
            self.final_upload(id, of, seen.contains(id));
        }
        open
    }

    /// Doubts about an upload, or about its batch.
    fn doubts(&self, id: &str, upload: &Upload) -> Vec<&Action> {
        let of_it = |doubt: &&Action| {
            doubt.upload().is_some_and(|own| own == id || Some(own) == upload.batch.as_deref())
        };
        self.ledger.doubts.iter().filter(of_it).collect()
    }

    fn upload(&mut self, id: &str, upload: &Upload, listed: bool) {
        let Some(answer) = self.get(&format!("/v1/files/{id}")) else { return };
        let doubts = self.doubts(id, upload);
        let may_be = |end: fn(&&&Action) -> bool| doubts.iter().any(|doubt| end(&doubt));
        let may_be_aborted = self.expiring || may_be(|d| matches!(d, Action::Abort { .. }));
        let may_be_completed = may_be(|d| d.completes());
        let doubted = |number: usize| {
            doubts.iter().find_map(|doubt| match doubt {
                Action::Part { number: own, content, .. }
                | Action::Append { number: own, content, .. }
                    if *own == number =>
                {
                    Some(content.size)
                }
                _ => None,
            })
        };
        let status = answer.json();
        let may_be_joined = || {
            let mut finals = self.finals().filter(|of| of.partials.iter().any(|own| own == id));
            finals.any(|of| self.may_be_file(of))
        };
        let ended = answer.status == 404 && (may_be_aborted || may_be_joined())
            || status["state"] == "completed" && may_be_completed;
        let mut wrong = Vec::new();
        if !ended && upload.dialect.is_some() {
            // Which parts the pieces became is for the daemon to decide; the sum of their sizes is
            // not.
            let told = upload.received() as u64;
            let other = upload.unfinished(0).and_then(doubted).map_or(told, |it| told + it as u64);
            let there = status["bytesReceived"].as_u64();
            if there != Some(told) && there != Some(other) {
                wrong.push(format!("{there:?} bytes are there, acknowledged were {told}"));
            }
            if status["state"] != "open" || !listed {
                wrong.push("not an open upload".to_owned());
            }
        } else if !ended {
            let received: BTreeMap<u64, u64> = status["received"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|part| Some((part["partNumber"].as_u64()?, part["size"].as_u64()?)))
                .collect();
            for number in 0..upload.plan.len() {
                let told = upload.parts.get(&number).map(|content| content.size as u64);
                let other = doubted(number).map(|size| size as u64);
                let there = received.get(&(number as u64 + 1)).copied();
                if there != told && (other.is_none() || there != other) {
                    wrong.push(format!("part {number} is {there:?}, acknowledged was {told:?}"));
                }
            }
            if status["state"] != "open" || !listed {
                wrong.push("not an open upload".to_owned());
            }
        }
        for wrong in wrong {
            self.wrong.push(format!("upload {id}: {wrong}: {}", answer.text()));
        }
    }

    fn final_upload(&mut self, id: &str, of: &Final, listed: bool) {
        let Some(answer) = self.get(&format!("/v1/files/{id}")) else { return };
        let aborts = |doubt: &&Action| matches!(doubt, Action::Abort { upload } if upload == id);
        let may_be_gone = self.expiring || self.ledger.doubts.iter().any(|doubt| aborts(&doubt));
        let status = answer.json();
        let fine = match status["state"].as_str() {
            Some("open") => listed,
            Some("completed") => self.may_be_file(of),
            _ => matches!(answer.status, 404 | 410) && may_be_gone,
        };
        self.expect(fine, || format!("final upload {id} of {of:?}: {}", answer.text()));
    }

    fn used(&mut self, user: &str, stored: u64, open: u64) {
        let body = json!({
            "mode": "single",
            "files": [{"name": "huge", "size": HUGE_BYTES}],
            "meta": {"user_id": user},
        });
        let Ok(answer) = self.wire.post("/v1/files/init", &body) else {
            self.wrong.push(format!("{user}: an init is not answered"));
            return;
        };
        let used = answer.json()["used"].as_u64();
        // The reservation of an expired upload is released by a later sweep.
        let fine =
            if self.expiring { used >= Some(stored + open) } else { used == Some(stored + open) };
        self.expect(answer.status == 413 && fine, || {
            format!("{user}: {stored} stored and {open} open, but {}", answer.text())
        });
    }

    fn gone(&mut self) {
        let deleted = self.ledger.deleted.iter().map(|key| format!("/v1/files/metadata/{key}"));
        let aborted = self.ledger.aborted.iter().map(|id| format!("/v1/files/{id}"));
        for (path, answer) in self.get_all(deleted.chain(aborted).collect()) {
            let Some(answer) = answer else { continue };
            self.expect(answer.status == 404, || format!("{path}: {}", answer.text()));
        }
    }

    /// A repeated completion gets the same answer, unless its file was deleted or its session is
    /// over.
    fn completed(&mut self) {
        let all: Vec<(&String, &Value)> = self.ledger.completed.iter().collect();
        for _ in 0..REPEATED_MAX {
            let Some((id, told)) = self.dice.pick(&all).copied() else { return };
            let Ok(answer) = self.wire.post("/v1/files/complete", &json!({"uploadId": id})) else {
                self.wrong.push(format!("complete of {id} is not answered"));
                return;
            };
            let files: Vec<&Value> =
                told["files"].as_array().map_or(vec![told], |files| files.iter().collect());
            let keys: Vec<String> = files.into_iter().map(|file| word(file, "key")).collect();
            let deleted = keys.iter().any(|key| self.ledger.deleted.contains(key));
            let doubted = keys.iter().any(|key| self.deletion_doubted(key));
            let fine = match answer.status {
                200 => !deleted && answer.json() == *told,
                410 => deleted || doubted,
                404 => self.expiring,
                _ => false,
            };
            self.expect(fine, || format!("{id} was {told}, is {}", answer.text()));
        }
    }

    fn tokens(&mut self) {
        for _ in 0..TOKENS_MAX {
            let Some((user, token)) = self.dice.pick(&self.ledger.tokens) else { return };
            let answer = Wire::bearer(self.address, token).get("/v1/files/all?limit=1");
            let fine = answer.as_ref().is_ok_and(|answer| answer.status == 200);
            self.expect(fine, || format!("the token of {user}: {answer:?}"));
        }
    }

    /// Sends what is missing of some open uploads and completes them.
    fn finish_uploads(&mut self) {
        let ledger = self.ledger;
        let mut by_name: BTreeMap<&str, Vec<(&String, &Upload)>> = BTreeMap::new();
        for (id, upload) in ledger.uploads.iter().filter(|(_, upload)| !upload.is_partial) {
            let named = upload.batch.as_ref().unwrap_or(id);
            by_name.entry(named).or_default().push((id, upload));
        }
        for (id, uploads) in by_name {
            let ids: Vec<&String> = uploads.iter().map(|(id, _)| *id).collect();
            let as_told = ledger.batches.get(id).is_none_or(|told| told.len() == ids.len());
            let certain = uploads.iter().all(|(id, upload)| self.doubts(id, upload).is_empty());
            let chosen = self.dice.once_in(FINISH_ONCE_IN);
            if certain && as_told && chosen && !self.expiring {
                self.finish(id, &uploads);
            }
        }
        for (id, of) in &ledger.finals {
            let partials = of.partials.iter().filter_map(|id| Some((id, ledger.uploads.get(id)?)));
            let partials: Vec<(&String, &Upload)> = partials.collect();
            let certain = partials.iter().all(|(id, upload)| self.doubts(id, upload).is_empty());
            let doubted = ledger.doubts.iter().any(|doubt| doubt.upload() == Some(id));
            let whole = partials.len() == of.partials.len();
            // A final upload whose bytes may all be there may be a file already.
            let chosen = self.dice.once_in(FINISH_ONCE_IN) && !self.may_be_file(of);
            if certain && whole && !doubted && chosen && !self.expiring {
                self.finish(id, &partials);
            }
        }
    }

    fn finish(&mut self, id: &str, uploads: &[(&String, &Upload)]) {
        for (upload, state) in uploads {
            let mut state = (*state).clone();
            while let Some(append) = next_piece(upload, &state) {
                let sent = send(&mut self.wire, self.ledger, &append);
                let fine = sent.as_ref().is_ok_and(|answer| (200..300).contains(&answer.status));
                self.expect(fine, || format!("{append:?}: {sent:?}"));
                let Action::Append { number, content, .. } = append else { break };
                state.parts.insert(number, content);
            }
            let missing = |n: &usize| state.parts.get(n) != Some(&state.plan[*n]);
            for number in (0..state.plan.len()).filter(missing) {
                let content = state.plan[number];
                let upload = (*upload).clone();
                let part = Action::Part { upload, number, content, raw: true };
                let sent = send(&mut self.wire, self.ledger, &part);
                let fine = sent.as_ref().is_ok_and(|answer| answer.status == 200);
                self.expect(fine, || format!("{part:?}: {sent:?}"));
            }
        }
        let complete = Action::Complete { upload: id.to_owned(), inline: false };
        let Ok(answer) = send(&mut self.wire, self.ledger, &complete) else {
            self.wrong.push(format!("complete of {id} is not answered"));
            return;
        };
        self.expect(answer.status == 200, || format!("complete of {id}: {}", answer.text()));
        let told = answer.json();
        let keys = told["files"].as_array().cloned().unwrap_or_else(|| vec![told]);
        for file in keys.iter().filter(|file| file["key"].is_string()) {
            if let Some(of) = self.ledger.finals.get(id) {
                self.made(id, file, self.ledger.content_of(of));
                continue;
            }
            let made = uploads.iter().find(|(_, upload)| file["filename"] == upload.target.name);
            self.made(id, file, made.map(|(_, upload)| upload.plan.clone()));
        }
    }

    fn made(&mut self, id: &str, file: &Value, content: Option<Vec<Content>>) {
        let Some(read) = self.get(&format!("/v1/files/content/{}", word(file, "key"))) else {
            return;
        };
        self.expect(content.is_some_and(|own| whole(&own) == read.body), || {
            format!("upload {id} became {file}, which are other bytes than were sent")
        });
    }
}
