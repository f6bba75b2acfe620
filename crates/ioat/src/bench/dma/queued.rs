use dmaengine::{DmaBuf, Done, Queue, Status};

use super::{
    pairs::{Pair, Pairs},
    pass::{PATIENCE, PassError, Subject},
};

/// A queue of pairs' memory, with their numbers.
pub(super) type PairQueue = Queue<DmaBuf, DmaBuf, usize>;

/// An engine of ours, as a program uses it: through a [`Queue`], with buffers of an arena.
pub(super) struct Queued<'a> {
    queue: &'a mut PairQueue,
    pairs: Pairs,
    /// How the last copy that failed ended.
    failed: Option<Status>,
}

impl<'a> Queued<'a> {
    pub(super) fn new(queue: &'a mut PairQueue, pairs: Pairs) -> Self {
        Self { queue, pairs, failed: None }
    }
}

impl Subject for Queued<'_> {
    #[inline]
    fn submit(&mut self, batch: usize, mut each: impl FnMut(usize)) -> Result<(), PassError> {
        for _ in 0..batch {
            let Pair { number, source, target } = self.pairs.take();
            each(number);
            self.queue.copy(source, target, number).map_err(|refused| refused.error)?;
        }
        self.queue.issue_pending();
        Ok(())
    }

    #[inline]
    fn poll(&mut self, mut each: impl FnMut(usize)) -> usize {
        let Self { queue, pairs, failed } = self;
        queue.poll(|Done { status, source, target, tag: number, .. }| {
            if status != Status::Success {
                *failed = Some(status);
            }
            each(number);
            pairs.give_back(Pair { number, source, target });
        })
    }

    fn drain(&mut self) -> Result<usize, PassError> {
        let Self { queue, pairs, failed } = self;
        let mut ended = 0;
        queue.wait(PATIENCE, |Done { status, source, target, tag: number, .. }| {
            if status != Status::Success {
                *failed = Some(status);
            }
            ended += 1;
            pairs.give_back(Pair { number, source, target });
        })?;
        self.failed.map_or(Ok(ended), |status| Err(PassError::Failed(status)))
    }

    fn pairs(&mut self) -> &mut Pairs {
        &mut self.pairs
    }
}
