//! The HTTP routes of notifications and inboxes.

use std::rc::Rc;
use std::sync::Arc;
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

use crate::following::reset::INCOMPLETE;
use crate::http::claims::Claims;
use crate::http::open::{Part, answer_stream, open};
use crate::http::problem::{Answer, Problem, json_now};
use crate::http::query::{MAX_ID_BYTES, StreamQuery};
use crate::http::refusal::Refusal;
use crate::http::routes::{idempotency_key, only, postable, read_body, readable};
use crate::http::shared::Shared;
use crate::inbox::device::Device;
use crate::inbox::devices::InboxStreams;
use crate::inbox::events::{self, Address, Shown, id_of, shown_of};
use crate::inbox::follower::Inboxes;

/// The scope that is needed to send.
const SEND: &str = "notifications:send";
/// The scope that is needed to ask whether a user is online.
const PRESENCE: &str = "presence:read";
/// The scope that is needed to receive notifications to topics. `inbox:topics:NAME` allows one topic.
const TOPICS: &str = "inbox:topics";

/// Largest body of a notification. A notification to a thousand users fits in, even if all of it is escaped.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Largest body of a mark: an id, and the JSON around it.
const MAX_MARK_BYTES: usize = 4 * 1024;
/// Largest number of topics from which one device receives notifications.
const MAX_TOPICS: usize = 16;
/// What failed if Redis does not answer, for the log.
const READING: &str = "reading a mailbox";
/// Number of notifications on a page, unless the request says otherwise.
const LISTED: usize = 50;
/// Approximate largest size of a page of notifications, in bytes.
const PAGE_BYTES: u32 = 64 * 1024;

/// What the handlers of notifications and inboxes need, one per worker.
#[derive(Clone)]
pub(crate) struct InboxRoutes {
    pub(crate) shared: Shared,
    pub(crate) streams: Rc<InboxStreams>,
    pub(crate) inboxes: Arc<Inboxes>,
}

impl InboxRoutes {
    /// Registers the routes of notifications and inboxes.
    pub(crate) fn configure(self, app: &mut web::ServiceConfig) {
        app.app_data(web::Data::new(self));
        configure(app);
    }

