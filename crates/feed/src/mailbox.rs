//! Mailboxes: feeds whose records are addressed. Each address has a short list of its own, from which
//! whoever was away reads what it missed; whoever is there hears of it as of any feed's records.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use fred::prelude::*;
use fred::types::scripts::Script;
use futures_util::future::try_join_all;
use sha1::{Digest as _, Sha1};

use crate::append::LogLimits;
use crate::error::Error;
use crate::held_back::write_note;
use crate::keys::{channel, feed_keys};
use crate::metrics::MailboxMetrics;
use crate::record::Position;
use crate::replicas::Replicas;
use crate::script::run_script;

macro_rules! script {
    ($file:literal) => {
        LazyLock::new(|| {
            Script::from_lua(concat!(
                include_str!("lua/record.lua"),
                include_str!("lua/mailbox.lua"),
                include_str!($file)
            ))
        })
    };
}

static FILE: LazyLock<Script> = script!("lua/file.lua");
static MARK: LazyLock<Script> = script!("lua/mark.lua");
static LIST: LazyLock<Script> = script!("lua/list.lua");

/// What the log of a bucket keeps, for who missed a message; who was away reads the mailboxes.
const LOG: LogLimits =
    LogLimits { max_age: Duration::from_secs(300), max_entries: 1_000_000, max_bytes: 16 << 20 };

/// How much a mailbox keeps; the oldest items go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxLimits {
    /// At most so many items.
    pub items: u32,
    /// At most so many bytes of them, but always the newest item.
    pub bytes: u32,
    /// None is older.
    pub age: Duration,
}

/// The mailboxes of one Redis.
#[derive(Clone)]
pub struct Mailboxes {
    client: Client,
    name: &'static str,
    buckets: u32,
    keep: MailboxLimits,
    replicas: Replicas,
    metrics: MailboxMetrics,
}

/// What is to be filed.
#[derive(Clone, Debug)]
pub struct Filing {
    /// Whose mailbox; 1 to 65,535 bytes.
    pub address: String,
    /// The same id is filed once in 24 hours, and once for as long as its item is there; at most 65,535
    /// bytes.
    pub id: String,
    /// When it is of no use any more, microseconds since 1970.
    pub expires_us: u64,
    /// What it is.
    pub payload: Bytes,
}

/// What became of filings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileOutcome {
    /// They are in their mailboxes now.
    pub filed: u64,
    /// They were there before.
    pub known: u64,
    /// They had expired.
    pub expired: u64,
    /// Redis's time, microseconds since 1970.
    pub time_us: u64,
}

/// What a record of the feed says to one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The address.
    pub address: Bytes,
    /// Items of the mailbox that are unread after it.
    pub unread: u32,
    /// What happened.
    pub change: MailboxChange,
}

/// What happened in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailboxChange {
    /// An item was filed.
    Filed {
        /// Its id.
        id: Bytes,
        /// The item.
        payload: Bytes,
    },
    /// Items were read.
    Read(Vec<Bytes>),
    /// Items were deleted.
    Deleted(Vec<Bytes>),
    /// To every address: something is missing for good; why.
    Gap(Bytes),
}

/// From where on a mailbox is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// All of it.
    All,
    /// Nothing of it: only the place and what is unread.
    Now,
    /// What is later than a place of its feed; `None` is the place before the first record.
    Place(Option<Position>),
    /// The rest of [`Since::All`], of which a part was read.
    Rest {
        /// The place of the last item of that part.
        after: Position,
        /// [`Mailbox::position`] of the first part.
        begun: Position,
    },
}

/// Which of a mailbox's newest items are read.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Those before the item with this id, or before a place as [`Item::place`] writes it; `None` is the newest.
    pub before: Option<&'a str>,
    /// At most this many, but at least one.
    pub items: u32,
    /// About this many bytes of them at most, but always one item; 0 is no limit.
    pub bytes: u32,
    /// Unread items alone.
    pub unread_alone: bool,
}

/// A mailbox as it was read.
#[derive(Clone, Debug)]
pub struct Mailbox {
    /// The feed's last record.
    pub position: Option<Position>,
    /// Items that are unread.
    pub unread: u32,
    /// Why the place that was asked for is of no use, and all items are here.
    pub reset: Option<String>,
    /// Items, oldest first; those of a [`Page`] newest first.
    pub items: Vec<Item>,
    /// What has been marked: with [`Since::Place`] perhaps before that, with a [`Page`] of its items alone.
    pub marks: HashMap<String, StoredMark>,
    /// There are more items than were asked for.
    pub more: bool,
    /// When items were last lost for good that it might have, by Kafka or by Redis, microseconds since 1970.
    pub lost_us: Option<u64>,
}

