//! The gRPC service that edges and back ends call. A call is checked here, then runs one script ([`crate::rooms`]) or
//! more; `messages.rs` writes the reply, `status.rs` writes what went wrong.

mod messages;
mod status;

use std::time::Duration;

use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};
use tutti_model::Mode;
use tutti_model::queue::{
    JoinRequest, KeysRequest, KeysResponse, ListRoomsRequest, PatchRoomRequest, PresenceRequest,
    PresenceResponse, PutRoomRequest, RemoveRequest, Room, RoomName, RoomSnapshot, Rooms as RoomList,
    SetModeRequest, Ticket, TicketId,
};
use tutti_model::room::{changes_from_grpc, check, is_name, with_defaults};
use tutti_service::Failures;
use uuid::Uuid;

use crate::metrics::Metrics;
use crate::proto::queue_server::Queue;
use crate::rooms::{Error, Refusal, Rooms, TicketAction};
use crate::signer::Signer;
use messages::{room_message, ticket_message, ticket_ref};
use status::{check_numbers, invalid, status_of};

/// The lease of an edge, in room time. An edge that sends nothing for so long has lost its streams.
const EDGE_LEASE: Duration = Duration::from_secs(10);
/// The maximum number of tickets of one call of the presence script.
const TICKETS_PER_CALL: usize = 1000;
/// The maximum length of the user of an idempotency key, in bytes.
const MAX_SUB_BYTES: usize = 512;

