//! How many there are of something, in all, of each address and of each user. All workers share it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whose they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    All,
    Address(IpAddr),
    User(String),
}

impl Whose {
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Address(_) => "address",
            Self::User(_) => "user",
        }
    }
}

/// How many each has; who has none is not in it.
#[derive(Default)]
pub(crate) struct Counts(Mutex<HashMap<Whose, usize>>);

/// One of them, for as long as this is kept.
pub(crate) struct Counted {
    counts: Arc<Counts>,
    amount: usize,
    whose: Box<[Whose]>,
}

impl Counts {
    fn counts(&self) -> MutexGuard<'_, HashMap<Whose, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more for each of these, unless one has as many as it may; where that is 0 it has no limit.
    ///
    /// # Errors
    /// Who has as many as it may; nothing was counted then.
    pub(crate) fn one_more(self: &Arc<Self>, whose: Vec<(Whose, usize)>) -> Result<Counted, Whose> {
        self.more(1, whose)
    }

    /// The same of what counts for more than one; who has none may have any.
    ///
    /// # Errors
    /// As [`Counts::one_more`].
    pub(crate) fn more(
        self: &Arc<Self>,
        amount: usize,
        mut whose: Vec<(Whose, usize)>,
    ) -> Result<Counted, Whose> {
        whose.retain(|(_, most)| *most > 0);
        let mut counts = self.counts();
        let full = whose.iter().position(|(one, most)| counts.get(one).is_some_and(|n| n + amount > *most));
        if let Some(full) = full {
            return Err(whose.swap_remove(full).0);
        }
        // Each stream keeps it: no larger than it must be.
        let whose: Box<[Whose]> = whose.into_iter().map(|(one, _)| one).collect();
        for one in &whose {
            *counts.entry(one.clone()).or_default() += amount;
        }
        drop(counts);
        Ok(Counted { counts: self.clone(), amount, whose })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.counts.counts();
        for one in &self.whose {
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
        let counts = Arc::new(Counts::default());
        let user = |name: &str| Whose::User(name.to_owned());
        let of = |name: &str| vec![(Whose::All, 3), (user(name), 2)];
        let first = counts.one_more(of("a")).unwrap();
        let second = counts.one_more(of("a")).unwrap();
        assert_eq!(counts.one_more(of("a")).err(), Some(user("a")));
        let third = counts.one_more(of("b")).unwrap();
        assert_eq!(counts.one_more(of("b")).err(), Some(Whose::All), "what was refused was not counted");
        drop(first);
        let fourth = counts.one_more(of("a")).unwrap();
        drop((second, third, fourth));
        assert!(counts.counts().is_empty());
    }

    #[test]
    fn zero_is_no_limit() {
        let counts = Arc::new(Counts::default());
        let many: Vec<_> = (0..10).map(|_| counts.one_more(vec![(Whose::All, 0)]).unwrap()).collect();
        assert_eq!(many.len(), 10);
        assert!(counts.counts().is_empty());
    }

    #[test]
    fn all_threads_together_get_as_many_as_there_may_be() {
        let counts = Arc::new(Counts::default());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let counts = counts.clone();
                std::thread::spawn(move || {
                    let more = || counts.one_more(vec![(Whose::All, 100)]).ok();
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
