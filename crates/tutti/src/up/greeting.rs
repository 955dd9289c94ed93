//! What `tutti up` prints at first.

use std::io::Write as _;

use tutti_service::without_userinfo;

use super::backends::{Backends, ROOMS_TOPIC, TOPIC};
use super::demo::ROOM;
use super::options::{Options, Ports};

/// Prints where everything listens, and what to try.
pub(super) fn print_greeting(
    options: &Options,
    ports: &Ports,
    backends: &Backends,
    urls: &[String],
    vehicles: usize,
) {
    let Backends { kafka, redis, .. } = backends;
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
