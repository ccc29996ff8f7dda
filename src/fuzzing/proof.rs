//! Both kinds of proof: that a range belongs to a content, which the daemon gives, and that a
//! client knows a content, which the daemon accepts. An altered proof proves nothing.

use std::{
    fs,
    io::{self, Cursor, Read},
    sync::{Arc, LazyLock},
};

use bao::decode::SliceDecoder;
use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

use super::{NOW, sequence, text};
use crate::{
    app::{
        App, Error, Policy, Result,
        complete::{Completed, Completion},
        possession::{Challenge, Possession},
        publish::NewContent,
        upload::{DeclaredFile, Init},
    },
    blob::{self, Digests, Hasher, memory::MemoryBlobs, proof, tree::Tree},
    meta::memory::MemoryMetadata,
    model::{
        digest::{ContentHash, Sha256},
        file::{CallerMeta, FileRecord},
        id::UploadId,
        name::{FileName, Folder, UserId},
        range::{RangeSpec, Slice},
        upload::Mode,
    },
    sys::clock::ManualClock,
};

/// A little more than four groups of the tree, and more than a proof of possession reads.
const SIZE_MAX: u32 = 300_000;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a thread"));

/// Which bit is altered, modulo the number of bits.
#[derive(Clone, Copy)]
struct Flip(u32);

impl Flip {
    fn alter(self, bytes: &mut [u8]) {
        let (flip, length) = (self.0 as usize, bytes.len().max(1));
        if let Some(byte) = bytes.get_mut(flip % length) {
            *byte ^= 1 << (flip / length % 8);
        }
    }
}

/// A size and a flip, four bytes each, a line with a range, and the rest, which is taken for a
/// proof and for a tree.
pub fn proof(input: &[u8]) {
    let Some((size, rest)) = input.split_first_chunk() else { return };
    let Some((flip, rest)) = rest.split_first_chunk() else { return };
    let (size, flip) = (u32::from_le_bytes(*size) % SIZE_MAX, Flip(u32::from_le_bytes(*flip)));
    let mut lines = rest.splitn(2, |byte| *byte == b'\n');
    let (range, forged) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let range = text(range).and_then(RangeSpec::parse);
    let Some(slice) = range.and_then(|range| range.resolve(size.into())) else { return };
    let content: Bytes = (0..=250).cycle().take(size as usize).collect();
    range_of(&content, slice, flip, forged);
    RUNTIME.block_on(possession(content, flip)).expect("a file of its owner");
}

/// A proof of a range, and other bytes that a client or a disk could take for one.
fn range_of(content: &Bytes, slice: Slice, flip: Flip, forged: &[u8]) {
    let size = content.len() as u64;
    let Digests { blake3: root, tree, .. } = Hasher::default().and(content).finish();
    let prove = |content: &Bytes, tree: Tree| {
        let mut prover = proof::Prover::new(content.clone(), root, size, slice, tree);
        let mut proof = Vec::new();
        while let Some(piece) = prover.next_piece()? {
            proof.extend_from_slice(&piece);
        }
        Ok::<_, blob::Error>(proof)
    };
    let proof = prove(content, tree.clone()).expect("what is whole is proven");
    assert_eq!(proof.len() as u64, proof::proof_bytes(size, slice));
    let part = verified(&proof, root, slice);
    let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
    assert_eq!(part.as_deref(), content.get(at(slice.start)..at(slice.end)));

    let mut altered = proof.clone();
    flip.alter(&mut altered);
    for wrong in [&altered[..], forged] {
        let decoded = verified(wrong, root, slice);
        // Only the last chunk proves the size.
        let known = if slice.end < size { 8 } else { 0 };
        let same = || wrong.get(known..proof.len()) == Some(&proof[known..]);
        assert!(decoded.is_none() || (decoded == part && same()), "it proves what is not there");
    }

    // Damage on a disk is found, or lies outside what was asked for.
    let (mut damaged, mut nodes) = (content.to_vec(), tree.to_bytes());
    flip.alter(&mut damaged);
    let scrawled: Vec<u8> = forged.iter().copied().cycle().take(nodes.len()).collect();
    flip.alter(&mut nodes);
    let trees = [nodes, scrawled].map(|nodes| Tree::from_bytes(&nodes, size));
    let lies = trees.into_iter().flatten().map(|tree| (content.clone(), tree));
    for (content, tree) in lies.chain([(damaged.into(), tree)]) {
        if let Ok(proved) = prove(&content, tree) {
            assert!(proved == proof, "damage is proven");
        }
    }
}

