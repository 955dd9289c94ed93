//! `tutti up`: everything in one process, for developers.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};
use tutti_edge::Edge;
use tutti_ingest::Ingest;
use tutti_kafka::PartitionLabel;
use tutti_load::publisher::Publisher;
use tutti_load::taxis::Taxis;
use tutti_notify::Notify;
use tutti_queue::Queue;
use tutti_service::logs::Logs;
use tutti_service::{
    Admin, CancellationToken, Context, Failure, Readiness, Registry, Service, Settings, raise_file_limit,
    serve_admin, stop_signal, without_userinfo,
};

use crate::broker::Broker;
use crate::local::{Redis, check_port_free};
use crate::passes::new_key;
use crate::token::{DEVELOPMENT_SECRET, sign};

/// The topic of the live map.
pub const TOPIC: &str = "media-locations";
const PARTITIONS: i32 = 6;
/// The topic that the changes of waiting rooms are relayed to.
const ROOMS_TOPIC: &str = "queueing-system";
/// The topic that notifications are sent to.
const NOTIFICATIONS_TOPIC: &str = "sse_notifications";
/// A waiting room to try.
const ROOM: &str = "demo";
/// How long it may take until a fix has come through, before it is said that none does.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long stopping may take.
const GRACE: Duration = Duration::from_secs(8);

/// What to start, and what to use in its place.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Use the ports from this one up, in place of 8080, 8081, 9092 and others
    #[arg(long, value_name = "PORT")]
    pub port_base: Option<u16>,
    /// Use this Kafka (host:port,...) in place of the embedded broker
    #[arg(long, env = "KAFKA", value_name = "BROKERS")]
    pub kafka: Option<String>,
    /// Use this Redis (redis://host:port) in place of a private one
    #[arg(long, env = "REDIS", hide_env_values = true, value_name = "URL")]
    pub redis: Option<String>,
    /// Do not play the recorded taxis, nor tell users anything
    #[arg(long)]
    pub no_replay: bool,
    /// Ask for a token with the scope map:read (see tutti token)
    #[arg(long)]
    pub private: bool,
    /// The HS256 secret that tokens are checked with; known to all unless given
    #[arg(long, env = "TUTTI_AUTH_HS256_SECRET", hide_env_values = true, default_value = DEVELOPMENT_SECRET, hide_default_value = true)]
    pub secret: String,
    /// What is logged: error, warn, info, debug, trace, or a filter
    #[arg(long, default_value = "warn", value_name = "LEVEL")]
    pub log: String,
}

struct Ports {
    edges: [u16; 2],
    kafka: u16,
    redis: u16,
    queue: u16,
    notify: u16,
    /// Of ingest, the two edges, the queue and notify.
    admin: [u16; 5],
}

impl Ports {
    fn new(base: Option<u16>) -> anyhow::Result<Self> {
        let Some(base) = base else {
            return Ok(Self {
                edges: [8080, 8081],
                kafka: 9092,
                redis: 16379,
                queue: 9200,
                notify: 9201,
                admin: [9101, 9102, 9103, 9104, 9105],
            });
        };
        anyhow::ensure!((1024..=65_000).contains(&base), "--port-base must be 1024 to 65000");
        let at = |n: u16| base + n;
        Ok(Self {
            edges: [at(0), at(1)],
            kafka: at(2),
            redis: at(3),
            queue: at(7),
            notify: at(9),
            admin: [at(4), at(5), at(6), at(8), at(10)],
        })
    }
}

