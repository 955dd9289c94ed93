//! The HTTP routes of notifications and inboxes.

use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use serde::de::MapAccess;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tonic::Code;
use tutti_feed::{Cursor, Item, Page, Since};
use tutti_model::Format;
use tutti_model::ResetReason;
use tutti_model::json::{self, Field, Object};
use tutti_model::notification::{self, is_id, is_topic, is_user, topic_address, user_address};
use tutti_model::notify::{Mark, MarkRequest, Marked, SendRequest};
use uuid::Uuid;

use crate::following::cursor_wait::INCOMPLETE;
use crate::http::auth::{Claims, Refusal};
use crate::http::open::{
    MAX_ID_BYTES, Shared, StreamQuery, idempotency_key, only, open, postable, readable, streamed, whole,
};
use crate::http::problem::{Answer, bad, either, of_redis, of_service, ok, problem, refused};
use crate::inbox::devices::Device;
use crate::inbox::events::{self, Address, Shown, id_of, shown_of};
use crate::sse::hub::What;

/// The scope that sending needs.
const SEND: &str = "notifications:send";
/// The scope that asking who is online needs.
const PRESENCE: &str = "presence:read";
/// The scope that listening to topics for users needs; `inbox:topics:NAME` is good for one.
const TOPICS: &str = "inbox:topics";

/// A notification to a thousand users, all of it escaped.
const MAX_BODY_BYTES: usize = 1 << 20;
/// An id, and what is around it.
const MAX_MARK_BYTES: usize = 4 * 1024;
/// A device listens to at most so many topics.
const MAX_TOPICS: usize = 16;
/// What fails where Redis does not answer.
const READING: &str = "reading a mailbox";
/// Notifications listed at once, unless the request says.
const LISTED: usize = 50;
/// Bytes of a page of notifications, about.
const PAGE_BYTES: u32 = 64 * 1024;

pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.service(postable("/v1/notifications", async |r, s, b| either(send(r, s, b).await)))
        .service(readable("/v1/inbox/stream", stream))
        .service(readable("/v1/inbox", async |r, s| either(list(r, s).await)))
        .service(postable("/v1/inbox/read", async |r, s, b| either(read_to(r, s, b).await)))
        .service(postable("/v1/inbox/{id}/read", async |r, s, p| either(read(r, s, p).await)))
        .service(only(
            "DELETE",
            web::resource("/v1/inbox/{id}")
                .route(web::delete().to(async |r, s, p| either(delete(r, s, p).await))),
        ))
        .service(readable("/v1/presence/{user}", async |r, s, p| either(presence(r, s, p).await)));
}

async fn send(request: HttpRequest, shared: web::Data<Shared>, body: web::Payload) -> Answer {
    let checked = shared.config.verifier.check(&request, SEND);
    let claims = checked.map_err(|refusal| refused(&shared, &refusal))?;
    // What is sent is told apart by its sender: two without a name would be taken for one.
    if !is_user(&claims.sub) {
        return Err(refused(&shared, &Refusal::Invalid("its sub names no sender".to_owned())));
    }
    let key = idempotency_key(&request).filter(|key| (1..=256).contains(&key.len()));
    let key = key.ok_or_else(|| {
        bad("the header Idempotency-Key must have 1 to 256 characters: draw one for each notification, and keep it when you try again")
    })?;
    let body = whole(body, MAX_BODY_BYTES).await?;
    let notification =
        notification::decode(Format::Json, &body).map_err(|invalid| bad(&invalid.to_string()))?;
    if !notification.id.is_empty() {
        return Err(bad("the id is made of the sender and the Idempotency-Key; leave it out"));
    }
    let asked = SendRequest { sender: claims.sub, key: key.to_owned(), notification: Some(notification) };
    configured(&shared)?;
    let sent = shared.inboxes.notify.ask(asked, |mut n, asked| async move { n.send(asked).await }).await;
    let sent = sent.map_err(|status| of_service(&shared, &status))?;
    Ok(HttpResponse::Accepted()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(serde_json::json!({ "id": sent.id })))
}

/// The user that the request's token is of.
fn user(request: &HttpRequest, shared: &Shared) -> Result<Claims, HttpResponse> {
    let claims = shared.config.verifier.claims(request).map_err(|refusal| refused(shared, &refusal))?;
    if is_user(&claims.sub) {
        return Ok(claims);
    }
    Err(refused(shared, &Refusal::Invalid("its sub names no user".to_owned())))
}

#[derive(Deserialize)]
struct InboxQuery {
    #[serde(default)]
    topics: String,
    device: Option<String>,
}

