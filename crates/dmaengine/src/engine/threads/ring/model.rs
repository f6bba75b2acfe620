//! All interleavings of a submitter and a worker, as loom makes them, weak memory included:
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p dmaengine --release --lib model`

use loom::{
    cell::UnsafeCell,
    sync::{Arc, Notify},
    thread,
};

use super::*;

/// The number of operation `index` is its length, less one.
const fn operation(index: usize) -> Operation<'static> {
    let (source, target) = (std::ptr::null(), std::ptr::null_mut());
    Operation::Memcpy { source, target, len: index + 1 }
}

/// As [`operation`], and so long that the worker shows its end at once, whatever else is issued.
const fn long_operation(index: usize) -> Operation<'static> {
    operation(PUBLISH_BYTES + index)
}

/// The number of an operation.
const fn index(len: usize) -> usize {
    (len - 1) % PUBLISH_BYTES
}

/// What the operations write. Loom finds an access that is not ordered after the worker's.
struct Targets(Vec<UnsafeCell<bool>>);

// SAFETY: loom checks the accesses; that is the test.
unsafe impl Sync for Targets {}
// SAFETY: as above.
unsafe impl Send for Targets {}

impl Targets {
    fn read(&self, index: usize) -> bool {
        // SAFETY: loom checks that nobody writes meanwhile.
        self.0[index].with(|target| unsafe { *target })
    }
}

struct Model {
    submitter: Submitter,
    targets: Arc<Targets>,
    event: Arc<Notify>,
    worker: thread::JoinHandle<()>,
}

impl Model {
    /// All operations succeed.
    fn new(operations: usize) -> Self {
        Self::with(operations, |_| Status::Success)
    }

    /// Operations end as `status` says.
    fn with(operations: usize, status: fn(usize) -> Status) -> Self {
        let (submitter, worker) = ring(2);
        let targets = Arc::new(Targets((0..operations).map(|_| UnsafeCell::new(false)).collect()));
        let event = Arc::new(Notify::new());
        let worker = thread::spawn({
            let (targets, event) = (Arc::clone(&targets), Arc::clone(&event));
            move || {
                worker.run(
                    Duration::ZERO,
                    |descriptor| {
                        let index = index(descriptor.len());
                        // SAFETY: loom checks that nobody else accesses it meanwhile.
                        targets.0[index].with_mut(|target| unsafe { *target = true });
                        status(index)
                    },
                    || event.notify(),
                )
            }
        });
        Self { submitter, targets, event, worker }
    }

    fn submit(&mut self, operation: &Operation<'_>) {
        assert!(self.submitter.submit(operation, Flags::empty()).is_some());
    }

    fn submit_and_issue(&mut self, index: usize) {
        self.submit(&operation(index));
        self.issue();
    }

    fn issue(&mut self) {
        if self.submitter.issue() == Wake::Unpark {
            self.worker.thread().unpark();
        }
    }

    /// Waits until all that was issued is done. If a wake-up or the event is lost, loom reports a
    /// deadlock. (Its `Notify` also wakes without a reason; that may be taken for an event.)
    fn wait(&mut self) {
        while self.submitter.arm() {
            self.event.wait();
        }
    }

    fn expect_executed(&mut self, index: usize) {
        self.submitter.look();
        assert_eq!(
            self.submitter.next_end(),
            Some(End { status: Status::Success, len: index + 1 })
        );
        assert!(self.targets.read(index));
    }

    /// Takes what has ended as a `Queue` does: successes by their number, and one by one what is left
    /// behind a failure. Each must be the next, have ended as `status` says, and be done.
    fn poll(&mut self, status: fn(usize) -> Status) {
        let mut next = self.submitter.reported() as usize;
        self.submitter.look();
        for _ in 0..self.submitter.take_successes() {
            assert_eq!(status(next), Status::Success);
            assert!(self.targets.read(next));
            next += 1;
        }
        if !self.submitter.has_ended() {
            return;
        }
        self.submitter.look();
        while let Some(End { status: ended, len }) = self.submitter.next_end() {
            assert_eq!((index(len), ended), (next, status(next)));
            assert!(self.targets.read(next));
            next += 1;
        }
    }

    /// As [`poll`](Self::poll), now, whatever has ended, and again when all has.
    fn poll_early_and_late(&mut self, status: fn(usize) -> Status) {
        self.poll(status);
        self.wait();
        self.poll(status);
    }

    fn end(mut self) {
        self.submitter.exit();
        self.worker.thread().unpark();
        self.worker.join().unwrap();
    }
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn no_wake_up_and_no_event_is_lost() {
    check(|| {
        let mut model = Model::new(2);
        model.submit_and_issue(0);
        model.wait();
        model.expect_executed(0);
        model.submit_and_issue(1);
        model.wait();
        model.expect_executed(1);
        model.end();
    });
}

#[test]
fn a_batch_is_seen_whole_again_and_again() {
    check(|| {
        let mut model = Model::new(4);
        for batch in [[0, 1], [2, 3]] {
            model.submit(&operation(batch[0]));
            model.submit_and_issue(batch[1]);
            model.wait();
            batch.into_iter().for_each(|index| model.expect_executed(index));
        }
        model.end();
    });
}

#[test]
fn a_slot_is_reused_only_after_its_report() {
    check(|| {
        let mut model = Model::new(3);
        model.submit_and_issue(0);
        model.submit_and_issue(1);
        let refused = model.submitter.submit(&operation(2), Flags::empty());
        assert_eq!(refused, None, "the ring is full");
        model.wait();
        model.expect_executed(0);
        model.submit_and_issue(2);
        model.wait();
        model.expect_executed(1);
        model.expect_executed(2);
        model.end();
    });
}

#[test]
fn after_a_stop_nothing_is_touched() {
    check(|| {
        let mut model = Model::new(2);
        model.submit_and_issue(0);
        model.submitter.stop();
        model.worker.thread().unpark();
        while !model.submitter.is_stopped() {
            thread::yield_now();
        }
        // An access by the worker from here on would be a race with this one.
        let executed = model.targets.read(0);
        model.submitter.abort_and_resume();
        model.worker.thread().unpark();
        let status = if executed { Status::Success } else { Status::Aborted };
        let end = End { status, len: 1 };
        model.submitter.look();
        assert_eq!(model.submitter.next_end(), Some(end));
        model.submit_and_issue(1);
        model.wait();
        model.expect_executed(1);
        assert_eq!(model.targets.read(0), executed);
        model.end();
    });
}

const fn first_fails(index: usize) -> Status {
    if index == 0 { Status::ReadError } else { Status::Success }
}

const fn second_fails(index: usize) -> Status {
    if index == 1 { Status::ReadError } else { Status::Success }
}

/// Either way for one of two operations to fail.
const ONE_FAILS: [fn(usize) -> Status; 2] = [first_fails, second_fails];

/// A poll may come when the worker has counted a failure that it has not shown yet.
#[test]
fn a_failure_is_not_taken_for_a_success() {
    for status in ONE_FAILS {
        check(move || {
            let mut model = Model::with(2, status);
            model.submit(&operation(0));
            model.submit_and_issue(1);
            model.poll_early_and_late(status);
            assert_eq!(model.submitter.reported(), 2);
            model.end();
        });
    }
}

/// The worker shows the first while it is at the second.
#[test]
fn what_ends_within_a_batch_is_seen_with_its_status() {
    for status in ONE_FAILS {
        check(move || {
            let mut model = Model::with(2, status);
            model.submit(&long_operation(0));
            model.submit_and_issue(1);
            model.poll_early_and_late(status);
            assert_eq!(model.submitter.reported(), 2);
            model.end();
        });
    }
}

/// After a failure successes are counted again, in slots that are used again.
#[test]
fn behind_a_failure_successes_are_taken_at_once() {
    check(|| {
        let mut model = Model::with(3, first_fails);
        model.submit_and_issue(0);
        model.submit_and_issue(1);
        model.wait();
        model.poll(first_fails);
        model.submit_and_issue(2);
        model.wait();
        model.submitter.look();
        assert_eq!(model.submitter.take_successes(), 1);
        assert!(model.targets.read(2));
        model.end();
    });
}

/// The worker ends before its next operation, and when it is gone nobody has the memory.
#[test]
fn an_exit_leaves_the_rest_undone() {
    check(|| {
        let mut model = Model::new(2);
        model.submit(&operation(0));
        model.submit_and_issue(1);
        let targets = Arc::clone(&model.targets);
        model.end();
        assert!(targets.read(0) || !targets.read(1), "in order");
    });
}