/// Runs until Ctrl-C or SIGTERM.
///
/// # Errors
/// If a port is in use, something is not installed, or a service ends by itself.
pub async fn up(mut options: Options) -> anyhow::Result<()> {
    // `KAFKA= make up` means none.
    options.kafka = options.kafka.filter(|brokers| !brokers.is_empty());
    options.redis = options.redis.filter(|url| !url.is_empty());
    let logs = Logs { level: options.log.clone(), json: false };
    logs.start().map_err(|why| anyhow::anyhow!("--log {}: {why}", options.log))?;
    raise_file_limit();
    let ports = Ports::new(options.port_base)?;
    for port in ports.edges {
        check_port_free(port, "an edge")?;
    }
    check_port_free(ports.queue, "the waiting room's service")?;
    check_port_free(ports.notify, "the notifications' service")?;
    for port in ports.admin {
        check_port_free(port, "an admin port")?;
    }
    if options.kafka.is_none() {
        check_port_free(ports.kafka, "the embedded broker")?;
    }

    let private_redis = match options.redis {
        Some(_) => None,
        None => Some(Redis::start(ports.redis)?),
    };
    let redis = match (&options.redis, &private_redis) {
        (Some(url), _) => url.clone(),
        (None, Some(private)) => private.url(),
        (None, None) => unreachable!("one of them is there"),
    };
    let embedded = match options.kafka {
        Some(_) => None,
        None => {
            let rejected = [TOPIC, NOTIFICATIONS_TOPIC].map(|topic| format!("{topic}.rejected"));
            let topics = [
                (TOPIC, PARTITIONS),
                (&rejected[0], 1),
                (ROOMS_TOPIC, PARTITIONS),
                (NOTIFICATIONS_TOPIC, PARTITIONS),
                (&rejected[1], 1),
            ];
            Some(Broker::start(ports.kafka, &topics).await?)
        }
    };
    let kafka = match (&options.kafka, &embedded) {
        (Some(brokers), _) => brokers.clone(),
        (None, Some(broker)) => broker.address().to_owned(),
        (None, None) => unreachable!("one of them is there"),
    };

    let stop = CancellationToken::new();
    let mut services = JoinSet::new();
    let mut common = BTreeMap::from([("TUTTI_REDIS_URL".to_owned(), redis.clone())]);
    common.insert("TUTTI_KAFKA_BROKERS".into(), kafka.clone());
    let mut ingest = common.clone();
    if embedded.is_some() {
        // The embedded broker cannot look offsets up by time, and answers a fetch only when its
        // time is over.
        ingest.insert("TUTTI_ROUTES_LOCATIONS_START".into(), "beginning".into());
        ingest.insert("TUTTI_KAFKA_PROPERTIES_FETCH_WAIT_MAX_MS".into(), "20".into());
    }
    let (figures, ready) = start::<Ingest>(&ingest, ports.admin[0], &stop, &mut services).await?;
    let mut all_ready = vec![("ingest", ready)];
    let keys = tempfile::tempdir().context("a temporary folder for the key")?;
    let key = keys.path().join("pass-key.pem");
    std::fs::write(&key, new_key()).context("writing the key")?;
    let queue_listens = format!("127.0.0.1:{}", ports.queue);
    let mut queue = common.clone();
    queue.extend([
        ("TUTTI_GRPC_LISTEN".into(), queue_listens.clone()),
        ("TUTTI_PASSES_KEY_FILE".into(), key.to_string_lossy().into_owned()),
    ]);
    let (_, ready) = start::<Queue>(&queue, ports.admin[3], &stop, &mut services).await?;
    all_ready.push(("queue", ready));
    let notify_listens = format!("127.0.0.1:{}", ports.notify);
    let mut notify = common.clone();
    notify.insert("TUTTI_GRPC_LISTEN".into(), notify_listens.clone());
    let (_, ready) = start::<Notify>(&notify, ports.admin[4], &stop, &mut services).await?;
    all_ready.push(("notify", ready));
    let urls: Vec<String> = ports.edges.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
    let mut edges = Vec::new();
    for (i, port) in ports.edges.into_iter().enumerate() {
        let mut variables = common.clone();
        variables.remove("TUTTI_KAFKA_BROKERS");
        variables.extend([
            ("TUTTI_HTTP_LISTEN".into(), format!("127.0.0.1:{port}")),
            ("TUTTI_HTTP_WORKERS".into(), "1".into()),
            // All clients have one address.
            ("TUTTI_HTTP_MAX_CONNECTIONS_PER_ADDRESS".into(), "0".into()),
            ("TUTTI_STREAMS_MAX_PER_ADDRESS".into(), "0".into()),
            ("TUTTI_HTTP_EDGES".into(), urls.join(",")),
            ("TUTTI_CORS_ORIGINS".into(), "*".into()),
            ("TUTTI_AUTH_HS256_SECRET".into(), options.secret.clone()),
            ("TUTTI_MAP_PUBLIC".into(), (!options.private).to_string()),
            ("TUTTI_STREAMS_DRAIN_SECONDS".into(), "1".into()),
            ("TUTTI_QUEUE_URLS".into(), format!("http://{queue_listens}")),
            ("TUTTI_NOTIFY_URLS".into(), format!("http://{notify_listens}")),
            ("TUTTI_EDGE_NAME".into(), format!("edge-{}", i + 1)),
        ]);
        let (metrics, ready) = start::<Edge>(&variables, ports.admin[i + 1], &stop, &mut services).await?;
        all_ready.push(("edge", ready));
        edges.push(metrics);
    }

    services.spawn(open_room(urls[0].clone(), options.secret.clone(), stop.clone()));
    let mut vehicles = 0;
    if !options.no_replay {
        services.spawn(notify_users(urls[1].clone(), options.secret.clone(), stop.clone()));
        let taxis = Taxis::load()?;
        vehicles = taxis.vehicles();
        let publisher = Publisher::new(&kafka, TOPIC)?;
        let stop = stop.clone();
        services.spawn(async move {
            tokio::select! {
                played = taxis.play(&publisher) => {
                    played.map_err(|e| Failure::Other(format!("the replay of taxis: {e:#}")))
                }
                () = stop.cancelled() => Ok(()),
            }
        });
    }
    print_greeting(&options, &ports, &urls, &kafka, &redis, vehicles);

    let figures = Figures { ingest: figures, edges, replays: !options.no_replay };
    let ended = tokio::select! {
        Some(ended) = services.join_next() => Some(ended),
        _ = stop_signal() => None,
        () = figures.print(all_ready) => unreachable!("figures are printed until the end"),
    };
    println!("\nstopping");
    stop.cancel();
    if let Some(ended) = ended {
        ended?.map_err(|failure| anyhow::anyhow!("{failure}"))?;
    }
    let all = async { while services.join_next().await.is_some_and(|ended| ended.is_ok()) {} };
    let _ = timeout(GRACE, all).await;
    drop(services);
    drop((embedded, private_redis, keys));
    Ok(())
}