async fn stream(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    streamed(&request, &shared, listen(&request, &shared))
}

fn listen(request: &HttpRequest, shared: &Shared) -> Answer {
    let query = StreamQuery::of(request)?;
    let (device, expires) = device_of(request, shared, query.last_id.clone())?;
    Ok(open(request, shared, &query, expires, What::Inbox(device)))
}

/// On what terms the request's user gets a stream of the inbox, from this id on, and how long the token is
/// valid.
///
/// # Errors
/// Why not, as the answer.
pub(crate) fn device_of(
    request: &HttpRequest,
    shared: &Shared,
    last: Option<String>,
) -> Result<(Device, Option<Duration>), HttpResponse> {
    let claims = user(request, shared)?;
    let asked = web::Query::<InboxQuery>::from_query(request.query_string())
        .map_err(|_| bad("in the query, topics is a list as news,sport, and device a word"))?;
    let device = asked.device.clone().unwrap_or_else(|| Uuid::from_u128(rand::random()).to_string());
    if !is_id(&device) {
        return Err(bad("device has 1 to 128 of the characters A-Z a-z 0-9 . _ ~ : -"));
    }
    let addresses = addresses(shared, &claims, &asked.topics)?;
    let all = |shown| vec![shown; addresses.len()];
    let (shown, lost) = match last {
        None => (all(Shown::Now), None),
        Some(id) if id == "oldest" => (all(Shown::Nothing), None),
        Some(id) if id == INCOMPLETE => (all(Shown::Nothing), Some(ResetReason::Incomplete)),
        Some(id) => match (id.len() <= MAX_ID_BYTES).then(|| shown_of(&id, &addresses)).flatten() {
            Some(shown) => (shown, None),
            None => (all(Shown::Nothing), Some(ResetReason::UnknownId)),
        },
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let connection = shared.inboxes.connections.connect(&claims.sub, &device, now.as_millis() as i64);
    let mailboxes = shared.inboxes.mailboxes.clone();
    let device = Device { mailboxes, addresses, shown, lost, name: device, connection };
    Ok((device, Some(claims.time_left())))
}

/// The user's mailbox, and those of the topics, if the token allows them.
fn addresses(shared: &Shared, claims: &Claims, topics: &str) -> Result<Rc<[Address]>, HttpResponse> {
    let mailboxes = &shared.inboxes.mailboxes;
    let address = |name: String, topic: Option<&str>| Address {
        bucket: mailboxes.bucket_of(name.as_bytes()) as usize,
        name: Bytes::from(name),
        topic: topic.map(str::to_owned),
    };
    let mut addresses = vec![address(user_address(&claims.sub), None)];
    let mut topics: Vec<&str> = topics.split(',').map(str::trim).filter(|topic| !topic.is_empty()).collect();
    topics.sort_unstable();
    topics.dedup();
    if topics.len() > MAX_TOPICS {
        return Err(bad("a stream listens to 16 topics at most"));
    }
    for topic in topics {
        if !is_topic(topic) {
            return Err(bad(&notification::Invalid::Topic.to_string()));
        }
        if !claims.may(TOPICS) && !claims.may(&format!("{TOPICS}:{topic}")) {
            return Err(refused(shared, &Refusal::Scope(TOPICS)));
        }
        addresses.push(address(topic_address(topic), Some(topic)));
    }
    Ok(addresses.into())
}

#[derive(Deserialize)]
struct ListQuery {
    before: Option<String>,
    #[serde(default = "listed")]
    limit: usize,
    #[serde(default)]
    unread: bool,
}

/// Newest first.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    notifications: Vec<Box<RawValue>>,
    unread: u32,
    /// What to ask for as `before`, if there are older ones.
    next: Option<String>,
    /// Where a stream goes on, as `?since=`.
    cursor: String,
    /// When notifications were last lost for good that might be here, milliseconds since 1970.
    lost_at: Option<u64>,
}

fn listed() -> usize {
    LISTED
}

