use std::{mem::ManuallyDrop, time::Instant};

use dmaengine::{Cookie, DmaChannel, Flags, Operation, Status, Successes};

use super::{
    pairs::Pairs,
    pass::{PATIENCE, PassError, Subject},
};

/// An engine of ours without the queue that owns what is in flight: addresses in, cookies out, as
/// with DPDK's dmadev.
pub(super) struct Bare<'a> {
    channel: &'a mut dyn DmaChannel,
    /// Leaked if the engine cannot be stopped.
    pairs: ManuallyDrop<Pairs>,
    /// Of the pairs, by number.
    addresses: Vec<(*const u8, *mut u8)>,
    size: usize,
    /// The pair that the next operation copies.
    next: usize,
    /// The pair of the oldest operation in flight: the channel ends them in order.
    oldest: usize,
    in_flight: usize,
    /// How the last copy that failed ended.
    failed: Option<Status>,
}

impl<'a> Bare<'a> {
    /// Over an idle channel that ends operations in order.
    pub(super) fn new(channel: &'a mut dyn DmaChannel, mut pairs: Pairs, size: usize) -> Self {
        let addresses = pairs.addresses();
        let pairs = ManuallyDrop::new(pairs);
        Self { channel, pairs, addresses, size, next: 0, oldest: 0, in_flight: 0, failed: None }
    }
}

/// The number of the pair after `pair` of `count` in a circle.
const fn after(pair: usize, count: usize) -> usize {
    if pair + 1 == count { 0 } else { pair + 1 }
}

impl Subject for Bare<'_> {
    #[inline]
    fn submit(&mut self, batch: usize, mut each: impl FnMut(usize)) -> Result<(), PassError> {
        for _ in 0..batch {
            assert!(self.in_flight < self.addresses.len(), "the next pair is in flight already");
            let (source, target) = self.addresses[self.next];
            let copy = Operation::Memcpy { source, target, len: self.size };
            // SAFETY: both are buffers of `pairs`, which nobody else reaches and which is only used
            // when nothing is in flight; it lives until the channel is idle or is leaked. This pair
            // is idle: they are used in a circle, operations end in order, and fewer are in flight
            // than there are pairs.
            let _: Cookie = unsafe { self.channel.submit(&copy, Flags::empty()) }?;
            each(self.next);
            self.next = after(self.next, self.addresses.len());
            self.in_flight += 1;
        }
        self.channel.issue_pending();
        Ok(())
    }

    #[inline]
    fn poll(&mut self, mut each: impl FnMut(usize)) -> usize {
        let Self { channel, addresses, oldest, in_flight, failed, .. } = self;
        let Successes { count, more, .. } = channel.poll_successes();
        let mut end = || {
            each(*oldest);
            *oldest = after(*oldest, addresses.len());
        };
        (0..count).for_each(|_| end());
        let mut ended = count;
        if more {
            channel.poll(&mut |completion| {
                if completion.status != Status::Success {
                    *failed = Some(completion.status);
                }
                end();
                ended += 1;
            });
        }
        *in_flight -= ended;
        ended
    }

    fn drain(&mut self) -> Result<usize, PassError> {
        let start = Instant::now();
        let mut ended = 0;
        while self.in_flight > 0 {
            if start.elapsed() > PATIENCE {
                return Err(PassError::NothingEnded(PATIENCE));
            }
            ended += self.poll(|_| ());
            std::thread::yield_now();
        }
        self.failed.map_or(Ok(ended), |status| Err(PassError::Failed(status)))
    }

    fn pairs(&mut self) -> &mut Pairs {
        assert_eq!(self.in_flight, 0, "the buffers belong to the engine");
        &mut self.pairs
    }
}

impl Drop for Bare<'_> {
    fn drop(&mut self) {
        if self.in_flight == 0 || self.channel.terminate_sync(PATIENCE).is_ok() {
            // SAFETY: dropped here and nowhere else. The channel is idle: nothing reaches the
            // buffers any more.
            unsafe { ManuallyDrop::drop(&mut self.pairs) };
        }
    }
}
