//! Brings a device to where the others are: reads its mailboxes from its place on, until nothing is missing.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
use serde_json::json;
use tokio::time::Instant;
use tutti_feed::{Cursor, Mailbox};

use crate::following::cursor_wait::CursorWait;
use crate::following::reset::{INCOMPLETE, write_reset};
use crate::inbox::devices::{Device, InboxStreams, Post, Served};
use crate::inbox::events::{Shown, id_of, missed};
use tutti_model::events::{CONNECTED, ResetReason};
use tutti_sse::events::Events;
use tutti_sse::limits::Owner;
use tutti_sse::stream::{CloseReason, Stream, WriteOutcome};

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

/// Whether a device that was shown all of its mailboxes may be told of what comes.
enum Join {
    Yes,
    /// This worker has not heard yet what the device was shown.
    Wait,
    /// Something came that it was not shown.
    Behind,
}

impl InboxStreams {
    /// Brings a device to where the others are, as a task of its own, and puts it among them.
    pub(crate) fn serve_device(self: &Rc<Self>, served: Served, rest: Bytes) {
        let ours = self.clone();
        self.hub.spawn_behind(async move {
            let (number, addresses) = (served.number, served.device.addresses.clone());
            let brought = ours.bring_device(served, rest).await;
            if brought.is_err() {
                ours.forget(number, &addresses);
            }
            brought
        });
    }

    async fn bring_device(&self, mut served: Served, rest: Bytes) -> Result<(), CloseReason> {
        self.hub.write(&mut served.stream, rest).await?;
        let mut behind = 0;
        loop {
            if !self.show(&mut served).await? {
                return Err(self.hub.close(served.stream));
            }
            match self.arrive(&mut served).await? {
                Join::Yes => {
                    // A stream that is in the list when the server drains has its end by then.
                    self.hub.is_due(&mut served.stream);
                    self.post.borrow_mut().live.put(served);
                    return Ok(());
                }
                Join::Wait => {}
                Join::Behind => {
                    behind += 1;
                    // What this worker heard and Redis does not have was lost there; it will hear of that.
                    if behind > AT_ONCE {
                        let pause = RETRY.mul_f64(rand::rng().random_range(0.5..1.0));
                        self.hub.pause(&mut served.stream, Instant::now() + pause).await;
                        self.hub.keep_alive(&mut served.stream, "").await?;
                    }
                }
            }
        }
    }

