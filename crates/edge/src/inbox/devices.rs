//! A worker's streams of inboxes: devices of users.
//!
//! A device that has been shown everything receives each letter as it comes. The bytes are the same for all devices
//! that receive it; only a line with the device's id goes before them. A device that is new, behind or resuming becomes
//! a task, which reads the mailboxes from the device's place on until nothing is missing.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::spawn_local;
use tutti_feed::{Cursor, MailboxChange, Position};
use tutti_sse::events::Events;
use tutti_sse::frame::Frame;
use tutti_sse::hub::{Hub, Job};
use tutti_sse::stream::{CloseReason, Stream, WriteOutcome};
use tutti_sse::turns::Turns;

use crate::following::cursor_wait::CursorWait;
use crate::following::status::Status;
use crate::inbox::device::{Device, Served};
use crate::inbox::events::{Address, EncodedLetter, Shown, id_of};
use crate::inbox::follower::{Change, InboxStep};
use crate::inbox::roster::Roster;
use crate::metrics::Metrics;

/// Number of devices of one worker that read from Redis at the same time. The others wait for a turn; the users take
/// turns one after the other.
const READS: usize = 64;

/// One worker's streams of inboxes.
pub(crate) struct InboxStreams {
    pub(crate) hub: Rc<Hub>,
    pub(crate) metrics: Metrics,
    pub(crate) post: RefCell<Post>,
    /// Turns at reading mailboxes.
    pub(crate) reads: Turns,
}

/// What a worker knows of the inboxes.
#[derive(Default)]
pub(crate) struct Post {
    /// The number of the last step.
    no: u64,
    pub(crate) status: Option<Status>,
    /// The position of each bucket's feed after the last step.
    pub(crate) places: Vec<Option<Position>>,
    /// The text of each of `places` in ids.
    texts: Vec<String>,
    /// For each bucket, whether it is unknown what came before the next record.
    unsure: Vec<bool>,
    /// Counts the times when devices had to leave the list because something is missing or a bucket has another
    /// history. Comparing places does not reveal that.
    pub(crate) breaks: u64,
    /// The subscribers of each address: devices in the list and devices in tasks.
    pub(crate) followed: HashMap<Bytes, AddressSubscribers>,
    /// The devices. Those that have been shown everything are in the list, the others in tasks.
    pub(crate) live: Roster,
    pub(crate) stepped: Rc<Notify>,
}

/// The devices of one worker that follow an address.
pub(crate) struct AddressSubscribers {
    bucket: usize,
    /// Numbers of the devices.
    devices: BTreeSet<usize>,
    /// The last record that had a letter for the address, since the first of the devices came.
    pub(crate) last: Option<Position>,
}