async fn list(request: HttpRequest, shared: web::Data<Shared>) -> Answer {
    let claims = user(&request, &shared)?;
    let query = web::Query::<ListQuery>::from_query(request.query_string())
        .map_err(|_| bad("in the query, before is an id, limit a whole number, unread true or false"))?;
    if !(1..=1000).contains(&query.limit) {
        return Err(bad("limit must be 1 to 1000"));
    }
    shared.metrics.mailbox_reads.inc();
    let page = Page {
        before: query.before.as_deref(),
        items: query.limit as u32,
        bytes: PAGE_BYTES,
        unread_alone: query.unread,
    };
    let read = shared.inboxes.mailboxes.read_page(&user_address(&claims.sub), page).await;
    let mailbox = read.map_err(|error| of_redis(&shared, READING, &error))?.ok_or_else(|| {
        problem(StatusCode::NOT_FOUND, "before is neither the next of a page nor an id of this inbox")
    })?;
    let notifications = mailbox.items.iter().filter_map(|item| {
        let is_read = mailbox.marks.contains_key(&item.id);
        RawValue::from_string(events::notification(&item.payload, None, None, is_read)).ok()
    });
    let own = [Address { name: Bytes::new(), bucket: 0, topic: None }];
    let listed = Listed {
        notifications: notifications.collect(),
        unread: mailbox.unread,
        next: mailbox.items.last().filter(|_| mailbox.more).map(Item::place),
        cursor: id_of(&own, |_| Cursor::text_of(mailbox.position)),
        lost_at: mailbox.lost_us.map(|lost_us| lost_us / 1000),
    };
    Ok(ok(&listed))
}

async fn read(request: HttpRequest, shared: web::Data<Shared>, path: web::Path<String>) -> Answer {
    let claims = user(&request, &shared)?;
    mark(&shared, claims, path.into_inner(), Mark::Read).await
}

#[derive(Default)]
struct ReadTo {
    up_to: Option<String>,
}

impl<'de> Object<'de> for ReadTo {
    const FIELDS: &'static [&'static str] = &["upTo"];

    fn take<A: MapAccess<'de>>(&mut self, field: Field<'_, A>) -> Result<(), A::Error> {
        self.up_to = field.scalar()?;
        Ok(())
    }
}

async fn read_to(request: HttpRequest, shared: web::Data<Shared>, body: web::Payload) -> Answer {
    let claims = user(&request, &shared)?;
    let body = whole(body, MAX_MARK_BYTES).await?;
    let up_to = json::read(&body).and_then(|read_to: ReadTo| json::required(read_to.up_to, "upTo"));
    let up_to = up_to.map_err(|error| {
        bad(&format!(r#"the body must be {{"upTo":"ID"}}, for that notification and all before it: {error}"#))
    })?;
    mark(&shared, claims, up_to, Mark::ReadTo).await
}

async fn delete(request: HttpRequest, shared: web::Data<Shared>, path: web::Path<String>) -> Answer {
    let claims = user(&request, &shared)?;
    mark(&shared, claims, path.into_inner(), Mark::Deleted).await
}

async fn mark(shared: &Shared, claims: Claims, id: String, mark: Mark) -> Answer {
    configured(shared)?;
    let asked = MarkRequest { user: claims.sub, id, mark: mark.into() };
    let address = user_address(&asked.user);
    let marked = shared.inboxes.notify.ask(asked, |mut n, asked| async move { n.mark(asked).await }).await;
    let unread = match marked {
        Ok(Marked { unread }) => unread,
        // It may be gone by an attempt that was not answered.
        Err(status) if mark == Mark::Deleted && status.code() == Code::NotFound => {
            let left = shared.inboxes.mailboxes.read(&address, Since::Now).await;
            left.map_err(|error| of_redis(shared, READING, &error))?.unread
        }
        Err(status) => return Err(of_service(shared, &status)),
    };
    Ok(ok(&serde_json::json!({ "unread": unread })))
}

async fn presence(request: HttpRequest, shared: web::Data<Shared>, path: web::Path<String>) -> Answer {
    let checked = shared.config.verifier.check(&request, PRESENCE);
    checked.map_err(|refusal| refused(&shared, &refusal))?;
    let user = path.into_inner();
    if !is_user(&user) {
        return Err(bad(&notification::Invalid::User(user.len()).to_string()));
    }
    let found = shared.inboxes.registry.connections_of(&user).await;
    let found = found.map_err(|error| of_redis(&shared, "reading the registry", &error))?;
    let devices: Vec<_> = found
        .iter()
        .map(|one| serde_json::json!({ "device": one.device, "server": one.server, "since": one.since_ms }))
        .collect();
    Ok(ok(&serde_json::json!({ "user": user, "online": !devices.is_empty(), "devices": devices })))
}

fn configured(shared: &Shared) -> Result<(), HttpResponse> {
    if shared.inboxes.notify.is_configured() {
        return Ok(());
    }
    Err(problem(StatusCode::NOT_FOUND, "this edge sends and marks nothing: notify.urls is not set"))
}
