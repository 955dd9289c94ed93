//! A waiting room in Redis beside its model.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fred::prelude::*;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use prost::Message as _;
use tutti_e2e::redis::Redis;
use tutti_e2e::unique;
use tutti_feed::read_log;
use tutti_model::room_event::Event;
use tutti_model::{RoomEvent, RoomSettings, names};
use tutti_queue::rooms::{Error, Refusal, Rooms, TicketReply};

use super::model::Model;
use super::operations::Op;
use super::{LEASE, SECOND, SEED, START};

/// Returns a script whose clock is a key that the test sets.
pub(super) fn with_own_clock(text: &str) -> String {
    assert!(text.contains("redis.call('TIME')"));
    text.replace("redis.call('TIME')", "redis.call('HMGET', KEYS[1] .. 'test:time', 's', 'us')")
}

/// A room in Redis beside its model.
pub(super) struct Pair {
    pub(super) redis: Client,
    pub(super) rooms: Rooms,
    pub(super) room: String,
    pub(super) model: Model,
    told: BTreeMap<u64, TicketReply>,
    /// Changes that a tick makes, at most. Further ticks follow until there is nothing left to do.
    pub(super) most: u32,
}

impl Pair {
    pub(super) async fn new(redis: &Redis, settings: RoomSettings, most: u32) -> Self {
        let client = redis.client().clone();
        let rooms = Rooms::with_scripts(client.clone(), 1_000_000, |text| with_own_clock(&text));
        let room = unique("room");
        let opened = settings.opens_at_ms * 1000 <= START;
        let pair = Self {
            redis: client,
            rooms,
            room,
            model: Model::new(settings.clone(), opened),
            told: BTreeMap::new(),
            most,
        };
        pair.set_clock().await;
        pair.rooms.put(&pair.room, &settings, Some(settings.opens_at_ms), SEED, "").await.unwrap();
        pair
    }

    pub(super) async fn set_clock(&self) {
        let key = format!("{}test:time", tutti_feed::log_key(&names::room_feed(&self.room)));
        let (seconds, micros) = (self.model.clock / SECOND, self.model.clock % SECOND);
        let () = self.redis.hset(&key, vec![("s", seconds as i64), ("us", micros as i64)]).await.unwrap();
    }

    /// Returns a ticket that was given out, if there is one.
    fn pick(&self, index: usize) -> Option<u64> {
        let count = self.model.visitors.len();
        (count > 0).then(|| (index % count) as u64 + 1)
    }

    pub(super) async fn apply(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match op {
            Op::Wait(ms) => {
                self.model.clock += ms * 1000;
                self.set_clock().await;
            }
            Op::Join(key) => {
                let expected = self.model.join(*key);
                let answer = self.rooms.join(&self.room, [*key; 16]).await;
                self.compare(expected, answer)?;
            }
            Op::Act(act, index) => {
                let Some(n) = self.pick(*index) else { return Ok(()) };
                let (epoch, joined) = (self.told[&n].epoch, self.told[&n].joined_us);
                for (epoch, joined) in [(epoch + 1, joined), (epoch, joined + 1)] {
                    let other = self.rooms.act(&self.room, *act, n, epoch, joined).await;
                    prop_assert!(matches!(other, Err(Error::Refused(Refusal::NoTicket))), "{:?}", other);
                }
                let expected = self.model.act(*act, n);
                let answer = self.rooms.act(&self.room, *act, n, epoch, joined).await;
                self.compare(expected, answer)?;
            }
            Op::Remove(index) => {
                let Some(n) = self.pick(*index) else { return Ok(()) };
                self.model.remove(n);
                let answer = self.rooms.remove(&self.room, n).await;
                self.compare(Ok(n), answer)?;
            }
            Op::Tick => {
                self.model.tick();
                while self.rooms.tick(&self.room, self.most).await.unwrap().more {}
            }
            Op::Mode(mode) => {
                self.model.set_mode(*mode);
                self.rooms.set_mode(&self.room, *mode).await.unwrap();
            }
            Op::Put(settings) => {
                self.model.put(settings.clone());
                self.rooms.put(&self.room, settings, None, "another seed", "").await.unwrap();
            }
            Op::Present(edge, all, opened, closed) => {
                let pick = |all: &[usize]| -> Vec<u64> {
                    let tickets: BTreeSet<u64> = all.iter().filter_map(|index| self.pick(*index)).collect();
                    tickets.into_iter().collect()
                };
                let (opened, closed) = (pick(opened), pick(closed));
                let expected = self.model.present(*edge, *all, &opened, &closed);
                let name = format!("edge-{edge}");
                let known =
                    self.rooms.presence(&self.room, &name, *all, LEASE, &opened, &closed).await.unwrap();
                prop_assert_eq!(known, expected);
            }
        }
        self.compare_room().await
    }

