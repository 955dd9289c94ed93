//! Changes of rooms, as Kafka has them.

use prost::Message as _;
use tutti_e2e::rooms::{Rooms, read_topic};
use tutti_e2e::testbed::Testbed;
use tutti_model::RoomEvent;
use tutti_model::room_event::Event;

#[tokio::test(flavor = "multi_thread")]
async fn kafka_may_have_the_changes_as_protobuf() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[("relay.format", "protobuf")]).await;
    let edge = rooms.edge(&[]).await;
    rooms.put(&edge, "sale", r#"{"maxActive":1,"admitPerSecond":50,"graceSeconds":7}"#).await;
    rooms.join(&edge, "sale").await;
    rooms.until_relayed(&edge, "sale").await;
    let events: Vec<Event> = read_topic(rooms.testbed.brokers(), &rooms.topic)
        .iter()
        .map(|value| RoomEvent::decode(value.as_slice()).unwrap().event.unwrap())
        .collect();
    assert!(
        matches!(&events[..], [Event::Settings(s), Event::Joined(j), Event::Admitted(a)]
            if s.grace_seconds == 7 && j.ticket == 1 && a.ticket == 1),
        "{events:?}"
    );
}
