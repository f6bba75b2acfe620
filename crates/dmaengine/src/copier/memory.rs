//! What an operation of a copier is, and owns.

use super::state::Ticket;
use crate::{Cookie, DmaSource, DmaTarget, Operation, Queue, Refused, SubmitError, queue::Lists};

/// An operation with its memory: all that it takes to submit it, once more if need be.
pub(super) enum Memory<S, D> {
    Copy { source: S, target: D },
    Fill { pattern: u64, target: D },
    Lists { sources: Vec<S>, targets: Vec<D> },
}

impl<S, D> Memory<S, D> {
    /// The memory of a copy.
    pub(super) fn of_copy(self) -> (S, D) {
        match self {
            Self::Copy { source, target } => (source, target),
            Self::Fill { .. } | Self::Lists { .. } => unreachable!("{ANOTHER}"),
        }
    }

    /// The memory of a fill.
    pub(super) fn of_fill(self) -> ((), D) {
        match self {
            Self::Fill { pattern: _, target } => ((), target),
            Self::Copy { .. } | Self::Lists { .. } => unreachable!("{ANOTHER}"),
        }
    }

    /// The memory of a scatter-gather copy.
    pub(super) fn of_lists(self) -> (Vec<S>, Vec<D>) {
        match self {
            Self::Lists { sources, targets } => (sources, targets),
            Self::Copy { .. } | Self::Fill { .. } => unreachable!("{ANOTHER}"),
        }
    }
}

/// A slot is the future's own, so what comes out of it is what its operation had.
const ANOTHER: &str = "a future got the memory of another's operation";

/// The queue of a copier. It keeps an operation's memory as one value.
pub(super) type MemoryQueue<S, D> = Queue<Memory<S, D>, (), Ticket>;

impl<S: DmaSource, D: DmaTarget> Memory<S, D> {
    /// Submits the operation.
    ///
    /// # Errors
    ///
    /// Why not, with the memory.
    pub(super) fn submit(
        mut self,
        queue: &mut MemoryQueue<S, D>,
        lists: &mut Lists,
        ticket: Ticket,
    ) -> Result<Cookie, (SubmitError, Self)> {
        let operation = match &mut self {
            Self::Copy { source, target } => {
                let (from, to) = (source.as_ref(), target.as_mut());
                let (source_len, target_len) = (from.len(), to.len());
                if source_len != target_len {
                    return Err((SubmitError::LengthMismatch { source_len, target_len }, self));
                }
                let (source, target) = (from.as_ptr(), to.as_mut_ptr());
                Operation::Memcpy { source, target, len: source_len }
            }
            Self::Fill { pattern, target } => {
                let to = target.as_mut();
                Operation::Memset { pattern: *pattern, target: to.as_mut_ptr(), len: to.len() }
            }
            Self::Lists { sources, targets } => {
                let read = |source: &S| {
                    let from = source.as_ref();
                    (from.as_ptr(), from.len())
                };
                let write = |target: &mut D| {
                    let to = target.as_mut();
                    (to.as_mut_ptr(), to.len())
                };
                lists.copy_sg(sources.iter().map(read), targets.iter_mut().map(write))
            }
        };
        // SAFETY:
        // - valid and unwritten, respectively exclusive: `DmaSource` and `DmaTarget` promise it for
        //   as long as the values exist, however they are moved; a list that moves leaves its
        //   elements where they are. The queue keeps them until the operation has ended;
        // - no overlap: memory that somebody owns exclusively is nobody's shared source, and
        //   different targets have different owners;
        // - the references above are not used after this call.
        match unsafe { queue.submit(&operation, ticket.flags, self, (), ticket) } {
            Ok(cookie) => Ok(cookie),
            Err(Refused { error, source, target: (), tag: _ }) => Err((error, source)),
        }
    }
}
