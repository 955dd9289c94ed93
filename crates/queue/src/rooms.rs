//! The rooms in Redis: what the scripts do, as functions.

use std::fmt;

use bytes::Bytes;
use fred::prelude::*;
use fred::types::scripts::Script;
use serde::Deserialize;
use tutti_feed::{Client, Position, RECORD_LUA, Replicas, channel, feed_keys, is_script_failure, run_script};
use tutti_model::queue::RoomChanges;
use tutti_model::room::all_changed;
use tutti_model::{Mode, RoomSettings, names};

/// The names of all rooms.
const ROOMS: &str = "tutti:rooms";

/// Buckets that idempotency keys are spread over, so that Redis keeps each as a short list.
const KEY_BUCKETS: u16 = 16_384;

/// Rooms, by their scripts.
#[derive(Clone)]
pub struct Rooms {
    client: Client,
    scripts: Scripts,
    max_unrelayed: u64,
    replicas: Replicas,
}

#[derive(Clone)]
struct Scripts {
    put: Script,
    mode: Script,
    join: Script,
    ticket: Script,
    tick: Script,
    presence: Script,
    relay: Script,
    read: Script,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The room, or its state, forbids it.
    #[error("{}", .0.sentence())]
    Refused(Refusal),
    /// Redis does not answer.
    #[error("{doing} room {room}: {source}")]
    Redis {
        /// What was being done.
        doing: &'static str,
        /// To which room.
        room: String,
        /// What the driver says.
        source: fred::error::Error,
    },
    /// Too few replicas of Redis have what was done.
    #[error("{0}")]
    Replicas(#[from] tutti_feed::Error),
    /// Redis answered something that no version of our scripts answers.
    #[error("{doing} room {room}: unexpected answer: {answer}")]
    Answer {
        /// What was being done.
        doing: &'static str,
        /// To which room.
        room: String,
        /// What is wrong with it. It holds nothing of a room's record, which has the seed of the lottery.
        answer: String,
    },
}

impl Error {
    /// Whether trying again is of no use: what Redis holds of the room is not what our scripts expect.
    pub fn is_internal(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Replicas(_) => false,
            Self::Redis { source, .. } => is_script_failure(source) || *source.kind() == ErrorKind::Parse,
            Self::Answer { .. } => true,
        }
    }
}

/// A word of a script that says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such room.
    NoRoom,
    /// There is no such ticket, or it was forgotten, or it is another's.
    NoTicket,
    /// The room is closed, for good.
    Closed,
    /// The room takes nobody any more.
    Draining,
    /// Kafka is too far behind.
    Full,
    /// The room has opened: its opening time cannot change.
    Opened,
    /// The ticket's turn has not come.
    NotAdmitted,
    /// The ticket lost its place or its session.
    Gone,
    /// Another relay has the lease.
    Held,
    /// A closed room has been cleared away.
    Over,
}

impl Refusal {
    const ALL: [(Self, &str, &str); 10] = [
        (Self::NoRoom, "no_room", "there is no such room"),
        (Self::NoTicket, "no_ticket", "there is no such ticket; join anew"),
        (Self::Closed, "closed", "the room is closed"),
        (Self::Draining, "draining", "the room takes nobody any more"),
        (Self::Full, "full", "too many changes of the room wait for Kafka; try again later"),
        (Self::Opened, "opened", "the room has opened, and its opening time stays as it is"),
        (Self::NotAdmitted, "not_admitted", "the ticket still waits for its turn"),
        (Self::Gone, "gone", "the ticket has lost its place or its session; join anew"),
        (Self::Held, "held", "another relay is at work"),
        (Self::Over, "over", "the room has been cleared away"),
    ];

    /// The word for programs.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(r, ..)| *r == self).map_or("unknown", |(_, word, _)| word)
    }

    fn sentence(self) -> &'static str {
        Self::ALL.iter().find(|(r, ..)| *r == self).map_or("refused", |(.., sentence)| sentence)
    }
}

