//! The gRPC interface: what edges and back ends ask.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::{Code, Request, Response, Status};
use tracing::warn;
use tutti_feed::Mailboxes;
use tutti_model::Notification;
use tutti_model::notification::{Invalid, checked, is_id, is_user, user_address};
use tutti_model::notify::{Mark, MarkRequest, Marked, SendRequest, Sent};

use crate::kafka::{KafkaError, Producer};
use crate::metrics::{MarkLabel, Metrics};
use crate::proto::notify_server::Notify;
use crate::send::{Record, id_of, records};

/// A sender's name is at most so long.
const MAX_SENDER_BYTES: usize = 256;
/// A key is at most so long.
const MAX_KEY_BYTES: usize = 256;
/// The driver looks for records that are late once a second or so; no send waits for that long.
const GRACE: Duration = Duration::from_millis(500);

/// The service.
pub(crate) struct Server {
    pub(crate) producer: Producer,
    pub(crate) topic: String,
    /// How long Kafka may take.
    pub(crate) answer: Duration,
    /// Not before Redis agreed to their settings: with others, a mark would throw away what the other
    /// services keep.
    pub(crate) mailboxes: Arc<OnceLock<Mailboxes>>,
    pub(crate) metrics: Metrics,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Notify for Server {
    async fn send(&self, request: Request<SendRequest>) -> Answer<Sent> {
        let SendRequest { sender, key, notification } = request.into_inner();
        if sender.len() > MAX_SENDER_BYTES {
            return Err(invalid(format!("the sender's name has more than {MAX_SENDER_BYTES} bytes")));
        }
        if !(1..=MAX_KEY_BYTES).contains(&key.len()) {
            return Err(invalid(format!("the key must have 1 to {MAX_KEY_BYTES} bytes")));
        }
        let notification = notification.ok_or_else(|| invalid("the notification is missing"))?;
        let notification = checked(Notification { id: String::new(), ..notification })
            .map_err(|why| invalid(why.to_string()))?;
        let id = id_of(&sender, &key);

        let began = Instant::now();
        let delivering = self.deliver(records(notification, id.clone()));
        let delivered = timeout(self.answer + GRACE, delivering).await;
        self.metrics.send.observe(began.elapsed().as_secs_f64());
        let why = match delivered {
            Ok(Ok(())) => return Ok(Response::new(Sent { id })),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it did not answer".to_owned(),
        };
        self.metrics.failed.inc();
        warn!(error = why, "a send failed");
        // Kafka may have some records all the same, or get them yet. They do no harm: when the send is
        // repeated the id is the same, and mailboxes take it once.
        let text = format!("Kafka did not take it in time ({why}): send it again with the same key");
        Err(refused(Code::Unavailable, "kafka", text))
    }

    async fn mark(&self, request: Request<MarkRequest>) -> Answer<Marked> {
        let MarkRequest { user, id, mark } = request.into_inner();
        if !is_user(&user) {
            return Err(invalid(Invalid::User(user.len()).to_string()));
        }
        if !is_id(&id) {
            return Err(invalid(Invalid::Id.to_string()));
        }
        let (mark, what) = match Mark::try_from(mark) {
            Ok(Mark::Read) => (tutti_feed::Mark::Read, "read"),
            Ok(Mark::ReadTo) => (tutti_feed::Mark::ReadTo, "read_to"),
            Ok(Mark::Deleted) => (tutti_feed::Mark::Delete, "deleted"),
            Err(_) => return Err(invalid("there is no such mark")),
        };
        let Some(mailboxes) = self.mailboxes.get() else {
            return Err(refused(Code::Unavailable, "redis", "Redis has not answered yet"));
        };
        match mailboxes.mark(&user_address(&user), mark, &id).await {
            Ok(Some(unread)) => {
                self.metrics.marks.get_or_create(&MarkLabel { what }).inc();
                Ok(Response::new(Marked { unread }))
            }
            Ok(None) => Err(refused(Code::NotFound, "no_notification", "the user has no such notification")),
            Err(error) => {
                warn!(%error, "a mark failed");
                Err(refused(Code::Unavailable, "redis", error.to_string()))
            }
        }
    }
}

impl Server {
    /// Hands all records over, then waits until Kafka has all of them.
    async fn deliver(&self, records: impl Iterator<Item = Record>) -> Result<(), KafkaError> {
        let deliveries = self.producer.send_all(&self.topic, records)?;
        let mut outcome = Ok(());
        for delivery in deliveries {
            match delivery.acknowledged().await {
                Ok(()) => {
                    self.metrics.sent.inc();
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }
}

fn invalid(text: impl Into<String>) -> Status {
    refused(Code::InvalidArgument, "invalid", text)
}

/// What went wrong, in gRPC's terms; the word for it is in `tutti-reason`.
fn refused(code: Code, reason: &'static str, text: impl Into<String>) -> Status {
    let mut status = Status::new(code, text);
    status.metadata_mut().insert("tutti-reason", tonic::metadata::MetadataValue::from_static(reason));
    status
}
