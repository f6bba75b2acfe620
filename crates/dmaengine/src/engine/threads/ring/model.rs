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
fn operation(index: usize) -> Operation<'static> {
    let (source, target) = (std::ptr::null(), std::ptr::null_mut());
    Operation::Memcpy { source, target, len: index + 1 }
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
    fn new(operations: usize) -> Self {
        let (submitter, worker) = ring(2);
        let targets = Arc::new(Targets((0..operations).map(|_| UnsafeCell::new(false)).collect()));
        let event = Arc::new(Notify::new());
        let worker = thread::spawn({
            let (targets, event) = (Arc::clone(&targets), Arc::clone(&event));
            move || {
                worker.run(
                    Duration::ZERO,
                    |descriptor| {
                        // SAFETY: loom checks that nobody else accesses it meanwhile.
                        targets.0[descriptor.len() - 1]
                            .with_mut(|target| unsafe { *target = true });
                        Status::Success
                    },
                    || event.notify(),
                )
            }
        });
        Self { submitter, targets, event, worker }
    }

    fn submit_and_issue(&mut self, index: usize) {
        assert!(self.submitter.submit(&operation(index), Flags::empty()).is_some());
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
            assert!(model.submitter.submit(&operation(batch[0]), Flags::empty()).is_some());
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