/// A ticket, and the room around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its number.
    pub number: u64,
    /// The epoch of the room's feed.
    pub epoch: u32,
    /// When it joined.
    pub joined_us: u64,
    /// 1 to 3: waiting, admitted, claimed; from 11 on it is gone, and this is the reason.
    pub state: u32,
    /// In line, from 1; 0 if it does not wait, or the room has not opened.
    pub position: u64,
    /// How many wait.
    pub waiting: u64,
    /// The room's version.
    pub seq: u64,
    /// The time of the room's last record.
    pub time_us: u64,
    /// Admissions a thousand seconds, as lately.
    pub pace_milli: u64,
    /// The room's mode.
    pub mode: Mode,
    /// When its claim or session is over, milliseconds since 1970.
    pub until_ms: u64,
    /// How long a pass is valid.
    pub pass_seconds: u64,
    /// Redis's clock.
    pub now_us: u64,
}

/// What can happen to a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It was asked for.
    See,
    /// Its visitor, admitted, is there.
    Claim,
    /// Its session goes on.
    Renew,
    /// Its visitor leaves.
    Leave,
}

impl Act {
    fn word(self) -> &'static str {
        match self {
            Self::See => "see",
            Self::Claim => "claim",
            Self::Renew => "renew",
            Self::Leave => "leave",
        }
    }
}

/// What a tick says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticked {
    /// There is more to do at once.
    pub more: bool,
    /// The room's version.
    pub seq: u64,
    /// The version that Kafka has.
    pub relayed: u64,
    /// How many wait.
    pub waiting: u64,
    /// How many are inside.
    pub active: u64,
}

/// The seed of a lottery, which no log may show.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Seed(pub String);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A room as Redis keeps it. A field that the version which wrote it did not have yet is zero or empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the settings and figures of queue.proto under the scripts' short names")]
pub struct Kept {
    pub max: f64,
    pub rate: f64,
    pub claim: f64,
    pub session: f64,
    pub pass: f64,
    pub grace: f64,
    pub opens: f64,
    pub seed: Seed,
    pub seed_sha256: String,
    pub mode: i32,
    pub phase: u8,
    pub early: f64,
    pub tickets: f64,
    pub waiting: f64,
    pub active: f64,
    pub admitted: f64,
    pub claimed: f64,
    pub left: f64,
    pub no_shows: f64,
    pub expired: f64,
    pub away: f64,
    pub pace: f64,
    pub relayed: f64,
}

/// A room, and perhaps who is in it.
#[derive(Clone, Debug)]
pub struct Read {
    /// The epoch of its feed.
    pub epoch: u32,
    /// Its version.
    pub seq: u64,
    /// The time of its last record.
    pub time_us: u64,
    /// Settings, mode and counters.
    pub kept: Kept,
    /// Since when the first in line waits, in microseconds.
    pub longest_wait_us: u64,
    /// See `RoomSnapshot`.
    pub first_place: u64,
    /// See `RoomSnapshot`.
    pub waiting: Bytes,
    /// See `RoomSnapshot`.
    pub active: Vec<u64>,
}

/// The text of the script that joins, to be measured alone.
pub fn join_script() -> String {
    whole(include_str!("join.lua"))
}

/// A script with what it follows.
fn whole(own: &str) -> String {
    format!("{RECORD_LUA}{}{own}", include_str!("room.lua"))
}

impl Rooms {
    /// Rooms in a Redis. Joins are refused where Kafka is behind by `max_unrelayed` changes.
    pub fn new(client: Client, max_unrelayed: u64) -> Self {
        Self::with_scripts(client, max_unrelayed, |text| text)
    }

    /// The same, but what is done counts only when these replicas of Redis have it.
    #[must_use]
    pub fn with_replicas(self, replicas: Replicas) -> Self {
        Self { replicas, ..self }
    }

