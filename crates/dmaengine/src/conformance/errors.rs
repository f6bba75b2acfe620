use std::time::Instant;

use super::{
    Failure, Suite,
    batch::Batch,
    client::{Client, Ended},
};
use crate::{Capabilities, DmaChannel, Flags, Ordering, Status};

/// Operations in a batch, if the ring holds as many.
const BATCH: usize = 16;

/// Their length in bytes: no multiple of anything, unless it must be.
const LEN: usize = 1001;

/// How a client learns how operations ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// One doorbell for all, then polls until nothing is in flight.
    AllAtOnce,
    /// A doorbell and a poll after each operation.
    OneByOne,
    /// One doorbell, then a poll whenever the event has come.
    AfterEvents,
}

impl Suite<'_> {
    /// The errors of a channel whose operations fail to order.
    ///
    /// `failing` gives a fresh channel of which the operations with these indices end with these
    /// statuses. Indices count, from 0, what `submit` took since the channel was handed out. All
    /// operations are copies of at most XFERCAP bytes; if the engine stops at the first that fails,
    /// the others of the batch are not to be reached. One channel exists at a time.
    ///
    /// Each of `statuses` is tried at each place of a batch, at several at once and at 16 in
    /// succession, with and without a fence in the middle (if the channel has fences), and with three
    /// ways of reading the results. It must hold that
    ///
    /// * each operation is reported once;
    /// * those before the first that fails succeed (if the channel is
    ///   [in order](Ordering::InOrder)), and that one has its status;
    /// * those after it have succeeded, or are aborted or not attempted;
    /// * what has succeeded is all there, what was not attempted is untouched, and of the rest
    ///   nothing was written but the target;
    /// * the channel then works, at once or, if it says that it is
    ///   [down](crate::SubmitError::ChannelDown), after a stop.
    ///
    /// # Panics
    ///
    /// Also if there is no status to try, or one that is no failure.
    pub fn errors(
        &self,
        statuses: &[Status],
        mut failing: impl FnMut(&[Failure]) -> Box<dyn DmaChannel>,
    ) {
        assert!(!statuses.is_empty(), "an engine without errors to order passes `all` only");
        let size = BATCH.min(failing(&[]).info().ring_size);
        for (index, &status) in statuses.iter().enumerate() {
            assert!(!status.is_done(), "`{status}` is no failure");
            for places in places(size) {
                let plan: Vec<Failure> =
                    places.iter().map(|&index| Failure { index: index as u64, status }).collect();
                self.failing_batches(size, &plan, &mut failing);
            }
            // A storm of this status, and one of all of them in turn.
            let statuses = statuses[index..].iter().chain(&statuses[..index]).cycle();
            for storm in [vec![status; BATCH], statuses.copied().take(BATCH).collect()] {
                let plan: Vec<Failure> =
                    (0..).zip(storm).map(|(index, status)| Failure { index, status }).collect();
                self.storm(&plan, failing(&plan));
                self.failing_batches(size, &plan[..size], &mut failing);
            }
        }
    }

    /// A batch with failures, in all ways of fencing and reading.
    fn failing_batches(
        &self,
        size: usize,
        plan: &[Failure],
        failing: &mut dyn FnMut(&[Failure]) -> Box<dyn DmaChannel>,
    ) {
        for reading in [Reading::AllAtOnce, Reading::OneByOne, Reading::AfterEvents] {
            // At the failing one, behind it, or nowhere near.
            for fence in [None, Some(size / 2), Some(size / 2 + 1)] {
                let channel = failing(plan);
                let fences = channel.info().capabilities.contains(Capabilities::FENCE);
                if fence.is_some() && !fences {
                    continue;
                }
                self.failing_batch(channel, size, plan, fence, reading);
            }
        }
    }

    fn failing_batch(
        &self,
        channel: Box<dyn DmaChannel>,
        size: usize,
        plan: &[Failure],
        fence: Option<usize>,
        reading: Reading,
    ) {
        let mut client = Client::new(self, channel);
        let mut batch = Batch::new(&client, BATCH, copy_len(&client));
        for index in 0..size {
            let flags = if fence == Some(index) { Flags::FENCE } else { Flags::empty() };
            batch.submit_after_stop(&mut client, flags);
            if reading == Reading::OneByOne {
                client.issue();
                client.poll();
            }
        }
        client.issue();
        if reading == Reading::AfterEvents {
            read_after_events(&mut client);
        }
        client.poll_until_idle();
        let ended = client.take_ended();
        judge(
            &mut batch,
            &client,
            plan,
            &ended,
            &format!("{plan:?}, fence {fence:?}, {reading:?}"),
        );
        works_again(&mut client);
        client.finish();
    }

    /// One failure after the other, each alone.
    fn storm(&self, plan: &[Failure], channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        let mut batch = Batch::new(&client, BATCH, copy_len(&client));
        for failure in plan {
            batch.submit_after_stop(&mut client, Flags::empty());
            let ended = client.wait();
            let [ended] = ended[..] else { panic!("one operation, but ends: {ended:?}") };
            assert_eq!(ended.status, failure.status, "operation {} of a storm", ended.number);
            batch.settle(&ended, "a storm");
        }
        batch.check("a storm");
        works_again(&mut client);
        client.finish();
    }
}

