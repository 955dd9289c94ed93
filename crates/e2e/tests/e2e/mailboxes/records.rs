//! What the log of a bucket contains, byte for byte.

use std::collections::HashMap;

use bytes::{BufMut as _, Bytes};
use fred::prelude::*;
use tutti_e2e::redis::Redis;
use tutti_feed::{Filing, Letter, MailboxChange, Mark, Since};

use super::{KEEP, boxes, file_all, filed, filing, letters, log};

/// Encodes a letter, independently of the code under test.
fn encode(letter: &Letter) -> Vec<u8> {
    let put_text = |bytes: &mut Vec<u8>, text: &[u8]| {
        bytes.put_u16(text.len() as u16);
        bytes.put_slice(text);
    };
    let texts = |ids: &[Bytes]| {
        let mut body = Vec::new();
        ids.iter().for_each(|id| put_text(&mut body, id));
        body
    };
    let (kind, id, body) = match &letter.change {
        MailboxChange::Filed { id, payload } => (1, id.clone(), payload.to_vec()),
        MailboxChange::Read(ids) => (2, Bytes::new(), texts(ids)),
        MailboxChange::Deleted(ids) => (3, Bytes::new(), texts(ids)),
        MailboxChange::Gap(reason) => (4, Bytes::new(), reason.to_vec()),
    };
    let mut bytes = vec![kind];
    put_text(&mut bytes, &letter.address);
    bytes.put_u32(letter.unread);
    put_text(&mut bytes, &id);
    bytes.put_u32(body.len() as u32);
    bytes.put_slice(&body);
    bytes
}

/// The records have exactly the bytes that [`encode`] computes.
#[tokio::test]
async fn the_records_say_what_was_filed_and_tell_of_an_address_once() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, KEEP);
    let addresses = ["{a}:b:{", "}", ":", "🙂|\n\0", "a"];
    let payloads =
        [&b""[..], b"\x00", b"a\x00b\r\n|{}:%d%s", "🙂 grüße".as_bytes(), b"\xff\xfe\x80", &[0; 50_000]];
    let mut expected = Vec::new();
    let mut unread = HashMap::new();
    for (n, payload) in payloads.into_iter().enumerate() {
        let payload = Bytes::from_static(payload);
        let id = format!("{n}|\n\0🙂:{{}}");
        let all = addresses.map(|address| filing(address, &id, payload.clone()));
        assert_eq!(file_all(&boxes, &all).await, filed(5, 0, 0));
        let change = MailboxChange::Filed { id: Bytes::from(id), payload };
        let record = addresses.map(|address| {
            let unread = unread.entry(address).and_modify(|count| *count += 1).or_insert(1);
            Letter { address: Bytes::from(address), unread: *unread, change: change.clone() }
        });
        expected.push(record.to_vec());
    }
    let thrice = ["x", "y", "z"].map(|id| filing("a", id, id.to_owned()));
    assert_eq!(file_all(&boxes, &thrice).await, filed(3, 0, 0));
    for (n, id) in ["x", "y", "z"].into_iter().enumerate() {
        let change = MailboxChange::Filed { id: Bytes::from(id), payload: Bytes::from(id) };
        expected.push(vec![Letter { address: Bytes::from("a"), unread: 7 + n as u32, change }]);
    }
    let id = Bytes::from("0|\n\0🙂:{}");
    assert_eq!(boxes.mark("}", Mark::Read, "0|\n\0🙂:{}").await.unwrap(), Some(5));
    assert_eq!(boxes.mark("}", Mark::Delete, "0|\n\0🙂:{}").await.unwrap(), Some(5));
    for change in [MailboxChange::Read(vec![id.clone()]), MailboxChange::Deleted(vec![id])] {
        expected.push(vec![Letter { address: Bytes::from("}"), unread: 5, change }]);
    }
    boxes.announce_gap(0, "lost\0|").await.unwrap();
    let change = MailboxChange::Gap(Bytes::from("lost\0|"));
    expected.push(vec![Letter { address: Bytes::new(), unread: 0, change }]);

    let records = log(&redis, &boxes).await;
    assert_eq!(records.iter().map(letters).collect::<Vec<_>>(), expected);
    let mut before = 0;
    for (n, (record, letters)) in records.iter().zip(&expected).enumerate() {
        assert_eq!((record.position.seq, record.prev_time_us), (n as u64 + 1, before));
        assert!(record.position.time_us > before);
        before = record.position.time_us;
        assert_eq!(record.payload, letters.iter().flat_map(encode).collect::<Vec<u8>>());
    }
    // The mailbox contains the same.
    let mailbox = boxes.read("🙂|\n\0", Since::All).await.unwrap();
    let lying: Vec<Bytes> = mailbox.items.into_iter().map(|item| item.payload).collect();
    assert_eq!(lying, payloads.map(Bytes::from_static));
}

#[tokio::test]
async fn many_large_items_in_one_call_are_several_records_that_miss_none() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, KEEP);
    let all: Vec<Filing> =
        (0..40).map(|n| filing(&format!("a{n}"), &format!("{n}"), vec![n as u8; 30_000])).collect();
    assert_eq!(file_all(&boxes, &all).await, filed(40, 0, 0));
    let records = log(&redis, &boxes).await;
    assert!((4..=6).contains(&records.len()), "{} records of 1.2 MB", records.len());
    let told: Vec<Bytes> = records.iter().flat_map(letters).map(|letter| letter.address).collect();
    assert_eq!(told, (0..40).map(|n| Bytes::from(format!("a{n}"))).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_was_filed_is_published_as_it_is_logged() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, KEEP);
    let mut messages = redis.client().message_rx();
    redis.client().ssubscribe(tutti_feed::channel(&boxes.feed(0))).await.unwrap();
    let filings = [filing("a", "1", "one"), filing("a", "2", "two"), filing("b", "2", "two")];
    boxes.file(0, &filings).await.unwrap();
    boxes.mark("a", Mark::ReadTo, "2").await.unwrap();
    boxes.announce_gap(0, "why").await.unwrap();
    let records = log(&redis, &boxes).await;
    assert_eq!(records.len(), 4);
    for record in records {
        let published: Bytes = messages.recv().await.unwrap().value.convert().unwrap();
        assert_eq!(published, record.encode());
    }
}
