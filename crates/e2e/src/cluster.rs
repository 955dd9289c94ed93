//! A Redis Cluster of three masters, each with a replica that takes its place.

use std::ops::RangeInclusive;

use nix::sys::signal::Signal;
use tokio::task::yield_now;
use tutti::local::Owned;
use tutti_feed::{head_key, log_key};

use crate::redis::{self, ask};
use crate::{eventually, free_port};

const MASTERS: usize = 3;

/// The nodes of a cluster, by index. The first three are masters at first.
pub struct Cluster {
    nodes: Vec<Node>,
    folder: tempfile::TempDir,
}

struct Node {
    port: u16,
    /// The port on which nodes talk to each other.
    bus: u16,
    process: Option<Owned>,
    stopped: bool,
}

/// What a node knows of another node, or of itself.
struct Known {
    id: String,
    port: u16,
    /// The id of the master, if the node is a replica.
    master: Option<String>,
    slots: Vec<RangeInclusive<u16>>,
}

impl Cluster {
    /// Starts a cluster, and waits until all nodes know each other and each replica has the data of its master.
    ///
    /// # Panics
    /// If a node does not start, or the nodes do not agree.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut cluster = Self { nodes: (0..2 * MASTERS).map(|_| Node::new()).collect(), folder };
        for node in 0..2 * MASTERS {
            cluster.start_again(node);
        }
        let addresses: Vec<String> =
            cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let mut words = vec!["--cluster", "create"];
        words.extend(addresses.iter().map(String::as_str));
        words.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        let made = ask(cluster.nodes[0].port, &words);
        assert!(made.contains("All 16384 slots covered"), "{made}");
        for node in &cluster.nodes {
            eventually("each node knows who follows whom", async || {
                node.sees_all_slots()
                    && node.known().iter().filter(|one| one.master.is_some()).count() == MASTERS
            })
            .await;
        }
        for master in 0..MASTERS {
            cluster.until_replicated(master).await;
        }
        cluster
    }

    /// Adds a master that has no slots, and returns its index.
    ///
    /// # Panics
    /// If the other nodes do not learn of it.
    pub async fn add_master(&mut self) -> usize {
        let added = self.nodes.len();
        self.nodes.push(Node::new());
        self.start_again(added);
        let (port, bus) = (self.nodes[0].port.to_string(), self.nodes[0].bus.to_string());
        ask(self.nodes[added].port, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        for node in self.live() {
            eventually("each node knows all", async || {
                node.sees_all_slots() && node.known().len() == self.nodes.len()
            })
            .await;
        }
        added
    }

    /// Returns the URL that services are configured with.
    pub fn url(&self) -> String {
        let [first, rest @ ..] = &self.nodes[..] else { unreachable!("there are some") };
        let others: Vec<String> = rest.iter().map(|node| format!("node=127.0.0.1:{}", node.port)).collect();
        format!("redis-cluster://127.0.0.1:{}?{}", first.port, others.join("&"))
    }

    /// Returns the node that has the slot of a feed.
    ///
    /// # Panics
    /// If no node has it.
    pub fn master_of(&self, feed: &str) -> usize {
        let owner = self.any().owner_of(self.slot_of(feed));
        self.index_of(owner.expect("someone has it"))
    }

    /// Whether a node itself has the head of a feed.
    pub fn has_head(&self, node: usize, feed: &str) -> bool {
        ask(self.nodes[node].port, &["EXISTS", &head_key(feed)]) == "1"
    }

    /// Returns the number of records in the log of a feed.
    ///
    /// # Panics
    /// If the master of the feed does not answer.
    pub fn records(&self, feed: &str) -> usize {
        let port = self.nodes[self.master_of(feed)].port;
        ask(port, &["XLEN", &log_key(feed)]).parse().expect("a number of records")
    }

    /// Returns how often clients were told to ask again for keys of a moving slot (`TRYAGAIN`), or to ask elsewhere
    /// (`ASK`).
    pub fn told_of_moves(&self) -> u64 {
        let told = |node: &Node| -> u64 {
            let stats = ask(node.port, &["INFO", "errorstats"]);
            let count = |line: &str| -> Option<u64> {
                let rest = ["TRYAGAIN", "ASK"].iter().find_map(|error| {
                    line.strip_prefix("errorstat_")?.strip_prefix(error)?.strip_prefix(":count=")
                });
                rest?.parse().ok()
            };
            stats.lines().filter_map(count).sum()
        };
        self.live().map(told).sum()
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].process = None;
    }

    /// Starts a node that was killed. It becomes the replica of the node that took its place.
    ///
    /// # Panics
    /// If the node does not start.
    pub fn start_again(&mut self, node: usize) {
        let Node { port, bus, process, .. } = &mut self.nodes[node];
        let (file, bus) = (format!("nodes-{port}.conf"), bus.to_string());
        let mut options = vec!["--cluster-enabled", "yes", "--cluster-config-file", &file];
        options.extend(["--cluster-port", &bus, "--cluster-node-timeout", "2000"]);
        // A replica takes the place of its master however long it has been cut off.
        options.extend(["--cluster-replica-validity-factor", "0"]);
        *process = Some(redis::server(self.folder.path(), *port, &options).expect("redis-server starts"));
    }

    /// Stops the replicas of a node, so that whatever the node does from now on, only the node has.
    ///
    /// # Panics
    /// If the node has no replica.
    pub fn cut_replicas_off(&mut self, node: usize) {
        let replicas = self.replicas_of(node);
        assert!(!replicas.is_empty(), "it has replicas");
        for replica in replicas {
            self.nodes[replica].signal(Signal::SIGSTOP);
            self.nodes[replica].stopped = true;
        }
        // Without this, a stopped replica would receive what is in its socket when it goes on.
        ask(self.nodes[node].port, &["CLIENT", "KILL", "TYPE", "replica"]);
    }

    /// Lets all replicas go on that were cut off.
    ///
    /// # Panics
    /// If one does not run.
    pub fn let_replicas_go_on(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.stopped) {
            node.signal(Signal::SIGCONT);
            node.stopped = false;
        }
    }

    /// Waits until a node has replicas, and they have all of its data.
    ///
    /// # Panics
    /// If that does not happen.
    pub async fn until_replicated(&self, node: usize) {
        eventually("it has a replica", async || !self.replicas_of(node).is_empty()).await;
        for replica in self.replicas_of(node) {
            redis::until_replicated(self.nodes[node].port, self.nodes[replica].port).await;
        }
    }

    /// Whether all nodes that run know that another node has taken the place of this one.
    pub fn has_failed_over(&self, node: usize) -> bool {
        let port = self.nodes[node].port;
        self.live().all(|other| {
            other.sees_all_slots() && other.known().iter().any(|one| one.port == port && one.slots.is_empty())
        })
    }

    /// Moves the slot of a feed to another master, key by key, as the documentation of Redis says. Waits for
    /// `halfway` when about half of the keys have moved.
    ///
    /// # Panics
    /// If a node refuses.
    pub async fn move_slot(&self, feed: &str, to: usize, halfway: impl Future<Output = ()>) {
        let number = self.slot_of(feed);
        let slot = number.to_string();
        let (source, target) = (&self.nodes[self.master_of(feed)], &self.nodes[to]);
        let id_of = |node: &Node| ask(node.port, &["CLUSTER", "MYID"]);
        target.set_slot(&slot, "IMPORTING", &id_of(source));
        source.set_slot(&slot, "MIGRATING", &id_of(target));
        let keys = ask(source.port, &["CLUSTER", "COUNTKEYSINSLOT", &slot]);
        let keys: usize = keys.parse().expect("a number of keys");
        assert!(keys > 1, "there is something to move");
        source.give_keys(&slot, target, keys / 2).await;
        halfway.await;
        source.give_keys(&slot, target, usize::MAX).await;
        let id = id_of(target);
        let known = target.known();
        let is_master = |node: &&Node| known.iter().any(|one| one.port == node.port && one.master.is_none());
        // The new owner comes first, then the old one, then the others. The first two are told twice, which does no
        // harm.
        for master in [target, source].into_iter().chain(self.live().filter(is_master)) {
            master.set_slot(&slot, "NODE", &id);
        }
        for node in self.live() {
            eventually("all nodes know where the slot is", async || {
                node.owner_of(number) == Some(target.port)
            })
            .await;
        }
    }

    /// Returns the nodes that run and are not stopped.
    fn live(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.process.is_some() && !node.stopped)
    }

    fn any(&self) -> &Node {
        self.live().next().expect("one runs")
    }

    fn index_of(&self, port: u16) -> usize {
        self.nodes.iter().position(|node| node.port == port).expect("one of ours")
    }

    fn slot_of(&self, feed: &str) -> u16 {
        ask(self.any().port, &["CLUSTER", "KEYSLOT", &log_key(feed)]).parse().expect("a slot")
    }

    fn replicas_of(&self, node: usize) -> Vec<usize> {
        let (port, known) = (self.nodes[node].port, self.nodes[node].known());
        let id = known.iter().find(|one| one.port == port).map(|one| &one.id).expect("it knows itself");
        let replicas = known.iter().filter(|one| one.master.as_ref() == Some(id));
        replicas.map(|one| self.index_of(one.port)).collect()
    }
}