/// The places in a batch that fail.
fn places(size: usize) -> Vec<Vec<usize>> {
    let (middle, last) = (size / 2, size - 1);
    let mut places: Vec<Vec<usize>> =
        [0, 1, middle, last.saturating_sub(1), last].map(|at| vec![at.min(last)]).into();
    places.extend([vec![0, middle, last], vec![middle, last], vec![0, 1.min(last)]]);
    places.iter_mut().for_each(Vec::dedup);
    places.sort();
    places.dedup();
    places
}

fn read_after_events(client: &mut Client) {
    let start = Instant::now();
    while client.in_flight() > 0 {
        if client.arm() {
            client.wait_for_event();
        } else {
            client.check_deadline(start);
            std::thread::yield_now();
        }
        client.poll();
    }
}

#[track_caller]
fn works_again(client: &mut Client) {
    let mut batch = Batch::new(client, BATCH, copy_len(client));
    batch.submit_after_stop(client, Flags::empty());
    client.wait_for_success();
    client.works();
}

/// In one descriptor each.
fn copy_len(client: &Client) -> usize {
    client.fitting(LEN.min(client.info().xfercap.get()), BATCH)
}

/// Holds how the copies of a batch ended against what may become of them.
fn judge(batch: &mut Batch, client: &Client, plan: &[Failure], ended: &[Ended], what: &str) {
    assert_eq!(ended.len(), batch.submitted(), "{what}: operations that ended");
    let planned = |index: usize| {
        plan.iter().find(|failure| failure.index == index as u64).map(|failure| failure.status)
    };
    let reached = |operation: &&Ended| planned(operation.tag) == Some(operation.status);
    let first = (0..batch.submitted()).find(|&index| planned(index).is_some());
    let in_order = client.info().ordering == Ordering::InOrder;
    for operation in ended {
        let Ended { tag: index, status, .. } = *operation;
        let stopped = matches!(status, Status::Aborted | Status::NotAttempted);
        let right = match planned(index) {
            Some(planned) if in_order && Some(index) == first => status == planned,
            Some(planned) => status == planned || stopped,
            None if in_order && first.is_none_or(|first| index < first) => {
                status == Status::Success
            }
            None => status == Status::Success || (stopped && first.is_some()),
        };
        assert!(right, "{what}: operation {index} ended with: {status}");
        batch.settle(operation, what);
    }
    let failed = ended.iter().find(reached).is_some();
    assert_eq!(failed, first.is_some(), "{what}: operations that failed as they were to");
    batch.check(what);
}
