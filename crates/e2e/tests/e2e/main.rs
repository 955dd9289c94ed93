//! End-to-end tests on real Apache Kafka and real Redis, in one binary: they link once, and share
//! a Kafka. Each starts its own topic, Redis and services, so they run side by side.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod browser;
mod cable;
mod client_libraries;
mod clients;
mod cluster;
mod combined;
mod configuration;
mod connections;
mod delivery;
mod documents;
mod drain;
mod eviction;
mod failures;
mod faults;
mod feed;
mod gateway;
mod inboxes;
mod inner_ports;
mod input;
mod jwks;
mod limits;
mod mailboxes;
mod pages;
mod real_clients;
mod redis_tls;
mod rooms;
mod sentinel;
mod snippets;
mod tokens;
mod topics;
mod transactions;
mod up;
mod viewport;
