//! Brings a device up to date: reads its mailboxes from the device's place on, until nothing is missing.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
use serde_json::json;
use tokio::time::Instant;
use tutti_feed::{Cursor, Mailbox};

use crate::following::cursor_wait::CursorWait;
use crate::following::reset::{INCOMPLETE, write_reset};
use crate::inbox::device::{Device, DeviceStream};
use crate::inbox::devices::{InboxStreams, WorkerInboxes};
use crate::inbox::events::{Shown, id_of, missed};
use tutti_model::events::{CONNECTED, ResetReason};
use tutti_sse::events::Events;
use tutti_sse::limits::Owner;
use tutti_sse::stream::{CloseReason, Stream, WriteOutcome};

/// Approximate number of bytes that are written at once to a device that is behind.
const CHUNK_BYTES: usize = 16 * 1024;
/// How long a device waits for this worker to reach the device's place. After it the device reads again.
const AGAIN: Duration = Duration::from_secs(1);
/// Time between two attempts to read, if Redis does not answer or does not have what this worker received.
const RETRY: Duration = Duration::from_millis(500);
/// Number of times that a device reads again without a pause: because something came while it read, or because of a
/// reset.
const AT_ONCE: u32 = 3;
/// Approximate number of bytes of a mailbox that are read at once.
const READ_BYTES: u32 = 64 * 1024;

/// Whether a device that was shown all of its mailboxes may join the list of devices that receive what comes.
enum Join {
    /// The device has been shown everything.
    Yes,
    /// This worker has not received yet what the device has been shown.
    Wait,
    /// Something came that the device has not been shown.
    Behind,
}

impl InboxStreams {
    /// Starts a task that writes `rest` to a device, brings the device up to date, and puts it into the list.
    pub(crate) fn serve_device(self: &Rc<Self>, device_stream: DeviceStream, rest: Bytes) {
        let streams = self.clone();
        self.hub.spawn_behind(async move {
            let (number, addresses) = (device_stream.number, device_stream.device.addresses.clone());
            let outcome = streams.bring_device(device_stream, rest).await;
            if outcome.is_err() {
                streams.forget(number, &addresses);
            }
            outcome
        });
    }

    /// Writes `rest` to a device, and shows it what it lacks until it can join the list.
    ///
    /// # Errors
    /// Why the stream ended.
    async fn bring_device(&self, mut device_stream: DeviceStream, rest: Bytes) -> Result<(), CloseReason> {
        self.hub.write(&mut device_stream.stream, rest).await?;
        let mut behind = 0;
        loop {
            if !self.show(&mut device_stream).await? {
                return Err(self.hub.close(device_stream.stream));
            }
            match self.arrive(&mut device_stream).await? {
                Join::Yes => {
                    // A server that drains gives an end to the streams in the list. This one may come after that, so it
                    // gets its end here.
                    self.hub.is_due(&mut device_stream.stream);
                    self.inboxes.borrow_mut().live.put(device_stream);
                    return Ok(());
                }
                Join::Wait => {}
                Join::Behind => {
                    behind += 1;
                    // What this worker received and Redis does not have was lost there. The feed will say so.
                    if behind > AT_ONCE {
                        let pause = RETRY.mul_f64(rand::rng().random_range(0.5..1.0));
                        self.hub.pause(&mut device_stream.stream, Instant::now() + pause).await;
                        self.hub.keep_alive(&mut device_stream.stream, "").await?;
                    }
                }
            }
        }
    }

