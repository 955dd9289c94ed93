//! `tutti`: the one tool for developers.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tutti::bench::bench;
use tutti::passes::{new_key, verify};
use tutti::sim::{Sim, simulate};
use tutti::token::{DEVELOPMENT_SECRET, sign};
use tutti::up::{Options, up};
use tutti::watch::watch;

/// jemalloc, for the reasons given in `tutti-edge` and `tutti-ingest`, which run in this process too.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(not(any(feature = "jemalloc", debug_assertions)))]
compile_error!("a release build uses jemalloc: add `--features jemalloc`");

/// Real-time delivery from Kafka, over Redis Pub/Sub, to browsers by Server-Sent Events
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything on this machine: a broker, Redis, ingest, two edges, recorded taxis
    Up(Options),
    /// Simulate load: positions to Kafka, a crowd before a waiting room, users with their inboxes
    Sim {
        #[command(subcommand)]
        what: Sim,
    },
    /// Follow a map's stream in the terminal: rate, delay, resets
    Watch {
        /// Streams of the same map, such as http://127.0.0.1:8080/v1/map/stream; where one breaks off, the next one
        /// is tried
        #[arg(required = true, value_name = "URL")]
        urls: Vec<String>,
        /// A token, if the map is not public
        #[arg(long, env = "TUTTI_TOKEN", hide_env_values = true)]
        token: Option<String>,
    },
    /// Measure what everything costs, beside limits of the same run; see `make bench`
    Bench(tutti::bench::Options),
    /// Print a new private key for tutti-queue to sign passes with (PEM)
    Key,
    /// Verify a pass of a waiting room, like the service that the room protects
    VerifyPass {
        /// The pass, from a `queueAdmitted` event or the answer to a claim
        pass: String,
        /// The room that it must be for
        #[arg(long)]
        room: String,
        /// The published keys: a URL or a file
        #[arg(long, default_value = "http://127.0.0.1:8080/.well-known/jwks.json")]
        jwks: String,
    },
    /// Print a token that a running `tutti up` accepts
    Token {
        /// The user
        #[arg(long, default_value = "developer")]
        sub: String,
        /// What the token allows: scopes separated by blanks
        #[arg(long, default_value = "map:read")]
        scope: String,
        /// How long the token is valid, such as 30s, 15m, 1h
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
        ttl: Duration,
        /// The HS256 secret of the edges; by default that of `tutti up`
        #[arg(long, env = "TUTTI_AUTH_HS256_SECRET", hide_env_values = true, default_value = DEVELOPMENT_SECRET, hide_default_value = true)]
        secret: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tutti: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(options) => up(options).await,
        Command::Watch { urls, token } => watch(&urls, token).await,
        Command::Token { sub, scope, ttl, secret } => {
            writeln!(std::io::stdout(), "{}", sign(&secret, &sub, &scope, ttl)?)?;
            Ok(())
        }
        Command::Bench(options) => bench(options).await,
        Command::Key => {
            write!(std::io::stdout(), "{}", new_key())?;
            Ok(())
        }
        Command::VerifyPass { pass, room, jwks } => {
            let claims = verify(&pass, &room, &jwks).await?;
            writeln!(std::io::stdout(), "{}", serde_json::to_string(&claims)?)?;
            Ok(())
        }
        Command::Sim { what } => simulate(what).await,
    }
}
