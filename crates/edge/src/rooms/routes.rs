//! The HTTP routes of the waiting rooms.

use std::rc::Rc;
use std::sync::Arc;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use serde_json::json;
use tonic::transport::Channel;
use tonic::{Response, Status};
use tutti_feed::Cursor;
use tutti_model::queue::{
    JoinRequest, ListRoomsRequest, PatchRoomRequest, PutRoomRequest, RemoveRequest, RoomName, SetModeRequest,
    TicketId,
};
use tutti_model::room::{room_to_json, ticket_to_json};
use tutti_model::{Mode, room};
use uuid::Uuid;

use crate::http::auth::token_of;
use crate::http::claims::NumericDate;
use crate::http::open::{Part, answer_stream, open};
use crate::http::problem::{Answer, Problem, json_now};
use crate::http::query::{MAX_ID_BYTES, StreamQuery};
use crate::http::refusal::Refusal;
use crate::http::routes::{idempotency_key, only, postable, read_body, readable};
use crate::http::shared::Shared;
use crate::rooms::client::QueueClient;
use crate::rooms::follower::Rooms;
use crate::rooms::tickets::{TicketKeys, TicketRefusal};
use crate::rooms::visitors::{RoomStreams, Visit};

/// The scope that is needed to create, change and list rooms.
const ADMIN: &str = "rooms:admin";
/// The scope that is needed to join, unless rooms are public.
const JOIN: &str = "rooms:join";
/// Largest body that is read. The settings of a room are a few numbers.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// What the handlers of waiting rooms need, one per worker.
#[derive(Clone)]
pub(crate) struct RoomRoutes {
    pub(crate) shared: Shared,
    pub(crate) streams: Rc<RoomStreams>,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) ticket_keys: Arc<TicketKeys>,
    /// Whether rooms may be joined without a token.
    pub(crate) is_public: bool,
    /// Name of the cookie that may hold a ticket's token.
    pub(crate) cookie: String,
}

impl RoomRoutes {
    /// Registers the routes of waiting rooms.
    pub(crate) fn configure(self, app: &mut web::ServiceConfig) {
        app.app_data(web::Data::new(self));
        configure(app);
    }

    /// Returns the stream of a room for the holder of a ticket's token. `last_id` says up to where the client has been
    /// shown the room.
    ///
    /// # Errors
    /// If this edge has no rooms, or the token is not valid for the room.
    pub(crate) async fn part(
        &self,
        request: &HttpRequest,
        room: &str,
        token: &str,
        last_id: Option<String>,
    ) -> Result<Part, Problem> {
        configured(self)?;
        let (id, exp) = ticket_of(self, room, token).await?;
        let shown = last_id
            .filter(|id| id.len() <= MAX_ID_BYTES)
            .and_then(|id| Cursor::parse(&id))
            .and_then(|cursor| cursor.0.first().copied().flatten());
        let room = self.rooms.follow(room);
        let address = self.shared.address_of(request);
        let visit = Visit { rooms: self.rooms.clone(), room, id, shown, address };
        let streams = self.streams.clone();
        let start = Box::new(move |stream, hello| streams.admit(stream, hello, visit));
        Ok(Part { start, expires: Some(exp.time_left()) })
    }
}

