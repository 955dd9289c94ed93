//! Redis Cluster: masters are killed, replicas that lack the last writes take their places, and slots move, while
//! everything goes on.

use std::collections::BTreeSet;
use std::slice::from_ref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{interval, sleep};
use tutti_e2e::cluster::Cluster;
use tutti_e2e::fixes::{Input, map_of_viewer};
use tutti_e2e::inboxes::{Device, Inboxes};
use tutti_e2e::kafka;
use tutti_e2e::replicas::waits_for_replicas;
use tutti_e2e::rooms::{Joined, Rooms, Stream, admin};
use tutti_e2e::service::Service;
use tutti_e2e::testbed::{Edge, Testbed};
use tutti_e2e::viewer::Following;
use tutti_e2e::{eventually, until_there};
use tutti_load::publisher::Publisher;

async fn testbed(cluster: &Cluster) -> Testbed {
    Testbed::new(3).await.with("locations.stale_after_seconds", "600").with("redis.url", &cluster.url())
}

/// A map and inboxes, two edges with viewers and devices, and what these must be shown.
struct Stage {
    ingests: [Service; 2],
    edges: [Edge; 2],
    urls: Vec<String>,
    publisher: Publisher,
    /// The users that all notifications go to. The inbox of the first is in bucket 0, that of the second is not.
    users: [String; 2],
    viewers: Vec<Following>,
    /// A device of each user at each edge.
    devices: Vec<Device>,
    input: Input,
    sent: BTreeSet<String>,
    inboxes: Inboxes,
}

impl Stage {
    /// Starts everything, and waits until viewers and devices have some input.
    async fn start(cluster: &Cluster) -> Self {
        // Mailboxes must keep everything that a test sends.
        let testbed = testbed(cluster).await.with("inbox.keep", "1000").with("inbox.keep_bytes", "4194304");
        let inboxes = Inboxes::with(kafka::shared(), testbed, 1).await;
        let ingests = [inboxes.testbed.ingest(&[]), inboxes.ingest()];
        let edges = [inboxes.edge(&[]).await, inboxes.edge(&[]).await];
        for ingest in &ingests {
            ingest.wait_ready().await;
        }
        let urls: Vec<String> = edges.iter().map(|edge| edge.url.clone()).collect();
        let mailboxes = inboxes.mailboxes();
        let of_bucket = |bucket| {
            let is_there = |user: &String| mailboxes.bucket_of(format!("user:{user}").as_bytes()) == bucket;
            (0..).map(|n: u32| n.to_string()).find(is_there).unwrap()
        };
        let users = [of_bucket(0), of_bucket(1)];
        let (mut viewers, mut devices) = (Vec::new(), Vec::new());
        for edge in &edges {
            viewers.push(Following::start(&edge.stream()).await);
            devices.extend(users.iter().map(|user| Device::new(from_ref(&edge.url), user, "")));
        }
        let (publisher, input, sent) = (inboxes.testbed.publisher(), Input::new(200), BTreeSet::new());
        let mut stage =
            Self { ingests, edges, urls, publisher, users, viewers, devices, input, sent, inboxes };
        stage.send_more().await;
        stage.until_all_is_shown().await;
        stage
    }

    /// Sends fixes and notifications until `something` is over. Each notification is sent until it is accepted.
    async fn send_during(&mut self, something: impl Future<Output = ()>) {
        let (inboxes, urls, publisher, users) = (&self.inboxes, &self.urls, &self.publisher, &self.users);
        let (input, sent) = (&mut self.input, &mut self.sent);
        let over = AtomicBool::new(false);
        let goes_on = || !over.load(Ordering::Relaxed);
        let fixes = async {
            while goes_on() {
                input.send_for(publisher, Duration::from_millis(100), 500).await;
            }
        };
        let notifications = async {
            let mut steps = interval(Duration::from_millis(100));
            while goes_on() {
                steps.tick().await;
                let key = format!("n-{}", sent.len());
                let body = json!({ "to": { "users": users }, "title": key });
                sent.insert(inboxes.send_until_accepted(urls, &key, &body).await);
            }
        };
        let something = async {
            something.await;
            over.store(true, Ordering::Relaxed);
        };
        tokio::join!(fixes, notifications, something);
        publisher.flush(Duration::from_secs(30)).await.unwrap();
        assert!(sent.len() < 1000, "inboxes keep no more");
    }

