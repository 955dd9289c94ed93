//! The HTTP routes of the waiting rooms.

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

use crate::http::auth::{NumericDate, Refusal, token_of};
use crate::http::open::{
    MAX_ID_BYTES, Shared, StreamQuery, address_of, idempotency_key, only, open, postable, readable, streamed,
    whole,
};
use crate::http::problem::{Answer, bad, either, of_service, ok, problem, refused};
use crate::rooms::client::QueueClient;
use crate::rooms::tickets::Untaken;
use crate::rooms::visitors::Visit;
use crate::sse::hub::What;

/// The scope that making and changing rooms needs.
const ADMIN: &str = "rooms:admin";
/// The scope that joining needs, unless rooms are public.
const JOIN: &str = "rooms:join";
/// Settings are a few numbers.
const MAX_BODY_BYTES: usize = 16 * 1024;

pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.service(readable("/.well-known/jwks.json", async |s| either(jwks(s).await)))
        .service(readable("/v1/rooms", async |r, s| either(list(r, s).await)))
        .service(only(
            "GET, HEAD, PUT, PATCH, DELETE",
            readable("/v1/rooms/{room}", async |r, s, p| either(get(r, s, p).await))
                .route(web::put().to(async |r, s, p, b| either(put(r, s, p, b).await)))
                .route(web::patch().to(async |r, s, p, b| either(patch(r, s, p, b).await)))
                .route(web::delete().to(async |r, s, p| either(set_mode(r, s, p, Mode::Closed).await))),
        ))
        .service(readable("/v1/rooms/{room}/lottery", async |s, p| either(lottery(s, p).await)))
        .service(readable("/v1/rooms/{room}/stream", stream))
        .service(postable("/v1/rooms/{room}/tickets", async |r, s, p| either(join(r, s, p).await)))
        .service(only(
            "GET, HEAD, DELETE",
            readable("/v1/rooms/{room}/tickets/{ticket}", async |r, s, p| {
                either(act(r, s, p, Act::See).await)
            })
            .route(web::delete().to(async |r, s, p| either(leave(r, s, p).await))),
        ));
    for (word, mode) in [("pause", Mode::Paused), ("resume", Mode::Open), ("drain", Mode::Draining)] {
        let set = move |r, s, p| async move { either(set_mode(r, s, p, mode).await) };
        app.service(postable(&format!("/v1/rooms/{{room}}/{word}"), set));
    }
    for (word, what) in [("claim", Act::Claim), ("renew", Act::Renew), ("release", Act::Leave)] {
        let act = move |r, s, p| async move { either(act(r, s, p, what).await) };
        app.service(postable(&format!("/v1/rooms/{{room}}/tickets/{{ticket}}/{word}"), act));
    }
}

/// What a visitor does.
#[derive(Clone, Copy)]
enum Act {
    See,
    Claim,
    Renew,
    Leave,
}

async fn jwks(shared: web::Data<Shared>) -> Answer {
    configured(&shared)?;
    let jwks = shared.ticket_keys.jwks().await.map_err(|status| of_service(&shared, &status))?;
    Ok(HttpResponse::Ok()
        .content_type("application/jwk-set+json")
        .insert_header((header::CACHE_CONTROL, "public, max-age=60"))
        .body(jwks.to_string()))
}

async fn list(request: HttpRequest, shared: web::Data<Shared>) -> Answer {
    administrator(&request, &shared)?;
    let listed =
        ask(&shared, ListRoomsRequest {}, |mut q, all| async move { q.list_rooms(all).await }).await?;
    Ok(ok(&json!({
        "rooms": listed.rooms.iter().map(room_to_json).collect::<Vec<_>>(),
        "unreadable": listed.unreadable,
    })))
}

async fn get(request: HttpRequest, shared: web::Data<Shared>, path: web::Path<String>) -> Answer {
    administrator(&request, &shared)?;
    let name = RoomName { room: path.into_inner() };
    let answer = ask(&shared, name, |mut q, name| async move { q.get_room(name).await }).await?;
    Ok(ok(&room_to_json(&answer)))
}

/// What anyone may know of a room's opening, to check it.
async fn lottery(shared: web::Data<Shared>, path: web::Path<String>) -> Answer {
    configured(&shared)?;
    let name = RoomName { room: path.into_inner() };
    let kept = ask(&shared, name, |mut q, name| async move { q.get_room(name).await }).await?;
    let settings = kept.settings.as_ref().map(room::settings_to_json).unwrap_or_default();
    let drawn = kept.opened && !kept.seed.is_empty();
    Ok(ok(&json!({
        "room": kept.room,
        "opensAt": settings["opensAt"],
        "seedSha256": settings["seedSha256"],
        "seed": drawn.then_some(&kept.seed),
        "early": drawn.then_some(kept.early),
    })))
}