/// An item of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The number of the record that told of it.
    pub seq: u64,
    /// The time of that record.
    pub time_us: u64,
    /// When it expires.
    pub expires_us: u64,
    /// Its id.
    pub id: String,
    /// What was filed.
    pub payload: Bytes,
}

/// That an item was read or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredMark {
    /// It was deleted; else it was read.
    pub deleted: bool,
    /// The number of the record that told of it.
    pub seq: u64,
    /// The time of that record.
    pub time_us: u64,
}

/// What is to be marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// One item as read.
    Read,
    /// It and all before it as read.
    ReadTo,
    /// One is deleted.
    Delete,
}

/// What `list.lua` answers.
type ListAnswer = (String, u64, u64, u32, String, Vec<Bytes>, Vec<Bytes>, bool, u64);

impl Mailboxes {
    /// Mailboxes in `buckets` feeds, `<name>.0` and so on; touches Redis only when used.
    pub fn new(
        client: Client,
        name: &'static str,
        buckets: u32,
        keep: MailboxLimits,
        metrics: MailboxMetrics,
    ) -> Self {
        Self { client, name, buckets, keep, replicas: Replicas::default(), metrics }
    }

    /// The same, but what is filed or marked counts only when these replicas of Redis have it.
    #[must_use]
    pub fn with_replicas(self, replicas: Replicas) -> Self {
        Self { replicas, ..self }
    }

    /// The bucket that an address is in: the first four bytes of its SHA-1, modulo their count.
    pub fn bucket_of(&self, address: &[u8]) -> u32 {
        let hash = Sha1::digest(address);
        u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % self.buckets
    }

    /// Notes in the feeds of all buckets that so many records cannot be read yet; as [`Feed::note_held_back`] does.
    ///
    /// [`Feed::note_held_back`]: crate::Feed::note_held_back
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer.
    pub async fn note_held_back(&self, records: u64, at_ms: i64) -> Result<(), Error> {
        let feeds = self.feeds();
        try_join_all(feeds.iter().map(|feed| write_note(&self.client, feed, records, at_ms))).await?;
        Ok(())
    }

    /// How many buckets there are.
    pub fn buckets(&self) -> u32 {
        self.buckets
    }

    /// The name of a bucket's feed.
    pub fn feed(&self, bucket: u32) -> String {
        format!("{}.{bucket}", self.name)
    }

    /// The names of all buckets' feeds.
    pub fn feeds(&self) -> Vec<String> {
        (0..self.buckets).map(|bucket| self.feed(bucket)).collect()
    }

    /// Files items of one bucket, each once, and tells of them. May be repeated.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer; all, some or none may be filed then.
    pub async fn file(
        &self,
        bucket: u32,
        filings: impl IntoIterator<Item = &Filing>,
    ) -> Result<FileOutcome, Error> {
        let mut words = Vec::new();
        for filing in filings {
            words.push(Value::from(filing.address.as_str()));
            words.push(filing.id.as_str().into());
            words.push(number_of(&filing.id).into());
            words.push((filing.expires_us.min(i64::MAX as u64) as i64).into());
            words.push(filing.payload.clone().into());
        }
        let doing = || format!("filing in {}", self.feed(bucket));
        let answer: Vec<u64> = self.write(&FILE, bucket, words, doing).await?;
        let [filed, known, expired, time_us] = answer[..] else { return Err(odd(doing, &answer)) };
        self.metrics.filed.inc_by(filed);
        self.metrics.known.inc_by(known);
        self.metrics.expired.inc_by(expired);
        Ok(FileOutcome { filed, known, expired, time_us })
    }

    /// Tells all addresses of a bucket that something is missing for good.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer; it may have been told then.
    pub async fn announce_gap(&self, bucket: u32, reason: &str) -> Result<(), Error> {
        let words: Vec<Value> = vec!["".into(), "".into(), 0.into(), 0.into(), reason.into()];
        let doing = || format!("announcing a gap in {}", self.feed(bucket));
        let _: Vec<u64> = self.write(&FILE, bucket, words, doing).await?;
        Ok(())
    }

