//! What the passing of time does to sessions, blobs, links and tokens, with a clock that tests
//! move. The app runs on the reference engines here; `tests/engines` shows that the other engines
//! do the same.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use streamlined::{
    app::{
        App, Error, Policy,
        access::Credential,
        archive::Chosen,
        catalog::Listing,
        complete::{Completed, Completion},
        gc::Collected,
        possession::Possession,
        publish::NewContent,
        service_tokens::NewToken,
        upload::{DeclaredFile, Init, Opened},
    },
    auth::{batch_token, jwt::Expected, keyring::KeyRing, link::LinkKey},
    blob::memory::MemoryBlobs,
    meta::{
        Metadata,
        accounts::{Edit, UserChange},
        memory::MemoryMetadata,
    },
    model::{
        digest::Sha256,
        file::{CallerMeta, FileRecord},
        grant::Grant,
        id::{PartNumber, UploadId},
        limits::CLOCK_LEEWAY_SECONDS,
        name::{FileName, Folder, UserId},
        principal::{Principal, Role, TokenStamp},
        range::Slice,
        time::UnixMillis,
        upload::Mode,
    },
    sys::clock::{Clock, ManualClock},
};
use tokio::runtime::Runtime;

const TTL: Duration = Duration::from_hours(24);
const GRACE: Duration = Duration::from_hours(1);
const SCRUB_EVERY: Duration = Duration::from_hours(30 * 24);
const START: UnixMillis = UnixMillis(1_700_000_000_000);

struct World {
    app: Arc<App>,
    meta: Arc<dyn Metadata>,
    keys: Arc<KeyRing>,
    clock: Arc<ManualClock>,
    runtime: Runtime,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(TTL)
    }

    fn with(upload_ttl: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let meta: Arc<dyn Metadata> = Arc::new(MemoryMetadata::default());
        let keys = Arc::new(KeyRing::open(dir.path()).unwrap());
        let app = App::new(
            Arc::clone(&meta),
            Arc::new(MemoryBlobs::default()),
            Arc::clone(&keys),
            LinkKey::open(dir.path()).unwrap(),
            Arc::clone(&clock) as Arc<dyn Clock>,
            Policy {
                file_bytes_max: 1 << 20,
                part_bytes_max: 1 << 20,
                quota_bytes: 100,
                upload_ttl,
                reclaim_grace: GRACE,
                scrub_every: SCRUB_EVERY,
                scrub_bytes_per_second: u64::MAX,
                public_read: false,
                tokens: Expected { issuer: "us".into(), audience: "us".into() },
            },
        );
        Self { app, meta, keys, clock, runtime: Runtime::new().unwrap(), _dir: dir }
    }

    fn pass(&self, span: Duration) {
        self.clock.set(self.clock.now().after(span));
    }

    fn init(&self, size: u64) -> UploadId {
        self.init_of(size, None).id
    }

    fn init_of(&self, size: u64, sha256: Option<Sha256>) -> Opened {
        let name = FileName::parse("f").unwrap();
        let init = Init {
            mode: Mode::Single,
            files: vec![DeclaredFile { name, size, mime: None, sha256, blake3: None }],
            folder: Folder::default(),
            meta: CallerMeta::default(),
            user: None,
        };
        self.runtime.block_on(self.app.init_upload(&user(), init)).unwrap()
    }

    fn part(&self, id: UploadId, number: u32, bytes: &'static [u8]) -> Result<u64, Error> {
        self.runtime.block_on(async {
            let mut incoming = self.app.begin_part().await?;
            incoming.write(Bytes::from_static(bytes)).await?;
            self.app.finish_part(&user(), id, PartNumber(number), incoming, None).await
        })
    }

    fn complete(&self, id: UploadId) -> Result<FileRecord, Error> {
        let user = user();
        let completing = self.app.complete_upload(&user, Completion::of(id));
        let completed = self.runtime.block_on(completing)?;
        let Completed::One(file) = completed else { panic!("not a batch") };
        Ok(*file)
    }

    fn put(&self, bytes: &'static [u8]) -> Result<FileRecord, Error> {
        self.put_as(&user(), bytes)
    }

    fn put_as(&self, caller: &Principal, bytes: &'static [u8]) -> Result<FileRecord, Error> {
        self.runtime.block_on(async {
            let mut content = self.app.begin_file().await?;
            content.write(Bytes::from_static(bytes)).await?;
            let name = FileName::parse("f").unwrap();
            let (owner, folder) = (owner(), Folder::default());
            let new = NewContent { owner, name, folder, mime: None, sha256: None, content };
            self.app.put_content(caller, new).await
        })
    }

    fn sweep(&self) {
        self.runtime.block_on(self.app.sweep(&mut Collected::default())).unwrap();
    }

    /// Registers a token as a start does with the one in the configuration.
    fn register(&self, token: &str) -> Result<(), Error> {
        let registered = self.app.register_service_token(token, "configured");
        self.runtime.block_on(registered).map(drop)
    }

    /// A token of the user, for an hour.
    fn user_token(&self) -> Credential {
        let owner = owner();
        let made = self.app.generate_token(&owner, 1, Role::Researcher);
        Credential::Bearer(self.runtime.block_on(made).unwrap().token.into())
    }

    fn authenticate(&self, credential: &Credential) -> Result<Principal, Error> {
        let credentials = std::slice::from_ref(credential);
        let asked = self.app.authenticate(credentials, Ipv4Addr::LOCALHOST.into());
        self.runtime.block_on(asked).map(Option::unwrap)
    }

    fn is_good(&self, credential: &Credential) -> bool {
        self.authenticate(credential).is_ok()
    }

    fn lets_in(&self, token: &str) -> bool {
        self.is_good(&Credential::ServiceToken(token.to_owned().into()))
    }

    /// Ends all tokens of the user.
    fn log_out(&self) -> Result<(), Error> {
        let change = self.app.change_user(owner(), UserChange::default(), true);
        self.runtime.block_on(change).map(drop)
    }

    /// Ends all tokens of a service, or those of all services.
    fn end_tokens(&self, name: Option<&str>) -> Result<(), Error> {
        let ended = self.app.end_service_tokens(name.map(Into::into), None);
        self.runtime.block_on(ended).map(drop)
    }

    fn is_readable(&self, file: &FileRecord) -> bool {
        let opened = self.app.open_content(file, Slice::whole(file.size));
        self.runtime.block_on(opened).is_ok()
    }
}