/// The gRPC service.
pub(crate) struct Server {
    pub(crate) rooms: Rooms,
    pub(crate) signer: Signer,
    pub(crate) metrics: Metrics,
    pub(crate) failures: Failures,
}

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Queue for Server {
    async fn put_room(&self, request: Request<PutRoomRequest>) -> Reply<Room> {
        let PutRoomRequest { room, settings, opens_at_ms } = request.into_inner();
        self.check_name(&room)?;
        let settings = settings.ok_or_else(|| invalid("the settings are missing"))?;
        let changes = changes_from_grpc(&settings, opens_at_ms);
        check(&changes).map_err(invalid)?;
        let settings = with_defaults(&changes);
        let seed: String = {
            let bytes: [u8; 16] = rand::rng().random();
            hex(&bytes)
        };
        let sha256 = hex(&Sha256::digest(seed.as_bytes()));
        self.checked(self.rooms.put(&room, &settings, opens_at_ms, &seed, &sha256).await)?;
        self.room(room).await
    }

    async fn patch_room(&self, request: Request<PatchRoomRequest>) -> Reply<Room> {
        let PatchRoomRequest { room, changes } = request.into_inner();
        self.check_name(&room)?;
        let changes = changes.unwrap_or_default();
        check(&changes).map_err(invalid)?;
        self.checked(self.rooms.patch(&room, &changes).await)?;
        self.room(room).await
    }

    async fn get_room(&self, request: Request<RoomName>) -> Reply<Room> {
        let room = request.into_inner().room;
        self.check_name(&room)?;
        self.room(room).await
    }

    async fn list_rooms(&self, _: Request<ListRoomsRequest>) -> Reply<RoomList> {
        let mut names = self.checked(self.rooms.list().await)?;
        names.sort();
        let (mut rooms, mut unreadable) = (Vec::with_capacity(names.len()), Vec::new());
        for name in names {
            match self.rooms.read(&name, false).await {
                Ok(stored) => rooms.push(room_message(name, &stored)),
                Err(Error::Refused(_)) => {}
                // A room that cannot be read does not hide the others.
                Err(error) if error.is_internal() => {
                    self.failures.log("listing the rooms", &error);
                    unreadable.push(name);
                }
                Err(error) => return self.checked(Err(error)),
            }
        }
        Ok(Response::new(RoomList { rooms, unreadable }))
    }

    async fn set_mode(&self, request: Request<SetModeRequest>) -> Reply<Room> {
        let request = request.into_inner();
        self.check_name(&request.room)?;
        let mode = Mode::try_from(request.mode).map_err(|_| invalid("there is no such mode"))?;
        self.checked(self.rooms.set_mode(&request.room, mode).await)?;
        self.room(request.room).await
    }

    async fn join(&self, request: Request<JoinRequest>) -> Reply<Ticket> {
        let JoinRequest { room, idempotency_key, sub } = request.into_inner();
        self.check_name(&room)?;
        let key =
            Uuid::try_parse(&idempotency_key).map_err(|_| invalid("the idempotency key must be a UUID"))?;
        if sub.len() > MAX_SUB_BYTES {
            return Err(invalid(format!("the user's name has more than {MAX_SUB_BYTES} bytes")));
        }
        let reply = self.checked(self.rooms.join(&room, key_of_user(&sub, key)).await)?;
        self.metrics.joins.inc();
        let token = self.signer.token(&ticket_ref(&room, &reply), reply.now_us);
        Ok(Response::new(Ticket { token, ..ticket_message(&self.signer, &room, &reply) }))
    }

    async fn get_ticket(&self, request: Request<TicketId>) -> Reply<Ticket> {
        self.act(TicketAction::Get, request.into_inner()).await
    }

    async fn claim(&self, request: Request<TicketId>) -> Reply<Ticket> {
        self.act(TicketAction::Claim, request.into_inner()).await
    }

    async fn renew(&self, request: Request<TicketId>) -> Reply<Ticket> {
        self.act(TicketAction::Renew, request.into_inner()).await
    }

    async fn leave(&self, request: Request<TicketId>) -> Reply<Ticket> {
        self.act(TicketAction::Leave, request.into_inner()).await
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Reply<Ticket> {
        let RemoveRequest { room, number } = request.into_inner();
        self.check_name(&room)?;
        check_numbers([number])?;
        let reply = self.checked(self.rooms.remove(&room, number).await)?;
        Ok(Response::new(ticket_message(&self.signer, &room, &reply)))
    }

    async fn snapshot(&self, request: Request<RoomName>) -> Reply<RoomSnapshot> {
        let room = request.into_inner().room;
        self.check_name(&room)?;
        let stored = self.checked(self.rooms.read(&room, true).await)?;
        Ok(Response::new(RoomSnapshot {
            room: Some(room_message(room, &stored)),
            waiting: stored.waiting,
            first_place: stored.first_place,
            active: stored.active,
        }))
    }

    async fn presence(&self, request: Request<PresenceRequest>) -> Reply<PresenceResponse> {
        let PresenceRequest { room, edge, all, opened, closed } = request.into_inner();
        self.check_name(&room)?;
        Uuid::try_parse(&edge).map_err(|_| invalid("an edge is named by a UUID"))?;
        check_numbers(opened.iter().chain(&closed).copied())?;
        let lease_us = EDGE_LEASE.as_micros() as u64;
        let (mut opened, mut closed) = (opened.chunks(TICKETS_PER_CALL), closed.chunks(TICKETS_PER_CALL));
        let calls = opened.len().max(closed.len()).max(1);
        let mut known = true;
        for call in 0..calls {
            let (open, close) = (opened.next().unwrap_or_default(), closed.next().unwrap_or_default());
            let reply = self.rooms.presence(&room, &edge, all && call == 0, lease_us, open, close).await;
            known &= self.checked(reply)?;
        }
        Ok(Response::new(PresenceResponse { known }))
    }

    async fn keys(&self, _: Request<KeysRequest>) -> Reply<KeysResponse> {
        Ok(Response::new(KeysResponse { jwks: self.signer.jwks().to_owned() }))
    }
}

impl Server {
    /// Refuses what cannot be the name of a room, so that it reaches no key of Redis.
    fn check_name(&self, room: &str) -> Result<(), Status> {
        if is_name(room) { Ok(()) } else { self.checked(Err(Error::Refused(Refusal::NoRoom))) }
    }

    /// Counts the error of a failed call, and returns it as gRPC has it.
    fn checked<T>(&self, outcome: Result<T, Error>) -> Result<T, Status> {
        outcome.map_err(|error| status_of(&error, &self.metrics, &self.failures))
    }

    /// Answers with a room as it is now.
    async fn room(&self, room: String) -> Reply<Room> {
        let stored = self.checked(self.rooms.read(&room, false).await)?;
        Ok(Response::new(room_message(room, &stored)))
    }

    /// Performs an action on a ticket, and answers with the ticket.
    async fn act(&self, action: TicketAction, id: TicketId) -> Reply<Ticket> {
        self.check_name(&id.room)?;
        check_numbers([id.number, id.joined_us])?;
        let acted = self.rooms.act(&id.room, action, id.number, id.epoch, id.joined_us).await;
        let reply = self.checked(acted)?;
        Ok(Response::new(ticket_message(&self.signer, &id.room, &reply)))
    }
}

/// Returns the idempotency key of a user. It is a hash of user and key, so that nobody gets the ticket of another user by
/// guessing the key.
fn key_of_user(sub: &str, key: Uuid) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(sub.as_bytes());
    hash.update([0]);
    hash.update(key.as_bytes());
    let hash = hash.finalize();
    let mut first = [0; 16];
    first.copy_from_slice(&hash[..16]);
    first
}

/// Returns bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