fn configure(app: &mut web::ServiceConfig) {
    app.service(readable("/.well-known/jwks.json", jwks))
        .service(readable("/v1/rooms", list))
        .service(only(
            "GET, HEAD, PUT, PATCH, DELETE",
            readable("/v1/rooms/{room}", get)
                .route(web::put().to(put))
                .route(web::patch().to(patch))
                .route(web::delete().to(async |r, s, p| set_mode(r, s, p, Mode::Closed).await)),
        ))
        .service(readable("/v1/rooms/{room}/lottery", lottery))
        .service(readable("/v1/rooms/{room}/stream", stream))
        .service(postable("/v1/rooms/{room}/tickets", join))
        .service(only(
            "GET, HEAD, DELETE",
            readable("/v1/rooms/{room}/tickets/{ticket}", async |r, s, p| act(r, s, p, Act::Get).await)
                .route(web::delete().to(leave)),
        ));
    for (word, mode) in [("pause", Mode::Paused), ("resume", Mode::Open), ("drain", Mode::Draining)] {
        let set = move |r, s, p| async move { set_mode(r, s, p, mode).await };
        app.service(postable(&format!("/v1/rooms/{{room}}/{word}"), set));
    }
    for (word, what) in [("claim", Act::Claim), ("renew", Act::Renew), ("release", Act::Release)] {
        let act = move |r, s, p| async move { act(r, s, p, what).await };
        app.service(postable(&format!("/v1/rooms/{{room}}/tickets/{{ticket}}/{word}"), act));
    }
}

/// What a visitor asks for its ticket.
#[derive(Clone, Copy)]
enum Act {
    Get,
    Claim,
    Renew,
    Release,
}

async fn jwks(rooms: web::Data<RoomRoutes>) -> Answer {
    configured(&rooms)?;
    let jwks = rooms
        .ticket_keys
        .jwks()
        .await
        .map_err(|status| Problem::of_service(&rooms.shared.failures, &status))?;
    Ok(HttpResponse::Ok()
        .content_type("application/jwk-set+json")
        .insert_header((header::CACHE_CONTROL, "public, max-age=60"))
        .body(jwks.to_string()))
}

async fn list(request: HttpRequest, rooms: web::Data<RoomRoutes>) -> Answer {
    administrator(&request, &rooms)?;
    let listed =
        ask(&rooms, ListRoomsRequest {}, |mut q, all| async move { q.list_rooms(all).await }).await?;
    Ok(json_now(&json!({
        "rooms": listed.rooms.iter().map(room_to_json).collect::<Vec<_>>(),
        "unreadable": listed.unreadable,
    })))
}

async fn get(request: HttpRequest, rooms: web::Data<RoomRoutes>, path: web::Path<String>) -> Answer {
    administrator(&request, &rooms)?;
    let name = RoomName { room: path.into_inner() };
    let answer = ask(&rooms, name, |mut q, name| async move { q.get_room(name).await }).await?;
    Ok(json_now(&room_to_json(&answer)))
}

/// Returns what anyone needs to check the draw of a room's opening: when the room opens and the hash of the seed, and
/// after the opening the seed and the number of tickets that took part.
async fn lottery(rooms: web::Data<RoomRoutes>, path: web::Path<String>) -> Answer {
    configured(&rooms)?;
    let name = RoomName { room: path.into_inner() };
    let kept = ask(&rooms, name, |mut q, name| async move { q.get_room(name).await }).await?;
    let settings = kept.settings.as_ref().map(room::settings_to_json).unwrap_or_default();
    let drawn = kept.opened && !kept.seed.is_empty();
    Ok(json_now(&json!({
        "room": kept.room,
        "opensAt": settings["opensAt"],
        "seedSha256": settings["seedSha256"],
        "seed": drawn.then_some(&kept.seed),
        "early": drawn.then_some(kept.early),
    })))
}

async fn put(
    request: HttpRequest,
    rooms: web::Data<RoomRoutes>,
    path: web::Path<String>,
    body: web::Payload,
) -> Answer {
    administrator(&request, &rooms)?;
    let name = path.into_inner();
    if !room::is_name(&name) {
        return Err(Problem::bad_request(
            "the room's name must have 1 to 64 of the characters a-z 0-9 - _ and begin with a letter or digit",
        ));
    }
    let body = settings_body(body).await?;
    let (settings, opens_at_ms) = room::settings_from_json(&body).map_err(Problem::bad_request)?;
    let asked = PutRoomRequest { room: name, settings: Some(settings), opens_at_ms };
    let answer = ask(&rooms, asked, |mut q, asked| async move { q.put_room(asked).await }).await?;
    Ok(json_now(&room_to_json(&answer)))
}