fn owner() -> UserId {
    UserId::parse("u").unwrap()
}

fn user() -> Principal {
    Principal::User { id: owner(), role: Role::Researcher, token: TokenStamp::default() }
}

/// A request that was authenticated before the user was deleted stores nothing afterwards.
#[test]
fn a_deleted_user_does_not_come_back_with_a_file_that_was_on_its_way() {
    let world = World::new();
    world.put(b"x").unwrap();
    world.runtime.block_on(world.app.delete_user(owner())).unwrap();
    assert!(matches!(world.put(b"y"), Err(Error::Unauthenticated(_))));
    let user = world.runtime.block_on(world.app.show_user(&owner()));
    assert!(matches!(user, Err(Error::NotFound("user"))));
}

#[test]
fn an_upload_lives_while_it_makes_progress() {
    let world = World::new();
    let (going, idle) = (world.init(2), world.init(90));
    world.pass(TTL.saturating_sub(Duration::from_secs(1)));
    world.part(going, 1, b"a").unwrap();
    assert!(matches!(world.put(b"ten bytes!"), Err(Error::Quota { .. })));
    world.pass(Duration::from_secs(1));
    // An expired session is refused even before a sweep removes it.
    assert!(matches!(world.part(idle, 1, b"x"), Err(Error::NotFound(_))));
    assert!(matches!(world.complete(idle), Err(Error::NotFound(_))));
    world.sweep();
    assert!(world.put(b"ten bytes!").is_ok(), "the reservation is released");
    world.pass(TTL.saturating_sub(Duration::from_secs(2)));
    world.part(going, 2, b"b").unwrap();
    let file = world.complete(going).unwrap();
    assert_eq!(file.size, 2);

    // A repeated `complete` is answered for as long as an upload lives; then the session is
    // forgotten.
    world.pass(TTL.saturating_sub(Duration::from_secs(1)));
    world.sweep();
    assert_eq!(world.complete(going).unwrap(), file);
    world.pass(Duration::from_secs(1));
    world.sweep();
    assert!(matches!(world.complete(going), Err(Error::NotFound(_))));
    assert!(world.is_readable(&file));
}

