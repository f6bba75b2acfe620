//! Children, and what they look at.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    child::{self, Child},
    control::Control,
    incoming::Place,
};

/// How often a child checks everything. Between two checks its parent's engine has time to write
/// where it should not.
const CHECKS: usize = 20;

/// What a reader received last.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    item: Mutex<Option<Item>>,
}

#[derive(Debug)]
struct Item {
    place: Place,
    len: usize,
    memory: Vec<u8>,
}

impl Item {
    fn is_whole(&self) -> bool {
        let Self { place: Place { pattern, offset }, len, memory } = self;
        pattern.first_wrong(*offset, &memory[..*len]).is_none()
    }
}

impl Shelf {
    /// Puts `len` bytes there, which are from `place`, and gives the memory of those that were there
    /// before: children that have not ended still look at their copy of it.
    pub(super) fn exchange(&self, place: Place, len: usize, memory: Vec<u8>) -> Vec<u8> {
        let size = memory.len();
        let before = self.lock().replace(Item { place, len, memory });
        before.map_or_else(|| vec![0; size], |item| item.memory)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Item>> {
        // It is valid whoever panicked under the lock.
        self.item.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All shelves, and the children so far.
#[derive(Debug, Default)]
pub(super) struct Forks {
    shelves: Mutex<Vec<Arc<Shelf>>>,
    children: AtomicU64,
    /// Pieces of received data that children looked at.
    pieces: AtomicU64,
}

impl Forks {
    pub(super) fn shelves(&self, more: impl IntoIterator<Item = Arc<Shelf>>) {
        self.lock().extend(more);
    }

    pub(super) fn children(&self) -> u64 {
        // Relaxed, here and below: counters order nothing.
        self.children.load(Ordering::Relaxed)
    }

    /// Forks a child in each `interval`.
    pub(super) fn run(&self, control: &Control, interval: Duration) {
        while control.pause(interval) {
            let found = self.fork().map_err(|error| format!("fork: {error}")).and_then(Child::wait);
            match found {
                Ok(true) => {
                    self.children.fetch_add(1, Ordering::Relaxed);
                }
                Ok(false) => control.fail("a child's copy of received data is wrong".to_owned()),
                Err(error) => control.fail(error),
            }
        }
    }

    fn fork(&self) -> std::io::Result<Child> {
        let shelves = self.lock();
        let items: Vec<_> = shelves.iter().map(|shelf| shelf.lock()).collect();
        let pieces = items.iter().filter(|item| item.is_some()).count();
        self.pieces.fetch_add(pieces as u64, Ordering::Relaxed);
        // SAFETY: the child reads the items, which are this thread's as long as it has the guards,
        // and compares them with a pattern. It allocates nothing and leaves the locks alone.
        unsafe {
            child::fork(|| {
                (0..CHECKS).all(|_| {
                    child::give_way();
                    items.iter().all(|item| item.as_ref().is_none_or(Item::is_whole))
                })
            })
        }
    }

    /// Whether children, if there were any, had something to look at.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.children() > 0 && self.pieces.load(Ordering::Relaxed) == 0 {
            return Err("no child has found any received data".to_owned());
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Shelf>>> {
        // It is valid whoever panicked under the lock.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Pattern;

    #[test]
    fn a_child_finds_a_wrong_byte() {
        let shelf = Arc::new(Shelf::default());
        let forks = Forks::default();
        forks.shelves([Arc::clone(&shelf)]);
        assert_eq!(forks.fork().unwrap().wait(), Ok(true), "nothing is right");
        let place = Place { pattern: Pattern::new(1), offset: 77 };
        let mut bytes = vec![0; 100];
        place.pattern.fill(77, &mut bytes[..90]);
        bytes[89] ^= 1;
        let other = shelf.exchange(place, 89, bytes);
        assert_eq!(other.len(), 100);
        assert_eq!(forks.fork().unwrap().wait(), Ok(true), "what is behind is nobody's");
        let bytes = shelf.exchange(place, 89, other);
        let _zero = shelf.exchange(place, 90, bytes);
        assert_eq!(forks.fork().unwrap().wait(), Ok(false));
    }
}