    fn compare(
        &mut self,
        expected: Result<u64, Refusal>,
        answer: Result<TicketReply, Error>,
    ) -> Result<(), TestCaseError> {
        match (expected, answer) {
            (Ok(n), Ok(told)) => {
                prop_assert_eq!(told.number, n);
                prop_assert_eq!(told.status, self.model.visitors[n as usize - 1].state);
                prop_assert_eq!(told.position, self.model.position(n));
                prop_assert_eq!(told.waiting, self.model.waiting().len() as u64);
                prop_assert_eq!(told.mode, self.model.mode);
                let before = self.told.insert(n, told.clone());
                prop_assert!(before.is_none_or(|before| before.joined_us == told.joined_us));
                Ok(())
            }
            (Err(expected), Err(Error::Refused(refusal))) => {
                prop_assert_eq!(refusal, expected);
                Ok(())
            }
            (expected, answer) => Err(TestCaseError::fail(format!("{expected:?}, but {answer:?}"))),
        }
    }

    async fn compare_room(&self) -> Result<(), TestCaseError> {
        let read = self.rooms.read(&self.room, true).await.unwrap();
        let model = &self.model;
        let count = |what| model.counts.get(what).copied().unwrap_or(0) as f64;
        prop_assert_eq!(read.state.tickets, model.visitors.len() as f64);
        prop_assert_eq!(read.state.waiting, model.waiting().len() as f64);
        prop_assert_eq!(read.state.active, model.inside().len() as f64);
        prop_assert_eq!(read.state.admitted, count("admitted"));
        prop_assert_eq!(read.state.claimed, count("claimed"));
        prop_assert_eq!(read.state.left, count("left"));
        prop_assert_eq!(read.state.no_shows, count("no_shows"));
        prop_assert_eq!(read.state.expired, count("expired"));
        prop_assert_eq!(read.state.away, count("away"));
        let inside: BTreeSet<u64> = read.active.iter().copied().collect();
        prop_assert_eq!(inside, model.inside().into_iter().collect::<BTreeSet<u64>>());
        let places: BTreeSet<u64> = model.waiting().iter().map(|n| model.place(*n)).collect();
        prop_assert_eq!(bits(&read.waiting, read.first_place), places);
        Ok(())
    }

    /// Checks that the records of the log, applied in order, result in the same room, and have the admissions in
    /// order.
    pub(super) async fn compare_records(&self) -> Result<(), TestCaseError> {
        let (mut waiting, mut inside, mut admitted) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        let mut times = Vec::new();
        let (mut held, mut seq) = (None, 0);
        loop {
            let page = read_log(&self.redis, &names::room_feed(&self.room), held, 1000).await.unwrap();
            let new: Vec<_> = page.into_iter().filter(|r| Some(r.position) != held).collect();
            let Some(last) = new.last() else { break };
            held = Some(last.position);
            for record in new {
                seq += 1;
                prop_assert_eq!(record.position.seq, seq);
                match RoomEvent::decode(record.payload).unwrap().event.unwrap() {
                    Event::Joined(e) => assert!(waiting.insert(e.ticket)),
                    Event::Admitted(e) => {
                        prop_assert!(waiting.remove(&e.ticket));
                        prop_assert_eq!(e.place, self.model.place(e.ticket));
                        inside.insert(e.ticket);
                        admitted.push(e.ticket);
                        times.push(record.position.time_us);
                    }
                    Event::Gone(e) => prop_assert!(waiting.remove(&e.ticket) || inside.remove(&e.ticket)),
                    _ => {}
                }
            }
        }
        prop_assert_eq!(waiting, self.model.waiting().into_iter().collect());
        prop_assert_eq!(inside, self.model.inside().into_iter().collect());
        prop_assert_eq!(&admitted, &self.model.admitted);
        Ok(())
    }
}

fn bits(bytes: &Bytes, first: u64) -> BTreeSet<u64> {
    let set = bytes.iter().enumerate().flat_map(|(i, byte)| {
        (0..8).filter(move |bit| byte & (0x80 >> bit) != 0).map(move |bit| first + i as u64 * 8 + bit)
    });
    set.collect()
}