/// Tells each of ten users something every half a minute, for there to be something in their inboxes.
async fn notify_users(edge: String, secret: String, stop: CancellationToken) -> Result<(), Failure> {
    let token = sign(&secret, "tutti-up", "notifications:send", Duration::from_secs(30 * 86_400))
        .map_err(|e| Failure::Other(format!("{e:#}")))?;
    let run = rand::random::<u32>();
    let client = reqwest::Client::new();
    let telling = async {
        for n in 1u64.. {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let body = serde_json::json!({
                "to": { "users": [(n % 10 + 1).to_string()] },
                "category": "order",
                "title": format!("Order {n} is on its way"),
                "data": { "order": n },
                "ttlSeconds": 3600,
            });
            let send = client.post(format!("{edge}/v1/notifications")).bearer_auth(&token);
            // One that is not taken is not missed.
            let _ = send.header("idempotency-key", format!("{run}-{n}")).body(body.to_string()).send().await;
        }
    };
    tokio::select! {
        () = telling => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}

/// Makes the room to try, as soon as an edge can.
async fn open_room(edge: String, secret: String, stop: CancellationToken) -> Result<(), Failure> {
    let token = sign(&secret, "tutti-up", "rooms:admin", Duration::from_secs(3600))
        .map_err(|e| Failure::Other(format!("{e:#}")))?;
    let settings = r#"{"maxActive":5,"admitPerSecond":1,"sessionSeconds":120}"#;
    let made = async {
        let client = reqwest::Client::new();
        loop {
            let put = client.put(format!("{edge}/v1/rooms/{ROOM}")).bearer_auth(&token).body(settings);
            if put.send().await.is_ok_and(|answer| !answer.status().is_server_error()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = made => stop.cancelled().await,
        () = stop.cancelled() => {}
    }
    Ok(())
}

/// Starts a service as its own process would, configured by variables alone.
async fn start<S: Service<Config: Send + 'static, Metrics: Clone + Send + 'static> + 'static>(
    variables: &BTreeMap<String, String>,
    admin: u16,
    stop: &CancellationToken,
    services: &mut JoinSet<Result<(), Failure>>,
) -> anyhow::Result<(S::Metrics, Readiness)> {
    let mut settings = Settings::new(None, variables.clone());
    let config = S::configure(&mut settings);
    settings.finish().with_context(|| S::NAME.to_owned())?;
    let mut registry = Registry::with_prefix("tutti");
    let metrics = S::metrics(&mut registry);
    let readiness = Readiness::default();
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, admin))).await?;
    tokio::spawn(serve_admin(listener, Admin { readiness: readiness.clone(), registry: Arc::new(registry) }));
    let context = Context { stop: stop.clone(), readiness: readiness.clone(), grace: GRACE };
    services.spawn(S::run(config, metrics.clone(), context));
    Ok((metrics, readiness))
}

