//! A worker's streams of inboxes: devices of users.
//!
//! A device that has been shown all is told of each letter as it comes; the bytes are the same for all
//! who get it, only a line with the id goes before. Who is new, behind or resuming becomes a task, which
//! reads the mailboxes from the device's place on until nothing is missing.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::spawn;
use bytes::Bytes;
use rand::Rng as _;
use serde_json::json;
use tokio::sync::Notify;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;
use tutti_feed::{Cursor, Mailbox, Mailboxes, News, Position};

use super::Hub;
use crate::connections::Connection;
use crate::frame::{Events, Frame};
use crate::inbox::{Address, Shown, id_of, missed};
use crate::inboxes::{Change, InboxStep};
use crate::patience::{INCOMPLETE, Patience, write_reset};
use crate::stream::{End, Stream, Written};
use crate::tick::Status;

/// Bytes written at once to who is behind, about.
const CHUNK_BYTES: usize = 16 * 1024;
/// A device that waits for this edge to hear what it was shown looks again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// Between attempts at reading from a Redis that does not answer, or not with what was heard.
const RETRY: Duration = Duration::from_millis(500);
/// What came while a device was read for is read at once, so often.
const AT_ONCE: u32 = 3;
/// Bytes of a mailbox that are read at once, about.
const READ_BYTES: u32 = 64 * 1024;

/// On what terms a device gets a stream.
pub(crate) struct Device {
    pub(crate) mailboxes: Mailboxes,
    /// The user's own first.
    pub(crate) addresses: Rc<[Address]>,
    /// Of each.
    pub(crate) shown: Vec<Shown>,
    /// It came with an id that cannot be told from another.
    pub(crate) lost: Option<&'static str>,
    /// Its own name.
    pub(crate) name: String,
    /// As the registry knows it.
    #[expect(dead_code, reason = "it ends with the stream")]
    pub(crate) connection: Connection,
}

/// One device's stream.
struct Served {
    stream: Stream,
    device: Device,
    number: u64,
    /// It has been told `connected`.
    greeted: bool,
    /// It has been shown a part of what follows a reset: it must not come back with another id.
    incomplete: bool,
    status: Option<Status>,
    patience: Patience,
}

/// What a worker knows of the inboxes.
#[derive(Default)]
pub(super) struct Post {
    /// The last step.
    no: u64,
    status: Option<Status>,
    places: Vec<Option<Position>>,
    /// These as they stand in ids.
    texts: Vec<String>,
    /// What came before the next record of a bucket is not known.
    unsure: Vec<bool>,
    /// Who follows a mailbox: those among the others, and those in tasks.
    followed: HashMap<Bytes, Followed>,
    /// Those that have been shown all.
    live: HashMap<u64, Served>,
    next: u64,
    stepped: Rc<Notify>,
}

struct Followed {
    bucket: usize,
    devices: HashSet<u64>,
    /// The last record that told of it, since the first of these came.
    last: Option<Position>,
}

/// Whether a device that was shown all of its mailboxes may be told of what comes.
enum Join {
    Yes,
    /// This worker has not heard yet what the device was shown.
    Wait,
    /// Something came that it was not shown.
    Behind,
}