    /// The same, with each script's text changed first: a test may have a clock of its own.
    pub fn with_scripts(client: Client, max_unrelayed: u64, change: impl Fn(String) -> String) -> Self {
        let script = |own: &str| Script::from_lua(change(whole(own)));
        let scripts = Scripts {
            put: script(include_str!("put.lua")),
            mode: script(include_str!("mode.lua")),
            join: script(include_str!("join.lua")),
            ticket: script(include_str!("ticket.lua")),
            tick: script(include_str!("tick.lua")),
            presence: script(include_str!("presence.lua")),
            relay: script(include_str!("relay.lua")),
            read: script(include_str!("read.lua")),
        };
        Self { client, scripts, max_unrelayed, replicas: Replicas::default() }
    }

    /// Makes a room, or replaces its settings; its opening time stays as it is if `opens_at_ms` is
    /// `None`, and is now if it is 0. The seed and its SHA-256 are for a new room.
    ///
    /// # Errors
    /// [`Refusal::Closed`], [`Refusal::Opened`], or of Redis.
    pub async fn put(
        &self,
        room: &str,
        settings: &RoomSettings,
        opens_at_ms: Option<u64>,
        seed: &str,
        sha256: &str,
    ) -> Result<(), Error> {
        self.enlist(room).await?;
        self.change(room, &all_changed(settings, opens_at_ms), Some([seed, sha256])).await?;
        // A room that was just found to be gone may have been taken off the list meanwhile.
        self.enlist(room).await
    }

    /// Changes some settings of a room that is there. No change that is made at the same time is lost: those that
    /// are absent stay as Redis has them.
    ///
    /// # Errors
    /// [`Refusal::NoRoom`], [`Refusal::Closed`], [`Refusal::Opened`], or of Redis.
    pub async fn patch(&self, room: &str, changes: &RoomChanges) -> Result<(), Error> {
        self.change(room, changes, None).await
    }

    /// With the seed and its SHA-256, a room that is not there is made.
    async fn change(&self, room: &str, changes: &RoomChanges, seed: Option<[&str; 2]>) -> Result<(), Error> {
        fn word<T: ToString>(value: Option<T>) -> Value {
            value.map(|value| value.to_string()).unwrap_or_default().into()
        }
        let mut args: Vec<Value> = vec![
            word(changes.max_active),
            word(changes.admit_per_second),
            word(changes.claim_seconds),
            word(changes.session_seconds),
            word(changes.pass_seconds),
            word(changes.grace_seconds),
            word(changes.opens_at_ms),
        ];
        args.extend(seed.into_iter().flatten().map(Value::from));
        self.run(&self.scripts.put, "setting", room, args).await.map(drop)
    }