#[test]
fn a_proof_of_what_is_known_is_taken_for_ten_minutes() {
    let life = Duration::from_mins(10);
    for (passed, is_taken) in [(life.saturating_sub(Duration::from_millis(1)), true), (life, false)]
    {
        let world = World::new();
        let content = b"known";
        let sha256 = Some(world.put(content).unwrap().sha256);
        let opened = world.init_of(content.len() as u64, sha256);
        let challenge = opened.challenges[0].as_ref().unwrap();
        assert_eq!(challenge.expires, START.after(life));
        let mut message = opened.id.to_string().into_bytes();
        for range in &challenge.ranges {
            let at = |place: u64| usize::try_from(place).unwrap();
            message.extend_from_slice(&content[at(range.start)..at(range.end)]);
        }
        let proof = digest(&SHA256, &message).as_ref().try_into().unwrap();
        world.pass(passed);
        let completion = Completion {
            possession: Some(Possession { blake3: None, sha256, proof: Sha256(proof) }),
            ..Completion::of(opened.id)
        };
        let completed = world.runtime.block_on(world.app.complete_upload(&user(), completion));
        match completed.map(drop) {
            Ok(()) => assert!(is_taken),
            Err(Error::Conflict { code: "content_unproven", .. }) => assert!(!is_taken),
            Err(error) => panic!("{error}"),
        }
    }
}

/// `complete` promises to answer a repeat the same for a day at least, even if the operator lets
/// idle uploads expire earlier.
#[test]
fn a_repeat_is_answered_for_a_day_at_least() {
    for (ttl, kept) in [(1, 24), (48, 48)] {
        let world = World::with(Duration::from_hours(ttl));
        let id = world.init(1);
        world.part(id, 1, b"a").unwrap();
        let file = world.complete(id).unwrap();
        world.pass(Duration::from_hours(kept).saturating_sub(Duration::from_secs(1)));
        world.sweep();
        assert_eq!(world.complete(id).unwrap(), file);
        world.pass(Duration::from_secs(1));
        world.sweep();
        assert!(matches!(world.complete(id), Err(Error::NotFound(_))));
    }
}

#[test]
fn an_upload_does_not_expire_while_bytes_for_it_come() {
    let world = World::new();
    let id = world.init(2);
    world.part(id, 1, b"a").unwrap();
    let incoming = world.runtime.block_on(async {
        let mut incoming = world.app.begin_part_of(id, PartNumber(2), None).await.unwrap();
        incoming.write(Bytes::from_static(b"b")).await.unwrap();
        incoming
    });
    world.pass(TTL * 2);
    world.sweep();
    let user = user();
    let status = world.runtime.block_on(world.app.upload_status(&user, id));
    assert_eq!(status.unwrap().parts.len(), 1);
    let ended = world.app.finish_part(&user, id, PartNumber(2), incoming, None);
    assert_eq!(world.runtime.block_on(ended).unwrap(), 1);
    world.pass(TTL.saturating_sub(Duration::from_secs(1)));
    world.sweep();
    assert_eq!(world.complete(id).unwrap().size, 2);

    // A part that is given up does not extend the life of the session.
    let id = world.init(1);
    let incoming =
        world.runtime.block_on(world.app.begin_part_of(id, PartNumber(1), None)).unwrap();
    world.pass(TTL);
    drop(incoming);
    assert!(matches!(world.complete(id), Err(Error::NotFound(_))));
}

#[test]
fn who_is_logged_out_twice_within_a_second_is_logged_out() {
    let world = World::new();
    world.log_out().unwrap();
    let between = world.user_token();
    assert!(world.is_good(&between));
    world.log_out().unwrap();
    let last = world.user_token();
    world.pass(Duration::from_secs(5));
    assert_eq!((world.is_good(&between), world.is_good(&last)), (false, true));
}