    /// Shows a device what its mailboxes have that it lacks, one after the other and in parts, so that one
    /// that is slow is read for at its own pace; `false` if its time is over.
    async fn show(&self, served: &mut Served) -> Result<bool, CloseReason> {
        let (mut events, mut told) = (Events::default(), false);
        served.breaks = self.post.borrow().breaks;
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
        let (mut at, mut begun) = (0, 0);
        while at < done.len() {
            if done[at] {
                at += 1;
                continue;
            }
            let Some(mailbox) = self.read(served, at).await? else { return Ok(false) };
            if let Some(reason) = mailbox.reset {
                self.begin_again(served, reason, &mut events);
                done.fill(false);
                at = 0;
                begun += 1;
                if begun > AT_ONCE {
                    // Something is lost again and again; nobody is helped by haste.
                    self.hub.pause(&mut served.stream, Instant::now() + RETRY).await;
                    self.hub.keep_alive(&mut served.stream, "").await?;
                }
                continue;
            }
            served.greet(at, &mailbox, &mut events);
            let rest = self.tell_missed(served, at, &mailbox, &mut events, &mut told)?;
            done[at] = rest.is_none() && !mailbox.more;
            drop(mailbox);
            if let Some(rest) = rest {
                self.hub.write(&mut served.stream, rest).await?;
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
        self.hand_all(&mut served.stream, &events).await?;
        Ok(true)
    }

    /// What the device was shown is void; all that there is follows.
    fn begin_again(&self, served: &mut Served, reason: ResetReason, events: &mut Events) {
        write_reset(reason, events, &self.metrics);
        served.incomplete = true;
        served.device.shown.fill(Shown::Nothing);
    }

    /// Waits until this worker has heard what the device was shown, but not for long. If the answer is
    /// yes there must be no await until the device is in the list: no step can come between.
    async fn arrive(&self, served: &mut Served) -> Result<Join, CloseReason> {
        let until = Instant::now() + AGAIN;
        loop {
            let (join, stepped) = {
                let post = self.post.borrow();
                (post.join(served), post.stepped.clone())
            };
            if !matches!(join, Join::Wait) || Instant::now() >= until {
                return Ok(join);
            }
            tokio::select! {
                () = stepped.notified() => {}
                () = self.hub.pause(&mut served.stream, until) => {}
            }
            self.hub.keep_alive(&mut served.stream, "").await?;
            if served.stream.ends_at <= Instant::now() {
                return Ok(Join::Behind);
            }
        }
    }

    /// Reads a part of a mailbox from where the device stands, however long that takes; nothing if its
    /// time is over.
    async fn read(&self, served: &mut Served, at: usize) -> Result<Option<Mailbox>, CloseReason> {
        loop {
            if self.hub.is_due(&mut served.stream) {
                return Ok(None);
            }
            let Device { mailboxes, addresses, shown, .. } = &served.device;
            let name = std::str::from_utf8(&addresses[at].name).expect("an address is made of text");
            // The first is the user's own mailbox.
            let owner = String::from_utf8_lossy(&addresses[0].name).into_owned();
            let reading = async || {
                let _turn = self.reads.take(Owner::User(owner.clone())).await;
                mailboxes.read_part(name, shown[at].since(), READ_BYTES).await
            };
            self.metrics.mailbox_reads.inc();
            match self.hub.meanwhile(&mut served.stream, reading).await? {
                None => return Ok(None),
                Some(Ok(mailbox)) => {
                    served.patience = CursorWait::default();
                    return Ok(Some(mailbox));
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "a device waits for Redis");
                    let (_, events) = served.patience.wait(Instant::now(), &mut served.status);
                    self.hand_all(&mut served.stream, &events).await?;
                    self.hub.pause(&mut served.stream, Instant::now() + RETRY).await;
                    self.hub.keep_alive(&mut served.stream, "").await?;
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
    ) -> Result<Option<Bytes>, CloseReason> {
        let topic = served.device.addresses[at].topic.clone();
        for one in missed(mailbox, served.device.shown[at], topic.as_deref()) {
            *told = true;
            events.append(&one.events);
            served.device.shown[at] = served.device.shown[at].and(one.place, mailbox);
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

    /// Writes what there is, if there is something, to its end.
    async fn hand_all(&self, stream: &mut Stream, events: &Events) -> Result<(), CloseReason> {
        if events.is_empty() {
            return Ok(());
        }
        let bytes = stream.encode(&events.frame());
        self.hub.deliver_all(stream, bytes).await
    }

    /// Writes what there is as far as the socket takes it; what is left.
    fn hand(&self, stream: &mut Stream, events: &mut Events) -> Result<Option<Bytes>, CloseReason> {
        let bytes = stream.encode(&std::mem::take(events).frame());
        match self.hub.deliver(stream, bytes) {
            WriteOutcome::Complete => Ok(None),
            WriteOutcome::Closed => Err(CloseReason::Left),
            WriteOutcome::Partial(rest) => Ok(Some(rest)),
        }
    }
}

impl Post {
    fn join(&self, served: &Served) -> Join {
        // It would not hear that something is missing, or in what state this is.
        if self.breaks != served.breaks || self.status.is_some_and(|status| served.status != Some(status)) {
            return Join::Behind;
        }
        for (address, shown) in served.device.addresses.iter().zip(&served.device.shown) {
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
    fn id(&self) -> String {
        id_of(&self.device.addresses, |at| match self.device.shown[at] {
            Shown::UpTo(place) => Cursor::text_of(place),
            Shown::Now | Shown::Nothing | Shown::Part { .. } => Cursor::text_of(None),
        })
    }

    /// The first that a stream tells, once the user's own mailbox has been read.
    fn greet(&mut self, at: usize, own: &Mailbox, events: &mut Events) {
        if at > 0 || std::mem::replace(&mut self.greeted, true) {
            return;
        }
        let data = json!({ "device": self.device.name, "unread": own.unread });
        events.event(CONNECTED, &data.to_string());
        if self.incomplete {
            events.id(INCOMPLETE);
        }
    }
}