async fn put(
    request: HttpRequest,
    shared: web::Data<Shared>,
    path: web::Path<String>,
    body: web::Payload,
) -> Answer {
    administrator(&request, &shared)?;
    let name = path.into_inner();
    if !room::is_name(&name) {
        return Err(problem(
            StatusCode::BAD_REQUEST,
            "a room's name has 1 to 64 characters of a-z, 0-9, - and _, and begins with a letter or digit",
        ));
    }
    let body = settings_body(body).await?;
    let (settings, opens_at_ms) = room::settings_from_json(&body).map_err(|why| bad(&why))?;
    let asked = PutRoomRequest { room: name, settings: Some(settings), opens_at_ms };
    let answer = ask(&shared, asked, |mut q, asked| async move { q.put_room(asked).await }).await?;
    Ok(ok(&room_to_json(&answer)))
}

async fn patch(
    request: HttpRequest,
    shared: web::Data<Shared>,
    path: web::Path<String>,
    body: web::Payload,
) -> Answer {
    administrator(&request, &shared)?;
    let body = settings_body(body).await?;
    let changes = room::changes_from_json(&body).map_err(|why| bad(&why))?;
    let asked = PatchRoomRequest { room: path.into_inner(), changes: Some(changes) };
    let answer = ask(&shared, asked, |mut q, asked| async move { q.patch_room(asked).await }).await?;
    Ok(ok(&room_to_json(&answer)))
}

/// The body of a request that sets a room. One without a body is no request for the defaults: it is more likely one
/// that lost its body.
async fn settings_body(body: web::Payload) -> Result<Bytes, HttpResponse> {
    let body = whole(body, MAX_BODY_BYTES).await?;
    if body.is_empty() {
        return Err(bad(
            r#"the body is missing: it must be a JSON object with the room's settings, as {"maxActive":100}; a PUT of {} sets the defaults"#,
        ));
    }
    Ok(body)
}

async fn set_mode(
    request: HttpRequest,
    shared: web::Data<Shared>,
    path: web::Path<String>,
    mode: Mode,
) -> Answer {
    administrator(&request, &shared)?;
    let asked = SetModeRequest { room: path.into_inner(), mode: mode.into() };
    let answer = ask(&shared, asked, |mut q, asked| async move { q.set_mode(asked).await }).await?;
    Ok(ok(&room_to_json(&answer)))
}

async fn join(request: HttpRequest, shared: web::Data<Shared>, path: web::Path<String>) -> Answer {
    configured(&shared)?;
    let verifier = &shared.config.verifier;
    let claims = if shared.config.rooms_public {
        match verifier.claims(&request) {
            Err(Refusal::Missing) => None,
            claims => Some(claims),
        }
    } else {
        Some(verifier.check(&request, JOIN))
    };
    let claims = claims.transpose().map_err(|refusal| refused(&shared, &refusal))?;
    let key = idempotency_key(&request).and_then(|key| Uuid::try_parse(key).ok()).ok_or_else(|| {
        problem(
            StatusCode::BAD_REQUEST,
            "the header Idempotency-Key must be a UUID: draw one for each visit, and keep it when you try again",
        )
    })?;
    let room = path.into_inner();
    let asked = JoinRequest {
        room: room.clone(),
        idempotency_key: key.to_string(),
        sub: claims.map(|claims| claims.sub).unwrap_or_default(),
    };
    let ticket = ask(&shared, asked, |mut q, asked| async move { q.join(asked).await }).await?;
    let mut body = ticket_to_json(&ticket);
    body["token"] = ticket.token.as_str().into();
    let number = ticket.id.unwrap_or_default().number;
    Ok(HttpResponse::Created()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::LOCATION, format!("/v1/rooms/{room}/tickets/{number}")))
        .json(body))
}

async fn act(
    request: HttpRequest,
    shared: web::Data<Shared>,
    path: web::Path<(String, String)>,
    act: Act,
) -> Answer {
    let (room, number) = path.into_inner();
    let (id, _) = visitor(&request, &shared, &room).await?;
    if number.parse() != Ok(id.number) {
        return Err(refused(&shared, &Refusal::Invalid("of another ticket".to_owned())));
    }
    let call = |mut q: QueueClient<Channel>, id| async move {
        match act {
            Act::See => q.get_ticket(id).await,
            Act::Claim => q.claim(id).await,
            Act::Renew => q.renew(id).await,
            Act::Leave => q.leave(id).await,
        }
    };
    Ok(ok(&ticket_to_json(&ask(&shared, id, call).await?)))
}