/// A revocation is acknowledged only if it takes effect. Here it cannot, because no later second is
/// left to date new tokens to.
#[test]
fn a_log_out_that_cannot_end_what_was_made_is_refused() {
    let world = World::new();
    world.put(b"x").unwrap();
    for _ in 0..CLOCK_LEEWAY_SECONDS {
        world.log_out().unwrap();
    }
    // The tokens of a service and those of all services are ended a second apart.
    for _ in 0..CLOCK_LEEWAY_SECONDS / 2 {
        world.end_tokens(Some("s")).unwrap();
        world.end_tokens(None).unwrap();
    }
    let token = world.user_token();
    assert!(world.is_good(&token));
    assert!(matches!(world.log_out(), Err(Error::Busy)));
    assert!(matches!(world.end_tokens(Some("s")), Err(Error::Busy)));
    assert!(matches!(world.end_tokens(None), Err(Error::Busy)));
    assert!(world.is_good(&token), "nothing was said to be ended");
    world.pass(Duration::from_secs(1));
    world.log_out().unwrap();
    assert!(!world.is_good(&token));
    // What was revoked while the clock was far ahead can be revoked again once the clock is right.
    let now = world.clock.now();
    world.pass(Duration::from_hours(24 * 365));
    world.log_out().unwrap();
    world.end_tokens(Some("s")).unwrap();
    world.clock.set(now);
    world.log_out().unwrap();
    world.end_tokens(Some("s")).unwrap();
    // A token that is made now does not live until that far time either.
    let listing = Listing { owner: owner(), folder: Folder::default() };
    let asker = user();
    let minting = world.app.mint_batch_token(&asker, Chosen::Folder(listing));
    let token = world.runtime.block_on(minting).unwrap();
    let latest = now.after(Duration::from_mins(61));
    assert!(batch_token::parse(&token).unwrap().expires <= latest);
}

/// Anyone can make up a token with an unknown key id. That must not drop cached authentications, as
/// a change of the keys does.
#[test]
fn a_made_up_key_makes_nobody_forgotten() {
    let world = World::new();
    let epoch = || world.authenticate(&world.user_token()).unwrap().token().epoch;
    let before = epoch();
    // {"alg":"RS256","kid":"nobody"}, {}
    let made_up = "eyJhbGciOiJSUzI1NiIsImtpZCI6Im5vYm9keSJ9.e30.eA".to_owned();
    assert!(!world.is_good(&Credential::Bearer(made_up.into())));
    assert_eq!(epoch(), before);
}

#[test]
fn who_may_store_nothing_is_not_near_the_quota() {
    let world = World::new();
    let near = |quota, id: &str| {
        let change = UserChange { quota: Edit::Set(quota), ..UserChange::default() };
        let id = UserId::parse(id).unwrap();
        world.runtime.block_on(world.app.change_user(id, change, false)).unwrap();
        world.runtime.block_on(world.app.survey_usage()).unwrap();
        world.app.usage().unwrap().near_quota
    };
    assert_eq!(near(0, "nothing"), 0);
    world.put(b"nine tenth").unwrap();
    assert_eq!((near(12, "u"), near(11, "u"), near(0, "u")), (0, 1, 0));
}

#[test]
fn what_ends_all_spares_nothing_that_was_made_within_the_second() {
    for [first, last] in [[None, Some("s")], [Some("s"), None]] {
        let world = World::new();
        let make = || {
            let (name, grant) = ("s".into(), Grant::default());
            let new = NewToken { name, is_jwt: false, grant, lifetime: None };
            let secret = world.runtime.block_on(world.app.issue_token(new)).unwrap().secret;
            Credential::ServiceToken(secret)
        };
        world.end_tokens(first).unwrap();
        let between = make();
        assert!(world.is_good(&between));
        world.end_tokens(last).unwrap();
        let after = make();
        world.pass(Duration::from_secs(5));
        let good = (world.is_good(&between), world.is_good(&after));
        assert_eq!(good, (false, true), "{first:?}");
    }
}

