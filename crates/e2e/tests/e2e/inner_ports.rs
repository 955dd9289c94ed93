//! The ports that only edges, back ends and operators may reach: gRPC and the admin port.

use std::time::Duration;

use prost::Message;
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tutti::token::sign;
use tutti_e2e::inboxes::Inboxes;
use tutti_e2e::kafka;
use tutti_e2e::rooms::{Rooms, SECRET, admin};
use tutti_e2e::testbed::Testbed;
use tutti_model::notify::{SendRequest, Sent};
use tutti_model::queue::{
    PresenceRequest, PresenceResponse, PutRoomRequest, RemoveRequest, Room, Ticket, TicketId,
};
use tutti_model::{Notification, Recipients, RoomSettings};

/// Makes one gRPC call, as a back end does.
async fn call<Q, A>(url: &str, path: &'static str, request: Q) -> Result<A, Status>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let channel = Endpoint::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    let codec = ProstCodec::<Q, A>::default();
    Ok(client.unary(Request::new(request), path.parse().unwrap(), codec).await?.into_inner())
}

fn reason(status: &Status) -> (Code, Option<&str>) {
    (status.code(), status.metadata().get("tutti-reason").and_then(|word| word.to_str().ok()))
}

#[tokio::test]
async fn a_number_that_redis_cannot_count_to_is_the_callers_mistake() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let edge = rooms.edge(&[]).await;
    rooms.put(&edge, "sale", "{}").await;
    let url = &rooms.urls()[0];
    let presence = |opened: &[u64], closed: &[u64]| PresenceRequest {
        room: "sale".into(),
        edge: uuid::Uuid::from_u128(7).to_string(),
        all: true,
        opened: opened.to_vec(),
        closed: closed.to_vec(),
    };
    let path = "/tutti.queue.v1.Queue/Presence";
    let known: PresenceResponse = call(url, path, presence(&[1, 1 << 53], &[2])).await.unwrap();
    assert!(known.known);
    for number in [(1 << 53) + 1, 1 << 63, u64::MAX] {
        for request in [presence(&[number], &[]), presence(&[1], &[number])] {
            let refused = call::<_, PresenceResponse>(url, path, request).await.unwrap_err();
            assert_eq!(reason(&refused), (Code::InvalidArgument, Some("invalid")), "{refused}");
        }
        let remove = RemoveRequest { room: "sale".into(), number };
        let refused = call::<_, Ticket>(url, "/tutti.queue.v1.Queue/Remove", remove).await.unwrap_err();
        assert_eq!(reason(&refused), (Code::InvalidArgument, Some("invalid")), "{refused}");
        for (number, joined_us) in [(number, 1), (1, number)] {
            let id = TicketId { room: "sale".into(), epoch: 1, number, joined_us };
            let refused = call::<_, Ticket>(url, "/tutti.queue.v1.Queue/Claim", id).await.unwrap_err();
            assert_eq!(reason(&refused), (Code::InvalidArgument, Some("invalid")), "{refused}");
        }
        let path = format!("/v1/rooms/sale/tickets/{number}");
        let (status, problem) = rooms.call(Method::DELETE, &edge, &path, Some(&admin()), "").await;
        assert_eq!(status.as_u16(), 400, "{problem}");
    }
}

#[tokio::test]
async fn settings_that_are_not_given_have_the_same_defaults_by_http_and_by_grpc() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let edge = rooms.edge(&[]).await;
    let url = &rooms.urls()[0];
    let put = async |room: &str, settings: Option<RoomSettings>| {
        let request = PutRoomRequest { room: room.into(), settings, opens_at_ms: None };
        call::<_, Room>(url, "/tutti.queue.v1.Queue/PutRoom", request).await
    };
    let some = RoomSettings { max_active: 7, admit_per_second: 0.5, ..RoomSettings::default() };
    for (room, body, settings) in
        [("all", "{}", RoomSettings::default()), ("some", r#"{"maxActive":7,"admitPerSecond":0.5}"#, some)]
    {
        let by_http = rooms.put(&edge, room, body).await;
        let other = format!("{room}-by-grpc");
        put(&other, Some(settings)).await.unwrap();
        let by_grpc = rooms.room(&edge, &other).await;
        assert_eq!(by_grpc["settings"], by_http["settings"]);
    }
    let refused = put("sale", None).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::InvalidArgument, Some("invalid")), "{refused}");
    let wrong = RoomSettings { grace_seconds: 86_401, ..RoomSettings::default() };
    let refused = put("sale", Some(wrong)).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::InvalidArgument, Some("invalid")), "{refused}");
}

#[tokio::test]
async fn a_sender_without_a_name_is_refused() {
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let send = |sender: &str| SendRequest {
        sender: sender.into(),
        key: "key".into(),
        notification: Some(Notification {
            to: Some(Recipients { users: vec!["7".into()], topic: String::new() }),
            title: "hello".into(),
            ..Notification::default()
        }),
    };
    let path = "/tutti.notify.v1.Notify/Send";
    let url = &inboxes.urls()[0];
    for sender in ["", &"s".repeat(257)] {
        let refused = call::<_, Sent>(url, path, send(sender)).await.unwrap_err();
        assert_eq!(reason(&refused), (Code::InvalidArgument, Some("invalid")), "{refused}");
    }
    let edge = inboxes.edge(&[]).await;
    let body = r#"{"to":{"users":["7"]},"title":"hello"}"#;
    for (sub, status) in [("", 401), (&*"s".repeat(257), 401), ("shop", 202)] {
        let token = sign(SECRET, sub, "notifications:send", Duration::from_secs(60)).unwrap();
        let request =
            reqwest::Client::new().post(format!("{}/v1/notifications", edge.url)).bearer_auth(token);
        let answer = request.header("idempotency-key", "key").body(body).send().await.unwrap();
        assert_eq!(answer.status(), status, "{sub:?}");
    }
    let (one, other): (Sent, Sent) =
        (call(url, path, send("one")).await.unwrap(), call(url, path, send("other")).await.unwrap());
    assert_ne!(one.id, other.id);
}

/// Sends the beginning of a request, and waits until the server closes the connection.
async fn is_closed_after(port: u16, bytes: &str) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let closed = timeout(Duration::from_secs(90), socket.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "{bytes:?} on port {port} is waited for, for ever");
}

#[tokio::test]
async fn what_is_sent_by_half_to_an_inner_port_is_not_waited_for_for_ever() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let edge = rooms.edge(&[]).await;
    let grpc: u16 = rooms.urls()[0].rsplit(':').next().unwrap().parse().unwrap();
    let admin_ports = [rooms.queues[0].admin_port(), edge.service.admin_port()];
    let halves = admin_ports
        .into_iter()
        .flat_map(|port| ["", "GET /live HT", "GET /live HTTP/1.1\r\nhost: a\r\n"].map(|half| (port, half)))
        // The server must also close a connection with half a preface, or with a preface after which nothing follows.
        .chain(["", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"].map(|half| (grpc, half)));
    futures_util::future::join_all(halves.map(|(port, half)| is_closed_after(port, half))).await;
    // The edge's own connection was not closed.
    rooms.put(&edge, "sale", "{}").await;
    assert_eq!(rooms.queues[0].ready().await.unwrap().0, 200);
}