    /// Returns the stream of the inbox of the request's user, from `last_id` on.
    ///
    /// # Errors
    /// If the token names no user or does not allow a topic, or if the query cannot be read.
    pub(crate) fn part(&self, request: &HttpRequest, last_id: Option<String>) -> Result<Part, Problem> {
        let claims = user(request, self)?;
        let asked = web::Query::<InboxQuery>::from_query(request.query_string()).map_err(|_| {
            Problem::bad_request(
                "in the query, topics must be a list such as news,sport, and device must be a word",
            )
        })?;
        let device = asked.device.clone().unwrap_or_else(|| Uuid::from_u128(rand::random()).to_string());
        if !is_id(&device) {
            let detail = "device must have 1 to 128 of the characters A-Z a-z 0-9 . _ ~ : -";
            return Err(Problem::bad_request(detail));
        }
        let addresses = addresses(self, &claims, &asked.topics)?;
        let all = |shown| vec![shown; addresses.len()];
        let (shown, lost) = match last_id {
            None => (all(Shown::Now), None),
            Some(id) if id == "oldest" => (all(Shown::Nothing), None),
            Some(id) if id == INCOMPLETE => (all(Shown::Nothing), Some(ResetReason::Incomplete)),
            Some(id) => match (id.len() <= MAX_ID_BYTES).then(|| shown_of(&id, &addresses)).flatten() {
                Some(shown) => (shown, None),
                None => (all(Shown::Nothing), Some(ResetReason::UnknownId)),
            },
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let member = (claims.sub.clone(), device.clone());
        let connection = self.inboxes.connections.join(member, now.as_millis() as i64);
        let mailboxes = self.inboxes.mailboxes.clone();
        let device = Device { mailboxes, addresses, shown, lost, name: device, connection };
        let streams = self.streams.clone();
        let start = Box::new(move |stream, hello| streams.admit(stream, hello, device));
        Ok(Part { start, expires: Some(claims.time_left()) })
    }
}

fn configure(app: &mut web::ServiceConfig) {
    app.service(postable("/v1/notifications", send))
        .service(readable("/v1/inbox/stream", stream))
        .service(readable("/v1/inbox", list))
        .service(postable("/v1/inbox/read", read_to))
        .service(postable("/v1/inbox/{id}/read", read))
        .service(only("DELETE", web::resource("/v1/inbox/{id}").route(web::delete().to(delete))))
        .service(readable("/v1/presence/{user}", presence));
}

/// Sends a notification. The answer comes once Kafka has it.
async fn send(request: HttpRequest, inbox: web::Data<InboxRoutes>, body: web::Payload) -> Answer {
    let claims = inbox.shared.check(&request, SEND)?;
    // Keys count for one sender each: two senders without a name would be taken for one.
    if !is_user(&claims.sub) {
        return Err(inbox.shared.refused(&Refusal::Invalid("its sub names no sender".to_owned())));
    }
    let key = idempotency_key(&request).filter(|key| (1..=256).contains(&key.len()));
    let key = key.ok_or_else(|| {
        Problem::bad_request("the header Idempotency-Key must have 1 to 256 characters: draw one for each notification, and send the same one when you retry")
    })?;
    let body = read_body(body, MAX_BODY_BYTES).await?;
    let notification = notification::decode(Format::Json, &body)
        .map_err(|invalid| Problem::bad_request(invalid.to_string()))?;
    if !notification.id.is_empty() {
        return Err(Problem::bad_request(
            "the id is made of the sender and the Idempotency-Key; leave it out",
        ));
    }
    let asked = SendRequest { sender: claims.sub, key: key.to_owned(), notification: Some(notification) };
    configured(&inbox)?;
    let sent = inbox.inboxes.notify.ask(asked, |mut n, asked| async move { n.send(asked).await }).await;
    let sent = sent.map_err(|status| Problem::of_service(&inbox.shared.failures, &status))?;
    Ok(HttpResponse::Accepted()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(serde_json::json!({ "id": sent.id })))
}

/// Returns the claims of the request's token, which names a user.
///
/// # Errors
/// If there is no valid token, or it names no user.
fn user(request: &HttpRequest, inbox: &InboxRoutes) -> Result<Claims, Problem> {
    let claims = inbox.shared.claims(request)?;
    if is_user(&claims.sub) {
        return Ok(claims);
    }
    Err(inbox.shared.refused(&Refusal::Invalid("its sub names no user".to_owned())))
}

#[derive(Deserialize)]
struct InboxQuery {
    #[serde(default)]
    topics: String,
    device: Option<String>,
}

async fn stream(request: HttpRequest, inbox: web::Data<InboxRoutes>) -> Answer {
    answer_stream(&request, &inbox.shared, open_stream(&request, &inbox))
}

fn open_stream(request: &HttpRequest, inbox: &InboxRoutes) -> Answer {
    let query = StreamQuery::of(request)?;
    let part = inbox.part(request, query.last_id.clone())?;
    Ok(open(request, &inbox.shared, &query, part, false))
}

/// Returns the addresses of the user's own mailbox, which comes first, and of the topics, in alphabetical order.
///
/// # Errors
/// If there are too many topics, or a topic is not valid or not allowed by the token.
fn addresses(inbox: &InboxRoutes, claims: &Claims, topics: &str) -> Result<Rc<[Address]>, Problem> {
    let mailboxes = &inbox.inboxes.mailboxes;
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
        return Err(Problem::bad_request("a stream listens to 16 topics at most"));
    }
    for topic in topics {
        if !is_topic(topic) {
            return Err(Problem::bad_request(notification::Invalid::Topic.to_string()));
        }
        if !claims.may(TOPICS) && !claims.may(&format!("{TOPICS}:{topic}")) {
            return Err(inbox.shared.refused(&Refusal::Scope(TOPICS)));
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

/// One page of an inbox, with the newest notification first.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    notifications: Vec<Box<RawValue>>,
    /// Number of unread notifications in the whole inbox.
    unread: u32,
    /// Value of `before` for the next page, if there are older notifications.
    next: Option<String>,
    /// Value of `?since=` with which a stream goes on after this page.
    cursor: String,
    /// When notifications that this inbox might have had were last lost for good, in milliseconds since 1970.
    lost_at: Option<u64>,
}

/// Returns the default of [`ListQuery::limit`].
fn listed() -> usize {
    LISTED
}

/// Returns a page of the user's inbox.
async fn list(request: HttpRequest, inbox: web::Data<InboxRoutes>) -> Answer {
    let claims = user(&request, &inbox)?;
    let query = web::Query::<ListQuery>::from_query(request.query_string()).map_err(|_| {
        Problem::bad_request(
            "in the query, before must be an id, limit a whole number, and unread true or false",
        )
    })?;
    if !(1..=1000).contains(&query.limit) {
        return Err(Problem::bad_request("limit must be 1 to 1000"));
    }
    inbox.shared.metrics.mailbox_reads.inc();
    let page = Page {
        before: query.before.as_deref(),
        items: query.limit as u32,
        bytes: PAGE_BYTES,
        unread_alone: query.unread,
    };
    let read = inbox.inboxes.mailboxes.read_page(&user_address(&claims.sub), page).await;
    let mailbox = read
        .map_err(|error| Problem::of_redis(&inbox.shared.failures, READING, &error))?
        .ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "before must be the next of a page, or the id of a notification in this inbox",
            )
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
    Ok(json_now(&listed))
}

async fn read(request: HttpRequest, inbox: web::Data<InboxRoutes>, path: web::Path<String>) -> Answer {
    let claims = user(&request, &inbox)?;
    mark(&inbox, claims, path.into_inner(), Mark::Read).await
}

/// The body of a request that marks notifications up to one as read.
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

async fn read_to(request: HttpRequest, inbox: web::Data<InboxRoutes>, body: web::Payload) -> Answer {
    let claims = user(&request, &inbox)?;
    let body = read_body(body, MAX_MARK_BYTES).await?;
    let up_to = json::read(&body).and_then(|read_to: ReadTo| json::required(read_to.up_to, "upTo"));
    let up_to = up_to.map_err(|error| {
        Problem::bad_request(format!(
            r#"the body must be {{"upTo":"ID"}}, with the id of the last notification to mark as read: {error}"#
        ))
    })?;
    mark(&inbox, claims, up_to, Mark::ReadTo).await
}

async fn delete(request: HttpRequest, inbox: web::Data<InboxRoutes>, path: web::Path<String>) -> Answer {
    let claims = user(&request, &inbox)?;
    mark(&inbox, claims, path.into_inner(), Mark::Deleted).await
}

/// Marks a notification, and answers with the number of unread notifications.
async fn mark(inbox: &InboxRoutes, claims: Claims, id: String, mark: Mark) -> Answer {
    configured(inbox)?;
    let asked = MarkRequest { user: claims.sub, id, mark: mark.into() };
    let address = user_address(&asked.user);
    let marked = inbox.inboxes.notify.ask(asked, |mut n, asked| async move { n.mark(asked).await }).await;
    let unread = match marked {
        Ok(Marked { unread }) => unread,
        // An earlier attempt that was not answered may have deleted it.
        Err(status) if mark == Mark::Deleted && status.code() == Code::NotFound => {
            let left = inbox.inboxes.mailboxes.read(&address, Since::Now).await;
            left.map_err(|error| Problem::of_redis(&inbox.shared.failures, READING, &error))?.unread
        }
        Err(status) => return Err(Problem::of_service(&inbox.shared.failures, &status)),
    };
    Ok(json_now(&serde_json::json!({ "unread": unread })))
}

/// Returns the devices with which a user is connected, at whichever edge.
async fn presence(request: HttpRequest, inbox: web::Data<InboxRoutes>, path: web::Path<String>) -> Answer {
    inbox.shared.check(&request, PRESENCE)?;
    let user = path.into_inner();
    if !is_user(&user) {
        return Err(Problem::bad_request(notification::Invalid::User(user.len()).to_string()));
    }
    let found = inbox.inboxes.registry.connections_of(&user).await;
    let found =
        found.map_err(|error| Problem::of_redis(&inbox.shared.failures, "reading the registry", &error))?;
    let devices: Vec<_> = found
        .iter()
        .map(|one| serde_json::json!({ "device": one.device, "server": one.server, "since": one.since_ms }))
        .collect();
    Ok(json_now(&serde_json::json!({ "user": user, "online": !devices.is_empty(), "devices": devices })))
}

/// Checks that this edge can ask the notifications' service.
fn configured(inbox: &InboxRoutes) -> Result<(), Problem> {
    if inbox.inboxes.notify.is_configured() {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::NOT_FOUND,
        "this edge cannot send or mark notifications: notify.urls is not set",
    ))
}
