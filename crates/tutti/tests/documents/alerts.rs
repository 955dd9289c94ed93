//! The runbooks.

use crate::page::{read, root};

#[test]
fn every_alert_has_a_runbook() {
    let rules = std::fs::read_to_string(root().join("deploy/prometheus/tutti.rules.yaml")).unwrap();
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    let headings = read("docs/operations/alerts.md").anchors;
    let missing: Vec<_> = alerts.iter().filter(|alert| !headings.contains(&alert.to_lowercase())).collect();
    assert!(missing.is_empty(), "docs/operations/alerts.md has no heading for {missing:?}");
    let known: Vec<String> = alerts.iter().map(|alert| alert.to_lowercase()).collect();
    let surplus: Vec<_> =
        headings.iter().filter(|one| one.starts_with("tutti") && !known.contains(one)).collect();
    assert!(surplus.is_empty(), "docs/operations/alerts.md has runbooks for no alert: {surplus:?}");
}
