//! A worker's streams of the map: viewers.
//!
//! Those that are at the newest step lie in one list; each step's bytes, encoded once for all who look at the
//! same, are written to each of them without waiting. A viewer whose socket would block, that is new, or that
//! resumes, leaves the list and becomes a task, until it has been brought to the newest step.

use std::rc::Rc;
use std::sync::Arc;

use actix_web::rt::spawn;
use bytes::Bytes;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::Hub;
use crate::approach::{Approach, NextWrite, Shown, View};
use crate::frame::Events;
use crate::stream::{End, Stream, Written};
use crate::tick::Tick;

/// Who looks at the map.
pub(super) struct Viewer {
    stream: Stream,
    view: View,
}

impl Hub {
    /// Takes a viewer's stream of the map over, its response head written.
    pub(super) fn admit_viewer(self: Rc<Self>, mut stream: Stream, hello: Bytes, shown: Shown, view: View) {
        let first = match view.area() {
            None => hello,
            Some(area) => {
                let told = Events::default().event("view", &area.json()).frame();
                [hello, stream.encode(&told)].concat().into()
            }
        };
        self.serve(Viewer { stream, view }, first, Approach::new(shown, None, view));
    }

    /// One step: its bytes to all that are at the step before.
    pub(super) fn step(self: &Rc<Self>, tick: &Arc<Tick>) {
        let before = self.current.replace(Some(tick.clone()));
        self.stepped.notify_waiters();
        let mut live = self.live.borrow_mut();
        let follows = before.as_ref().is_some_and(|b| b.no + 1 == tick.no && b.generation == tick.generation);
        if !follows {
            for viewer in live.drain(..) {
                let nothing = Approach::new(Shown::Nothing, None, viewer.view);
                let approach = before.as_ref().map_or(nothing, |b| from(b, viewer.view));
                self.clone().serve(viewer, Bytes::new(), approach);
            }
        } else if let Some(before) = before {
            self.write_to_all(&mut live, tick, |viewer| self.news(viewer, &before, tick));
        }
    }

    /// What a step brings to one viewer: the same bytes for all who look at the whole world, and put
    /// together out of shared frames for others.
    fn news(&self, viewer: &mut Viewer, before: &Tick, tick: &Tick) -> Option<Bytes> {
        let Viewer { stream, view } = viewer;
        if *view == View::World {
            return tick.live.as_ref().map(|frame| stream.encode(frame));
        }
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        match *view {
            View::World => {}
            View::Area(area) => {
                let frames = tick.tiles.frames(area, &self.metrics);
                frames.iter().for_each(|frame| scratch.extend_from_slice(&stream.encode(frame)));
            }
            View::Clusters(area) => {
                let clusters = tick.clusters(before, area.zoom());
                let here = area.each().filter_map(|tile| clusters.get(&tile));
                here.for_each(|frame| scratch.extend_from_slice(&stream.encode(frame)));
            }
        }
        if !scratch.is_empty() {
            let id = Events::default().id(&view.id(&tick.id)).frame();
            scratch.extend_from_slice(&stream.encode(&id));
        }
        if let Some(status) = &tick.status_frame {
            scratch.extend_from_slice(&stream.encode(status));
        }
        (!scratch.is_empty()).then(|| Bytes::copy_from_slice(&scratch))
    }

    /// Writes to each viewer what there is for it.
    fn write_to_all(
        self: &Rc<Self>,
        live: &mut Vec<Viewer>,
        tick: &Tick,
        what: impl Fn(&mut Viewer) -> Option<Bytes>,
    ) {
        let now = Instant::now();
        let (mut frames, mut bytes, mut at) = (0, 0, 0);
        while at < live.len() {
            let Some(ours) = what(&mut live[at]) else {
                at += 1;
                continue;
            };
            let (viewer, length) = (&mut live[at], ours.len() as u64);
            match viewer.stream.try_write(ours) {
                Written::All => {
                    viewer.stream.last_write = now;
                    frames += 1;
                    bytes += length;
                    at += 1;
                }
                Written::Rest(rest) => {
                    self.metrics.fell_behind.inc();
                    let viewer = live.swap_remove(at);
                    let approach = from(tick, viewer.view);
                    self.clone().serve(viewer, rest, approach);
                }
                Written::Gone => {
                    live.swap_remove(at);
                    self.ended(End::Left);
                }
            }
        }
        self.metrics.deliveries.inc_by(frames);
        self.metrics.delivered_bytes.inc_by(bytes);
    }