/// By the ticket's token, or as an administrator.
async fn leave(request: HttpRequest, shared: web::Data<Shared>, path: web::Path<(String, String)>) -> Answer {
    if shared.config.verifier.check(&request, ADMIN).is_err() {
        return act(request, shared, path, Act::Leave).await;
    }
    configured(&shared)?;
    let (room, number) = path.into_inner();
    let number = number
        .parse()
        .map_err(|_| problem(StatusCode::BAD_REQUEST, "a ticket is a whole number from 1 up"))?;
    let asked = RemoveRequest { room, number };
    let answer = ask(&shared, asked, |mut q, asked| async move { q.remove(asked).await }).await?;
    Ok(ok(&ticket_to_json(&answer)))
}

async fn stream(request: HttpRequest, shared: web::Data<Shared>, path: web::Path<String>) -> HttpResponse {
    streamed(&request, &shared, wait(&request, &shared, &path).await)
}

async fn wait(request: &HttpRequest, shared: &Shared, room: &str) -> Answer {
    configured(shared)?;
    let token =
        token_of(request, &shared.config.rooms_cookie).ok_or_else(|| refused(shared, &Refusal::Missing))?;
    let query = StreamQuery::of(request)?;
    let (visit, exp) = visit_of(request, shared, room, &token, query.last_id.clone()).await?;
    Ok(open(request, shared, &query, Some(exp.time_left()), What::Room(visit)))
}

/// On what terms the holder of a ticket's token gets a stream of the room, and when the token expires.
///
/// # Errors
/// Why not, as the answer.
pub(crate) async fn visit_of(
    request: &HttpRequest,
    shared: &Shared,
    room: &str,
    token: &str,
    shown: Option<String>,
) -> Result<(Visit, NumericDate), HttpResponse> {
    configured(shared)?;
    let (id, exp) = ticket_of(shared, room, token).await?;
    let shown = shown
        .filter(|id| id.len() <= MAX_ID_BYTES)
        .and_then(|id| Cursor::parse(&id))
        .and_then(|cursor| cursor.0.first().copied().flatten());
    let room = shared.rooms.follow(room);
    let address = address_of(request, &shared.config.http);
    Ok((Visit { rooms: shared.rooms.clone(), room, id, shown, address }, exp))
}

/// Which ticket the request's token is of, and when it expires.
async fn visitor(
    request: &HttpRequest,
    shared: &Shared,
    room: &str,
) -> Result<(TicketId, NumericDate), HttpResponse> {
    configured(shared)?;
    let token =
        token_of(request, &shared.config.rooms_cookie).ok_or_else(|| refused(shared, &Refusal::Missing))?;
    ticket_of(shared, room, &token).await
}

/// Which ticket a token is of, and when it expires.
async fn ticket_of(
    shared: &Shared,
    room: &str,
    token: &str,
) -> Result<(TicketId, NumericDate), HttpResponse> {
    let claims = shared.ticket_keys.verify(token, room).await.map_err(|untaken| match untaken {
        Untaken::Invalid(why) => refused(shared, &Refusal::Invalid(why)),
        Untaken::NoKeys(status) => of_service(shared, &status),
    })?;
    let id =
        TicketId { room: claims.room, epoch: claims.epoch, number: claims.ticket, joined_us: claims.joined };
    Ok((id, NumericDate::from_secs(claims.exp)))
}

/// Asks the service; what it says against it as the answer.
async fn ask<R: Clone, T, F: Future<Output = Result<Response<T>, Status>>>(
    shared: &Shared,
    request: R,
    call: impl Fn(QueueClient<Channel>, R) -> F,
) -> Result<T, HttpResponse> {
    shared.rooms.queue.ask(request, call).await.map_err(|status| of_service(shared, &status))
}

fn administrator(request: &HttpRequest, shared: &Shared) -> Result<(), HttpResponse> {
    configured(shared)?;
    let checked = shared.config.verifier.check(request, ADMIN);
    checked.map(drop).map_err(|refusal| refused(shared, &refusal))
}

fn configured(shared: &Shared) -> Result<(), HttpResponse> {
    if shared.rooms.queue.is_configured() {
        return Ok(());
    }
    Err(problem(StatusCode::NOT_FOUND, "this edge has no waiting rooms: queue.urls is not set"))
}
