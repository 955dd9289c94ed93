//! An embedded Kafka broker at a fixed address. The broker in memory listens on a port that the kernel chooses, so a
//! forwarder gives the bootstrap address a fixed port.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tutti_kafka::tools::MockBroker;

/// An embedded broker. It ends when it is dropped.
pub struct Broker {
    _broker: MockBroker,
    forwarder: JoinHandle<()>,
    address: String,
}

impl Broker {
    /// Starts a broker with these topics and their numbers of partitions.
    ///
    /// # Errors
    /// If the port is in use.
    pub async fn start(port: u16, topics: &[(&str, i32)]) -> anyhow::Result<Self> {
        let broker = MockBroker::start().context("the embedded broker")?;
        for (topic, partitions) in topics {
            broker.create_topic(topic, *partitions).with_context(|| format!("creating topic {topic}"))?;
        }
        let behind = broker.bootstrap_servers();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener =
            TcpListener::bind(listen).await.with_context(|| format!("listening on {listen} for Kafka"))?;
        let forwarder = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let behind = behind.clone();
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(behind).await {
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Ok(Self { _broker: broker, forwarder, address: listen.to_string() })
    }

    /// Returns the bootstrap address.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.forwarder.abort();
    }
}