impl Node {
    fn new() -> Self {
        Self { port: free_port(), bus: free_port(), process: None, stopped: false }
    }

    /// Returns the port of the node that has a slot, as far as this node knows.
    fn owner_of(&self, slot: u16) -> Option<u16> {
        let known = self.known();
        let owner = known.iter().find(|one| one.slots.iter().any(|slots| slots.contains(&slot)));
        owner.map(|owner| owner.port)
    }

    fn known(&self) -> Vec<Known> {
        ask(self.port, &["CLUSTER", "NODES"]).lines().filter_map(Known::of).collect()
    }

    /// Whether the node knows a master for every slot, and serves its own slots.
    fn sees_all_slots(&self) -> bool {
        ask(self.port, &["CLUSTER", "INFO"]).contains("cluster_state:ok")
    }

    fn set_slot(&self, slot: &str, state: &str, id: &str) {
        let answer = ask(self.port, &["CLUSTER", "SETSLOT", slot, state, id]);
        assert_eq!(answer, "OK", "{state}");
    }

    /// Gives away at most `most` keys of a slot.
    async fn give_keys(&self, slot: &str, target: &Self, most: usize) {
        for _ in 0..most {
            let key = ask(self.port, &["CLUSTER", "GETKEYSINSLOT", slot, "1"]);
            if key.is_empty() {
                return;
            }
            let to = target.port.to_string();
            let answer = ask(self.port, &["MIGRATE", "127.0.0.1", &to, &key, "0", "5000"]);
            // The key may have expired.
            assert!(["OK", "NOKEY"].contains(&answer.as_str()), "{key}: {answer}");
            yield_now().await;
        }
    }

    fn signal(&self, signal: Signal) {
        redis::send(self.process.as_ref().expect("it runs"), signal);
    }
}

impl Known {
    /// Reads a line of `CLUSTER NODES`.
    fn of(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [id, address, _, master, _, _, _, _, slots @ ..] = &words[..] else { return None };
        let port = address.split_once('@')?.0.rsplit_once(':')?.1.parse().ok()?;
        // A slot that is being moved stands in brackets, and is not a range.
        let slots = slots.iter().filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((*range, *range));
            Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
        });
        let master = (*master != "-").then(|| (*master).to_owned());
        Some(Self { id: (*id).to_owned(), port, master, slots: slots.collect() })
    }
}