async fn patch(
    request: HttpRequest,
    rooms: web::Data<RoomRoutes>,
    path: web::Path<String>,
    body: web::Payload,
) -> Answer {
    administrator(&request, &rooms)?;
    let body = settings_body(body).await?;
    let changes = room::changes_from_json(&body).map_err(Problem::bad_request)?;
    let asked = PatchRoomRequest { room: path.into_inner(), changes: Some(changes) };
    let answer = ask(&rooms, asked, |mut q, asked| async move { q.patch_room(asked).await }).await?;
    Ok(json_now(&room_to_json(&answer)))
}

/// Returns the body of a request that sets a room.
///
/// # Errors
/// If the body is too large or empty. An empty body does not ask for the defaults: more likely the request lost its
/// body.
async fn settings_body(body: web::Payload) -> Result<Bytes, Problem> {
    let body = read_body(body, MAX_BODY_BYTES).await?;
    if body.is_empty() {
        return Err(Problem::bad_request(
            r#"the body is missing: it must be a JSON object with the room's settings, for example {"maxActive":100}; a PUT of {} sets the defaults"#,
        ));
    }
    Ok(body)
}

/// Opens, pauses, drains or closes a room.
async fn set_mode(
    request: HttpRequest,
    rooms: web::Data<RoomRoutes>,
    path: web::Path<String>,
    mode: Mode,
) -> Answer {
    administrator(&request, &rooms)?;
    let asked = SetModeRequest { room: path.into_inner(), mode: mode.into() };
    let answer = ask(&rooms, asked, |mut q, asked| async move { q.set_mode(asked).await }).await?;
    Ok(json_now(&room_to_json(&answer)))
}

/// Joins a room. A request that repeats an `Idempotency-Key` receives the ticket that the first one received.
async fn join(request: HttpRequest, rooms: web::Data<RoomRoutes>, path: web::Path<String>) -> Answer {
    configured(&rooms)?;
    let verifier = &rooms.shared.verifier;
    let claims = if rooms.is_public {
        match verifier.claims(&request) {
            Err(Refusal::Missing) => None,
            claims => Some(claims),
        }
    } else {
        Some(verifier.check(&request, JOIN))
    };
    let claims = claims.transpose().map_err(|refusal| rooms.shared.refused(&refusal))?;
    let key = idempotency_key(&request).and_then(|key| Uuid::try_parse(key).ok()).ok_or_else(|| {
        Problem::bad_request(
            "the header Idempotency-Key must be a UUID: draw one for each visit, and send the same one when you retry",
        )
    })?;
    let room = path.into_inner();
    let asked = JoinRequest {
        room: room.clone(),
        idempotency_key: key.to_string(),
        sub: claims.map(|claims| claims.sub).unwrap_or_default(),
    };
    let ticket = ask(&rooms, asked, |mut q, asked| async move { q.join(asked).await }).await?;
    let mut body = ticket_to_json(&ticket);
    body["token"] = ticket.token.as_str().into();
    let number = ticket.id.unwrap_or_default().number;
    Ok(HttpResponse::Created()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::LOCATION, format!("/v1/rooms/{room}/tickets/{number}")))
        .json(body))
}

/// Does what a visitor asks for the ticket that the request's token was issued for.
async fn act(
    request: HttpRequest,
    rooms: web::Data<RoomRoutes>,
    path: web::Path<(String, String)>,
    act: Act,
) -> Answer {
    let (room, number) = path.into_inner();
    let (id, _) = visitor(&request, &rooms, &room).await?;
    if number.parse() != Ok(id.number) {
        return Err(rooms.shared.refused(&Refusal::Invalid("issued for another ticket".to_owned())));
    }
    let call = |mut q: QueueClient<Channel>, id| async move {
        match act {
            Act::Get => q.get_ticket(id).await,
            Act::Claim => q.claim(id).await,
            Act::Renew => q.renew(id).await,
            Act::Release => q.leave(id).await,
        }
    };
    Ok(json_now(&ticket_to_json(&ask(&rooms, id, call).await?)))
}

