//! The comparison of devices with what was sent.

use std::collections::HashMap;
use std::ops::Deref;

use tokio::time::Instant;

use super::device::Device;
use super::sent::Sent;

/// What devices lack, compared with what was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Notifications that a device must have and does not, summed over all devices.
    pub missing: u64,
    /// Notifications that came after one of the same inbox that was only sent once they had been answered.
    pub out_of_order: u64,
    /// Users whose devices show different counts of unread notifications.
    pub unread_apart: u64,
}

impl Verdict {
    /// Compares devices with what was sent. A notification without an answer is not required.
    pub fn of(users: u32, devices: impl Iterator<Item: Deref<Target = Device>>, sent: &[Sent]) -> Self {
        let mut to_users = vec![Vec::new(); users as usize];
        let mut to_topic = Vec::new();
        for (number, one) in (0u32..).zip(sent).filter(|(_, one)| one.answered.is_some()) {
            match one.to {
                Some(user) => to_users[user as usize].push(number),
                None => to_topic.push(number),
            }
        }
        let mut verdict = Self::default();
        let mut unread: HashMap<u32, (u64, bool)> = HashMap::new();
        for device in devices {
            let Some(since) = device.since else { continue };
            let due = to_users[device.user as usize].iter().chain(&to_topic);
            let due = due.filter(|number| sent[**number as usize].began >= since);
            verdict.missing += due.filter(|number| !device.has(**number)).count() as u64;
            verdict.out_of_order += device.heard.iter().map(|heard| out_of_order(heard, sent)).sum::<u64>();
            let (count, apart) = unread.entry(device.user).or_insert((device.unread, false));
            *apart |= *count != device.unread;
        }
        verdict.unread_apart = unread.values().filter(|(_, apart)| *apart).count() as u64;
        verdict
    }

    /// Whether nothing is missing, and all devices of a user agree.
    pub(super) fn is_settled(&self) -> bool {
        self.missing == 0 && self.unread_apart == 0
    }
}

/// Counts the notifications that came too late. A notification that was sent only after another had been answered must
/// come after it. Notifications that were on their way at the same time may come in any order. The inbox of the user and
/// that of the topic are two, and there is no order between them.
fn out_of_order(heard: &[u32], sent: &[Sent]) -> u64 {
    let mut newest: [Option<Instant>; 2] = [None; 2];
    let mut late = 0;
    for one in heard.iter().filter_map(|number| sent.get(*number as usize)) {
        let newest = &mut newest[usize::from(one.to.is_none())];
        let behind = one.answered.zip(*newest).is_some_and(|(answered, newest)| answered < newest);
        late += u64::from(behind);
        *newest = (*newest).max(Some(one.began));
    }
    late
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::inbox::device::Times;
    use crate::sse::Event;

    fn event(name: &str, data: &Value, id: &str) -> Event {
        Event { event: name.into(), data: data.to_string(), id: id.into(), retry: None }
    }

    fn notification(number: u32, id: &str) -> Event {
        let data = json!({
            "id": format!("n{number}"), "unread": number, "data": { "run": "here", "number": number },
        });
        event("notification", &data, id)
    }

    #[test]
    fn what_is_lost_comes_twice_or_late_is_counted() {
        let mut device = Device::new(0);
        let connected = event("connected", &json!({ "device": "d", "unread": 0 }), "u.AA");
        device.hear(&connected, "here").unwrap();
        let since = device.since.unwrap();
        let sent: Vec<Sent> = (0..4u32)
            .map(|n| {
                let began = since + Duration::from_secs(n.into());
                Sent { to: Some(0), id: None, began, answered: Some(began + Duration::from_millis(500)) }
            })
            .collect();
        for number in [0, 2, 1, 2] {
            device.hear(&notification(number, "u.AB"), "here").unwrap();
        }
        let foreign = json!({ "id": "x", "unread": 9, "data": { "run": "elsewhere", "number": 3 } });
        assert!(device.hear(&event("notification", &foreign, ""), "here").unwrap().is_none());
        assert_eq!((device.duplicates, device.unread), (1, 9));
        assert_eq!(device.ids, ["n0", "n2", "n1", "n2", "x"]);
        let verdict = Verdict::of(1, [&device].into_iter(), &sent);
        assert_eq!(verdict, Verdict { missing: 1, out_of_order: 1, unread_apart: 0 });

        device.hear(&event("reset", &json!({ "reason": "gap" }), "0"), "here").unwrap();
        let heard = device.hear(&notification(2, "u.AC"), "here").unwrap().unwrap();
        assert_eq!((heard.times, device.duplicates), (Times::Anew, 1));
        assert_eq!(device.ids, ["n2"]);
        let other = Device { unread: 7, ..device.clone() };
        let verdict = Verdict::of(1, [&device, &other].into_iter(), &sent[..3]);
        assert_eq!(verdict, Verdict { missing: 0, out_of_order: 2, unread_apart: 1 });
    }
}