    /// Once a second: ends what is over, finds who left, sends heartbeats.
    pub(super) fn sweep_viewers(self: &Rc<Self>) {
        let now = Instant::now();
        let mut live = self.live.borrow_mut();
        let mut at = 0;
        while at < live.len() {
            if live[at].stream.is_over() {
                let end = self.close(live.swap_remove(at).stream);
                self.ended(end);
            } else {
                at += 1;
            }
        }
        let heartbeat = self.config.heartbeat;
        if let Some(tick) = self.current() {
            self.write_to_all(&mut live, &tick, |Viewer { stream, view }| {
                (now - stream.last_write >= heartbeat).then(|| match view {
                    View::World => stream.encode(&tick.heartbeat),
                    _ => {
                        let id = view.id(&tick.id);
                        stream.encode(&Events::default().comment("heartbeat").id(&id).frame())
                    }
                })
            });
        }
    }

    /// Gives each viewer an end within the drain window. Those in tasks see it when they come back.
    pub(super) fn drain_viewers(&self) {
        for viewer in self.live.borrow_mut().iter_mut() {
            viewer.stream.drain(self.drain_end());
        }
    }

    /// Brings a stream to the newest step, as a task of its own, and back into the list.
    fn serve(self: Rc<Self>, viewer: Viewer, rest: Bytes, approach: Approach) {
        spawn(async move {
            self.metrics.behind.inc();
            let served = self.bring(viewer, rest, approach).await;
            self.metrics.behind.dec();
            if let Err(end) = served {
                self.ended(end);
            }
        });
    }

    async fn bring(&self, viewer: Viewer, rest: Bytes, mut approach: Approach) -> Result<(), End> {
        let Viewer { mut stream, view } = viewer;
        self.write(&mut stream, rest).await?;
        // Kept for a whole pass: if walks took turns with each chunk, a herd of them would each be
        // overtaken by the next step before its end, and begin again for ever. Kept for no more than
        // a pass: one that is overtaken all the same must let the others by.
        let mut turn = None;
        loop {
            if turn.is_none() {
                turn = self.turn(&mut stream).await?;
            }
            if self.draining.is_cancelled() {
                stream.drain(self.drain_end());
            }
            if stream.ends_at <= Instant::now() {
                return Err(stream.close(self.retry()));
            }
            match approach.next(self.current().as_deref(), Instant::now(), &self.metrics) {
                NextWrite::Arrived => {
                    self.enlist(Viewer { stream, view });
                    return Ok(());
                }
                NextWrite::Write(events) if events.is_empty() => {}
                NextWrite::Write(events) => {
                    let bytes = stream.encode(&events.frame());
                    match self.deliver(&mut stream, bytes) {
                        Written::All if self.current().is_some_and(|tick| approach.is_at(&tick)) => {
                            self.enlist(Viewer { stream, view });
                            return Ok(());
                        }
                        Written::All if approach.is_between_passes() => turn = None,
                        Written::All => {}
                        Written::Gone => return Err(End::Left),
                        Written::Rest(rest) => {
                            turn = None;
                            self.write(&mut stream, rest).await?;
                        }
                    }
                }
                NextWrite::Wait(until) => {
                    turn = None;
                    tokio::select! {
                        () = self.stepped.notified() => {}
                        () = self.pause(&mut stream, until) => {}
                    }
                    self.keep_alive(&mut stream).await?;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Puts a stream among those that are at the current step. There must be no await since that
    /// was read: no other can have come.
    fn enlist(&self, viewer: Viewer) {
        self.live.borrow_mut().push(viewer);
    }

    /// Waits for a turn; none where the stream's time is over before.
    async fn turn(&self, stream: &mut Stream) -> Result<Option<SemaphorePermit<'_>>, End> {
        let turn = self.meanwhile(stream, async || self.turns.acquire().await).await?;
        Ok(turn.map(|turn| turn.expect("the semaphore is never closed")))
    }
}

/// From this step on.
fn from(tick: &Tick, view: View) -> Approach {
    Approach::new(Shown::UpTo(tick.cursor.clone(), Some(tick.generation)), Some(tick.status), view)
}
