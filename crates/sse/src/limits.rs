//! Limits of what one client may have at the same time: in all, by address and by user. All workers share them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whose something is, for limits and turns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Everybody's.
    All,
    /// A network address's.
    Address(IpAddr),
    /// A user's, by the subject of the token.
    User(String),
}

impl Owner {
    /// Returns the kind of owner as metrics name it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Address(_) => "address",
            Self::User(_) => "user",
        }
    }
}

/// Open count per owner. Owners at zero are removed.
#[derive(Default)]
pub struct Limits(Mutex<HashMap<Owner, usize>>);

/// Counts for its owners until it is dropped.
pub struct Permit {
    limits: Arc<Limits>,
    amount: usize,
    owners: Box<[Owner]>,
}

impl Limits {
    fn counts(&self) -> MutexGuard<'_, HashMap<Owner, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more for each of these owners, each with its limit; a limit of 0 is none.
    ///
    /// # Errors
    /// The owner that is at its limit. Nothing was counted then.
    pub fn acquire(self: &Arc<Self>, owners: Vec<(Owner, usize)>) -> Result<Permit, Owner> {
        self.acquire_many(1, owners)
    }

    /// Counts `amount` more for each of these owners, each with its limit; a limit of 0 is none, and an owner at zero may
    /// go above its limit.
    ///
    /// # Errors
    /// The owner that would be above its limit. Nothing was counted then.
    pub fn acquire_many(
        self: &Arc<Self>,
        amount: usize,
        mut owners: Vec<(Owner, usize)>,
    ) -> Result<Permit, Owner> {
        owners.retain(|(_, most)| *most > 0);
        let mut counts = self.counts();
        let full = owners.iter().position(|(one, most)| counts.get(one).is_some_and(|n| n + amount > *most));
        if let Some(full) = full {
            return Err(owners.swap_remove(full).0);
        }
        // Each stream keeps the list: it is no larger than it must be.
        let owners: Box<[Owner]> = owners.into_iter().map(|(one, _)| one).collect();
        for one in &owners {
            *counts.entry(one.clone()).or_default() += amount;
        }
        drop(counts);
        Ok(Permit { limits: self.clone(), amount, owners })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.limits.counts();
        for one in &self.owners {
            if let Some(count) = counts.get_mut(one) {
                *count -= self.amount;
                if *count == 0 {
                    counts.remove(one);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_gets_more_than_it_may_and_nothing_is_left_of_who_has_none() {
        let counts = Arc::new(Limits::default());
        let user = |name: &str| Owner::User(name.to_owned());
        let of = |name: &str| vec![(Owner::All, 3), (user(name), 2)];
        let first = counts.acquire(of("a")).unwrap();
        let second = counts.acquire(of("a")).unwrap();
        assert_eq!(counts.acquire(of("a")).err(), Some(user("a")));
        let third = counts.acquire(of("b")).unwrap();
        assert_eq!(counts.acquire(of("b")).err(), Some(Owner::All), "what was refused was not counted");
        drop(first);
        let fourth = counts.acquire(of("a")).unwrap();
        drop((second, third, fourth));
        assert!(counts.counts().is_empty());
    }

    #[test]
    fn zero_is_no_limit() {
        let counts = Arc::new(Limits::default());
        let many: Vec<_> = (0..10).map(|_| counts.acquire(vec![(Owner::All, 0)]).unwrap()).collect();
        assert_eq!(many.len(), 10);
        assert!(counts.counts().is_empty());
    }

    #[test]
    fn all_threads_together_get_as_many_as_there_may_be() {
        let counts = Arc::new(Limits::default());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let counts = counts.clone();
                std::thread::spawn(move || {
                    let more = || counts.acquire(vec![(Owner::All, 100)]).ok();
                    (0..50).filter_map(|_| more()).collect::<Vec<_>>()
                })
            })
            .collect();
        let had: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(had.iter().map(Vec::len).sum::<usize>(), 100);
        drop(had);
        assert!(counts.counts().is_empty());
    }
}
