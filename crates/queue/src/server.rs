//! The gRPC interface: what edges and back ends ask.

use std::time::Duration;

use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use tonic::{Code, Request, Response, Status};
use tutti_model::queue::{
    Figures, JoinRequest, KeysRequest, KeysResponse, ListRoomsRequest, PatchRoomRequest, PresenceRequest,
    PresenceResponse, PutRoomRequest, RemoveRequest, Room, RoomName, RoomSnapshot, Rooms as RoomList,
    SetModeRequest, Ticket, TicketId, Version,
};
use tutti_model::room::{all_changed, check, eta_seconds, is_name};
use tutti_model::{GoneReason, Mode, RoomSettings, TicketState};
use tutti_service::{Failures, grpc};
use uuid::Uuid;

use crate::metrics::{Metrics, RefusalLabel};
use crate::passes::{Of, Signer};
use crate::proto::queue_server::Queue;
use crate::rooms::{Act, Error, Read, Refusal, Rooms, Told};

/// An edge that is not heard of for so long, in room time, has lost its streams.
const EDGE_LEASE: Duration = Duration::from_secs(10);
/// Tickets of one call to the presence script.
const TICKETS_A_CALL: usize = 1000;
/// An idempotency key's user is at most so long.
const MAX_SUB_BYTES: usize = 512;
/// Scripts count in floating point, which is exact up to here.
const MAX_NUMBER: u64 = 1 << 53;

/// What callers are told of failures of the service's own.
const UNAVAILABLE: (Code, &str, &str) = (
    Code::Unavailable,
    "unavailable",
    "the waiting room does not answer at the moment; try again with the same key",
);
const INTERNAL: (Code, &str, &str) =
    (Code::Internal, "internal", "the waiting room failed; its operator finds why under the request id");

