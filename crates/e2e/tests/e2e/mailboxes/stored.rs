//! What the scripts keep in Redis, in the bytes that versions which run side by side, and later ones, read.

use bytes::Bytes;
use tutti_e2e::redis::Redis;
use tutti_feed::{Filing, Mark, channel};

use super::{KEEP, boxes, file_all, filed, filing, log, place};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn an_item_its_mark_and_their_letters_are_written_in_the_bytes_of_earlier_versions() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, KEEP);
    let base = channel(&boxes.feed(0));
    let sent = filing("7", "id", "news");
    let Filing { expires_us, .. } = sent;
    assert_eq!(file_all(&boxes, &[sent]).await, filed(1, 0, 0));
    let item_time = place(&boxes).await.time_us;
    boxes.mark("7", Mark::Read, "id").await.unwrap();
    let mark_time = place(&boxes).await.time_us;

    let items: Vec<Bytes> = redis.command(&["LRANGE", &format!("{base}:box:7"), "0", "-1"]).await.unwrap();
    let expected = format!("{:016x}{item_time:016x}{expires_us:016x}0002{}", 1, hex(b"idnews"));
    assert_eq!(items.iter().map(|item| hex(item)).collect::<Vec<_>>(), [expected]);
    let mark: Bytes = redis.command(&["HGET", &format!("{base}:marks:7"), "id"]).await.unwrap();
    assert_eq!(hex(&mark), format!("02{:016x}{mark_time:016x}", 2));
    let letters: Vec<String> = log(&redis, &boxes).await.iter().map(|record| hex(&record.payload)).collect();
    let filed = format!("01000137{:08x}0002{}00000004{}", 1, hex(b"id"), hex(b"news"));
    let read = format!("02000137{:08x}0000{:08x}0002{}", 0, 4, hex(b"id"));
    assert_eq!(letters, [filed, read]);
}