    /// Sends for a second.
    async fn send_more(&mut self) {
        self.send_during(sleep(Duration::from_secs(1))).await;
    }

    /// Waits until viewers, devices and edges have exactly what was sent.
    async fn until_all_is_shown(&self) {
        for viewer in &self.viewers {
            eventually("the viewers hold the input", async || {
                map_of_viewer(&viewer.viewer()) == self.input.expected
            })
            .await;
        }
        for device in &self.devices {
            eventually("the devices have what was sent", async || {
                device.look(|seen| seen.ids.iter().cloned().collect::<BTreeSet<_>>() == self.sent)
            })
            .await;
        }
        for edge in &self.edges {
            eventually("the edges agree", async || edge.map().await == self.input.expected).await;
        }
    }

    /// Returns the number of resets that each viewer has heard, and each device of the first user.
    fn resets(&self) -> Vec<usize> {
        let of_viewers = self.viewers.iter().map(|viewer| viewer.viewer().resets.len());
        let of_first = self.devices.iter().step_by(self.users.len());
        of_viewers.chain(of_first.map(|device| device.look(|seen| seen.resets.len()))).collect()
    }
}

/// Returns the node that has the first bucket of the inboxes and a part of the map.
fn master_of_both(cluster: &Cluster) -> usize {
    let node = cluster.master_of("inbox.0");
    let shards = (0..3).filter(|shard| cluster.master_of(&format!("locations.{shard}")) == node);
    assert!((1..3).contains(&shards.count()), "it has some of the map, but not all");
    node
}

/// Waits until a client has met the slot that moves.
async fn until_met(cluster: &Cluster) {
    let told = cluster.told_of_moves();
    eventually("the load meets the slot that moves", async || cluster.told_of_moves() > told).await;
}

/// Waits until more records are written to a feed.
async fn until_written(cluster: &Cluster, feed: &str) {
    let before = cluster.records(feed);
    eventually("the feed is written", async || cluster.records(feed) > before + 5).await;
}

