//! Random stories, in Redis and in the model side by side.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tutti_e2e::redis::Redis;
use tutti_feed::{Filing, Mailbox, MailboxChange, Mailboxes, Mark, Position, Since, read_log};
use tutti_model::ResetReason;

use super::model::{BucketModel, STORY_KEEP};
use super::{ITEM_BYTES, boxes, file_all, filing, letters};

const ADDRESSES: [&str; 3] = ["{a}:1", "a", "b|\n"];

/// The view of a mailbox that a device has, made of nothing but what it heard.
struct Device {
    at: usize,
    place: Option<Position>,
    /// The device has heard of all items after this record.
    after: u64,
    held: Vec<(String, bool)>,
    unread: u32,
    resets: u32,
}

impl Device {
    pub(super) fn new(at: usize) -> Self {
        Self { at, place: None, after: 0, held: Vec::new(), unread: 0, resets: 0 }
    }

    pub(super) fn read(&mut self, id: &[u8]) {
        self.held.iter_mut().filter(|(held, _)| held.as_bytes() == id).for_each(|(_, read)| *read = true);
    }

    fn delete(&mut self, id: &[u8]) {
        self.held.retain(|(held, _)| held.as_bytes() != id);
    }

    /// Replaces everything that the device holds.
    fn replace(&mut self, mailbox: &Mailbox, model: &BucketModel) {
        let is_read = |id: &String| mailbox.marks.get(id).is_some_and(|mark| !mark.deleted);
        self.held = mailbox.items.iter().map(|item| (item.id.clone(), is_read(&item.id))).collect();
        self.after = model.boxes[self.at].cut_item;
        (self.place, self.unread) = (mailbox.position, mailbox.unread);
    }
}

/// A story in Redis beside its model. If it fails, it prints what happened.
struct Story<'a> {
    seed: u64,
    redis: &'a Redis,
    boxes: Mailboxes,
    random: StdRng,
    addresses: usize,
    model: BucketModel,
    devices: Vec<Device>,
    given_out: usize,
    happened: Vec<String>,
}

impl Drop for Story<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("MAILBOXES_SEED={}, {} mailboxes", self.seed, self.addresses);
            self.happened.iter().for_each(|line| eprintln!("  {line}"));
        }
    }
}

impl<'a> Story<'a> {
    pub(super) fn new(redis: &'a Redis, seed: u64, addresses: usize) -> Self {
        Self {
            seed,
            redis,
            boxes: boxes(redis, STORY_KEEP),
            random: StdRng::seed_from_u64(seed),
            addresses,
            model: BucketModel::default(),
            devices: (0..2 * addresses).map(|n| Device::new(n / 2)).collect(),
            given_out: 0,
            happened: Vec::new(),
        }
    }

    pub(super) fn address(&mut self) -> usize {
        self.random.random_range(0..self.addresses)
    }

    /// Returns an id, in most cases one that is listed.
    fn some_id(&mut self, at: usize) -> String {
        let listed: Vec<String> = self.model.boxes[at].listed().map(|item| item.id.clone()).collect();
        if listed.is_empty() || self.random.random_bool(0.15) {
            return format!("n{}", self.random.random_range(0..=self.given_out));
        }
        listed[self.random.random_range(0..listed.len())].clone()
    }