impl Hub {
    /// Hears what comes, for as long as the conductor tells.
    pub(super) fn hear_inboxes(self: &Rc<Self>, mut steps: broadcast::Receiver<Arc<InboxStep>>) {
        let hub = self.clone();
        spawn(async move {
            loop {
                match steps.recv().await {
                    Ok(step) => {
                        hub.step_inboxes(&step);
                        tokio::task::yield_now().await;
                    }
                    // The number of the next one tells.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }

    /// Takes a device's stream over, its response head written.
    pub(super) fn admit_device(self: Rc<Self>, stream: Stream, hello: Bytes, device: Device) {
        let mut post = self.post.borrow_mut();
        let number = post.next;
        post.next += 1;
        for Address { name, bucket, .. } in device.addresses.iter() {
            let new = || Followed { bucket: *bucket, devices: HashSet::new(), last: None };
            post.followed.entry(name.clone()).or_insert_with(new).devices.insert(number);
        }
        drop(post);
        let incomplete = device.shown.contains(&Shown::Nothing);
        let patience = Patience::default();
        let served = Served { stream, device, number, greeted: false, incomplete, status: None, patience };
        self.serve_device(served, hello);
    }

    fn step_inboxes(self: &Rc<Self>, step: &InboxStep) {
        let mut post = self.post.borrow_mut();
        let post = &mut *post;
        post.places.resize(step.places.len(), None);
        post.unsure.resize(step.places.len(), true);
        post.texts.resize_with(step.places.len(), || Cursor::text_of(None));
        if std::mem::replace(&mut post.no, step.no) + 1 != step.no {
            for (_, served) in post.live.drain() {
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
                        if told.iter().any(|told| matches!(told.letter.news, News::Gap(_))) {
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
        let ours = |_: &u64, served: &mut Served| served.device.addresses.iter().any(|a| a.bucket == bucket);
        for (_, served) in post.live.extract_if(ours) {
            self.leave(served, &post.places, Bytes::new());
        }
    }

    /// The letters of a record to all who follow their addresses.
    fn tell(
        self: &Rc<Self>,
        post: &mut Post,
        bucket: usize,
        before: Option<Position>,
        told: &[Arc<crate::inbox::Told>],
    ) {
        let Post { followed, live, places, texts, .. } = post;
        let before_text = Cursor::text_of(before);
        for (at, one) in told.iter().enumerate() {
            let Some(followed) = followed.get_mut(&one.letter.address) else { continue };
            followed.last = places[bucket];
            let frame = one.frame(&self.metrics);
            for number in &followed.devices {
                let Some(served) = live.get_mut(number) else { continue };
                // A record may have another letter for the same device: that one is not covered yet.
                let later = |address: &Address| {
                    address.bucket == bucket
                        && told[at + 1..].iter().any(|t| t.letter.address == address.name)
                };
                let id = id_of(&served.device.addresses, |at| {
                    let address = &served.device.addresses[at];
                    if later(address) { &before_text } else { &texts[address.bucket] }
                });
                match self.deliver_after(&mut served.stream, &id, frame) {
                    Written::All => continue,
                    Written::Rest(rest) => {
                        self.metrics.fell_behind.inc();
                        let mut served = live.remove(number).expect("it was there a moment ago");
                        served.place(|address| if later(address) { before } else { places[address.bucket] });
                        self.clone().serve_device(served, rest);
                    }
                    Written::Gone => {
                        let served = live.remove(number).expect("it was there a moment ago");
                        self.lose(served, End::Left);
                    }
                }
            }
        }
    }

    /// The same bytes to all, without an id.
    fn tell_all(self: &Rc<Self>, post: &mut Post, frame: &Frame, status: Status) {
        let mut off = Vec::new();
        for (number, served) in &mut post.live {
            served.status = Some(status);
            let bytes = frame.bytes(served.stream.chunked).clone();
            match self.deliver(&mut served.stream, bytes) {
                Written::All => {}
                written => off.push((*number, written)),
            }
        }
        self.take_off(post, off);
    }

    fn take_off(self: &Rc<Self>, post: &mut Post, off: Vec<(u64, Written)>) {
        for (number, written) in off {
            let Some(served) = post.live.remove(&number) else { continue };
            match written {
                Written::Rest(rest) => self.leave(served, &post.places, rest),
                _ => self.lose(served, End::Left),
            }
        }
    }

    /// Out of the list, with what it has been shown, to become a task.
    fn leave(self: &Rc<Self>, mut served: Served, places: &[Option<Position>], rest: Bytes) {
        served.place(|address| places[address.bucket]);
        self.clone().serve_device(served, rest);
    }

    /// A stream that was in the list has ended. What it followed is forgotten a moment later: who calls
    /// this may be walking through it.
    fn lose(self: &Rc<Self>, served: Served, end: End) {
        let (hub, number, addresses) = (self.clone(), served.number, served.device.addresses.clone());
        drop(served);
        spawn(async move {
            hub.forget(number, &addresses);
            hub.ended(end);
        });
    }

    fn forget(&self, number: u64, addresses: &[Address]) {
        let mut post = self.post.borrow_mut();
        for address in addresses {
            if let Some(followed) = post.followed.get_mut(&address.name) {
                followed.devices.remove(&number);
                if followed.devices.is_empty() {
                    post.followed.remove(&address.name);
                }
            }
        }
    }

    /// Once a second: ends what is over, finds who left, sends heartbeats.
    pub(super) fn sweep_inboxes(self: &Rc<Self>) {
        let now = Instant::now();
        let mut post = self.post.borrow_mut();
        let post = &mut *post;
        for (number, served) in post.live.extract_if(|_, served| served.stream.is_over()) {
            let addresses = served.device.addresses.clone();
            let end = self.close(served.stream);
            let hub = self.clone();
            spawn(async move {
                hub.forget(number, &addresses);
                hub.ended(end);
            });
        }
        let mut off = Vec::new();
        for (number, served) in &mut post.live {
            if now - served.stream.last_write < self.config.heartbeat {
                continue;
            }
            // The feeds went on with what others were told.
            let id = id_of(&served.device.addresses, |at| &post.texts[served.device.addresses[at].bucket]);
            let heartbeat = Events::default().comment("heartbeat").id(&id).frame();
            let bytes = heartbeat.bytes(served.stream.chunked).clone();
            match self.deliver(&mut served.stream, bytes) {
                Written::All => {}
                written => off.push((*number, written)),
            }
        }
        self.take_off(post, off);
    }

    /// Gives each stream an end within the drain window.
    pub(super) fn drain_inboxes(&self) {
        for served in self.post.borrow_mut().live.values_mut() {
            served.stream.drain(self.drain_end());
        }
    }

    /// Brings a device to where the others are, as a task of its own, and puts it among them.
    fn serve_device(self: Rc<Self>, served: Served, rest: Bytes) {
        spawn(async move {
            self.metrics.behind.inc();
            let (number, addresses) = (served.number, served.device.addresses.clone());
            let brought = self.bring_device(served, rest).await;
            self.metrics.behind.dec();
            if let Err(end) = brought {
                self.forget(number, &addresses);
                self.ended(end);
            }
        });
    }

    async fn bring_device(&self, mut served: Served, rest: Bytes) -> Result<(), End> {
        self.write(&mut served.stream, rest).await?;
        let mut behind = 0;
        loop {
            if !self.show(&mut served).await? {
                return Err(served.stream.close(self.retry()));
            }
            match self.arrive(&mut served).await? {
                Join::Yes => {
                    self.post.borrow_mut().live.insert(served.number, served);
                    return Ok(());
                }
                Join::Wait => {}
                Join::Behind => {
                    behind += 1;
                    // What this worker heard and Redis does not have was lost there; it will hear of that.
                    if behind > AT_ONCE {
                        let pause = RETRY.mul_f64(rand::rng().random_range(0.5..1.0));
                        self.pause(&mut served.stream, Instant::now() + pause).await;
                        self.keep_alive(&mut served.stream).await?;
                    }
                }
            }
        }
    }

    /// Shows a device what its mailboxes have that it lacks, one after the other and in parts, so that one
    /// that is slow is read for at its own pace; `false` if its time is over.
    async fn show(&self, served: &mut Served) -> Result<bool, End> {
        let (mut events, mut told) = (Events::default(), false);
        let mut done = vec![false; served.device.addresses.len()];
        if let Some(reason) = served.device.lost.take() {
            self.begin_again(served, reason, &mut events);
        }
        // First a place for each: an id names all.
        for (at, done) in done.iter_mut().enumerate() {
            if served.device.shown[at] == Shown::Now {
                let Some(mailbox) = self.read(served, at).await? else { return Ok(false) };
                served.device.shown[at] = Shown::UpTo(mailbox.position);
                *done = true;
                served.greet(at, &mailbox, &mut events);
            }
        }
        let mut at = 0;
        while at < done.len() {
            if done[at] {
                at += 1;
                continue;
            }
            let Some(mailbox) = self.read(served, at).await? else { return Ok(false) };
            if let Some(reason) = &mailbox.reset {
                self.begin_again(served, reason, &mut events);
                done.fill(false);
                at = 0;
                continue;
            }
            served.greet(at, &mailbox, &mut events);
            let rest = self.tell_missed(served, at, &mailbox, &mut events, &mut told)?;
            done[at] = rest.is_none() && !mailbox.more;
            drop(mailbox);
            if let Some(rest) = rest {
                self.write(&mut served.stream, rest).await?;
            }
        }
        let status = self.post.borrow().status;
        if let Some(status) = status.filter(|status| served.status != Some(*status)) {
            served.status = Some(status);
            status.write(&mut events);
            told = true;
        }
        if told || std::mem::take(&mut served.incomplete) {
            events.id(&served.id());
        }
        served.incomplete = false;
        if !events.is_empty()
            && let Some(rest) = self.hand(&mut served.stream, &mut events)?
        {
            self.write(&mut served.stream, rest).await?;
        }
        Ok(true)
    }

    /// What the device was shown is void; all that there is follows.
    fn begin_again(&self, served: &mut Served, reason: &str, events: &mut Events) {
        write_reset(reason, events, &self.metrics);
        served.incomplete = true;
        served.device.shown.fill(Shown::Nothing);
    }

    /// Waits until this worker has heard what the device was shown, but not for long. If the answer is
    /// yes there must be no await until the device is in the list: no step can come between.
    async fn arrive(&self, served: &mut Served) -> Result<Join, End> {
        let until = Instant::now() + AGAIN;
        loop {
            let (join, stepped) = {
                let post = self.post.borrow();
                (post.join(&served.device), post.stepped.clone())
            };
            if !matches!(join, Join::Wait) || Instant::now() >= until {
                return Ok(join);
            }
            tokio::select! {
                () = stepped.notified() => {}
                () = self.pause(&mut served.stream, until) => {}
            }
            self.keep_alive(&mut served.stream).await?;
            if served.stream.ends_at <= Instant::now() {
                return Ok(Join::Behind);
            }
        }
    }

    /// Reads a part of a mailbox from where the device stands, however long that takes; nothing if its
    /// time is over.
    async fn read(&self, served: &mut Served, at: usize) -> Result<Option<Mailbox>, End> {
        loop {
            if self.draining.is_cancelled() {
                served.stream.drain(self.drain_end());
            }
            if served.stream.ends_at <= Instant::now() {
                return Ok(None);
            }
            let Device { mailboxes, addresses, shown, .. } = &served.device;
            let name = std::str::from_utf8(&addresses[at].name).expect("an address is made of text");
            let reading = async {
                let _turn = self.reads.acquire().await;
                mailboxes.read_part(name, shown[at].since(), READ_BYTES).await
            };
            self.metrics.mailbox_reads.inc();
            match self.meanwhile(&mut served.stream, reading).await? {
                None => return Ok(None),
                Some(Ok(mailbox)) => {
                    served.patience = Patience::default();
                    return Ok(Some(mailbox));
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "a device waits for Redis");
                    let (_, mut events) = served.patience.wait(Instant::now(), &mut served.status);
                    if !events.is_empty()
                        && let Some(rest) = self.hand(&mut served.stream, &mut events)?
                    {
                        self.write(&mut served.stream, rest).await?;
                    }
                    self.pause(&mut served.stream, Instant::now() + RETRY).await;
                    self.keep_alive(&mut served.stream).await?;
                }
            }
        }
    }

    /// Writes what a device lacks of a mailbox, until its socket is full: then the rest of that.
    fn tell_missed(
        &self,
        served: &mut Served,
        at: usize,
        mailbox: &Mailbox,
        events: &mut Events,
        told: &mut bool,
    ) -> Result<Option<Bytes>, End> {
        let topic = served.device.addresses[at].topic.clone();
        for one in missed(mailbox, served.device.shown[at], topic.as_deref()) {
            *told = true;
            events.append(&one.events);
            served.device.shown[at] = Shown::UpTo(Some(one.place));
            if !served.incomplete {
                events.id(&served.id());
            }
            if events.len() >= CHUNK_BYTES
                && let Some(rest) = self.hand(&mut served.stream, events)?
            {
                return Ok(Some(rest));
            }
        }
        if !mailbox.more {
            served.device.shown[at] = Shown::UpTo(mailbox.position);
        }
        Ok(None)
    }

    /// Writes what there is as far as the socket takes it; what is left.
    fn hand(&self, stream: &mut Stream, events: &mut Events) -> Result<Option<Bytes>, End> {
        let bytes = std::mem::take(events).frame().bytes(stream.chunked).clone();
        match self.deliver(stream, bytes) {
            Written::All => Ok(None),
            Written::Gone => Err(End::Left),
            Written::Rest(rest) => Ok(Some(rest)),
        }
    }
}

impl Post {
    fn join(&self, device: &Device) -> Join {
        for (address, shown) in device.addresses.iter().zip(&device.shown) {
            let Shown::UpTo(place) = shown else { return Join::Behind };
            let last = self.followed.get(&address.name).and_then(|followed| followed.last);
            if last.is_some_and(|last| !place.is_some_and(|place| place.covers(last))) {
                return Join::Behind;
            }
            let here = self.places.get(address.bucket).copied().flatten();
            if place.is_some_and(|place| !here.is_some_and(|here| here.covers(place))) {
                return Join::Wait;
            }
        }
        Join::Yes
    }
}

impl Served {
    /// It has been shown all up to these places.
    fn place(&mut self, place: impl Fn(&Address) -> Option<Position>) {
        self.device.shown = self.device.addresses.iter().map(|address| Shown::UpTo(place(address))).collect();
    }

    fn id(&self) -> String {
        id_of(&self.device.addresses, |at| match self.device.shown[at] {
            Shown::UpTo(place) => Cursor::text_of(place),
            Shown::Now | Shown::Nothing => Cursor::text_of(None),
        })
    }

    /// The first that a stream tells, once the user's own mailbox has been read.
    fn greet(&mut self, at: usize, own: &Mailbox, events: &mut Events) {
        if at > 0 || std::mem::replace(&mut self.greeted, true) {
            return;
        }
        let data = json!({ "device": self.device.name, "unread": own.unread });
        events.event("connected", &data.to_string());
        if self.incomplete {
            events.id(INCOMPLETE);
        }
    }
}