async fn until_failed_over(cluster: &Cluster, node: usize) {
    eventually("the replica is the master", async || cluster.has_failed_over(node)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn masters_that_are_killed_lose_no_fix_and_no_notification_in_silence() {
    let mut cluster = Cluster::start().await;
    let mut stage = Stage::start(&cluster).await;
    let first = master_of_both(&cluster);
    let sent = (stage.input.sent, stage.sent.len());
    let under_load = async {
        until_written(&cluster, "inbox.0").await;
        cluster.kill(first);
        until_failed_over(&cluster, first).await;
    };
    stage.send_during(under_load).await;
    assert!(stage.input.sent > sent.0 && stage.sent.len() > sent.1, "it was under load");
    stage.send_more().await;
    stage.until_all_is_shown().await;

    // From here on, what is shown is lost later.
    cluster.start_again(first);
    let second = master_of_both(&cluster);
    assert_ne!(second, first);
    cluster.until_replicated(second).await;
    let (resets, refused) = (stage.resets(), stage.ingests[0].metric("tutti_feed_refused_total").await);
    cluster.cut_replicas_off(second);
    stage.send_more().await;
    stage.until_all_is_shown().await;
    let under_load = async {
        cluster.kill(second);
        cluster.let_replicas_go_on();
        until_failed_over(&cluster, second).await;
    };
    stage.send_during(under_load).await;
    assert_eq!(cluster.master_of("inbox.0"), first, "who lacked it took the place");
    stage.send_more().await;
    stage.until_all_is_shown().await;
    let after = stage.resets();
    assert!(after.iter().zip(&resets).all(|(after, before)| after > before), "it was told: {after:?}");
    let refused_now = stage.ingests[0].metric("tutti_feed_refused_total").await;
    assert!(refused_now > refused, "and brought again, from Kafka");
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_move_under_load_and_everyone_is_shown_all_once_and_nobody_is_reset() {
    let mut cluster = Cluster::start().await;
    let mut stage = Stage::start(&cluster).await;
    // No client is connected to this node.
    let to = cluster.add_master().await;
    for feed in ["locations.0", "inbox.0"] {
        let from = cluster.master_of(feed);
        assert_ne!(from, to);
        let sent = (stage.input.sent, stage.sent.len());
        stage.send_during(cluster.move_slot(feed, to, until_met(&cluster))).await;
        assert!(stage.input.sent > sent.0 && stage.sent.len() > sent.1, "it was under load");
        assert_eq!(cluster.master_of(feed), to);
        assert!(cluster.has_head(to, feed) && !cluster.has_head(from, feed), "all is where it should be");
    }
    stage.send_more().await;
    stage.until_all_is_shown().await;
    for viewer in &stage.viewers {
        let viewer = viewer.viewer();
        assert_eq!(viewer.resets, [""; 0]);
        assert_eq!(viewer.steps_back, 0);
    }
    for device in &stage.devices {
        device.look(|seen| {
            assert_eq!(seen.resets, [""; 0]);
            assert_eq!((seen.ids.len(), seen.twice.len()), (stage.sent.len(), 0), "each once");
        });
    }
    assert_eq!(stage.ingests[0].metric("tutti_feed_refused_total").await, 0.0, "nothing was lost");
}

/// A room, and the visitors that wait in it.
struct Crowd {
    rooms: Rooms,
    edges: [Edge; 2],
    /// The visitors that have a ticket and are not known to have left or lost it, in the order of their tickets.
    line: Vec<Joined>,
    /// The streams of some visitors, by ticket.
    streams: Vec<(u64, Stream)>,
}

impl Crowd {
    /// Lets visitors join at both edges until `something` is over. Each tries until it has a ticket.
    async fn come_during(&mut self, something: impl Future<Output = ()>) {
        let (rooms, [a, b]) = (&self.rooms, &self.edges);
        let over = AtomicBool::new(false);
        let come = async |edge: &Edge| {
            let (mut came, mut steps) = (Vec::new(), interval(Duration::from_millis(100)));
            while !over.load(Ordering::Relaxed) {
                steps.tick().await;
                came.push(rooms.join_until_accepted(edge, "sale").await);
            }
            came
        };
        let something = async {
            something.await;
            over.store(true, Ordering::Relaxed);
        };
        let (at_a, at_b, ()) = tokio::join!(come(a), come(b), something);
        self.line.extend(at_a.into_iter().chain(at_b));
        self.line.sort_by_key(|joined| joined.ticket);
    }

    /// Opens a stream for the first `first` visitors and for the last one, at the edges in turn.
    async fn open_streams(&mut self, first: usize) {
        for joined in self.line.iter().take(first).chain(self.line.last()) {
            let edge = &self.edges[self.streams.len() % 2];
            self.streams.push((joined.ticket, Stream::open(edge, "sale", joined.visitor()).await));
        }
    }

    /// Makes a request about a ticket until the answer is not 503.
    async fn status_of(&self, method: Method, edge: &Edge, joined: &Joined) -> (u16, Value) {
        until_there("there is an answer", async || {
            let (status, body) = self.rooms.act(method.clone(), edge, "sale", joined, "").await;
            (status != 503).then(|| (status.as_u16(), body))
        })
        .await
    }

    /// Removes the visitors from the line that have lost their tickets. Returns their number.
    async fn drop_lost(&mut self) -> usize {
        let mut kept = Vec::new();
        for joined in &self.line {
            let (status, body) = self.status_of(Method::GET, &self.edges[0], joined).await;
            assert!([200, 410].contains(&status), "{status}: {body}");
            kept.push(status == 200);
        }
        let before = self.line.len();
        let mut kept = kept.into_iter();
        self.line.retain(|_| kept.next().unwrap());
        before - self.line.len()
    }

    /// Lets the visitor leave who is inside, and waits until the others have moved up. Each must have a ticket of its
    /// own and an exact position, at both edges and on the streams, and nobody else may wait.
    async fn all_move_up(&mut self) {
        assert!(self.line.windows(2).all(|two| two[0].ticket < two[1].ticket), "no two hold one ticket");
        let leaves = self.line.remove(0);
        let (status, body) = self.status_of(Method::DELETE, &self.edges[0], &leaves).await;
        assert_eq!(status, 200, "{body}");
        for edge in &self.edges {
            eventually("the next is inside, and all others wait", async || {
                let path = "/v1/rooms/sale";
                let (_, room) = self.rooms.call(Method::GET, edge, path, Some(&admin()), "").await;
                let figures = &room["figures"];
                figures["waiting"] == self.line.len() - 1 && figures["active"] == 1
            })
            .await;
            for (place, joined) in self.line.iter().enumerate().skip(1) {
                eventually("each edge tells the same place", async || {
                    let (_, body) = self.status_of(Method::GET, edge, joined).await;
                    body["position"] == place
                })
                .await;
            }
        }
        self.streams.retain(|(ticket, _)| *ticket != leaves.ticket);
        for (ticket, stream) in &self.streams {
            let place = self.line.iter().position(|joined| joined.ticket == *ticket).unwrap() as u64;
            eventually("and so do the streams", async || {
                let heard = stream.heard();
                let is_told = heard.updates.last().is_some_and(|(position, _)| *position == Some(place));
                if place == 0 { heard.pass.is_some() } else { is_told }
            })
            .await;
            assert!(place == 0 || !stream.is_over(), "on the same connection");
            assert_eq!(stream.heard().lost, None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_moves_and_whose_master_is_killed_gives_no_ticket_twice_and_tells_exact_places() {
    let mut cluster = Cluster::start().await;
    let rooms = Rooms::start(testbed(&cluster).await, 2, &[]).await;
    let edges = [rooms.edge(&[]).await, rooms.edge(&[]).await];
    let settings = r#"{"maxActive":1,"admitPerSecond":50,"claimSeconds":600,"graceSeconds":600}"#;
    rooms.put(&edges[0], "sale", settings).await;
    let mut crowd = Crowd { rooms, edges, line: Vec::new(), streams: Vec::new() };
    crowd.come_during(sleep(Duration::from_secs(1))).await;
    crowd.open_streams(6).await;

    let (from, to) = (cluster.master_of("room.sale"), cluster.master_of("inbox.0"));
    assert_ne!(from, to);
    let came = crowd.line.len();
    crowd.come_during(cluster.move_slot("room.sale", to, until_met(&cluster))).await;
    assert!(crowd.line.len() > came, "it was under load");
    assert_eq!(cluster.master_of("room.sale"), to);
    assert!(cluster.has_head(to, "room.sale") && !cluster.has_head(from, "room.sale"));
    let tickets: Vec<u64> = crowd.line.iter().map(|joined| joined.ticket).collect();
    assert_eq!(tickets, (1..=tickets.len() as u64).collect::<Vec<_>>(), "each visitor has one");
    crowd.all_move_up().await;
    for (_, stream) in &crowd.streams {
        let heard = stream.heard();
        assert_eq!((heard.grew, heard.resets.len()), (0, 0), "{:?}", heard.resets);
    }

    cluster.until_replicated(to).await;
    let kept = crowd.line.clone();
    let under_load = async {
        until_written(&cluster, "room.sale").await;
        cluster.kill(to);
        until_failed_over(&cluster, to).await;
    };
    crowd.come_during(under_load).await;
    assert!(crowd.line.len() > kept.len(), "it was under load");
    let lost = crowd.drop_lost().await;
    let left: BTreeSet<&str> = crowd.line.iter().map(|joined| joined.token.as_str()).collect();
    assert!(kept.iter().all(|joined| left.contains(joined.token.as_str())), "what was replicated is there");
    assert!(crowd.line.len() > kept.len(), "so are some who came then; {lost} were forgotten");
    crowd.come_during(sleep(Duration::from_secs(1))).await;
    crowd.open_streams(0).await;
    crowd.all_move_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_replica_of_a_master_must_have_does_not_count_before_it_has_it() {
    let mut cluster = Cluster::start().await;
    let testbed = testbed(&cluster).await.with("redis.wait_replicas", "1");
    let (ingest, [edge]) = testbed.up([&[]]).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(200);
    let cut_off = |cluster: &mut Cluster| cluster.cut_replicas_off(cluster.master_of("locations.0"));
    waits_for_replicas(
        (&ingest, &edge),
        &publisher,
        &mut input,
        &mut cluster,
        cut_off,
        Cluster::let_replicas_go_on,
    )
    .await;
    assert_eq!(ingest.metric("tutti_feed_refused_total").await, 0.0, "nothing was lost");
}