#[test]
fn content_goes_a_while_after_its_last_file() {
    let world = World::new();
    let (one, two) = (world.put(b"same").unwrap(), world.put(b"same").unwrap());
    let delete = |file: &FileRecord| {
        world.runtime.block_on(world.app.delete_file(&user(), file.key.clone())).unwrap();
    };
    delete(&one);
    world.pass(GRACE * 2);
    world.sweep();
    assert!(world.is_readable(&two));
    delete(&two);
    world.pass(GRACE);
    world.sweep();
    assert!(world.is_readable(&two), "one who was reading may go on");
    world.pass(Duration::from_millis(1));
    world.sweep();
    assert!(!world.is_readable(&two));
    assert!(world.is_readable(&world.put(b"same").unwrap()));
}

#[test]
fn links_and_tokens_end_on_their_second() {
    let world = World::new();
    let file = world.put(b"x").unwrap();
    let link = world.app.mint_link(&file, 60, None).unwrap();
    let token = world.user_token();
    let redeem = || world.runtime.block_on(world.app.redeem_link(&link));
    world.pass(Duration::from_millis(59_999));
    assert_eq!(redeem().unwrap(), (file, 1));
    world.pass(Duration::from_millis(1));
    assert!(matches!(redeem(), Err(Error::LinkRefused { code: "link_expired", .. })));
    let proven = world.authenticate(&token).unwrap();
    assert!(matches!(proven, Principal::User { id, role: Role::Researcher, .. } if id == owner()));
    world.pass(Duration::from_millis(3_600_000 - 60_000 - 1));
    assert!(world.is_good(&token), "remembered, and still valid");
    world.pass(Duration::from_millis(1));
    let refused = world.authenticate(&token);
    assert!(matches!(refused, Err(Error::Unauthenticated(_))), "remembered no longer");
}

#[test]
fn a_jwt_is_listed_for_ninety_days_behind_its_expiry() {
    let world = World::new();
    let issue = |is_jwt, lifetime| {
        let new = NewToken { name: "s".into(), is_jwt, grant: Grant::default(), lifetime };
        world.runtime.block_on(world.app.issue_token(new)).unwrap().token.id()
    };
    let hour = Some(Duration::from_hours(1));
    let (ending, lasting) = (issue(true, hour), issue(false, None));
    let listed = || {
        let listing = world.runtime.block_on(world.app.list_tokens(None, 9)).unwrap();
        listing.iter().map(|listed| listed.token.id()).collect::<Vec<_>>()
    };
    world.pass(Duration::from_hours(1 + 90 * 24));
    world.sweep();
    assert!(listed().contains(&ending));
    world.pass(Duration::from_millis(1));
    world.sweep();
    assert_eq!(listed(), [lasting]);
}

/// Only the record of an opaque token says that the token has ended and to what it was limited.
#[test]
fn an_opaque_token_that_ended_does_not_come_back_by_the_configuration() {
    let world = World::new();
    let grant = Grant::parse(["read"], []).unwrap();
    let lifetime = Some(Duration::from_hours(1));
    let new = NewToken { name: "s".into(), is_jwt: false, grant, lifetime };
    let secret = world.runtime.block_on(world.app.issue_token(new)).unwrap().secret;
    world.register("another-configured-token").unwrap();
    world.pass(Duration::from_hours(2 + 90 * 24));
    world.sweep();
    world.register(&secret).unwrap();
    assert!(!world.lets_in(&secret));
}

#[test]
fn a_configured_token_is_good_within_the_second_in_which_others_were_ended() {
    for name in [Some("configured"), None] {
        let world = World::new();
        world.register("the-token-of-before").unwrap();
        world.end_tokens(name).unwrap();
        assert!(!world.lets_in("the-token-of-before"));
        world.register("the-token-from-now-on").unwrap();
        assert!(world.lets_in("the-token-from-now-on"), "{name:?}");
        world.end_tokens(name).unwrap();
        assert!(!world.lets_in("the-token-from-now-on"), "{name:?}");
        world.pass(Duration::from_secs(5));
        world.register("the-token-of-before").unwrap();
        assert!(!world.lets_in("the-token-of-before"));
    }
}

