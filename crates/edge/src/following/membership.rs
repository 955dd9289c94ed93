//! Counts the streams of members at this edge and reports the members to a registry elsewhere, at least once.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The members with streams at this edge, and which changes the registry has not confirmed yet.
pub(crate) struct Membership<K, V> {
    visits: Visits,
    state: Mutex<State<K, V>>,
}

/// What becomes of a member that joins and leaves between two reports.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Visits {
    /// The next report says that the member left.
    Reported,
    /// No report mentions the member, unless the registry may know it.
    Forgotten,
}

struct State<K, V> {
    /// The members with streams here.
    here: HashMap<K, Here<V>>,
    /// Members that joined or left since the last report.
    changed: HashSet<K>,
    /// Members of a report that failed: the registry may have received it or not. All of them are in `changed` too.
    doubtful: Vec<K>,
    /// A report is on its way to the registry.
    reporting: bool,
}

/// A member with streams here.
struct Here<V> {
    /// Number of streams.
    streams: u32,
    /// Whether the registry may know the member. The end must be reported then, too.
    known: bool,
    /// What reports say of the member.
    value: V,
}

/// What changed since the last report.
#[derive(Debug, PartialEq)]
pub(crate) struct Report<K, V> {
    /// Members with streams here, each with what reports say of it.
    pub(crate) joined: Vec<(K, V)>,
    /// Members without streams here.
    pub(crate) left: Vec<K>,
}

/// Counts one stream of a member until it is dropped.
pub(crate) struct MemberGuard<K: Hash + Eq + Clone, V: Clone> {
    membership: Arc<Membership<K, V>>,
    key: K,
}