    /// Puts a room on the list.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn enlist(&self, room: &str) -> Result<(), Error> {
        let redis = |source| Error::Redis { doing: "listing", room: room.to_owned(), source };
        self.client.sadd(ROOMS, room).await.map_err(redis)
    }

    /// Changes a room's mode.
    ///
    /// # Errors
    /// [`Refusal::NoRoom`], [`Refusal::Closed`], or of Redis.
    pub async fn set_mode(&self, room: &str, mode: Mode) -> Result<(), Error> {
        self.run(&self.scripts.mode, "changing the mode of", room, vec![(mode as i64).into()]).await.map(drop)
    }

    /// Takes a place in line; the same key gives the same ticket.
    ///
    /// # Errors
    /// [`Refusal::NoRoom`], [`Refusal::Closed`], [`Refusal::Draining`], [`Refusal::Full`], or of Redis.
    pub async fn join(&self, room: &str, key: [u8; 16]) -> Result<Told, Error> {
        let bucket = u16::from_be_bytes([key[0], key[1]]) % KEY_BUCKETS;
        let args: Vec<Value> = vec![
            Bytes::copy_from_slice(&key).into(),
            i64::from(bucket).into(),
            lua_number(self.max_unrelayed),
        ];
        let answer = self.run(&self.scripts.join, "joining", room, args).await?;
        told("joining", room, &answer)
    }

    /// Does something to a ticket, if it is the one that joined then.
    ///
    /// # Errors
    /// [`Refusal::NoRoom`], [`Refusal::NoTicket`], [`Refusal::Closed`], [`Refusal::NotAdmitted`],
    /// [`Refusal::Gone`], or of Redis.
    pub async fn act(
        &self,
        room: &str,
        act: Act,
        number: u64,
        epoch: u32,
        joined_us: u64,
    ) -> Result<Told, Error> {
        let (epoch, joined) = (epoch.to_string(), joined_us.to_string());
        let args = vec![act.word().into(), lua_number(number), epoch.into(), joined.into()];
        let answer = self.run(&self.scripts.ticket, "a ticket of", room, args).await?;
        told("a ticket of", room, &answer)
    }

    /// Removes a ticket, whosever it is.
    ///
    /// # Errors
    /// [`Refusal::NoRoom`], [`Refusal::NoTicket`], [`Refusal::Closed`], or of Redis.
    pub async fn remove(&self, room: &str, number: u64) -> Result<Told, Error> {
        let args = vec!["remove".into(), lua_number(number), "".into(), "".into()];
        let answer = self.run(&self.scripts.ticket, "removing a ticket of", room, args).await?;
        told("removing a ticket of", room, &answer)
    }

    /// Lets a room's time go on, with at most so many changes.
    ///
    /// # Errors
    /// [`Refusal::NoRoom`], [`Refusal::Over`], or of Redis.
    pub async fn tick(&self, room: &str, most: u32) -> Result<Ticked, Error> {
        let answer = self.run(&self.scripts.tick, "ticking", room, vec![i64::from(most).into()]).await?;
        match integers(&answer)[..] {
            [more, seq, relayed, waiting, active] => {
                Ok(Ticked { more: more == 1, seq, relayed, waiting, active })
            }
            _ => Err(unexpected("ticking", room, &answer)),
        }
    }

    /// Notes which tickets have streams at an edge. `Ok(false)`: its lease had run out, send all.
    ///
    /// # Errors
    /// [`Refusal::NoRoom`], or of Redis.
    pub async fn presence(
        &self,
        room: &str,
        edge: &str,
        all: bool,
        lease_us: u64,
        opened: &[u64],
        closed: &[u64],
    ) -> Result<bool, Error> {
        let mut args: Vec<Value> =
            vec![edge.into(), i64::from(all).into(), lua_number(lease_us), (opened.len() as i64).into()];
        args.extend(opened.iter().chain(closed).map(|n| lua_number(*n)));
        let answer = self.run(&self.scripts.presence, "presence in", room, args).await?;
        match integers(&answer)[..] {
            [known] => Ok(known == 1),
            _ => Err(unexpected("presence in", room, &answer)),
        }
    }

    /// Takes or keeps the lease of a room's relay, and notes up to which record Kafka has all.
    /// The epoch, the version that Kafka has, and the room's.
    ///
    /// # Errors
    /// [`Refusal::NoRoom`], [`Refusal::Held`], or of Redis.
    pub async fn relay(
        &self,
        room: &str,
        relay: &str,
        lease_us: u64,
        acknowledged: Option<Position>,
    ) -> Result<(u32, u64, u64), Error> {
        let texts = acknowledged.map_or_else(Default::default, |place| {
            [place.epoch.to_string(), place.seq.to_string(), place.time_us.to_string()]
        });
        let mut args: Vec<Value> = vec![relay.into(), lua_number(lease_us)];
        args.extend(texts.map(Value::from));
        let answer = self.run(&self.scripts.relay, "relaying", room, args).await?;
        match integers(&answer)[..] {
            [epoch, relayed, seq] => Ok((epoch as u32, relayed, seq)),
            _ => Err(unexpected("relaying", room, &answer)),
        }
    }

    /// A room as it stands; with who waits and who is inside, if `whole`.
    ///
    /// # Errors
    /// [`Refusal::NoRoom`], or of Redis.
    pub async fn read(&self, room: &str, whole: bool) -> Result<Read, Error> {
        let doing = "reading";
        let mut answer =
            self.ask(&self.scripts.read, doing, room, vec![i64::from(whole).into()]).await?.into_iter();
        let mut next = || answer.next().unwrap_or(Value::Null);
        let redis = |source| Error::Redis { doing, room: room.to_owned(), source };
        let (epoch, seq, time_us) = (next(), next(), next());
        let kept = next().convert::<String>().map_err(redis)?;
        Ok(Read {
            epoch: epoch.convert().map_err(redis)?,
            seq: seq.convert().map_err(redis)?,
            time_us: time_us.convert().map_err(redis)?,
            kept: serde_json::from_str(&kept).map_err(|error| Error::Answer {
                doing,
                room: room.to_owned(),
                // The error's own text may quote a value.
                answer: format!("a field of the record is of another type, before column {}", error.column()),
            })?,
            longest_wait_us: next().convert().map_err(redis)?,
            first_place: next().convert().map_err(redis)?,
            waiting: next().convert().map_err(redis)?,
            active: next().convert().map_err(redis)?,
        })
    }

    /// The names of all rooms.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn list(&self) -> Result<Vec<String>, Error> {
        let redis = |source| Error::Redis { doing: "listing", room: "*".to_owned(), source };
        self.client.smembers(ROOMS).await.map_err(redis)
    }

    /// Takes a room that is gone off the list.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn unlist(&self, room: &str) -> Result<(), Error> {
        let redis = |source| Error::Redis { doing: "unlisting", room: room.to_owned(), source };
        self.client.srem(ROOMS, room).await.map_err(redis)
    }

    /// Runs a script that changes something; what it says after its `ok`.
    async fn run(
        &self,
        script: &Script,
        doing: &'static str,
        room: &str,
        args: Vec<Value>,
    ) -> Result<Vec<Value>, Error> {
        self.replicas.write(&names::room_feed(room), self.ask(script, doing, room, args)).await
    }

    /// What a script says after its `ok`.
    async fn ask(
        &self,
        script: &Script,
        doing: &'static str,
        room: &str,
        args: Vec<Value>,
    ) -> Result<Vec<Value>, Error> {
        let feed = names::room_feed(room);
        let mut all: Vec<Value> = vec![channel(&feed).into(), i64::from(rand::random::<u32>()).into()];
        all.extend(args);
        let answer: Value = run_script(&self.client, script, feed_keys(&feed), all)
            .await
            .map_err(|source| Error::Redis { doing, room: room.to_owned(), source })?;
        let mut answer = answer.into_array();
        if answer.is_empty() {
            return Err(unexpected(doing, room, &answer));
        }
        let word = answer.remove(0).convert::<String>().unwrap_or_default();
        if word == "ok" {
            return Ok(answer);
        }
        match Refusal::ALL.iter().find(|(_, ours, _)| *ours == word) {
            Some((refusal, ..)) => Err(Error::Refused(*refusal)),
            None => Err(unexpected(doing, room, &answer)),
        }
    }
}

/// A number as scripts take it: Lua counts to 2^53, and what is beyond must stay beyond what there is.
fn lua_number(number: u64) -> Value {
    Value::from(number.min(1 << 53) as i64)
}

fn integers(answer: &[Value]) -> Vec<u64> {
    answer.iter().filter_map(Value::as_u64).collect()
}

fn told(doing: &'static str, room: &str, answer: &[Value]) -> Result<Told, Error> {
    match integers(answer)[..] {
        [
            number,
            epoch,
            joined_us,
            state,
            position,
            waiting,
            seq,
            time_us,
            pace_milli,
            mode,
            until_ms,
            pass_seconds,
            now_us,
        ] => Ok(Told {
            number,
            epoch: epoch as u32,
            joined_us,
            state: state as u32,
            position,
            waiting,
            seq,
            time_us,
            pace_milli,
            mode: Mode::try_from(mode as i32).unwrap_or_default(),
            until_ms,
            pass_seconds,
            now_us,
        }),
        _ => Err(unexpected(doing, room, answer)),
    }
}

fn unexpected(doing: &'static str, room: &str, answer: &[Value]) -> Error {
    Error::Answer { doing, room: room.to_owned(), answer: format!("{} values", answer.len()) }
}