    async fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..35 => self.file().await,
            35..65 => self.mark().await,
            65 => {
                self.happened.push("gap".to_owned());
                self.model.seq += 1;
                self.model.gap = self.model.seq;
                self.boxes.announce_gap(0, "a gap").await.unwrap();
            }
            66..70 => self.begin().await,
            70..85 => {
                let n = self.random.random_range(0..self.devices.len());
                self.follow(n).await;
            }
            _ => {
                let n = self.random.random_range(0..self.devices.len());
                self.resume(n).await;
            }
        }
        self.compare().await;
    }

    pub(super) async fn file(&mut self) {
        let mut filings = Vec::new();
        for _ in 0..self.random.random_range(1..=4) {
            let at = self.address();
            let id = if self.given_out > 0 && self.random.random_bool(0.2) {
                format!("n{}", self.given_out - self.random.random_range(0..self.given_out.min(6)))
            } else {
                self.given_out += 1;
                format!("n{}", self.given_out)
            };
            let most = if self.random.random_bool(0.05) { 900 } else { 150 };
            filings.push((at, id, self.random.random_range(0..most)));
        }
        self.happened.push(format!("file {filings:?}"));
        let all: Vec<Filing> =
            filings.iter().map(|(at, id, size)| filing(ADDRESSES[*at], id, vec![7u8; *size])).collect();
        let outcome = file_all(&self.boxes, &all).await;
        assert_eq!(outcome, self.model.file(&filings));
    }

    pub(super) async fn mark(&mut self) {
        let at = self.address();
        let id = self.some_id(at);
        let mark = [Mark::Read, Mark::ReadTo, Mark::Delete, Mark::Delete][self.random.random_range(0..4)];
        self.happened.push(format!("{mark:?} {at} {id}"));
        let unread = self.boxes.mark(ADDRESSES[at], mark, &id).await.unwrap();
        assert_eq!(unread, self.model.mark(at, mark, &id));
    }

    /// Adds a device that begins now, or with everything there is, or at the position before all records.
    async fn begin(&mut self) {
        let mut device = Device::new(self.address());
        let address = ADDRESSES[device.at];
        match self.random.random_range(0..3) {
            0 => {
                let mailbox = self.boxes.read(address, Since::Now).await.unwrap();
                assert!(mailbox.items.is_empty() && mailbox.marks.is_empty());
                (device.place, device.unread) = (mailbox.position, mailbox.unread);
                device.after = self.model.seq;
            }
            1 => {
                let mailbox = self.boxes.read(address, Since::All).await.unwrap();
                device.replace(&mailbox, &self.model);
            }
            _ => {}
        }
        self.happened.push(format!("device {} begins at {:?}", self.devices.len(), device.place));
        self.devices.push(device);
    }

    /// Applies all records of the log since the device last read it.
    async fn follow(&mut self, n: usize) {
        self.happened.push(format!("device {n} follows from {:?}", self.devices[n].place));
        let device = &mut self.devices[n];
        let address = ADDRESSES[device.at];
        let records =
            read_log(self.redis.client(), &self.boxes.feed(0), device.place, 100_000).await.unwrap();
        for record in records {
            if device.place.is_some_and(|place| place.covers(record.position)) {
                continue;
            }
            assert_eq!(record.position.seq, device.place.map_or(0, |place| place.seq) + 1);
            device.place = Some(record.position);
            for letter in letters(&record) {
                if let MailboxChange::Gap(_) = letter.change {
                    let mailbox = self.boxes.read(address, Since::All).await.unwrap();
                    device.replace(&mailbox, &self.model);
                    device.resets += 1;
                    break;
                }
                if letter.address != address {
                    continue;
                }
                device.unread = letter.unread;
                match letter.change {
                    MailboxChange::Filed { id, .. } => {
                        device.held.push((String::from_utf8(id.to_vec()).unwrap(), false));
                    }
                    MailboxChange::Read(ids) => ids.iter().for_each(|id| device.read(id)),
                    MailboxChange::Deleted(ids) => ids.iter().for_each(|id| device.delete(id)),
                    MailboxChange::Gap(_) => unreachable!("it was looked at above"),
                }
            }
        }
        self.check(n);
    }

    /// Lets a device come back from its last position.
    async fn resume(&mut self, n: usize) {
        self.happened.push(format!("device {n} resumes from {:?}", self.devices[n].place));
        let device = &mut self.devices[n];
        let mailbox = self.boxes.read(ADDRESSES[device.at], Since::Place(device.place)).await.unwrap();
        assert_eq!(mailbox.reset.map(ResetReason::as_str), self.model.reset(device.at, device.place));
        if mailbox.reset.is_some() {
            device.replace(&mailbox, &self.model);
            device.resets += 1;
        } else {
            device.held.extend(mailbox.items.iter().map(|item| (item.id.clone(), false)));
            for (id, mark) in &mailbox.marks {
                match (mark.is_later_than(device.place), mark.deleted) {
                    (false, _) => {}
                    (true, false) => device.read(id.as_bytes()),
                    (true, true) => device.delete(id.as_bytes()),
                }
            }
            (device.place, device.unread) = (mailbox.position, mailbox.unread);
        }
        self.check(n);
    }

    /// Checks that a device that has caught up agrees with the model.
    fn check(&self, n: usize) {
        let device = &self.devices[n];
        let plain = &self.model.boxes[device.at];
        let expected: Vec<(String, bool)> = plain
            .lying
            .iter()
            .filter(|item| item.seq > device.after)
            .map(|item| (item.id.clone(), item.read.is_some()))
            .collect();
        assert_eq!(device.held, expected, "device {n} after {}", device.after);
        assert_eq!(device.unread, plain.unread(), "device {n}");
        assert_eq!(device.place.map_or(0, |place| place.seq), self.model.seq, "device {n}");
    }

    /// Checks that Redis agrees with the model.
    async fn compare(&self) {
        for (address, plain) in ADDRESSES.iter().zip(&self.model.boxes).take(self.addresses) {
            let mailbox = self.boxes.read(address, Since::All).await.unwrap();
            let lying: Vec<(&str, u64, usize)> =
                mailbox.items.iter().map(|item| (item.id.as_str(), item.seq, item.payload.len())).collect();
            let expected: Vec<(&str, u64, usize)> = plain
                .listed()
                .map(|item| (item.id.as_str(), item.seq, item.bytes - ITEM_BYTES - item.id.len()))
                .collect();
            assert_eq!(lying, expected, "{address}");
            assert_eq!(mailbox.unread, plain.unread(), "{address}");
            let marks: BTreeMap<String, (bool, u64)> =
                mailbox.marks.into_iter().map(|(id, mark)| (id, (mark.deleted, mark.seq))).collect();
            assert_eq!(marks, plain.marks, "{address}");
            assert_eq!(mailbox.position.map_or(0, |place| place.seq), self.model.seq);
            assert_eq!(mailbox.reset, None);
        }
    }
}

