//! The examples for the gateway of a shop, as they stand: in Node, in Rust, and nginx in front of either.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Method};
use tutti::local::{Owned, find, wait_for_port};
use tutti_e2e::rooms::Rooms;
use tutti_e2e::service::program;
use tutti_e2e::testbed::Testbed;
use tutti_e2e::{eventually, free_port};
use tutti_model::lottery;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/gateway").join(name).canonicalize().unwrap()
}

#[tokio::test]
async fn the_gateways_let_in_who_has_a_pass_of_the_room_and_nobody_else() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let edge = rooms.edge(&[]).await;
    rooms.put(&edge, "sale", r#"{"maxActive":5,"admitPerSecond":50,"passSeconds":4}"#).await;
    rooms.put(&edge, "other", r#"{"maxActive":5,"admitPerSecond":50}"#).await;
    let admitted = rooms.join(&edge, "sale").await;
    let foreign = rooms.join(&edge, "other").await.body["pass"].as_str().unwrap().to_owned();

    let log = rooms.testbed.folder().join("gateways.log");
    let start = |command: &[PathBuf], port: u16| {
        let variables = BTreeMap::from([
            ("PORT".to_owned(), port.to_string()),
            ("ROOM".to_owned(), "sale".to_owned()),
            ("JWKS".to_owned(), format!("{}/.well-known/jwks.json", edge.url)),
        ]);
        let started = Owned::start_with(command, "TERM", &log, variables).unwrap();
        wait_for_port(port, Duration::from_secs(20)).unwrap();
        started
    };
    let (node, rust, shop, nginx) = (free_port(), free_port(), free_port(), free_port());
    let _node = start(&["node".into(), example("gateway.mjs")], node);
    let _rust = start(&[program("examples/gateway")], rust);
    let serve = "require('http').createServer((asked, answer) => \
                 answer.end('ticket ' + asked.headers['x-ticket'])).listen(process.env.PORT, '127.0.0.1')";
    let _shop = start(&["node".into(), "-e".into(), serve.into()], shop);
    // nginx asks the gateway in Rust.
    let prefix = rooms.testbed.folder().join("nginx");
    std::fs::create_dir(&prefix).unwrap();
    let conf = std::fs::read_to_string(example("nginx.conf")).unwrap();
    let ports = [("8090", nginx), ("8091", rust), ("8092", shop)];
    let conf = ports.iter().fold(conf, |conf, (from, to)| conf.replace(from, &to.to_string()));
    // Started by root, nginx would run its workers as another user, who may not read this folder.
    std::fs::write(prefix.join("nginx.conf"), format!("user root;\n{conf}")).unwrap();
    let prefix: &str = prefix.to_str().unwrap();
    // Debian installs nginx in a folder that is not in the PATH of users.
    let nginx_program = find("nginx").unwrap_or_else(|| "/usr/sbin/nginx".into());
    let arguments = ["-e", "stderr", "-p", prefix, "-c", "nginx.conf"].map(PathBuf::from);
    let command: Vec<PathBuf> = [nginx_program].into_iter().chain(arguments).collect();
    let _nginx = start(&command, nginx);

    let client = Client::builder().redirect(Policy::none()).build().unwrap();
    let ask = async |port: u16, path: &str, pass: &str| {
        let request = client.get(format!("http://127.0.0.1:{port}{path}")).header("x-pass", pass);
        request.send().await.unwrap()
    };
    let (_, renewed) = rooms.act(Method::POST, &edge, "sale", &admitted, "/renew").await;
    let pass = renewed["pass"].as_str().unwrap();
    for verifier in [node, rust] {
        let answer = ask(verifier, "/verify", pass).await;
        assert_eq!(answer.status(), 204);
        assert_eq!(answer.headers()["x-ticket"], "1");
        assert_eq!(ask(verifier, "/basket", pass).await.status(), 200);
    }
    assert_eq!(ask(nginx, "/basket", pass).await.text().await.unwrap().trim(), "ticket 1");

    let mut altered = pass.to_owned();
    altered.replace_range(pass.rfind('.').unwrap() - 6..pass.rfind('.').unwrap() - 5, "~");
    let claims = pass.split('.').nth(1).unwrap();
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.");
    for bad in [&admitted.token, &foreign, &altered, &unsigned, "garbage", ""] {
        for verifier in [node, rust] {
            assert_eq!(ask(verifier, "/verify", bad).await.status(), 401, "{bad}");
        }
        let answer = ask(nginx, "/basket", bad).await;
        assert_eq!(answer.status(), 303);
        assert!(answer.headers()["location"].to_str().unwrap().starts_with("/waiting"));
    }
    eventually("it expires", || async { ask(node, "/verify", pass).await.status() == 401 }).await;
    assert_eq!(ask(rust, "/verify", pass).await.status(), 401);
    assert_eq!(ask(nginx, "/basket", pass).await.status(), 303);
}

#[test]
fn the_lottery_in_javascript_gives_the_places_that_ours_gives() {
    for (seed, early) in [("5eed", 1u64), ("a0b1", 97), ("ff", 256), ("0123456789abcdef", 1000)] {
        let output = Command::new("node")
            .arg(example("lottery.mjs"))
            .args([seed, &early.to_string()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs: Vec<u64> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| line.trim().parse().unwrap())
            .collect();
        let ours: Vec<u64> = (1..=early).map(|ticket| lottery::place_of(ticket, early, seed)).collect();
        assert_eq!(theirs, ours);
    }
}