/// Gives a ticket up: as an administrator if the request has that scope, otherwise by the ticket's own token.
async fn leave(
    request: HttpRequest,
    rooms: web::Data<RoomRoutes>,
    path: web::Path<(String, String)>,
) -> Answer {
    if rooms.shared.verifier.check(&request, ADMIN).is_err() {
        return act(request, rooms, path, Act::Release).await;
    }
    configured(&rooms)?;
    let (room, number) = path.into_inner();
    let number =
        number.parse().map_err(|_| Problem::bad_request("the ticket must be a whole number, at least 1"))?;
    let asked = RemoveRequest { room, number };
    let answer = ask(&rooms, asked, |mut q, asked| async move { q.remove(asked).await }).await?;
    Ok(json_now(&ticket_to_json(&answer)))
}

async fn stream(request: HttpRequest, rooms: web::Data<RoomRoutes>, path: web::Path<String>) -> Answer {
    answer_stream(&request, &rooms.shared, open_stream(&request, &rooms, &path).await)
}

async fn open_stream(request: &HttpRequest, rooms: &RoomRoutes, room: &str) -> Answer {
    configured(rooms)?;
    let token = token_of(request, &rooms.cookie).ok_or_else(|| rooms.shared.refused(&Refusal::Missing))?;
    let query = StreamQuery::of(request)?;
    let part = rooms.part(request, room, &token, query.last_id.clone()).await?;
    Ok(open(request, &rooms.shared, &query, part, false))
}

/// Returns the ticket that the request's token was issued for, and when the token expires.
///
/// # Errors
/// If this edge has no rooms, or the request has no token that is valid for the room.
async fn visitor(
    request: &HttpRequest,
    rooms: &RoomRoutes,
    room: &str,
) -> Result<(TicketId, NumericDate), Problem> {
    configured(rooms)?;
    let token = token_of(request, &rooms.cookie).ok_or_else(|| rooms.shared.refused(&Refusal::Missing))?;
    ticket_of(rooms, room, &token).await
}

/// Returns the ticket that `token` was issued for, and when the token expires.
///
/// # Errors
/// If the token is not valid for the room, or the keys to verify it are not available.
async fn ticket_of(rooms: &RoomRoutes, room: &str, token: &str) -> Result<(TicketId, NumericDate), Problem> {
    let claims = rooms.ticket_keys.verify(token, room).await.map_err(|refusal| match refusal {
        TicketRefusal::Invalid(why) => rooms.shared.refused(&Refusal::Invalid(why)),
        TicketRefusal::NoKeys(status) => Problem::of_service(&rooms.shared.failures, &status),
    })?;
    let id =
        TicketId { room: claims.room, epoch: claims.epoch, number: claims.ticket, joined_us: claims.joined };
    Ok((id, NumericDate::from_secs(claims.exp)))
}

/// Asks the waiting room's service.
///
/// # Errors
/// If the service refuses or no replica answers, as the problem that the client receives.
async fn ask<R: Clone, T, F: Future<Output = Result<Response<T>, Status>>>(
    rooms: &RoomRoutes,
    request: R,
    call: impl Fn(QueueClient<Channel>, R) -> F,
) -> Result<T, Problem> {
    rooms
        .rooms
        .queue
        .ask(request, call)
        .await
        .map_err(|status| Problem::of_service(&rooms.shared.failures, &status))
}

/// Checks that this edge has rooms and that the request's token has the scope [`ADMIN`].
fn administrator(request: &HttpRequest, rooms: &RoomRoutes) -> Result<(), Problem> {
    configured(rooms)?;
    rooms.shared.check(request, ADMIN).map(drop)
}

/// Checks that this edge has waiting rooms.
fn configured(rooms: &RoomRoutes) -> Result<(), Problem> {
    if rooms.rooms.queue.is_configured() {
        return Ok(());
    }
    Err(Problem::new(StatusCode::NOT_FOUND, "this edge has no waiting rooms: queue.urls is not set"))
}