/// Runs stories. The environment may give their seed. Returns the number of resets, and the number of devices without
/// a reset.
async fn tell(stories: u64, steps: usize, addresses: usize) -> (u32, usize) {
    let redis = Redis::start().unwrap();
    let given: Option<u64> = std::env::var("MAILBOXES_SEED").ok().map(|seed| seed.parse().unwrap());
    let (mut resets, mut never) = (0, 0);
    for _ in 0..stories {
        let seed = given.unwrap_or_else(rand::random);
        let mut story = Story::new(&redis, seed, addresses);
        for _ in 0..steps {
            story.step().await;
        }
        for n in 0..story.devices.len() {
            if n % 2 == 0 {
                story.follow(n).await;
            }
            story.resume(n).await;
        }
        resets += story.devices.iter().map(|device| device.resets).sum::<u32>();
        never += story.devices.iter().filter(|device| device.resets == 0).count();
    }
    (resets, never)
}

#[tokio::test]
async fn whatever_happens_devices_that_follow_or_come_back_see_what_the_plain_model_says() {
    let (resets, never) = tell(150, 40, 3).await;
    if std::env::var_os("MAILBOXES_SEED").is_none() {
        assert!(resets > 50 && never > 50, "both are seen often: {resets} and {never}");
    }
}

/// There are so many deletions that their marks are forgotten.
#[tokio::test]
async fn the_same_in_long_stories_of_one_mailbox() {
    tell(4, 1500, 1).await;
}
