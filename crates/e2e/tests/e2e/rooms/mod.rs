//! Tests of the waiting room.

mod absence;
mod administration;
mod faults;
mod lottery;
mod outages;
mod relay;
mod scripts;
mod settings;
mod tokens;
mod visits;

use serde_json::Value;
use tutti_e2e::rooms::Rooms;
use tutti_e2e::testbed::Edge;

/// Returns the changes of one type.
fn of_type<'a>(changes: &'a [Value], kind: &str) -> Vec<&'a Value> {
    changes.iter().filter(|change| change["type"] == kind).collect()
}

async fn relayed_all(rooms: &Rooms, edge: &Edge, room: &str) -> Vec<Value> {
    rooms.until_relayed(edge, room).await;
    rooms.relayed(room)
}
