//! Medians, and the rows that `tutti bench` prints.

use std::collections::BTreeMap;

pub(super) fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

pub(super) fn rates(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, seconds: f64) -> String {
    let mut all: Vec<String> = Vec::new();
    for name in after.keys() {
        let of = |counts: &BTreeMap<String, u64>| counts.get(name).copied().unwrap_or(0);
        let rate = (of(after) - of(before)) as f64 / seconds;
        if rate >= 0.1 {
            all.push(format!("{name} {rate:.1}"));
        }
    }
    all.join(", ")
}

pub(super) fn say(what: &str) {
    println!("\n{what}");
}

pub(super) fn row(what: &str, figure: &str) {
    println!("  {what:<66} {figure}");
}
