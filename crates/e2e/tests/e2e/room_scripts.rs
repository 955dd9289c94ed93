//! The scripts of the waiting room on a real Redis, held against a plain model: random orders of all
//! that can happen, the same outcome. Their clock is a key that the test sets.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fred::prelude::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use prost::Message as _;
use tutti_e2e::redis::Redis;
use tutti_e2e::{eventually, unique};
use tutti_feed::{Position, channel, head_key, read_log};
use tutti_model::queue::RoomChanges;
use tutti_model::{GoneReason, Mode, RoomEvent, RoomSettings, lottery, names, room, room_event::Event};
use tutti_queue::rooms::{Act, Error, Refusal, Rooms, Told};

const SECOND: u64 = 1_000_000;
const START: u64 = 1_800_000_000 * SECOND;
const LEASE: u64 = 10 * SECOND;
const SEED: &str = "a seed of these tests";

#[derive(Clone, Debug)]
enum Op {
    /// Time passes, in milliseconds.
    Wait(u64),
    Join(u8),
    Act(Act, usize),
    Remove(usize),
    Tick,
    Mode(Mode),
    Put(RoomSettings),
    /// An edge tells of some tickets; of all it has, or of changes.
    Present(usize, bool, Vec<usize>, Vec<usize>),
}

fn settings() -> impl Strategy<Value = RoomSettings> {
    (1u64..6, prop::sample::select(vec![0.5, 2.0, 10.0]), 1u64..4, 2u64..6, 2u64..20).prop_map(
        |(max_active, admit_per_second, claim_seconds, session_seconds, grace_seconds)| RoomSettings {
            max_active,
            admit_per_second,
            claim_seconds,
            session_seconds,
            pass_seconds: 60,
            grace_seconds,
            ..RoomSettings::default()
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let ticket = 0usize..60;
    let tickets = || prop::collection::vec(0usize..60, 0..6);
    let act = prop::sample::select(vec![Act::See, Act::Claim, Act::Renew, Act::Leave]);
    let mode = prop::sample::select(vec![Mode::Open, Mode::Open, Mode::Paused, Mode::Draining]);
    prop_oneof![
        4 => (0u64..3000).prop_map(Op::Wait),
        8 => (0u8..60).prop_map(Op::Join),
        5 => (act, ticket.clone()).prop_map(|(act, n)| Op::Act(act, n)),
        1 => ticket.prop_map(Op::Remove),
        6 => Just(Op::Tick),
        1 => mode.prop_map(Op::Mode),
        1 => settings().prop_map(Op::Put),
        3 => (0usize..2, any::<bool>(), tickets(), tickets())
            .prop_map(|(edge, all, opened, closed)| Op::Present(edge, all, opened, closed)),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Admitted,
    Claimed,
    Gone(GoneReason),
}

impl State {
    fn number(self) -> u32 {
        match self {
            Self::Waiting => 1,
            Self::Admitted => 2,
            Self::Claimed => 3,
            Self::Gone(reason) => reason as u32,
        }
    }
}

#[derive(Clone, Debug)]
struct Visitor {
    state: State,
    deadline: u64,
    seen: u64,
    /// In which second of room time it is looked at whether the visitor is away.
    look_at: Option<u64>,
}

/// The waiting room, plainly.
#[derive(Debug)]
struct Model {
    clock: u64,
    at: u64,
    now: u64,
    credit: f64,
    swept: u64,
    settings: RoomSettings,
    mode: Mode,
    opened: bool,
    early: u64,
    visitors: Vec<Visitor>,
    keys: BTreeMap<u8, u64>,
    /// Each edge's lease and tickets.
    edges: BTreeMap<usize, (u64, BTreeSet<u64>)>,
    counts: BTreeMap<&'static str, u64>,
    /// Tickets in the order of their admissions.
    admitted: Vec<u64>,
}

impl Model {
    fn new(settings: RoomSettings, opened: bool) -> Self {
        let credit = (settings.admit_per_second / 4.0).max(1.0);
        Self {
            clock: START,
            at: START,
            now: 0,
            credit,
            swept: 0,
            settings,
            mode: Mode::Open,
            opened,
            early: 0,
            visitors: Vec::new(),
            keys: BTreeMap::new(),
            edges: BTreeMap::new(),
            counts: BTreeMap::new(),
            admitted: Vec::new(),
        }
    }

    fn advance(&mut self) {
        let passed = (self.clock - self.at).min(2 * SECOND);
        let rate = self.settings.admit_per_second;
        self.at = self.clock;
        self.now += passed;
        self.credit = (rate / 4.0).max(1.0).min(self.credit + rate * passed as f64 / 1_000_000.0);
    }

    fn visitor(&mut self, n: u64) -> &mut Visitor {
        &mut self.visitors[n as usize - 1]
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn those(&self, wanted: impl Fn(State) -> bool) -> Vec<u64> {
        (1..=self.visitors.len() as u64).filter(|n| wanted(self.visitors[*n as usize - 1].state)).collect()
    }

    fn waiting(&self) -> Vec<u64> {
        self.those(|state| state == State::Waiting)
    }

    fn inside(&self) -> Vec<u64> {
        self.those(|state| matches!(state, State::Admitted | State::Claimed))
    }

    fn place(&self, n: u64) -> u64 {
        lottery::place_of(n, self.early, SEED)
    }

    /// From 1; 0 where there is none.
    fn position(&self, n: u64) -> u64 {
        if !self.opened || self.visitors[n as usize - 1].state != State::Waiting {
            return 0;
        }
        self.waiting().iter().filter(|other| self.place(**other) <= self.place(n)).count() as u64
    }

    fn is_present(&self, n: u64) -> bool {
        self.edges.values().any(|(lease, tickets)| *lease > self.now && tickets.contains(&n))
    }

    fn look_later(&mut self, n: u64) {
        let (grace, swept) = (self.settings.grace_seconds * SECOND, self.swept);
        let visitor = self.visitor(n);
        visitor.look_at = Some(((visitor.seen + grace) / SECOND + 1).max(swept + 1));
    }

    fn go(&mut self, n: u64, reason: GoneReason) {
        self.visitor(n).state = State::Gone(reason);
        self.count(match reason {
            GoneReason::NoShow => "no_shows",
            GoneReason::SessionOver => "expired",
            GoneReason::Away => "away",
            _ => "left",
        });
    }

    fn admit(&mut self) {
        while self.opened && matches!(self.mode, Mode::Open | Mode::Draining) {
            let next = self.waiting().into_iter().min_by_key(|n| self.place(*n));
            let Some(next) = next else { return };
            if self.inside().len() as u64 >= self.settings.max_active || self.credit < 1.0 {
                return;
            }
            self.credit -= 1.0;
            let deadline = self.now + self.settings.claim_seconds * SECOND;
            let visitor = self.visitor(next);
            (visitor.state, visitor.deadline) = (State::Admitted, deadline);
            self.admitted.push(next);
            self.count("admitted");
        }
    }

    fn join(&mut self, key: u8) -> Result<u64, Refusal> {
        if let Some(n) = self.keys.get(&key) {
            let n = *n;
            self.advance();
            if self.visitor(n).state == State::Waiting {
                self.seen(n);
            }
            return Ok(n);
        }
        if self.mode == Mode::Draining {
            return Err(Refusal::Draining);
        }
        self.advance();
        self.visitors.push(Visitor { state: State::Waiting, deadline: 0, seen: self.now, look_at: None });
        let n = self.visitors.len() as u64;
        self.keys.insert(key, n);
        self.look_later(n);
        self.admit();
        Ok(n)
    }

    fn act(&mut self, act: Act, n: u64) -> Result<u64, Refusal> {
        match (act, self.visitor(n).state) {
            (Act::Claim | Act::Renew, State::Gone(_)) => return Err(Refusal::Gone),
            (Act::Claim | Act::Renew, State::Waiting) => return Err(Refusal::NotAdmitted),
            _ => self.advance(),
        }
        let session = self.now + self.settings.session_seconds * SECOND;
        match (act, self.visitor(n).state) {
            (Act::Claim | Act::Renew, State::Admitted) => {
                let visitor = self.visitor(n);
                (visitor.state, visitor.deadline) = (State::Claimed, session);
                self.count("claimed");
            }
            (Act::Renew, State::Claimed) => self.visitor(n).deadline = session,
            (Act::See, State::Waiting) => self.seen(n),
            (Act::Leave, State::Waiting) => self.go(n, GoneReason::Left),
            (Act::Leave, State::Admitted | State::Claimed) => self.go(n, GoneReason::Released),
            _ => {}
        }
        Ok(n)
    }

    fn seen(&mut self, n: u64) {
        let now = self.now;
        self.visitor(n).seen = now;
        if self.visitor(n).look_at.is_none() && !self.is_present(n) {
            self.look_later(n);
        }
    }

    fn remove(&mut self, n: u64) {
        self.advance();
        if !matches!(self.visitor(n).state, State::Gone(_)) {
            self.go(n, GoneReason::Removed);
        }
    }

    fn tick(&mut self) {
        self.advance();
        if !self.opened && self.at >= self.settings.opens_at_ms * 1000 {
            (self.opened, self.early) = (true, self.visitors.len() as u64);
        }
        for n in self.inside() {
            if self.visitor(n).deadline <= self.now {
                let was = self.visitor(n).state;
                let reason =
                    if was == State::Admitted { GoneReason::NoShow } else { GoneReason::SessionOver };
                self.go(n, reason);
            }
        }
        let now = self.now;
        let lost: Vec<usize> =
            self.edges.iter().filter(|(_, (lease, _))| *lease <= now).map(|(edge, _)| *edge).collect();
        for edge in lost {
            let (_, tickets) = self.edges.remove(&edge).unwrap();
            for n in tickets {
                if self.visitor(n).state == State::Waiting {
                    self.visitor(n).seen = now;
                    if self.visitor(n).look_at.is_none() {
                        self.look_later(n);
                    }
                }
            }
        }
        while self.swept < self.now / SECOND {
            for n in self.waiting() {
                let second = self.swept + 1;
                if self.visitor(n).look_at != Some(second) {
                    continue;
                }
                self.visitor(n).look_at = None;
                if self.is_present(n) {
                } else if self.visitor(n).seen + self.settings.grace_seconds * SECOND > self.now {
                    self.look_later(n);
                } else {
                    self.go(n, GoneReason::Away);
                }
            }
            self.swept += 1;
        }
        self.admit();
    }

    fn put(&mut self, settings: RoomSettings) {
        let opens_at_ms = self.settings.opens_at_ms;
        self.settings = RoomSettings { opens_at_ms, ..settings };
        self.advance();
    }

    fn set_mode(&mut self, mode: Mode) {
        if self.mode != mode {
            self.advance();
            self.mode = mode;
        }
    }

    fn present(&mut self, edge: usize, all: bool, opened: &[u64], closed: &[u64]) -> bool {
        let before = (self.at, self.now, self.credit);
        self.advance();
        let lease = self.edges.get(&edge).map(|(lease, _)| *lease);
        if all {
            if let Some((_, tickets)) = self.edges.remove(&edge) {
                // As if of an edge that died.
                let free = self.edges.keys().max().copied().unwrap_or(0).max(100) + 1;
                self.edges.insert(free, (0, tickets));
            }
        } else if lease.is_none_or(|lease| lease <= self.now) {
            // Nothing was done, and no time was taken note of.
            (self.at, self.now, self.credit) = before;
            return false;
        }
        let until = self.now + LEASE;
        let ours = self.edges.entry(edge).or_default();
        ours.0 = until;
        ours.1.extend(opened);
        for n in closed {
            self.edges.get_mut(&edge).unwrap().1.remove(n);
            if self.visitor(*n).state == State::Waiting {
                self.seen(*n);
            }
        }
        true
    }
}

/// A script whose clock is a key that the test sets.
fn with_own_clock(text: &str) -> String {
    assert!(text.contains("redis.call('TIME')"));
    text.replace("redis.call('TIME')", "redis.call('HMGET', KEYS[1] .. 'test:time', 's', 'us')")
}

/// A room in Redis beside its model.
struct Pair {
    redis: Client,
    rooms: Rooms,
    room: String,
    model: Model,
    told: BTreeMap<u64, Told>,
    /// A tick makes at most so many changes, and then another, until there is nothing left to do.
    most: u32,
}

impl Pair {
    async fn new(redis: &Redis, settings: RoomSettings, most: u32) -> Self {
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

    async fn set_clock(&self) {
        let key = format!("{}test:time", tutti_feed::log_key(&names::room_feed(&self.room)));
        let (seconds, micros) = (self.model.clock / SECOND, self.model.clock % SECOND);
        let () = self.redis.hset(&key, vec![("s", seconds as i64), ("us", micros as i64)]).await.unwrap();
    }

    /// A ticket that was given out, if there is one.
    fn pick(&self, index: usize) -> Option<u64> {
        let count = self.model.visitors.len();
        (count > 0).then(|| (index % count) as u64 + 1)
    }

    async fn apply(&mut self, op: &Op) -> Result<(), TestCaseError> {
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
        answer: Result<Told, Error>,
    ) -> Result<(), TestCaseError> {
        match (expected, answer) {
            (Ok(n), Ok(told)) => {
                prop_assert_eq!(told.number, n);
                prop_assert_eq!(told.state, self.model.visitors[n as usize - 1].state.number());
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
        prop_assert_eq!(read.kept.tickets, model.visitors.len() as f64);
        prop_assert_eq!(read.kept.waiting, model.waiting().len() as f64);
        prop_assert_eq!(read.kept.active, model.inside().len() as f64);
        prop_assert_eq!(read.kept.admitted, count("admitted"));
        prop_assert_eq!(read.kept.claimed, count("claimed"));
        prop_assert_eq!(read.kept.left, count("left"));
        prop_assert_eq!(read.kept.no_shows, count("no_shows"));
        prop_assert_eq!(read.kept.expired, count("expired"));
        prop_assert_eq!(read.kept.away, count("away"));
        let inside: BTreeSet<u64> = read.active.iter().copied().collect();
        prop_assert_eq!(inside, model.inside().into_iter().collect::<BTreeSet<u64>>());
        let places: BTreeSet<u64> = model.waiting().iter().map(|n| model.place(*n)).collect();
        prop_assert_eq!(bits(&read.waiting, read.first_place), places);
        Ok(())
    }

    /// The records tell the whole story: folded, they give the same room, and admissions in order.
    async fn compare_records(&self) -> Result<(), TestCaseError> {
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

/// Runs cases on one Redis, outside of proptest's macros, which know no async.
fn check(cases: u32, opens_after_ms: u64, most: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let redis = runtime.block_on(async { Redis::start().unwrap() });
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let story = (settings(), prop::collection::vec(op(), 1..120));
    let outcome = runner.run(&story, |(settings, ops)| {
        runtime.block_on(async {
            let opens_at_ms = if opens_after_ms > 0 { START / 1000 + opens_after_ms } else { 0 };
            let mut pair = Pair::new(&redis, RoomSettings { opens_at_ms, ..settings }, most).await;
            for op in &ops {
                pair.apply(op).await?;
            }
            pair.compare_records().await
        })
    });
    runtime.block_on(async move { drop(redis) });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn whatever_happens_in_a_room_its_scripts_do_what_the_plain_model_does() {
    check(120, 0, 500);
}

#[test]
fn the_same_before_and_after_an_opening() {
    check(80, 20_000, 500);
}

#[test]
fn a_tick_that_does_little_at_a_time_comes_to_the_same_end() {
    check(80, 10_000, 2);
}

#[tokio::test]
async fn tickets_that_are_gone_for_long_are_forgotten_and_their_keys_with_them() {
    let redis = Redis::start().unwrap();
    let settings = RoomSettings {
        max_active: 1000,
        admit_per_second: 10_000.0,
        claim_seconds: 1,
        session_seconds: 1,
        pass_seconds: 1,
        grace_seconds: 1000,
        ..RoomSettings::default()
    };
    // A day of room time, at 2 s a tick, is long for a test: ten seconds do.
    let mut pair = Pair::new(&redis, settings.clone(), 500).await;
    pair.rooms = Rooms::with_scripts(pair.redis.clone(), 1_000_000, |text| {
        assert!(text.contains("KEEP_GONE = 86400000000"));
        with_own_clock(&text).replace("KEEP_GONE = 86400000000", "KEEP_GONE = 10000000")
    });
    let mut told = Vec::new();
    for n in 0..200u8 {
        told.push(pair.rooms.join(&pair.room, [n; 16]).await.unwrap());
    }
    let tickets = async || -> usize {
        let keys: Vec<String> =
            redis.command(&["KEYS", &format!("tutti:?room.{}?:tickets:*", pair.room)]).await.unwrap();
        keys.len()
    };
    assert_eq!(tickets().await, 4);
    // All are no-shows after a second; 60 s are between two looks at what can be forgotten.
    for _ in 0..45 {
        pair.model.clock += 2 * SECOND;
        pair.set_clock().await;
        pair.rooms.tick(&pair.room, 500).await.unwrap();
    }
    assert_eq!(tickets().await, 1, "those of the last, which may grow yet, stay");
    let gone = pair.rooms.act(&pair.room, Act::See, 5, told[4].epoch, told[4].joined_us).await;
    assert!(matches!(gone, Err(Error::Refused(Refusal::NoTicket))), "{gone:?}");
    let anew = pair.rooms.join(&pair.room, [4; 16]).await.unwrap();
    assert_eq!(anew.number, 201, "its key is forgotten, too");
    let last = &told[199];
    let kept = pair.rooms.act(&pair.room, Act::See, 200, last.epoch, last.joined_us).await.unwrap();
    assert_eq!(kept.state, GoneReason::NoShow as u32);
}

#[tokio::test]
async fn what_kafka_has_of_a_history_that_redis_lost_moves_no_position() {
    let redis = Redis::start().unwrap();
    let (rooms, room) = (Rooms::new(redis.client().clone(), 1_000_000), unique("room"));
    let settings =
        RoomSettings { max_active: 1, admit_per_second: 1.0, grace_seconds: 9, ..Default::default() };
    rooms.put(&room, &settings, None, SEED, "").await.unwrap();
    for n in 0..5u8 {
        rooms.join(&room, [n; 16]).await.unwrap();
    }
    let (epoch, relayed, seq) = rooms.relay(&room, "a", 5 * SECOND, None).await.unwrap();
    assert_eq!(relayed, 0);
    let log = read_log(redis.client(), &names::room_feed(&room), None, 100).await.unwrap();
    let third = log[2].position;
    let unknown = [
        Position { seq: seq + 20, ..third },
        Position { time_us: third.time_us + 1, ..third },
        Position { epoch: epoch + 1, ..third },
    ];
    for place in unknown {
        assert_eq!(rooms.relay(&room, "a", 5 * SECOND, Some(place)).await.unwrap().1, 0, "{place:?}");
    }
    assert_eq!(rooms.relay(&room, "a", 5 * SECOND, Some(third)).await.unwrap().1, 3);
    assert!(matches!(rooms.relay(&room, "b", 5 * SECOND, None).await, Err(Error::Refused(Refusal::Held))));
}

#[tokio::test]
async fn a_key_of_an_earlier_life_of_a_room_gets_a_ticket_of_its_own() {
    let redis = Redis::start().unwrap();
    let rooms = Rooms::new(redis.client().clone(), 1000);
    let settings = RoomSettings {
        max_active: 1,
        admit_per_second: 1000.0,
        claim_seconds: 600,
        session_seconds: 600,
        pass_seconds: 60,
        grace_seconds: 600,
        ..RoomSettings::default()
    };
    let put = async || rooms.put("sale", &settings, None, SEED, "").await.unwrap();
    let join = async |key: u8| rooms.join("sale", [key; 16]).await.unwrap();
    put().await;
    let earlier = [join(1).await, join(2).await];
    assert_eq!(join(2).await.joined_us, earlier[1].joined_us, "within a life it is the ticket that it was");

    // Redis loses the room, and neither its keys nor its tickets.
    let () = redis.client().del(head_key(&names::room_feed("sale"))).await.unwrap();
    put().await;
    let others = [join(3).await, join(4).await];
    let back = join(2).await;
    assert_eq!(back.number, 3, "it is not the ticket of another visitor");
    let visitors = others.iter().chain([&back]).map(|told| told.joined_us).collect::<BTreeSet<_>>();
    assert_eq!(visitors.len(), 3);
    assert_eq!(back, Told { now_us: back.now_us, ..join(2).await });

    // And where it loses the tickets, nobody is told an error of a script: who comes again gets another place.
    let () = redis.client().del(format!("{}:tickets:0", channel(&names::room_feed("sale")))).await.unwrap();
    assert_eq!(join(2).await.number, 4);
    for told in &others {
        let lost = rooms.act("sale", Act::See, told.number, told.epoch, told.joined_us).await;
        assert!(matches!(lost, Err(Error::Refused(Refusal::NoTicket))), "{lost:?}");
    }
    let removed = rooms.remove("sale", 1).await;
    assert!(matches!(removed, Err(Error::Refused(Refusal::NoTicket))), "{removed:?}");
    rooms.tick("sale", 500).await.unwrap();
    let () = redis.client().del(format!("{}:waiting", channel(&names::room_feed("sale")))).await.unwrap();
    let waits = rooms.act("sale", Act::See, 4, join(2).await.epoch, join(2).await.joined_us).await.unwrap();
    assert_eq!(waits.state, GoneReason::Removed as u32, "who has no place in line any more does not wait");
    eventually("the others are not waited for", async || rooms.tick("sale", 500).await.unwrap().waiting == 0)
        .await;
    assert_eq!(join(9).await.position, 1, "the line goes on");
}

#[tokio::test]
async fn the_script_writes_settings_as_protobuf_has_them_whether_all_or_some_change() {
    let redis = Redis::start().unwrap();
    let (rooms, room) = (Rooms::new(redis.client().clone(), 1_000_000), unique("room"));
    let newest = async || {
        let log = read_log(redis.client(), &names::room_feed(&room), None, 100).await.unwrap();
        log.last().unwrap().payload.clone()
    };
    let written = |settings: &RoomSettings| {
        Bytes::from(RoomEvent { event: Some(Event::Settings(settings.clone())) }.encode_to_vec())
    };
    let opens_at_ms = 4_102_444_800_000;
    let mut settings = RoomSettings {
        max_active: 1_000_000,
        admit_per_second: 0.1,
        claim_seconds: 127,
        session_seconds: 604_800,
        pass_seconds: 128,
        grace_seconds: 86_400,
        opens_at_ms,
        seed_sha256: "a hash".to_owned(),
    };
    rooms.put(&room, &settings, Some(opens_at_ms), SEED, "a hash").await.unwrap();
    assert_eq!(newest().await, written(&settings));
    let changes =
        RoomChanges { admit_per_second: Some(1234.5), pass_seconds: Some(1), ..RoomChanges::default() };
    rooms.patch(&room, &changes).await.unwrap();
    (settings.admit_per_second, settings.pass_seconds) = (1234.5, 1);
    assert_eq!(newest().await, written(&settings));
    let missing = rooms.patch(&unique("room"), &changes).await;
    assert!(matches!(missing, Err(Error::Refused(Refusal::NoRoom))), "{missing:?}");
}

#[tokio::test]
async fn a_number_beyond_all_tickets_is_of_none_and_keeps_no_other_from_being_present() {
    let redis = Redis::start().unwrap();
    let (rooms, room) = (Rooms::new(redis.client().clone(), 1_000_000), unique("room"));
    rooms.put(&room, &room::defaults(), None, SEED, "").await.unwrap();
    rooms.join(&room, [1; 16]).await.unwrap();
    for beyond in [2, 1 << 32, (1 << 53) + 1, i64::MAX as u64, u64::MAX] {
        let present = rooms.presence(&room, "edge-0", true, LEASE, &[1, beyond], &[beyond]).await.unwrap();
        assert!(present, "{beyond}");
        let removed = rooms.remove(&room, beyond).await;
        assert!(matches!(removed, Err(Error::Refused(Refusal::NoTicket))), "{beyond}: {removed:?}");
    }
}

#[tokio::test]
async fn a_room_whose_list_of_those_inside_is_lost_has_room_again() {
    let redis = Redis::start().unwrap();
    let settings = RoomSettings {
        max_active: 2,
        admit_per_second: 1000.0,
        claim_seconds: 1,
        session_seconds: 600,
        pass_seconds: 60,
        grace_seconds: 600,
        ..RoomSettings::default()
    };
    let mut pair = Pair::new(&redis, settings, 500).await;
    for n in 0..4u8 {
        pair.rooms.join(&pair.room, [n; 16]).await.unwrap();
    }
    let active = async |pair: &Pair| pair.rooms.read(&pair.room, true).await.unwrap().kept.active;
    assert_eq!(active(&pair).await, 2.0);
    let first = pair.rooms.join(&pair.room, [0; 16]).await.unwrap();
    let lost = format!("{}:active", channel(&names::room_feed(&pair.room)));
    assert_eq!(redis.client().del::<u64, _>(lost).await.unwrap(), 1);
    // Who was inside stays, and counts once.
    for act in [Act::Claim, Act::Renew] {
        pair.rooms.act(&pair.room, act, 1, first.epoch, first.joined_us).await.unwrap();
    }
    pair.model.clock += SECOND;
    pair.set_clock().await;
    for active in [1, 2] {
        let ticked = pair.rooms.tick(&pair.room, 500).await.unwrap();
        assert_eq!(ticked.active, active, "it is counted, and then another comes in");
    }
    pair.rooms.act(&pair.room, Act::Leave, 1, first.epoch, first.joined_us).await.unwrap();
    assert_eq!(active(&pair).await, 1.0);
    // One that was inside is in no list any more, and takes nothing along.
    let second = pair.rooms.join(&pair.room, [1; 16]).await.unwrap();
    pair.rooms.act(&pair.room, Act::Leave, 2, second.epoch, second.joined_us).await.unwrap();
    assert_eq!(active(&pair).await, 1.0);
}

#[tokio::test]
async fn what_an_edge_had_in_an_earlier_life_of_a_room_counts_for_nobody_in_the_next() {
    for are_edges_lost in [false, true] {
        let redis = Redis::start().unwrap();
        let settings = RoomSettings {
            max_active: 1,
            admit_per_second: 1000.0,
            claim_seconds: 600,
            session_seconds: 600,
            pass_seconds: 60,
            grace_seconds: 3,
            ..RoomSettings::default()
        };
        let mut pair = Pair::new(&redis, settings.clone(), 500).await;
        for n in 1..=3u8 {
            pair.rooms.join(&pair.room, [n; 16]).await.unwrap();
        }
        for edge in ["edge-0", "edge-1"] {
            assert!(pair.rooms.presence(&pair.room, edge, true, LEASE, &[2], &[]).await.unwrap());
        }
        let base = channel(&names::room_feed(&pair.room));
        let () = redis.client().del(head_key(&names::room_feed(&pair.room))).await.unwrap();
        if are_edges_lost {
            let () = redis.client().del(format!("{base}:edges")).await.unwrap();
        }
        pair.rooms.put(&pair.room, &settings, None, SEED, "").await.unwrap();
        let seen: i64 = redis.client().exists(format!("{base}:seen:edge-1")).await.unwrap();
        assert_eq!(seen, i64::from(are_edges_lost), "what can be named is cleared away");

        for n in 4..=5u8 {
            pair.rooms.join(&pair.room, [n; 16]).await.unwrap();
        }
        assert!(pair.rooms.presence(&pair.room, "edge-0", true, LEASE, &[], &[]).await.unwrap());
        for _ in 0..4 {
            pair.model.clock += 2 * SECOND;
            pair.set_clock().await;
            pair.rooms.tick(&pair.room, 500).await.unwrap();
        }
        let kept = pair.rooms.read(&pair.room, true).await.unwrap().kept;
        // Not the third of the earlier life, whose number nobody has yet.
        assert_eq!(
            (kept.tickets, kept.waiting, kept.away),
            (2.0, 0.0, 1.0),
            "only its stream held the place"
        );
    }
}