/// A deletion removes everything of a user or nothing.
#[test]
fn a_user_that_is_deleted_too_often_keeps_its_files_until_it_can_be() {
    let world = World::new();
    let delete = || world.runtime.block_on(world.app.delete_user(owner()));
    let service = Principal::Service {
        name: "s".into(),
        token: TokenStamp::default(),
        grant: Arc::default(),
        acts_for: None,
    };
    let store = || world.put_as(&service, b"x").unwrap();
    // Each deletion moves the user's first good second ahead by two. This log-out moves it by one,
    // so that one second is left at the end.
    world.log_out().unwrap();
    for _ in 0..(CLOCK_LEEWAY_SECONDS - 1) / 2 {
        store();
        delete().unwrap();
    }
    let file = store();
    assert!(matches!(delete(), Err(Error::Busy)));
    let shown = world.runtime.block_on(world.app.show_user(&owner())).unwrap();
    assert!(!shown.record.disabled && shown.totals.files == 1);
    assert!(world.is_readable(&file));
    world.pass(Duration::from_secs(2));
    delete().unwrap();
}

#[test]
fn batch_tokens_end_after_an_hour_and_nothing_is_left_of_them() {
    let world = World::new();
    let file = world.put(b"x").unwrap();
    let keys = Chosen::Keys(vec![file.key.clone()]);
    let user = user();
    let minting = world.app.mint_batch_token(&user, keys);
    let token = world.runtime.block_on(minting).unwrap();
    let open = || world.runtime.block_on(world.app.open_archive(&token));
    let id = batch_token::parse(&token).unwrap();
    let kept = || world.runtime.block_on(world.meta.selection(id)).unwrap();
    world.pass(Duration::from_millis(3_599_999));
    world.sweep();
    assert!(open().is_ok());
    world.pass(Duration::from_millis(1));
    assert!(matches!(open(), Err(Error::LinkRefused { code: "link_expired", .. })));
    assert!(kept().is_some());
    world.sweep();
    assert!(kept().is_none());
}

#[test]
fn a_clock_that_steps_back_loses_nothing() {
    let world = World::new();
    let now = world.put(b"1").unwrap();
    let id = world.init(1);
    world.clock.set(UnixMillis(START.0 - 3_600_000));
    let earlier = world.put(b"2").unwrap();
    world.part(id, 1, b"x").unwrap();
    world.sweep();
    world.complete(id).unwrap();
    let listing = Listing { owner: owner(), folder: Folder::default() };
    let listed = world.runtime.block_on(world.app.list_files(&listing, None, 9)).unwrap();
    assert_eq!(listed.len(), 3);
    assert_eq!((&listed[0].key, &listed[2].key), (&now.key, &earlier.key));
    assert!(listed.is_sorted_by(|a, b| a.id.created() >= b.id.created()));
}

#[test]
fn a_clock_that_leaps_ahead_ends_nothing_for_good_until_it_is_believed() {
    let hours = Duration::from_hours;
    let world = World::new();
    let upload = world.init(10);
    let app = &world.app;
    // With this promise, the key that signs now is kept for a week after the rotation.
    let week = world.clock.now().after(hours(7 * 24));
    world.keys.signer_until(world.clock.now(), week.seconds()).unwrap();
    world.runtime.block_on(app.rotate_key(Duration::ZERO)).unwrap();
    let tend = || world.runtime.block_on(app.upkeep());
    tend();
    let keys = || world.runtime.block_on(app.list_keys()).unwrap().len();
    let is_open = || world.runtime.block_on(world.meta.upload(upload)).unwrap().is_some();
    assert_eq!(keys(), 2);
    let (before, ahead) = (world.clock.now(), world.clock.now().after(hours(20 * 365 * 24)));
    world.clock.leap(ahead);
    for _ in 0..2 {
        tend();
        world.runtime.block_on(app.gc()).unwrap();
    }
    assert_eq!((keys(), is_open()), (2, true));
    world.clock.leap(before);
    tend();
    assert_eq!((keys(), is_open()), (2, true), "it was put right");
    world.clock.leap(ahead);
    tend();
    world.pass(hours(24));
    tend();
    assert_eq!((keys(), is_open()), (1, false), "it is believed");
}
