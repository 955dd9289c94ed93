//! Records of any topic: their values go to listeners unchanged.

use prost::Message as _;
use tutti_model::events::is_topic_event_name;
use tutti_model::{Gap, TopicEvent, TopicRecords};

use crate::decode::{Decoded, Decoder, Rejection};
use crate::record::RawRecord;

/// Makes an event of each record. Every record is valid, and none is stale.
#[derive(Clone, Debug)]
pub(crate) struct EventDecoder {
    /// The name of events whose record does not name them by its header `event`.
    pub(crate) event: String,
}

impl Decoder for EventDecoder {
    /// `TopicRecords` with one event, in protobuf. The concatenation of several is `TopicRecords` with all their events.
    type Part = Vec<u8>;

    fn decode(&self, record: RawRecord<'_>, _now_ms: i64) -> Result<Decoded<Vec<u8>>, Rejection> {
        let named = record.headers.header("event").and_then(|name| std::str::from_utf8(name).ok());
        let event = TopicEvent {
            key: record.key.unwrap_or_default().to_vec().into(),
            value: record.value.map(|value| value.to_vec().into()),
            event: named.filter(|name| is_topic_event_name(name)).unwrap_or(&self.event).to_owned(),
        };
        Ok(Decoded::Part(TopicRecords { events: vec![event], gap: None }.encode_to_vec()))
    }
}

/// Returns the payload that announces records missing in Kafka to the listeners of a topic.
pub(crate) fn gap_payload(gap: Gap) -> Vec<u8> {
    TopicRecords { events: Vec::new(), gap: Some(gap) }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::fixtures::{Header, NONE, NOW, raw};

    #[test]
    fn an_event_is_named_by_its_header_but_not_as_streams_name_their_own() {
        let decoder = EventDecoder { event: "message".into() };
        let named = |headers: Header| {
            let record = RawRecord { headers: &headers, ..raw(Some("x")) };
            let Ok(Decoded::Part(part)) = decoder.decode(record, NOW) else { panic!("an event") };
            TopicRecords::decode(part.as_slice()).unwrap().events[0].event.clone()
        };
        assert_eq!(named(NONE), "message");
        assert_eq!(named(("event", b"order")), "order");
        for bad in [&b"reset"[..], b"end", b"x.null", b"a\nb", b"", &[0xff]] {
            assert_eq!(named(("event", bad)), "message");
        }
    }
}