/// The bytes that a client accepts from a proof.
fn verified(proof: &[u8], root: ContentHash, slice: Slice) -> Option<Vec<u8>> {
    let mut part = Vec::new();
    let mut decoder =
        SliceDecoder::new(Cursor::new(proof), &root.0.into(), slice.start, slice.len());
    decoder.read_to_end(&mut part).ok().map(|_| part)
}

/// A user who has stored a content need not send it again; one who has other content, or has not
/// stored it here, must.
async fn possession(content: Bytes, flip: Flip) -> Result<()> {
    let [owner, stranger] = ["u", "v"].map(|id| UserId::parse(id).expect("a user's id"));
    let app = app().expect("stores in memory");
    let mut incoming = app.begin_file().await?;
    incoming.write(content.clone()).await?;
    let new = NewContent {
        owner: owner.clone(),
        name: FileName::parse("f").expect("a name"),
        folder: Folder::default(),
        mime: None,
        sha256: None,
        content: incoming,
    };
    let file = app.put_content(&sequence::researcher(&owner), new).await?;

    let (id, challenge) = init(&app, &owner, &file).await?;
    let ranges = challenge.expect("its owner has it").ranges;
    let index = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
    let ranges: Vec<_> = ranges.iter().map(|range| index(range.start)..index(range.end)).collect();
    let proof = |id: UploadId, content: &[u8]| {
        let of_id = Hasher::default().and(id.to_string().as_bytes());
        let hasher = ranges.iter().fold(of_id, |hasher, range| hasher.and(&content[range.clone()]));
        hasher.finish().sha256
    };
    let (mut other, mut altered) = (content.to_vec(), proof(id, &content));
    flip.alter(&mut other[ranges[flip.0 as usize % ranges.len()].clone()]);
    flip.alter(&mut altered.0);
    let of_another = proof(UploadId([0; 16]), &content);
    for wrong in [proof(id, &other), altered, of_another] {
        let answer = complete(&app, &owner, id, &file, wrong).await;
        assert!(is_unproven(&answer), "a wrong proof is taken");
    }
    let (of_stranger, challenge) = init(&app, &stranger, &file).await?;
    assert!(challenge.is_none(), "who has not stored it is told that it is here");
    let answer = complete(&app, &stranger, of_stranger, &file, proof(of_stranger, &content)).await;
    assert!(is_unproven(&answer), "what another has stored is given away");
    let known = complete(&app, &owner, id, &file, proof(id, &content)).await?;
    let Completed::One(known) = known else { panic!("it is no batch") };
    let seen = |file: &FileRecord| (file.size, file.blake3, file.sha256);
    assert_eq!(seen(&known), seen(&file));
    Ok(())
}

fn app() -> io::Result<Arc<App>> {
    let dir = std::env::temp_dir().join(format!("streamlined-proof-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let (meta, blobs) = (MemoryMetadata::default(), MemoryBlobs::default());
    let clock = Arc::new(ManualClock::new(NOW));
    let app = sequence::app(&dir, Arc::new(meta), Arc::new(blobs), clock)?;
    fs::remove_dir_all(dir)?;
    let bounds =
        Policy { file_bytes_max: 1 << 20, quota_bytes: 1 << 30, ..(*app.policy()).clone() };
    app.set_policy(bounds);
    Ok(app)
}

/// Begins an upload of the same content.
async fn init(
    app: &App,
    owner: &UserId,
    file: &FileRecord,
) -> Result<(UploadId, Option<Challenge>)> {
    let FileRecord { name, size, blake3, folder, .. } = file.clone();
    let same = DeclaredFile { name, size, mime: None, blake3: Some(blake3), sha256: None };
    let (files, meta) = (vec![same], CallerMeta::default());
    let init = Init { mode: Mode::Chunked, files, folder, meta, user: None };
    let opened = app.init_upload(&sequence::researcher(owner), init).await?;
    Ok((opened.id, opened.challenges.into_iter().flatten().next()))
}

async fn complete(
    app: &Arc<App>,
    owner: &UserId,
    id: UploadId,
    file: &FileRecord,
    proof: Sha256,
) -> Result<Completed> {
    let possession = Some(Possession { blake3: Some(file.blake3), sha256: None, proof });
    let completion = Completion { possession, ..Completion::of(id) };
    app.complete_upload(&sequence::researcher(owner), completion).await
}

fn is_unproven(answer: &Result<Completed>) -> bool {
    matches!(answer, Err(Error::Conflict { code: "content_unproven", .. }))
}
