//! A worker's streams of inboxes: devices of users.
//!
//! A device that has been shown all is told of each letter as it comes; the bytes are the same for all
//! who get it, only a line with the id goes before. Who is new, behind or resuming becomes a task, which
//! reads the mailboxes from the device's place on until nothing is missing.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::spawn_local;
use tutti_feed::{Cursor, MailboxChange, Mailboxes, Position};
use tutti_sse::events::Events;
use tutti_sse::frame::Frame;
use tutti_sse::hub::{Hub, Job};
use tutti_sse::stream::{CloseReason, Stream, WriteOutcome};
use tutti_sse::turns::Turns;

use crate::following::cursor_wait::CursorWait;
use crate::following::status::Status;
use crate::inbox::connections::Connection;
use crate::inbox::events::{Address, EncodedLetter, Shown, id_of};
use crate::inbox::follower::{Change, InboxStep};
use crate::inbox::roster::Roster;
use crate::metrics::Metrics;
use tutti_model::events::ResetReason;

/// Devices of one worker that read from Redis at the same time. The others wait for their turn, which users get one
/// after the other.
const READS: usize = 64;

/// On what terms a device gets a stream.
pub(crate) struct Device {
    pub(crate) mailboxes: Mailboxes,
    /// The user's own first.
    pub(crate) addresses: Rc<[Address]>,
    /// Of each.
    pub(crate) shown: Vec<Shown>,
    /// It came with an id that cannot be told from another.
    pub(crate) lost: Option<ResetReason>,
    /// Its own name.
    pub(crate) name: String,
    /// As the registry knows it.
    #[expect(dead_code, reason = "it ends with the stream")]
    pub(crate) connection: Connection,
}

/// One device's stream.
pub(crate) struct Served {
    pub(crate) stream: Stream,
    pub(crate) device: Device,
    pub(crate) number: usize,
    /// It has been told `connected`.
    pub(crate) greeted: bool,
    /// What [`Post::breaks`] was before its mailboxes were read.
    pub(crate) breaks: u64,
    /// It has been shown a part of what follows a reset: it must not come back with another id.
    pub(crate) incomplete: bool,
    pub(crate) status: Option<Status>,
    pub(crate) patience: CursorWait,
}

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
    /// The last step.
    no: u64,
    pub(crate) status: Option<Status>,
    pub(crate) places: Vec<Option<Position>>,
    /// These as they stand in ids.
    texts: Vec<String>,
    /// What came before the next record of a bucket is not known.
    unsure: Vec<bool>,
    /// How often something was told to all that the record of a place does not tell: that something is missing,
    /// or another history.
    pub(crate) breaks: u64,
    /// Who follows a mailbox: those among the others, and those in tasks.
    pub(crate) followed: HashMap<Bytes, AddressSubscribers>,
    /// Those that have been shown all.
    pub(crate) live: Roster,
    pub(crate) stepped: Rc<Notify>,
}

pub(crate) struct AddressSubscribers {
    bucket: usize,
    devices: BTreeSet<usize>,
    /// The last record that told of it, since the first of these came.
    pub(crate) last: Option<Position>,
}