    /// Shows a device what it lacks of its mailboxes, one after the other and in parts, so that a slow client sets the
    /// pace of the reading. Returns false if the stream's time is over.
    ///
    /// # Errors
    /// Why the stream ended meanwhile.
    async fn show(&self, device_stream: &mut DeviceStream) -> Result<bool, CloseReason> {
        let (mut events, mut wrote_event) = (Events::default(), false);
        device_stream.interruptions = self.inboxes.borrow().interruptions;
        let mut done = vec![false; device_stream.device.addresses.len()];
        if let Some(reason) = device_stream.device.lost.take() {
            self.begin_again(device_stream, reason, &mut events);
        }
        // First every mailbox gets a place, because an id names all of them.
        for (at, done) in done.iter_mut().enumerate() {
            if device_stream.device.shown[at] == Shown::Now {
                let Some(mailbox) = self.read(device_stream, at).await? else { return Ok(false) };
                device_stream.device.shown[at] = Shown::UpTo(mailbox.position);
                *done = true;
                device_stream.greet(at, &mailbox, &mut events);
            }
        }
        let (mut at, mut resets) = (0, 0);
        while at < done.len() {
            if done[at] {
                at += 1;
                continue;
            }
            let Some(mailbox) = self.read(device_stream, at).await? else { return Ok(false) };
            if let Some(reason) = mailbox.reset {
                self.begin_again(device_stream, reason, &mut events);
                done.fill(false);
                at = 0;
                resets += 1;
                if resets > AT_ONCE {
                    // Redis loses something again and again, so haste helps nobody.
                    self.hub.pause(&mut device_stream.stream, Instant::now() + RETRY).await;
                    self.hub.keep_alive(&mut device_stream.stream, "").await?;
                }
                continue;
            }
            device_stream.greet(at, &mailbox, &mut events);
            let rest = self.tell_missed(device_stream, at, &mailbox, &mut events, &mut wrote_event)?;
            done[at] = rest.is_none() && !mailbox.more;
            drop(mailbox);
            if let Some(rest) = rest {
                self.hub.write(&mut device_stream.stream, rest).await?;
            }
        }
        let status = self.inboxes.borrow().status;
        if let Some(status) = status.filter(|status| device_stream.status != Some(*status)) {
            device_stream.status = Some(status);
            status.write(&mut events);
            wrote_event = true;
        }
        if wrote_event || std::mem::take(&mut device_stream.incomplete) {
            events.id(&device_stream.id());
        }
        device_stream.incomplete = false;
        self.write_all(&mut device_stream.stream, &events).await?;
        Ok(true)
    }

    /// Appends a reset: what the device was shown is void, and all that there is follows.
    fn begin_again(&self, device_stream: &mut DeviceStream, reason: ResetReason, events: &mut Events) {
        write_reset(reason, events, &self.metrics);
        device_stream.incomplete = true;
        device_stream.device.shown.fill(Shown::Nothing);
    }

    /// Waits until this worker has reached the device's place, at most for [`AGAIN`]. Returns whether the device may
    /// join the list. After [`Join::Yes`] there must be no await until the device is in the list, so that no step can
    /// come between.
    ///
    /// # Errors
    /// Why the stream ended meanwhile.
    async fn arrive(&self, device_stream: &mut DeviceStream) -> Result<Join, CloseReason> {
        let until = Instant::now() + AGAIN;
        loop {
            let (join, stepped) = {
                let inboxes = self.inboxes.borrow();
                (inboxes.join(device_stream), inboxes.stepped.clone())
            };
            if !matches!(join, Join::Wait) || Instant::now() >= until {
                return Ok(join);
            }
            tokio::select! {
                () = stepped.notified() => {}
                () = self.hub.pause(&mut device_stream.stream, until) => {}
            }
            self.hub.keep_alive(&mut device_stream.stream, "").await?;
            if device_stream.stream.ends_at <= Instant::now() {
                return Ok(Join::Behind);
            }
        }
    }