/// The service.
pub(crate) struct Server {
    pub(crate) rooms: Rooms,
    pub(crate) signer: Signer,
    pub(crate) metrics: Metrics,
    pub(crate) failures: Failures,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Queue for Server {
    async fn put_room(&self, request: Request<PutRoomRequest>) -> Answer<Room> {
        let PutRoomRequest { room, settings, opens_at_ms } = request.into_inner();
        self.check_name(&room)?;
        let settings = settings.ok_or_else(|| invalid("the settings are missing"))?;
        check(&all_changed(&settings, opens_at_ms)).map_err(invalid)?;
        let seed: String = {
            let bytes: [u8; 16] = rand::rng().random();
            hex(&bytes)
        };
        let sha256 = hex(&Sha256::digest(seed.as_bytes()));
        self.done(self.rooms.put(&room, &settings, opens_at_ms, &seed, &sha256).await)?;
        self.tell_room(room).await
    }

    async fn patch_room(&self, request: Request<PatchRoomRequest>) -> Answer<Room> {
        let PatchRoomRequest { room, changes } = request.into_inner();
        self.check_name(&room)?;
        let changes = changes.unwrap_or_default();
        check(&changes).map_err(invalid)?;
        self.done(self.rooms.patch(&room, &changes).await)?;
        self.tell_room(room).await
    }

    async fn get_room(&self, request: Request<RoomName>) -> Answer<Room> {
        let room = request.into_inner().room;
        self.check_name(&room)?;
        self.tell_room(room).await
    }

    async fn list_rooms(&self, _: Request<ListRoomsRequest>) -> Answer<RoomList> {
        let mut names = self.done(self.rooms.list().await)?;
        names.sort();
        let (mut rooms, mut unreadable) = (Vec::with_capacity(names.len()), Vec::new());
        for name in names {
            match self.rooms.read(&name, false).await {
                Ok(read) => rooms.push(room_of(name, &read)),
                Err(Error::Refused(_)) => {}
                // It must not hide the others.
                Err(error) if error.is_internal() => {
                    self.failures.log("listing the rooms", &error);
                    unreadable.push(name);
                }
                Err(error) => return self.done(Err(error)),
            }
        }
        Ok(Response::new(RoomList { rooms, unreadable }))
    }

    async fn set_mode(&self, request: Request<SetModeRequest>) -> Answer<Room> {
        let request = request.into_inner();
        self.check_name(&request.room)?;
        let mode = Mode::try_from(request.mode).map_err(|_| invalid("there is no such mode"))?;
        self.done(self.rooms.set_mode(&request.room, mode).await)?;
        self.tell_room(request.room).await
    }

    async fn join(&self, request: Request<JoinRequest>) -> Answer<Ticket> {
        let JoinRequest { room, idempotency_key, sub } = request.into_inner();
        self.check_name(&room)?;
        let key =
            Uuid::try_parse(&idempotency_key).map_err(|_| invalid("the idempotency key must be a UUID"))?;
        if sub.len() > MAX_SUB_BYTES {
            return Err(invalid(format!("the user's name has more than {MAX_SUB_BYTES} bytes")));
        }
        let told = self.done(self.rooms.join(&room, key_of(&sub, key)).await)?;
        self.metrics.joins.inc();
        let token = self.signer.token(&of(&room, &told), told.now_us);
        Ok(Response::new(Ticket { token, ..self.ticket(&room, &told) }))
    }

    async fn get_ticket(&self, request: Request<TicketId>) -> Answer<Ticket> {
        self.act(Act::See, request.into_inner()).await
    }

    async fn claim(&self, request: Request<TicketId>) -> Answer<Ticket> {
        self.act(Act::Claim, request.into_inner()).await
    }

    async fn renew(&self, request: Request<TicketId>) -> Answer<Ticket> {
        self.act(Act::Renew, request.into_inner()).await
    }

    async fn leave(&self, request: Request<TicketId>) -> Answer<Ticket> {
        self.act(Act::Leave, request.into_inner()).await
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Answer<Ticket> {
        let RemoveRequest { room, number } = request.into_inner();
        self.check_name(&room)?;
        check_numbers([number])?;
        let told = self.done(self.rooms.remove(&room, number).await)?;
        Ok(Response::new(self.ticket(&room, &told)))
    }

    async fn snapshot(&self, request: Request<RoomName>) -> Answer<RoomSnapshot> {
        let room = request.into_inner().room;
        self.check_name(&room)?;
        let read = self.done(self.rooms.read(&room, true).await)?;
        Ok(Response::new(RoomSnapshot {
            room: Some(room_of(room, &read)),
            waiting: read.waiting,
            first_place: read.first_place,
            active: read.active,
        }))
    }

    async fn presence(&self, request: Request<PresenceRequest>) -> Answer<PresenceResponse> {
        let PresenceRequest { room, edge, all, opened, closed } = request.into_inner();
        self.check_name(&room)?;
        Uuid::try_parse(&edge).map_err(|_| invalid("an edge is named by a UUID"))?;
        check_numbers(opened.iter().chain(&closed).copied())?;
        let lease_us = EDGE_LEASE.as_micros() as u64;
        let (mut opened, mut closed) = (opened.chunks(TICKETS_A_CALL), closed.chunks(TICKETS_A_CALL));
        let calls = opened.len().max(closed.len()).max(1);
        let mut known = true;
        for call in 0..calls {
            let (open, close) = (opened.next().unwrap_or_default(), closed.next().unwrap_or_default());
            let told = self.rooms.presence(&room, &edge, all && call == 0, lease_us, open, close).await;
            known &= self.done(told)?;
        }
        Ok(Response::new(PresenceResponse { known }))
    }

    async fn keys(&self, _: Request<KeysRequest>) -> Answer<KeysResponse> {
        Ok(Response::new(KeysResponse { jwks: self.signer.jwks().to_owned() }))
    }
}

impl Server {
    /// What is no name of a room is none that exists: it reaches no key of Redis.
    fn check_name(&self, room: &str) -> Result<(), Status> {
        if is_name(room) { Ok(()) } else { self.done(Err(Error::Refused(Refusal::NoRoom))) }
    }

    async fn tell_room(&self, room: String) -> Answer<Room> {
        let read = self.done(self.rooms.read(&room, false).await)?;
        Ok(Response::new(room_of(room, &read)))
    }

    async fn act(&self, act: Act, id: TicketId) -> Answer<Ticket> {
        self.check_name(&id.room)?;
        check_numbers([id.number, id.joined_us])?;
        let told = self.done(self.rooms.act(&id.room, act, id.number, id.epoch, id.joined_us).await)?;
        Ok(Response::new(self.ticket(&id.room, &told)))
    }

    fn ticket(&self, room: &str, told: &Told) -> Ticket {
        let state = match told.state {
            1 => TicketState::Waiting,
            2 => TicketState::Admitted,
            3 => TicketState::Claimed,
            _ => TicketState::Gone,
        };
        let inside = matches!(state, TicketState::Admitted | TicketState::Claimed);
        let reason = GoneReason::try_from(told.state as i32).unwrap_or_default();
        let pass = if inside {
            self.signer.pass(&of(room, told), told.now_us, told.pass_seconds, told.until_ms)
        } else {
            String::new()
        };
        Ticket {
            id: Some(TicketId {
                room: room.to_owned(),
                epoch: told.epoch,
                number: told.number,
                joined_us: told.joined_us,
            }),
            state: state.into(),
            reason: reason.into(),
            position: told.position,
            waiting: told.waiting,
            eta_seconds: (told.position > 0)
                .then(|| eta_seconds(told.position, told.pace_milli, told.mode))
                .flatten(),
            version: Some(Version { epoch: told.epoch, seq: told.seq, time_us: told.time_us }),
            token: String::new(),
            pass,
            until_ms: if inside { told.until_ms } else { 0 },
        }
    }

    /// Counts what went wrong, and says it in gRPC's terms: why a call was refused, or that it failed.
    fn done<T>(&self, outcome: Result<T, Error>) -> Result<T, Status> {
        let error = match outcome {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let Error::Refused(refusal) = &error else {
            self.metrics.failed.inc();
            let told = if error.is_internal() { INTERNAL } else { UNAVAILABLE };
            return Err(grpc::failure(&self.failures, told, "a call", &error));
        };
        self.metrics.refused.get_or_create(&RefusalLabel { reason: refusal.word() }).inc();
        let code = match refusal {
            Refusal::NoRoom | Refusal::NoTicket | Refusal::Over => Code::NotFound,
            Refusal::Full => Code::ResourceExhausted,
            _ => Code::FailedPrecondition,
        };
        Err(grpc::refusal(code, refusal.word(), error.to_string()))
    }
}

fn invalid(sentence: impl Into<String>) -> Status {
    grpc::refusal(Code::InvalidArgument, "invalid", sentence)
}

/// # Errors
/// [`Code::InvalidArgument`] if one of these numbers is none that a script can count to: no ticket has it.
fn check_numbers(numbers: impl IntoIterator<Item = u64>) -> Result<(), Status> {
    if numbers.into_iter().all(|number| number <= MAX_NUMBER) {
        Ok(())
    } else {
        Err(invalid(format!("a ticket's number and time are at most {MAX_NUMBER}")))
    }
}

fn of<'a>(room: &'a str, told: &Told) -> Of<'a> {
    Of { room, ticket: told.number, epoch: told.epoch, joined_us: told.joined_us }
}

/// A key is its user's: nobody finds another's ticket by guessing.
fn key_of(sub: &str, key: Uuid) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(sub.as_bytes());
    hash.update([0]);
    hash.update(key.as_bytes());
    let hash = hash.finalize();
    let mut first = [0; 16];
    first.copy_from_slice(&hash[..16]);
    first
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn room_of(room: String, read: &Read) -> Room {
    let kept = &read.kept;
    let opened = kept.phase == 2;
    let whole = |n: f64| n as u64;
    Room {
        room,
        settings: Some(RoomSettings {
            max_active: whole(kept.max),
            admit_per_second: kept.rate,
            claim_seconds: whole(kept.claim),
            session_seconds: whole(kept.session),
            pass_seconds: whole(kept.pass),
            grace_seconds: whole(kept.grace),
            opens_at_ms: whole(kept.opens),
            seed_sha256: kept.seed_sha256.clone(),
        }),
        mode: kept.mode,
        opened,
        seed: if opened && kept.opens > 0.0 { kept.seed.0.clone() } else { String::new() },
        figures: Some(Figures {
            joined: whole(kept.tickets),
            waiting: whole(kept.waiting),
            active: whole(kept.active),
            admitted: whole(kept.admitted),
            claimed: whole(kept.claimed),
            left: whole(kept.left),
            no_shows: whole(kept.no_shows),
            expired: whole(kept.expired),
            away: whole(kept.away),
            pace_milli: whole(kept.pace * 1000.0),
            longest_wait_ms: read.longest_wait_us / 1000,
            unrelayed: read.seq.saturating_sub(whole(kept.relayed)),
        }),
        version: Some(Version { epoch: read.epoch, seq: read.seq, time_us: read.time_us }),
        early: if opened { whole(kept.early) } else { 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_no_script_can_count_to_is_an_invalid_argument() {
        assert!(check_numbers([0, 1, MAX_NUMBER]).is_ok());
        for number in [MAX_NUMBER + 1, 1 << 63, u64::MAX] {
            assert_eq!(check_numbers([1, number]).unwrap_err().code(), Code::InvalidArgument);
        }
    }
}