    /// Marks an item, and tells of it; says how many are unread then, `None` if there is no such item.
    /// May be repeated, but what is deleted is not there any more.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer; it may be marked then.
    pub async fn mark(&self, address: &str, mark: Mark, id: &str) -> Result<Option<u32>, Error> {
        let what = match mark {
            Mark::Read => "read",
            Mark::ReadTo => "read-to",
            Mark::Delete => "delete",
        };
        let bucket = self.bucket_of(address.as_bytes());
        let doing = || format!("marking in {}", self.feed(bucket));
        let words = vec![address.into(), what.into(), id.into()];
        let answer: Vec<i64> = self.write(&MARK, bucket, words, doing).await?;
        match answer[..] {
            [-1] => Ok(None),
            [0 | 1, unread] => Ok(Some(unread as u32)),
            _ => Err(odd(doing, &answer)),
        }
    }

    /// Reads a mailbox, in one command.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer, [`Error::Answer`] if it holds something else.
    pub async fn read(&self, address: &str, since: Since) -> Result<Mailbox, Error> {
        self.read_part(address, since, 0).await
    }

    /// The same, of about so many bytes of items at most; 0 is no limit.
    ///
    /// # Errors
    /// As [`Mailboxes::read`].
    pub async fn read_part(&self, address: &str, since: Since, max_bytes: u32) -> Result<Mailbox, Error> {
        let bucket = self.bucket_of(address.as_bytes());
        let mut words = vec![Value::from(address), max_bytes.into()];
        match since {
            Since::All => words.push("all".into()),
            Since::Now => words.push("now".into()),
            Since::Place(None) => words.extend(["since", "", "0", "0"].map(Value::from)),
            Since::Place(Some(place)) => {
                words.push("since".into());
                words.extend(numbers_of(place));
            }
            Since::Rest { after, begun } => {
                words.push("since".into());
                words.extend(numbers_of(after).into_iter().chain(numbers_of(begun)));
            }
        }
        self.list(bucket, words).await
    }

    /// Reads a page of the newest items, in one command. Where `before` is a place, Redis reads little more of the
    /// mailbox than the page. Returns `None` if `before` is neither a place nor the id of an item.
    ///
    /// # Errors
    /// As [`Mailboxes::read`].
    pub async fn read_page(&self, address: &str, page: Page<'_>) -> Result<Option<Mailbox>, Error> {
        let Page { before, items, bytes, unread_alone } = page;
        let place = before.and_then(|text| {
            let (seq, time_us) = text.split_once('-')?;
            Some([seq.parse().ok()?, time_us.parse().ok()?])
        });
        let mut words: Vec<Value> =
            vec![address.into(), bytes.into(), "page".into(), before.unwrap_or_default().into()];
        match place {
            Some(numbers) => words.extend(numbers.map(|n: u64| Value::from(n.min(1 << 53) as i64))),
            None => words.extend(["", ""].map(Value::from)),
        }
        words.extend([Value::from(items.max(1)), Value::from(u32::from(unread_alone))]);
        let mailbox = self.list(self.bucket_of(address.as_bytes()), words).await?;
        Ok(mailbox.reset.is_none().then_some(mailbox))
    }

    async fn list(&self, bucket: u32, words: Vec<Value>) -> Result<Mailbox, Error> {
        let doing = || format!("reading a mailbox in {}", self.feed(bucket));
        let (epoch, seq, time_us, unread, reason, items, marks, more, lost_us): ListAnswer =
            self.run(&LIST, bucket, words).await.map_err(redis(doing))?;
        let position = epoch.parse().ok().map(|epoch| Position { epoch, seq, time_us });
        let items: Option<Vec<Item>> = items.into_iter().map(Item::decode).collect();
        let marks: Option<HashMap<String, StoredMark>> = marks
            .chunks_exact(2)
            .map(|pair| {
                Some((String::from_utf8(pair[0].to_vec()).ok()?, StoredMark::decode(pair[1].clone())?))
            })
            .collect();
        let (Some(items), Some(marks)) = (items, marks) else { return Err(odd(doing, &"no items")) };
        let reset = (!reason.is_empty()).then_some(reason);
        let lost_us = (lost_us > 0).then_some(lost_us);
        Ok(Mailbox { position, unread, reset, items, marks, more, lost_us })
    }

    /// Runs a script that changes something, and waits for the replicas.
    async fn write<T: FromValue>(
        &self,
        script: &Script,
        bucket: u32,
        words: Vec<Value>,
        doing: impl FnOnce() -> String,
    ) -> Result<T, Error> {
        let write = async { self.run(script, bucket, words).await.map_err(redis(doing)) };
        self.replicas.write(&self.feed(bucket), write).await
    }