impl InboxStreams {
    /// Starts a worker's streams of inboxes, which show the steps that `steps` brings.
    pub(crate) fn start(
        hub: &Rc<Hub>,
        metrics: Metrics,
        mut steps: broadcast::Receiver<Arc<InboxStep>>,
    ) -> Rc<Self> {
        let reads = Turns::new(READS, metrics.sse.waiting_for("mailbox"));
        let streams = Rc::new(Self { hub: hub.clone(), metrics, post: RefCell::default(), reads });
        hub.add(streams.clone());
        let receiver = streams.clone();
        spawn_local(async move {
            loop {
                match steps.recv().await {
                    Ok(step) => {
                        receiver.step(&step);
                        tokio::task::yield_now().await;
                    }
                    // The number of the next step reveals that some are missing.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
        streams
    }

    /// Takes a device's stream over.
    pub(crate) fn admit(self: Rc<Self>, stream: Stream, hello: Bytes, device: Device) {
        let mut post = self.post.borrow_mut();
        let number = post.live.enter();
        for Address { name, bucket, .. } in device.addresses.iter() {
            let new = || AddressSubscribers { bucket: *bucket, devices: BTreeSet::new(), last: None };
            post.followed.entry(name.clone()).or_insert_with(new).devices.insert(number);
        }
        let incomplete = device.shown.contains(&Shown::Nothing);
        let patience = CursorWait::default();
        let (greeted, breaks, status) = (false, post.breaks, None);
        drop(post);
        let served = Served { stream, device, number, greeted, breaks, incomplete, status, patience };
        self.serve_device(served, hello);
    }

    /// Takes in a step of the follower, and writes what came to the devices in the list.
    fn step(self: &Rc<Self>, step: &InboxStep) {
        let mut post = self.post.borrow_mut();
        let post = &mut *post;
        post.places.resize(step.places.len(), None);
        post.unsure.resize(step.places.len(), true);
        post.texts.resize_with(step.places.len(), || Cursor::text_of(None));
        if std::mem::replace(&mut post.no, step.no) + 1 != step.no {
            post.breaks += 1;
            for served in post.live.take_if(|_| true) {
                self.leave(served, &post.places, Bytes::new());
            }
            post.places.copy_from_slice(&step.places);
            post.texts = step.places.iter().map(|place| Cursor::text_of(*place)).collect();
            for (unsure, place) in post.unsure.iter_mut().zip(step.places.iter()) {
                *unsure |= place.is_none();
            }
            for followed in post.followed.values_mut() {
                followed.last = step.places[followed.bucket];
            }
        } else {
            for change in &step.changes {
                match change {
                    Change::Anew(bucket) => self.begin_anew(post, *bucket),
                    Change::Record { bucket, position, told: letters } => {
                        let before = post.places[*bucket];
                        if letters.iter().any(|one| matches!(one.letter.change, MailboxChange::Gap(_))) {
                            self.call_out(post, *bucket);
                        }
                        if std::mem::take(&mut post.unsure[*bucket]) {
                            // Other records may have come before this one, since the device read a feed without
                            // records.
                            self.call_out(post, *bucket);
                            let here = post.followed.values_mut().filter(|f| f.bucket == *bucket);
                            here.for_each(|followed| followed.last = Some(*position));
                        }
                        post.places[*bucket] = Some(*position);
                        post.texts[*bucket] = Cursor::text_of(Some(*position));
                        self.tell(post, *bucket, before, letters);
                    }
                }
            }
        }
        if post.status.replace(step.status) != Some(step.status) {
            let mut events = Events::default();
            step.status.write(&mut events);
            self.tell_all(post, &events.frame(), step.status);
        }
        post.stepped.notify_waiters();
    }

    /// Has the devices that follow a bucket read their mailboxes, because the bucket has another history or a part of
    /// it is not known.
    fn begin_anew(self: &Rc<Self>, post: &mut Post, bucket: usize) {
        self.call_out(post, bucket);
        post.places[bucket] = None;
        post.texts[bucket] = Cursor::text_of(None);
        post.unsure[bucket] = true;
        post.followed.values_mut().filter(|f| f.bucket == bucket).for_each(|followed| followed.last = None);
    }

    /// Takes the devices that follow a bucket out of the list, so that they read their mailboxes.
    fn call_out(self: &Rc<Self>, post: &mut Post, bucket: usize) {
        post.breaks += 1;
        let follows = |served: &Served| served.device.addresses.iter().any(|a| a.bucket == bucket);
        for served in post.live.take_if(follows) {
            self.leave(served, &post.places, Bytes::new());
        }
    }

    /// Writes the letters of a record to all devices in the list that follow their addresses. `before` is the position
    /// of the bucket's feed before the record.
    fn tell(
        self: &Rc<Self>,
        post: &mut Post,
        bucket: usize,
        before: Option<Position>,
        letters: &[Arc<EncodedLetter>],
    ) {
        let Post { followed, live, places, texts, .. } = post;
        let before_text = Cursor::text_of(before);
        for (at, one) in letters.iter().enumerate() {
            let Some(followed) = followed.get_mut(&one.letter.address) else { continue };
            followed.last = places[bucket];
            let frame = one.frame(&self.metrics);
            for number in &followed.devices {
                let Some(served) = live.get_mut(*number) else { continue };
                // The record may have a later letter for another mailbox of this device. The id must not cover that
                // letter yet.
                let later = |address: &Address| {
                    address.bucket == bucket
                        && letters[at + 1..].iter().any(|one| one.letter.address == address.name)
                };
                let id = id_of(&served.device.addresses, |at| {
                    let address = &served.device.addresses[at];
                    if later(address) { &before_text } else { &texts[address.bucket] }
                });
                match self.hub.deliver_after_id(&mut served.stream, &id, frame) {
                    WriteOutcome::Complete => continue,
                    WriteOutcome::Partial(rest) => {
                        self.metrics.sse.fell_behind.inc();
                        let mut served = live.take(*number).expect("get_mut returned it");
                        served.place(|address| if later(address) { before } else { places[address.bucket] });
                        self.serve_device(served, rest);
                    }
                    WriteOutcome::Closed => {
                        let served = live.take(*number).expect("get_mut returned it");
                        self.lose(*number, served.device.addresses, CloseReason::Left);
                    }
                }
            }
        }
    }

    /// Writes the same bytes, which announce `status`, to all devices in the list, without an id.
    fn tell_all(self: &Rc<Self>, post: &mut Post, frame: &Frame, status: Status) {
        let mut off = Vec::new();
        for served in post.live.iter_mut() {
            served.status = Some(status);
            let bytes = served.stream.encode(frame);
            match self.hub.deliver(&mut served.stream, bytes) {
                WriteOutcome::Complete => {}
                written => off.push((served.number, written)),
            }
        }
        self.take_off(post, off);
    }

    /// Takes devices out of the list whose socket is full or whose client has left.
    fn take_off(self: &Rc<Self>, post: &mut Post, off: Vec<(usize, WriteOutcome)>) {
        for (number, written) in off {
            let Some(served) = post.live.take(number) else { continue };
            match written {
                WriteOutcome::Partial(rest) => self.leave(served, &post.places, rest),
                _ => self.lose(number, served.device.addresses, CloseReason::Left),
            }
        }
    }

    /// Makes a task of a device that was taken out of the list. The device has been shown everything up to `places`.
    fn leave(self: &Rc<Self>, mut served: Served, places: &[Option<Position>], rest: Bytes) {
        served.place(|address| places[address.bucket]);
        self.serve_device(served, rest);
    }

    /// Counts the end of a stream that was in the list. The device's subscriptions are removed by a task, because the
    /// caller may be iterating over them.
    fn lose(self: &Rc<Self>, number: usize, addresses: Rc<[Address]>, reason: CloseReason) {
        let streams = self.clone();
        spawn_local(async move {
            streams.forget(number, &addresses);
            streams.metrics.sse.ended(reason);
        });
    }

    /// Removes a device and its subscriptions.
    pub(crate) fn forget(&self, number: usize, addresses: &[Address]) {
        let mut post = self.post.borrow_mut();
        post.live.leave(number);
        for address in addresses {
            if let Some(followed) = post.followed.get_mut(&address.name) {
                followed.devices.remove(&number);
                if followed.devices.is_empty() {
                    post.followed.remove(&address.name);
                }
            }
        }
    }
}

impl Job for InboxStreams {
    fn sweep(self: Rc<Self>) {
        let mut post = self.post.borrow_mut();
        let post = &mut *post;
        for served in post.live.take_if(|served| served.stream.is_over()) {
            let (number, addresses) = (served.number, served.device.addresses.clone());
            let reason = self.hub.close_swept(served.stream);
            self.lose(number, addresses, reason);
        }
        let mut off = Vec::new();
        for served in post.live.iter_mut() {
            if !self.hub.is_heartbeat_due(&served.stream) {
                continue;
            }
            // The feeds have moved on by records for other addresses.
            let id = id_of(&served.device.addresses, |at| &post.texts[served.device.addresses[at].bucket]);
            let heartbeat = Events::default().heartbeat().id(&id).frame();
            let bytes = served.stream.encode(&heartbeat);
            match self.hub.deliver(&mut served.stream, bytes) {
                WriteOutcome::Complete => {}
                outcome => off.push((served.number, outcome)),
            }
        }
        self.take_off(post, off);
    }

    fn drain(&self) {
        for served in self.post.borrow_mut().live.iter_mut() {
            self.hub.drain_stream(&mut served.stream);
        }
    }
}