fn print_greeting(
    options: &Options,
    ports: &Ports,
    urls: &[String],
    kafka: &str,
    redis: &str,
    vehicles: usize,
) {
    let kafka_is = if options.kafka.is_some() { "yours" } else { "embedded, in memory" };
    let redis_is = if options.redis.is_some() { "yours" } else { "private, in memory" };
    let token =
        if options.private { " -H \"Authorization: Bearer $(target/debug/tutti token)\"" } else { "" };
    println!("Tutti is starting.\n");
    println!("  Kafka    {kafka}  ({kafka_is})");
    println!("  Redis    {}  ({redis_is})", without_userinfo(redis));
    println!("  ingest   http://127.0.0.1:{}/metrics", ports.admin[0]);
    println!(
        "  queue    http://127.0.0.1:{}  (gRPC; http://127.0.0.1:{}/metrics)",
        ports.queue, ports.admin[3]
    );
    println!(
        "  notify   http://127.0.0.1:{}  (gRPC; http://127.0.0.1:{}/metrics)",
        ports.notify, ports.admin[4]
    );
    for (url, admin) in urls.iter().zip(&ports.admin[1..]) {
        println!("  edge     {url}  (http://127.0.0.1:{admin}/metrics)");
    }
    if vehicles > 0 {
        println!("  replay   {vehicles} vehicles, from recorded taxis of San Francisco, to topic {TOPIC}");
    }
    println!("\nTry:\n");
    let query = if options.private { "?access_token=$(target/debug/tutti token)" } else { "" };
    println!(
        "  open \"{}/{query}\"                                       # the map; then the other edge",
        urls[0]
    );
    println!("  curl -N{token} {}/v1/map/stream", urls[0]);
    println!("  curl{token} {}/v1/map/locations", urls[1]);
    println!(
        "  echo '{{\"mediaId\":\"me\",\"timestamp\":'$(date +%s)000',\"latitude\":37.77,\"longitude\":-122.42}}' \\\n    \
         | kcat -P -b {kafka} -t {TOPIC} -k me"
    );
    println!(
        "  open \"{}/rooms/{ROOM}\"                              # a waiting room; in several browsers",
        urls[0]
    );
    println!(
        "  target/debug/tutti sim crowd --people 200 --edge {} --edge {}    # and a crowd before it",
        urls[0], urls[1]
    );
    println!(
        "  curl -N -H \"Authorization: Bearer $(target/debug/tutti token --scope topics:read)\" \\\n    \
         \"{}/v1/topics/{ROOMS_TOPIC}/stream?since=oldest\"",
        urls[1]
    );
    println!(
        "  T=$(target/debug/tutti token --sub 7 --scope \"notifications:send presence:read inbox:topics\")"
    );
    println!(
        "  curl -N -H \"Authorization: Bearer $T\" \"{}/v1/inbox/stream?topics=news\"    # user 7's inbox",
        urls[0]
    );
    println!(
        "  curl -H \"Authorization: Bearer $T\" -H \"Idempotency-Key: hello-1\" \\\n    \
         -d '{{\"to\":{{\"users\":[\"7\"]}},\"title\":\"Hello\"}}' {}/v1/notifications    # and one to her",
        urls[1]
    );
    println!(
        "  target/debug/tutti sim inbox --edge {} --edge {}    # and many users with theirs",
        urls[0], urls[1]
    );
    println!("\nCtrl-C ends it all.\n");
    let _ = std::io::stdout().flush();
}

