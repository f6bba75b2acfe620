//! Copies side by side, each of which may end in its own way.

use super::{
    client::{Client, Ended},
    memory::Block,
};
use crate::{Flags, Operation, Status, SubmitError};

/// Copies side by side. Drop it when all have ended, or when the channel is proven idle.
pub(super) struct Batch {
    source: Block,
    target: Block,
    len: usize,
    stride: usize,
    submitted: usize,
}

impl Batch {
    /// Room for `count` copies of `len` bytes, which is aligned.
    pub(super) fn new(client: &Client, count: usize, len: usize) -> Self {
        // A line between two targets shows what is written past one.
        let stride = client.aligned(len + 64);
        let [source, target] = [
            Block::random(client.arena(), count * stride, 7),
            Block::new(client.arena(), count * stride),
        ];
        Self { source, target, len, stride, submitted: 0 }
    }

    pub(super) const fn submitted(&self) -> usize {
        self.submitted
    }

    /// Submits the next copy, tagged with its number.
    #[track_caller]
    pub(super) fn submit(&mut self, client: &mut Client, flags: Flags) {
        if let Err(error) = self.try_submit(client, flags) {
            panic!("copy {} of {} bytes: {error}", self.submitted, self.len);
        }
    }

    /// As [`submit`](Self::submit); if the channel is down, after a stop.
    #[track_caller]
    pub(super) fn submit_after_stop(&mut self, client: &mut Client, flags: Flags) {
        if self.try_submit(client, flags) == Err(SubmitError::ChannelDown) {
            client.stop();
            self.submit(client, flags);
        }
    }

    #[track_caller]
    fn try_submit(&mut self, client: &mut Client, flags: Flags) -> Result<(), SubmitError> {
        let (at, len) = (self.submitted * self.stride, self.len);
        let copy =
            Operation::Memcpy { source: self.source.at(at), target: self.target.at(at), len };
        // SAFETY: the blocks stay until it has ended, by the owner's word; nobody touches the range
        // before.
        unsafe { client.try_submit(&copy, flags, self.submitted) }?;
        self.submitted += 1;
        Ok(())
    }

    /// Holds what is at the target against how the copy ended.
    #[track_caller]
    pub(super) fn settle(&mut self, operation: &Ended, what: &str) {
        let Ended { tag: index, status, bytes, .. } = *operation;
        let at = index * self.stride;
        let intended = self.source.expected(at..at + self.len).to_vec();
        match status {
            Status::Success => self.target.expect(at, &intended),
            Status::NotAttempted => {}
            _ => {
                self.target.expect(at, &intended[..bytes]);
                let rest = &intended[bytes..];
                self.target.settle(at + bytes, rest, &format!("{what}: operation {index}"));
            }
        }
    }

    /// All copies were settled: every byte must be as they were to leave it.
    #[track_caller]
    pub(super) fn check(&self, what: &str) {
        self.source.check(what);
        self.target.check(what);
    }

    /// The memory is somebody else's from now on, who writes it.
    pub(super) fn overwrite(&mut self) {
        self.target.write(0, &vec![0xee; self.target.len()]);
    }
}