impl<K: Hash + Eq + Clone, V: Clone> Membership<K, V> {
    /// Returns a membership without members.
    pub(crate) fn new(visits: Visits) -> Self {
        let state =
            State { here: HashMap::new(), changed: HashSet::new(), doubtful: Vec::new(), reporting: false };
        Self { visits, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more stream of the member `key`. Reports say `value` of the member if this is its first stream.
    pub(crate) fn join(self: &Arc<Self>, key: K, value: V) -> MemberGuard<K, V> {
        let mut guard = self.state();
        let State { here, changed, .. } = &mut *guard;
        let member = here.entry(key.clone()).or_insert_with(|| {
            // The registry may know a member that left and whose end was not reported yet.
            let known = !changed.insert(key.clone()) || self.visits == Visits::Reported;
            Here { streams: 0, known, value }
        });
        member.streams += 1;
        drop(guard);
        MemberGuard { membership: self.clone(), key }
    }

    /// Whether there are no members, and the registry has confirmed that.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state();
        state.here.is_empty() && state.changed.is_empty() && !state.reporting
    }

    /// Begins a report of at most `most` changes. The members of a report that failed come before all others. Returns
    /// `None` if there are neither members nor changes, so that not even the lease needs a renewal.
    ///
    /// Each report ends with a call of [`Membership::confirm`] or [`Membership::put_back`].
    pub(crate) fn report(&self, most: usize) -> Option<Report<K, V>> {
        let mut state = self.state();
        let mut keys = std::mem::take(&mut state.doubtful);
        if keys.is_empty() {
            keys = state.changed.iter().take(most).cloned().collect();
        }
        state.report(keys)
    }

    /// Begins a report of all members and of all that left since the last report, as [`Membership::report`] does of
    /// some. A registry that replaces all it knows of this edge by the report still needs to hear who left: it must not guess.
    pub(crate) fn report_all(&self) -> Option<Report<K, V>> {
        let mut state = self.state();
        state.doubtful.clear();
        let mut keys = std::mem::take(&mut state.changed);
        keys.extend(state.here.keys().cloned());
        state.report(keys.into_iter().collect())
    }

    /// Ends a report that the registry has confirmed.
    pub(crate) fn confirm(&self) {
        self.state().reporting = false;
    }

    /// Ends a report that may not have arrived. The next report repeats the members of it, as they are then.
    pub(crate) fn put_back(&self, report: Report<K, V>) {
        let mut guard = self.state();
        let State { changed, doubtful, reporting, .. } = &mut *guard;
        *doubtful = report.joined.into_iter().map(|(key, _)| key).chain(report.left).collect();
        changed.extend(doubtful.iter().cloned());
        *reporting = false;
    }

    /// Has the next reports repeat all members, because the registry may have lost some.
    pub(crate) fn repeat_all(&self) {
        let mut guard = self.state();
        let State { here, changed, .. } = &mut *guard;
        changed.extend(here.keys().cloned());
    }
}

impl<K: Hash + Eq + Clone, V: Clone> State<K, V> {
    /// Begins a report of the members `keys`.
    fn report(&mut self, keys: Vec<K>) -> Option<Report<K, V>> {
        let mut report = Report { joined: Vec::new(), left: Vec::new() };
        for key in keys {
            self.changed.remove(&key);
            match self.here.get_mut(&key) {
                Some(here) => {
                    here.known = true;
                    report.joined.push((key, here.value.clone()));
                }
                None => report.left.push(key),
            }
        }
        if self.here.is_empty() && report.left.is_empty() {
            return None;
        }
        self.reporting = true;
        Some(report)
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Drop for MemberGuard<K, V> {
    fn drop(&mut self) {
        let mut state = self.membership.state();
        let Some(here) = state.here.get_mut(&self.key) else { return };
        here.streams -= 1;
        if here.streams > 0 {
            return;
        }
        // However many come and go between two reports, those that the registry cannot know leave nothing behind.
        if state.here.remove(&self.key).is_some_and(|here| here.known) {
            state.changed.insert(self.key.clone());
        } else {
            state.changed.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(visits: Visits) -> Arc<Membership<&'static str, i64>> {
        Arc::new(Membership::new(visits))
    }

    /// Returns the next report of at most ten changes, in order, and confirms it.
    fn next(membership: &Membership<&'static str, i64>) -> (Vec<(&'static str, i64)>, Vec<&'static str>) {
        let Some(mut report) = membership.report(10) else { return Default::default() };
        membership.confirm();
        report.joined.sort_unstable();
        report.left.sort_unstable();
        (report.joined, report.left)
    }

    #[test]
    fn a_member_is_there_until_its_last_stream_ends() {
        let membership = membership(Visits::Forgotten);
        let first = membership.join("phone", 10);
        let second = membership.join("phone", 20);
        assert_eq!(next(&membership), (vec![("phone", 10)], vec![]));
        drop(first);
        assert_eq!(next(&membership), (vec![], vec![]));
        drop(second);
        let left = membership.report(10).unwrap();
        assert_eq!(left, Report { joined: vec![], left: vec!["phone"] });
        assert!(!membership.is_idle(), "the registry has not confirmed the end");
        membership.put_back(left);
        assert!(!membership.is_idle(), "the registry has not heard of the end");
        assert_eq!(next(&membership), (vec![], vec!["phone"]));
        assert!(membership.is_idle());
        assert_eq!(membership.report(10), None);
        let _again = membership.join("phone", 30);
        next(&membership);
        membership.repeat_all();
        assert_eq!(next(&membership), (vec![("phone", 30)], vec![]));
    }

    #[test]
    fn a_failed_report_is_repeated_before_all_others_with_what_holds_then() {
        let membership = membership(Visits::Forgotten);
        let (phone, _laptop) = (membership.join("phone", 1), membership.join("laptop", 2));
        let report = membership.report(10).unwrap();
        membership.put_back(report);
        drop(phone);
        let _tablet = membership.join("tablet", 3);
        assert_eq!(next(&membership), (vec![("laptop", 2)], vec!["phone"]));
        assert_eq!(next(&membership), (vec![("tablet", 3)], vec![]));
    }

    #[test]
    fn a_visit_between_two_reports_is_forgotten_unless_the_registry_may_know_the_member() {
        let membership = membership(Visits::Forgotten);
        drop(membership.join("phone", 1));
        assert!(membership.is_idle());
        let phone = membership.join("phone", 2);
        next(&membership);
        drop(phone);
        // The member is back before its end was reported. Then that report fails, so the registry may know it or not.
        drop(membership.join("phone", 3));
        let report = membership.report(10).unwrap();
        assert_eq!(report.left, ["phone"]);
        membership.put_back(report);
        drop(membership.join("phone", 4));
        assert_eq!(next(&membership), (vec![], vec!["phone"]));
        assert!(membership.is_idle());
    }

    #[test]
    fn a_visit_between_two_reports_is_reported_where_it_counts() {
        let membership = membership(Visits::Reported);
        drop(membership.join("phone", 1));
        assert_eq!(next(&membership), (vec![], vec!["phone"]));
    }

    #[test]
    fn a_report_of_all_names_who_is_here_and_who_left() {
        let membership = membership(Visits::Forgotten);
        let (phone, _laptop) = (membership.join("phone", 1), membership.join("laptop", 2));
        next(&membership);
        drop(phone);
        let failed = membership.report(10).unwrap();
        membership.put_back(failed);
        let report = membership.report_all().unwrap();
        assert_eq!(report, Report { joined: vec![("laptop", 2)], left: vec!["phone"] });
        membership.confirm();
        assert_eq!(next(&membership), (vec![], vec![]), "the report of all repeated the one that failed");
    }

    #[test]
    fn a_report_is_no_longer_than_asked() {
        let membership = membership(Visits::Forgotten);
        let _members = ["a", "b", "c"].map(|name| membership.join(name, 0));
        assert_eq!(membership.report(2).unwrap().joined.len(), 2);
        assert_eq!(membership.report(2).unwrap().joined.len(), 1);
    }
}