/// The live line.
struct Figures {
    ingest: tutti_ingest::Metrics,
    edges: Vec<tutti_edge::Metrics>,
    /// Taxis are played, so each edge must come to have some.
    replays: bool,
}

impl Figures {
    /// Says when all is ready and a fix has come through; then, on a terminal, a line of figures a second, for ever.
    async fn print(&self, services: Vec<(&'static str, Readiness)>) {
        let mut seconds = interval(Duration::from_secs(1));
        let (began, mut ready, mut complained) = (Instant::now(), false, false);
        let (mut records_before, mut deliveries_before) = (0, 0);
        loop {
            seconds.tick().await;
            let waiting: Vec<String> = services
                .iter()
                .filter_map(|(name, readiness)| readiness.check().err().map(|why| format!("{name} {why}")))
                .collect();
            let has_come = !self.replays || self.edges.iter().all(|edge| edge.devices.get() > 0);
            if waiting.is_empty() && has_come && !ready {
                ready = true;
                println!("Ready.");
            } else if !ready && !complained && began.elapsed() >= PATIENCE {
                complained = true;
                let why = match &*waiting {
                    [] => {
                        "all services run, but no fix has come from Kafka to each edge; --log info says more"
                            .to_owned()
                    }
                    waiting => waiting.join("; "),
                };
                println!("Not ready after {} s: {why}", PATIENCE.as_secs());
            }
            if !std::io::stdout().is_terminal() {
                continue;
            }
            let topic = tutti_ingest::Topic { topic: TOPIC.to_owned() };
            let records = self.ingest.applied.get_or_create(&topic).get();
            let sum = |of: fn(&tutti_edge::Metrics) -> i64| self.edges.iter().map(of).sum::<i64>();
            let streams = sum(|m| m.streams.get());
            let deliveries = sum(|m| m.deliveries.get() as i64);
            let devices = self.edges.iter().map(|m| m.devices.get()).max().unwrap_or(0);
            let lag: i64 = (0..PARTITIONS)
                .map(|partition| PartitionLabel { topic: TOPIC.to_owned(), partition })
                .map(|label| self.ingest.partition_metrics.lag.get_or_create(&label).get())
                .sum();
            let line = if waiting.is_empty() {
                format!(
                    "{} records/s in   {devices} devices   {streams} streams   {} deliveries/s   lag {lag} records",
                    records - records_before,
                    deliveries - deliveries_before,
                )
            } else {
                waiting.join("; ")
            };
            print!("\r\x1b[2K{line}");
            let _ = std::io::stdout().flush();
            (records_before, deliveries_before) = (records, deliveries);
        }
    }
}