impl InboxStreams {
    /// Starts a worker's streams of inboxes, which show the steps that `steps` brings.
    pub(crate) fn start(
        hub: Rc<Hub>,
        metrics: Metrics,
        mut steps: broadcast::Receiver<Arc<InboxStep>>,
    ) -> Rc<Self> {
        let reads = Turns::new(READS, metrics.sse.waiting_for("mailbox"));
        let streams = Rc::new(Self { hub: hub.clone(), metrics, post: RefCell::default(), reads });
        hub.add(streams.clone());
        let ours = streams.clone();
        spawn_local(async move {
            loop {
                match steps.recv().await {
                    Ok(step) => {
                        ours.step(&step);
                        tokio::task::yield_now().await;
                    }
                    // The number of the next step tells that some are missing.
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
                    Change::Record { bucket, position, told } => {
                        let before = post.places[*bucket];
                        if told.iter().any(|told| matches!(told.letter.change, MailboxChange::Gap(_))) {
                            self.call_out(post, *bucket);
                        }
                        if std::mem::take(&mut post.unsure[*bucket]) {
                            // There may have been others before it, since a feed without records was read.
                            self.call_out(post, *bucket);
                            let here = post.followed.values_mut().filter(|f| f.bucket == *bucket);
                            here.for_each(|followed| followed.last = Some(*position));
                        }
                        post.places[*bucket] = Some(*position);
                        post.texts[*bucket] = Cursor::text_of(Some(*position));
                        self.tell(post, *bucket, before, told);
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

    /// A bucket's history is another, or a part of it is not known: who follows it reads.
    fn begin_anew(self: &Rc<Self>, post: &mut Post, bucket: usize) {
        self.call_out(post, bucket);
        post.places[bucket] = None;
        post.texts[bucket] = Cursor::text_of(None);
        post.unsure[bucket] = true;
        post.followed.values_mut().filter(|f| f.bucket == bucket).for_each(|followed| followed.last = None);
    }

    /// Takes those who follow a bucket out of the list, to read.
    fn call_out(self: &Rc<Self>, post: &mut Post, bucket: usize) {
        post.breaks += 1;
        let ours = |served: &Served| served.device.addresses.iter().any(|a| a.bucket == bucket);
        for served in post.live.take_if(ours) {
            self.leave(served, &post.places, Bytes::new());
        }
    }

    /// The letters of a record to all who follow their addresses.
    fn tell(
        self: &Rc<Self>,
        post: &mut Post,
        bucket: usize,
        before: Option<Position>,
        told: &[Arc<EncodedLetter>],
    ) {
        let Post { followed, live, places, texts, .. } = post;
        let before_text = Cursor::text_of(before);
        for (at, one) in told.iter().enumerate() {
            let Some(followed) = followed.get_mut(&one.letter.address) else { continue };
            followed.last = places[bucket];
            let frame = one.frame(&self.metrics);
            for number in &followed.devices {
                let Some(served) = live.get_mut(*number) else { continue };
                // A record may have another letter for the same device: that one is not covered yet.
                let later = |address: &Address| {
                    address.bucket == bucket
                        && told[at + 1..].iter().any(|t| t.letter.address == address.name)
                };
                let id = id_of(&served.device.addresses, |at| {
                    let address = &served.device.addresses[at];
                    if later(address) { &before_text } else { &texts[address.bucket] }
                });
                match self.hub.deliver_after_id(&mut served.stream, &id, frame) {
                    WriteOutcome::Complete => continue,
                    WriteOutcome::Partial(rest) => {
                        self.metrics.sse.fell_behind.inc();
                        let mut served = live.take(*number).expect("it was there a moment ago");
                        served.place(|address| if later(address) { before } else { places[address.bucket] });
                        self.serve_device(served, rest);
                    }
                    WriteOutcome::Closed => {
                        let served = live.take(*number).expect("it was there a moment ago");
                        self.lose(*number, served.device.addresses, CloseReason::Left);
                    }
                }
            }
        }
    }

    /// The same bytes to all, without an id.
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

    fn take_off(self: &Rc<Self>, post: &mut Post, off: Vec<(usize, WriteOutcome)>) {
        for (number, written) in off {
            let Some(served) = post.live.take(number) else { continue };
            match written {
                WriteOutcome::Partial(rest) => self.leave(served, &post.places, rest),
                _ => self.lose(number, served.device.addresses, CloseReason::Left),
            }
        }
    }

    /// Out of the list, with what it has been shown, to become a task.
    fn leave(self: &Rc<Self>, mut served: Served, places: &[Option<Position>], rest: Bytes) {
        served.place(|address| places[address.bucket]);
        self.serve_device(served, rest);
    }

    /// A stream that was in the list has ended. What it followed is forgotten a moment later: who calls
    /// this may be walking through it.
    fn lose(self: &Rc<Self>, number: usize, addresses: Rc<[Address]>, reason: CloseReason) {
        let ours = self.clone();
        spawn_local(async move {
            ours.forget(number, &addresses);
            ours.metrics.sse.ended(reason);
        });
    }

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
            // The feeds went on with what others were told.
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

impl Served {
    /// It has been shown all up to these places.
    fn place(&mut self, place: impl Fn(&Address) -> Option<Position>) {
        self.device.shown = self.device.addresses.iter().map(|address| Shown::UpTo(place(address))).collect();
    }
}