    async fn run<T: FromValue>(
        &self,
        script: &Script,
        bucket: u32,
        words: Vec<Value>,
    ) -> Result<T, fred::error::Error> {
        let feed = self.feed(bucket);
        let mut args: Vec<Value> = vec![
            channel(&feed).into(),
            rand::random::<u32>().into(),
            (LOG.max_entries as i64).into(),
            (LOG.max_age.as_micros() as i64).into(),
            ((LOG.max_bytes / u64::from(self.buckets)).max(1 << 20) as i64).into(),
            self.keep.items.into(),
            self.keep.bytes.into(),
            (self.keep.age.as_micros() as i64).into(),
        ];
        args.extend(words);
        run_script(&self.client, script, feed_keys(&feed), args).await
    }
}

fn redis(doing: impl FnOnce() -> String) -> impl FnOnce(fred::error::Error) -> Error {
    |source| Error::Redis { doing: doing(), source }
}

fn odd(doing: impl FnOnce() -> String, answer: &impl std::fmt::Debug) -> Error {
    Error::Answer { doing: doing(), answer: format!("{answer:?}") }
}

/// A place as scripts take it. Who asks may have made it up; Lua counts to 2^53.
fn numbers_of(place: Position) -> [Value; 3] {
    [place.epoch.into(), place.seq, place.time_us].map(|n: u64| Value::from(n.min(1 << 53) as i64))
}

/// The number by which an id is known: 8 bytes of a set of Redis, where the text would take 50.
fn number_of(id: &str) -> i64 {
    let hash = Sha1::digest(id.as_bytes());
    i64::from_be_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]])
}

impl Letter {
    /// Reads what a record of a mailbox feed says; `None` if that is none.
    pub fn read_all(mut payload: Bytes) -> Option<Vec<Self>> {
        let mut letters = Vec::new();
        while payload.has_remaining() {
            let kind = payload.try_get_u8().ok()?;
            let address = take_text(&mut payload)?;
            let unread = payload.try_get_u32().ok()?;
            let id = take_text(&mut payload)?;
            let length = payload.try_get_u32().ok()? as usize;
            let body = take(&mut payload, length)?;
            let change = match kind {
                1 => MailboxChange::Filed { id, payload: body },
                2 => MailboxChange::Read(take_texts(body)?),
                3 => MailboxChange::Deleted(take_texts(body)?),
                4 => MailboxChange::Gap(body),
                _ => return None,
            };
            letters.push(Self { address, unread, change });
        }
        Some(letters)
    }
}

impl Item {
    /// Where it stands in its mailbox, as [`Page::before`] takes it, also when the item has gone.
    pub fn place(&self) -> String {
        format!("{}-{}", self.seq, self.time_us)
    }

    fn decode(mut bytes: Bytes) -> Option<Self> {
        let (seq, time_us) = (bytes.try_get_u64().ok()?, bytes.try_get_u64().ok()?);
        let expires_us = bytes.try_get_u64().ok()?;
        let id = String::from_utf8(take_text(&mut bytes)?.to_vec()).ok()?;
        Some(Self { seq, time_us, expires_us, id, payload: bytes })
    }
}

impl StoredMark {
    fn decode(mut bytes: Bytes) -> Option<Self> {
        let deleted = bytes.try_get_u8().ok()? == 3;
        Some(Self { deleted, seq: bytes.try_get_u64().ok()?, time_us: bytes.try_get_u64().ok()? })
    }

    /// Whether who was shown all up to a place has not heard of it.
    pub fn is_later_than(self, place: Option<Position>) -> bool {
        place.is_none_or(|place| self.seq > place.seq || self.time_us > place.time_us)
    }
}

fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (bytes.remaining() >= length).then(|| bytes.split_to(length))
}

fn take_text(bytes: &mut Bytes) -> Option<Bytes> {
    let length = bytes.try_get_u16().ok()?;
    take(bytes, length.into())
}

fn take_texts(mut bytes: Bytes) -> Option<Vec<Bytes>> {
    let mut texts = Vec::new();
    while bytes.has_remaining() {
        texts.push(take_text(&mut bytes)?);
    }
    Some(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let bytes = Bytes::from(bytes);
            let _ = (Letter::read_all(bytes.clone()), Item::decode(bytes.clone()), StoredMark::decode(bytes));
        }
    }
}