    /// Reads a part of the mailbox at index `at` from what the device has been shown. Retries until Redis answers.
    /// Returns `None` if the stream's time is over.
    ///
    /// # Errors
    /// Why the stream ended meanwhile.
    async fn read(
        &self,
        device_stream: &mut DeviceStream,
        at: usize,
    ) -> Result<Option<Mailbox>, CloseReason> {
        loop {
            if self.hub.is_due(&mut device_stream.stream) {
                return Ok(None);
            }
            let Device { mailboxes, addresses, shown, .. } = &device_stream.device;
            let name = std::str::from_utf8(&addresses[at].name).expect("an address is made of text");
            // The first address is the user's own mailbox.
            let owner = String::from_utf8_lossy(&addresses[0].name).into_owned();
            let reading = async || {
                let _turn = self.reads.take(Owner::User(owner.clone())).await;
                mailboxes.read_part(name, shown[at].since(), READ_BYTES).await
            };
            self.metrics.mailbox_reads.inc();
            match self.hub.meanwhile(&mut device_stream.stream, reading).await? {
                None => return Ok(None),
                Some(Ok(mailbox)) => {
                    device_stream.cursor_wait = CursorWait::default();
                    return Ok(Some(mailbox));
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "could not read a mailbox for a device; trying again");
                    let (_, events) =
                        device_stream.cursor_wait.wait(Instant::now(), &mut device_stream.status);
                    self.write_all(&mut device_stream.stream, &events).await?;
                    self.hub.pause(&mut device_stream.stream, Instant::now() + RETRY).await;
                    self.hub.keep_alive(&mut device_stream.stream, "").await?;
                }
            }
        }
    }

    /// Writes what a device lacks of a mailbox that was read, until the socket is full. Returns the rest of the frame
    /// in that case. Sets `wrote_event` if there was anything to write.
    ///
    /// # Errors
    /// Why the stream ended meanwhile.
    fn tell_missed(
        &self,
        device_stream: &mut DeviceStream,
        at: usize,
        mailbox: &Mailbox,
        events: &mut Events,
        wrote_event: &mut bool,
    ) -> Result<Option<Bytes>, CloseReason> {
        let topic = device_stream.device.addresses[at].topic.clone();
        for one in missed(mailbox, device_stream.device.shown[at], topic.as_deref()) {
            *wrote_event = true;
            events.append(&one.events);
            device_stream.device.shown[at] = device_stream.device.shown[at].and(one.place, mailbox);
            if !device_stream.incomplete {
                events.id(&device_stream.id());
            }
            if events.len() >= CHUNK_BYTES
                && let Some(rest) = self.write_some(&mut device_stream.stream, events)?
            {
                return Ok(Some(rest));
            }
        }
        if !mailbox.more {
            device_stream.device.shown[at] = Shown::UpTo(mailbox.position);
        }
        Ok(None)
    }

    /// Writes all of `events`, however long the client takes.
    ///
    /// # Errors
    /// Why the stream ended meanwhile.
    async fn write_all(&self, stream: &mut Stream, events: &Events) -> Result<(), CloseReason> {
        if events.is_empty() {
            return Ok(());
        }
        let bytes = stream.encode(&events.frame());
        self.hub.deliver_all(stream, bytes).await
    }

    /// Writes `events` as far as the socket takes them, and clears them. Returns the rest of the frame, if any.
    ///
    /// # Errors
    /// If the client has left.
    fn write_some(&self, stream: &mut Stream, events: &mut Events) -> Result<Option<Bytes>, CloseReason> {
        let bytes = stream.encode(&std::mem::take(events).frame());
        match self.hub.deliver(stream, bytes) {
            WriteOutcome::Complete => Ok(None),
            WriteOutcome::Closed => Err(CloseReason::Left),
            WriteOutcome::Partial(rest) => Ok(Some(rest)),
        }
    }
}

impl WorkerInboxes {
    /// Decides whether a device may join the list of devices that receive what comes.
    fn join(&self, device_stream: &DeviceStream) -> Join {
        // The device would not learn that something is missing, or which status the edge has.
        if self.interruptions != device_stream.interruptions
            || self.status.is_some_and(|status| device_stream.status != Some(status))
        {
            return Join::Behind;
        }
        for (address, shown) in device_stream.device.addresses.iter().zip(&device_stream.device.shown) {
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

impl DeviceStream {
    /// Returns the id of what the device has been shown.
    fn id(&self) -> String {
        id_of(&self.device.addresses, |at| match self.device.shown[at] {
            Shown::UpTo(place) => Cursor::text_of(place),
            Shown::Now | Shown::Nothing | Shown::Part { .. } => Cursor::text_of(None),
        })
    }

    /// Appends the event `connected`, with which a stream begins, once the user's own mailbox has been read.
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
