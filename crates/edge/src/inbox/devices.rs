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
use crate::inbox::device::{Device, DeviceStream};
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
    pub(crate) inboxes: RefCell<WorkerInboxes>,
    /// Turns at reading mailboxes.
    pub(crate) reads: Turns,
}

/// What a worker knows of the inboxes.
#[derive(Default)]
pub(crate) struct WorkerInboxes {
    /// The number of the last step.
    no: u64,
    pub(crate) status: Option<Status>,
    /// The position of each bucket's feed after the last step.
    pub(crate) places: Vec<Option<Position>>,
    /// The text of each of `places` in ids.
    id_texts: Vec<String>,
    /// For each bucket, whether it is unknown what came before the next record.
    has_unknown_past: Vec<bool>,
    /// Counts the times when devices had to leave the list because something is missing or a bucket has another
    /// history. Comparing places does not reveal that.
    pub(crate) interruptions: u64,
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
        let streams = Rc::new(Self { hub: hub.clone(), metrics, inboxes: RefCell::default(), reads });
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
        let mut inboxes = self.inboxes.borrow_mut();
        let number = inboxes.live.enter();
        for Address { name, bucket, .. } in device.addresses.iter() {
            let new = || AddressSubscribers { bucket: *bucket, devices: BTreeSet::new(), last: None };
            inboxes.followed.entry(name.clone()).or_insert_with(new).devices.insert(number);
        }
        let incomplete = device.shown.contains(&Shown::Nothing);
        let cursor_wait = CursorWait::default();
        let (greeted, interruptions, status) = (false, inboxes.interruptions, None);
        drop(inboxes);
        let device_stream =
            DeviceStream { stream, device, number, greeted, interruptions, incomplete, status, cursor_wait };
        self.serve_device(device_stream, hello);
    }

    /// Takes in a step of the follower, and writes what came to the devices in the list.
    fn step(self: &Rc<Self>, step: &InboxStep) {
        let mut inboxes = self.inboxes.borrow_mut();
        let inboxes = &mut *inboxes;
        inboxes.places.resize(step.places.len(), None);
        inboxes.has_unknown_past.resize(step.places.len(), true);
        inboxes.id_texts.resize_with(step.places.len(), || Cursor::text_of(None));
        if std::mem::replace(&mut inboxes.no, step.no) + 1 != step.no {
            inboxes.interruptions += 1;
            for device_stream in inboxes.live.take_if(|_| true) {
                self.fall_behind(device_stream, &inboxes.places, Bytes::new());
            }
            inboxes.places.copy_from_slice(&step.places);
            inboxes.id_texts = step.places.iter().map(|place| Cursor::text_of(*place)).collect();
            for (has_unknown_past, place) in inboxes.has_unknown_past.iter_mut().zip(step.places.iter()) {
                *has_unknown_past |= place.is_none();
            }
            for followed in inboxes.followed.values_mut() {
                followed.last = step.places[followed.bucket];
            }
        } else {
            for change in &step.changes {
                match change {
                    Change::Reset(bucket) => self.reset_bucket(inboxes, *bucket),
                    Change::Record { bucket, position, letters } => {
                        let before = inboxes.places[*bucket];
                        if letters.iter().any(|one| matches!(one.letter.change, MailboxChange::Gap(_))) {
                            self.interrupt(inboxes, *bucket);
                        }
                        if std::mem::take(&mut inboxes.has_unknown_past[*bucket]) {
                            // Other records may have come before this one, since the device read a feed without
                            // records.
                            self.interrupt(inboxes, *bucket);
                            let here = inboxes.followed.values_mut().filter(|f| f.bucket == *bucket);
                            here.for_each(|followed| followed.last = Some(*position));
                        }
                        inboxes.places[*bucket] = Some(*position);
                        inboxes.id_texts[*bucket] = Cursor::text_of(Some(*position));
                        self.deliver_letters(inboxes, *bucket, before, letters);
                    }
                }
            }
        }
        if inboxes.status.replace(step.status) != Some(step.status) {
            let mut events = Events::default();
            step.status.write(&mut events);
            self.deliver_status(inboxes, &events.frame(), step.status);
        }
        inboxes.stepped.notify_waiters();
    }

    /// Has the devices that follow a bucket read their mailboxes, because the bucket has another history or a part of
    /// it is not known.
    fn reset_bucket(self: &Rc<Self>, inboxes: &mut WorkerInboxes, bucket: usize) {
        self.interrupt(inboxes, bucket);
        inboxes.places[bucket] = None;
        inboxes.id_texts[bucket] = Cursor::text_of(None);
        inboxes.has_unknown_past[bucket] = true;
        inboxes
            .followed
            .values_mut()
            .filter(|f| f.bucket == bucket)
            .for_each(|followed| followed.last = None);
    }

    /// Takes the devices that follow a bucket out of the list, so that they read their mailboxes.
    fn interrupt(self: &Rc<Self>, inboxes: &mut WorkerInboxes, bucket: usize) {
        inboxes.interruptions += 1;
        let follows =
            |device_stream: &DeviceStream| device_stream.device.addresses.iter().any(|a| a.bucket == bucket);
        for device_stream in inboxes.live.take_if(follows) {
            self.fall_behind(device_stream, &inboxes.places, Bytes::new());
        }
    }

    /// Writes the letters of a record to all devices in the list that follow their addresses. `before` is the position
    /// of the bucket's feed before the record.
    fn deliver_letters(
        self: &Rc<Self>,
        inboxes: &mut WorkerInboxes,
        bucket: usize,
        before: Option<Position>,
        letters: &[Arc<EncodedLetter>],
    ) {
        let WorkerInboxes { followed, live, places, id_texts, .. } = inboxes;
        let before_text = Cursor::text_of(before);
        for (at, one) in letters.iter().enumerate() {
            let Some(followed) = followed.get_mut(&one.letter.address) else { continue };
            followed.last = places[bucket];
            let frame = one.frame(&self.metrics);
            for number in &followed.devices {
                let Some(device_stream) = live.get_mut(*number) else { continue };
                // The record may have a later letter for another mailbox of this device. The id must not cover that
                // letter yet.
                let later = |address: &Address| {
                    address.bucket == bucket
                        && letters[at + 1..].iter().any(|one| one.letter.address == address.name)
                };
                let id = id_of(&device_stream.device.addresses, |at| {
                    let address = &device_stream.device.addresses[at];
                    if later(address) { &before_text } else { &id_texts[address.bucket] }
                });
                match self.hub.deliver_after_id(&mut device_stream.stream, &id, frame) {
                    WriteOutcome::Complete => continue,
                    WriteOutcome::Partial(rest) => {
                        self.metrics.sse.fell_behind.inc();
                        let mut device_stream = live.take(*number).expect("get_mut returned it");
                        device_stream
                            .place(|address| if later(address) { before } else { places[address.bucket] });
                        self.serve_device(device_stream, rest);
                    }
                    WriteOutcome::Closed => {
                        let device_stream = live.take(*number).expect("get_mut returned it");
                        self.end_stream(*number, device_stream.device.addresses, CloseReason::Left);
                    }
                }
            }
        }
    }

    /// Writes the same bytes, which announce `status`, to all devices in the list, without an id.
    fn deliver_status(self: &Rc<Self>, inboxes: &mut WorkerInboxes, frame: &Frame, status: Status) {
        let mut off = Vec::new();
        for device_stream in inboxes.live.iter_mut() {
            device_stream.status = Some(status);
            let bytes = device_stream.stream.encode(frame);
            match self.hub.deliver(&mut device_stream.stream, bytes) {
                WriteOutcome::Complete => {}
                written => off.push((device_stream.number, written)),
            }
        }
        self.remove_unfinished(inboxes, off);
    }

    /// Takes devices out of the list whose socket is full or whose client has left.
    fn remove_unfinished(self: &Rc<Self>, inboxes: &mut WorkerInboxes, off: Vec<(usize, WriteOutcome)>) {
        for (number, written) in off {
            let Some(device_stream) = inboxes.live.take(number) else { continue };
            match written {
                WriteOutcome::Partial(rest) => self.fall_behind(device_stream, &inboxes.places, rest),
                _ => self.end_stream(number, device_stream.device.addresses, CloseReason::Left),
            }
        }
    }

    /// Makes a task of a device that was taken out of the list. The device has been shown everything up to `places`.
    fn fall_behind(
        self: &Rc<Self>,
        mut device_stream: DeviceStream,
        places: &[Option<Position>],
        rest: Bytes,
    ) {
        device_stream.place(|address| places[address.bucket]);
        self.serve_device(device_stream, rest);
    }

    /// Counts the end of a stream that was in the list. The device's subscriptions are removed by a task, because the
    /// caller may be iterating over them.
    fn end_stream(self: &Rc<Self>, number: usize, addresses: Rc<[Address]>, reason: CloseReason) {
        let streams = self.clone();
        spawn_local(async move {
            streams.forget(number, &addresses);
            streams.metrics.sse.ended(reason);
        });
    }

    /// Removes a device and its subscriptions.
    pub(crate) fn forget(&self, number: usize, addresses: &[Address]) {
        let mut inboxes = self.inboxes.borrow_mut();
        inboxes.live.leave(number);
        for address in addresses {
            if let Some(followed) = inboxes.followed.get_mut(&address.name) {
                followed.devices.remove(&number);
                if followed.devices.is_empty() {
                    inboxes.followed.remove(&address.name);
                }
            }
        }
    }
}

