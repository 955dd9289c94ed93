//! The devices of a worker: each has a number while its stream lasts, and is among the others, or in a task
//! of its own. In one piece of memory, for all are walked through once a second, and for each letter to a
//! topic those who follow it.

use slab::Slab;

use crate::inbox::devices::Served;

/// Who is here; [`None`] is in a task.
#[derive(Default)]
pub(crate) struct Roster(Slab<Option<Served>>);

impl Roster {
    /// A number for one who comes; it belongs to nobody else until [`Roster::leave`].
    pub(crate) fn enter(&mut self) -> usize {
        self.0.insert(None)
    }

    /// The number is free again.
    pub(crate) fn leave(&mut self, number: usize) {
        self.0.remove(number);
    }

    /// Among the others now.
    pub(crate) fn put(&mut self, served: Served) {
        let number = served.number;
        self.0[number] = Some(served);
    }

    /// One of those who are not in a task.
    pub(crate) fn get_mut(&mut self, number: usize) -> Option<&mut Served> {
        self.0.get_mut(number)?.as_mut()
    }

    /// The same, to become a task, or to end.
    pub(crate) fn take(&mut self, number: usize) -> Option<Served> {
        self.0.get_mut(number)?.take()
    }

    /// All of these, to become tasks, or to end.
    pub(crate) fn take_if(&mut self, wanted: impl Fn(&Served) -> bool) -> Vec<Served> {
        let slots = self.0.iter_mut().map(|(_, slot)| slot);
        slots.filter_map(|slot| slot.take_if(|served| wanted(served))).collect()
    }

    /// Those who are not in tasks.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Served> {
        self.0.iter_mut().filter_map(|(_, slot)| slot.as_mut())
    }
}