impl Job for InboxStreams {
    fn sweep(self: Rc<Self>) {
        let mut inboxes = self.inboxes.borrow_mut();
        let inboxes = &mut *inboxes;
        for device_stream in inboxes.live.take_if(|device_stream| device_stream.stream.is_over()) {
            let (number, addresses) = (device_stream.number, device_stream.device.addresses.clone());
            let reason = self.hub.close_swept(device_stream.stream);
            self.end_stream(number, addresses, reason);
        }
        let mut off = Vec::new();
        for device_stream in inboxes.live.iter_mut() {
            if !self.hub.is_heartbeat_due(&device_stream.stream) {
                continue;
            }
            // The feeds have moved on by records for other addresses.
            let id = id_of(&device_stream.device.addresses, |at| {
                &inboxes.id_texts[device_stream.device.addresses[at].bucket]
            });
            let heartbeat = Events::default().heartbeat().id(&id).frame();
            let bytes = device_stream.stream.encode(&heartbeat);
            match self.hub.deliver(&mut device_stream.stream, bytes) {
                WriteOutcome::Complete => {}
                outcome => off.push((device_stream.number, outcome)),
            }
        }
        self.remove_unfinished(inboxes, off);
    }

    fn drain(&self) {
        for device_stream in self.inboxes.borrow_mut().live.iter_mut() {
            self.hub.drain_stream(&mut device_stream.stream);
        }
    }
}
