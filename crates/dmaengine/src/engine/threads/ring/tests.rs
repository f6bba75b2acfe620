use super::*;

/// An operation that the tests tell apart by its length; its pointers are not followed.
fn operation(len: usize) -> Operation<'static> {
    Operation::Memcpy { source: std::ptr::null(), target: std::ptr::null_mut(), len }
}

fn submit(submitter: &mut Submitter, len: usize) -> bool {
    submitter.submit(&operation(len), Flags::empty()).is_some()
}

const fn aborted(len: usize) -> End {
    End { status: Status::Aborted, len }
}

const fn executed(len: usize) -> End {
    End { status: Status::Success, len }
}

/// Runs `body` beside a worker that passes the lengths it executes to `execute`.
fn with_worker(
    size: usize,
    spin: Duration,
    execute: impl FnMut(usize) + Send,
    fire: impl FnMut() + Send,
    body: impl FnOnce(&mut Submitter, &dyn Fn()),
) {
    let (mut submitter, worker) = ring(size);
    let mut execute = execute;
    std::thread::scope(|scope| {
        let thread = scope
            .spawn(move || {
                let execute = |descriptor: &Descriptor| {
                    execute(descriptor.len());
                    Status::Success
                };
                worker.run(spin, execute, fire);
            })
            .thread()
            .clone();
        body(&mut submitter, &|| thread.unpark());
        submitter.exit();
        thread.unpark();
    });
}

fn issue(submitter: &mut Submitter, unpark: &dyn Fn()) {
    if submitter.issue() == Wake::Unpark {
        unpark();
    }
}

/// What a poll finds first.
fn look(submitter: &mut Submitter) -> Option<End> {
    submitter.look();
    submitter.next_end()
}

fn next_end(submitter: &mut Submitter) -> End {
    loop {
        match look(submitter) {
            Some(end) => return end,
            None => std::thread::yield_now(),
        }
    }
}

const ROUNDS: usize = if cfg!(miri) { 50 } else { 20_000 };

#[test]
fn wraps_in_order_awake_and_asleep() {
    for spin in [Duration::ZERO, Duration::from_micros(5)] {
        let mut seen = 0;
        with_worker(
            8,
            spin,
            |len| {
                seen += 1;
                assert_eq!(len, seen);
            },
            || (),
            |submitter, unpark| {
                let (mut submitted, mut reported) = (0, 0);
                while reported < ROUNDS {
                    for _ in 0..1 + submitted % 8 {
                        if submitted < ROUNDS && submit(submitter, submitted + 1) {
                            submitted += 1;
                        }
                    }
                    issue(submitter, unpark);
                    assert_eq!(submitter.space(), 8 - (submitted - reported));
                    reported += 1;
                    assert_eq!(next_end(submitter), executed(reported));
                }
            },
        );
        assert_eq!(seen, ROUNDS);
    }
}

/// What the worker executes of batches of each length, with a fill at some place, and with none.
#[test]
fn batches_of_any_length_are_executed_in_order() {
    const SIZE: usize = 64;
    let mut expected = 0;
    let execute = |len| {
        expected += 1;
        assert_eq!(len, expected);
    };
    with_worker(
        SIZE,
        Duration::ZERO,
        execute,
        || (),
        |submitter, unpark| {
            let fills = [usize::MAX, 0, 1, 5, 33];
            let mut number = 0;
            for (length, fill) in (1..=SIZE).flat_map(|length| fills.map(|fill| (length, fill))) {
                let first = number;
                for place in 0..length {
                    number += 1;
                    let target = std::ptr::null_mut();
                    let operation = match place {
                        place if place == fill => {
                            Operation::Memset { pattern: 0, target, len: number }
                        }
                        _ => operation(number),
                    };
                    let position = submitter.submit(&operation, Flags::empty());
                    assert_eq!(position, Some(number as u64 - 1));
                }
                issue(submitter, unpark);
                (first..number).for_each(|at| assert_eq!(next_end(submitter), executed(at + 1)));
            }
        },
    );
}

#[test]
fn a_stopped_batch_that_was_not_issued_leaves_nothing_to_the_next() {
    with_worker(
        8,
        Duration::ZERO,
        |len| assert!(len > 10, "an aborted one was executed"),
        || (),
        |submitter, unpark| {
            for round in 0..3 {
                assert!((1..=3).all(|len| submit(submitter, len)));
                submitter.stop();
                unpark();
                while !submitter.is_stopped() {
                    std::thread::yield_now();
                }
                submitter.abort_and_resume();
                unpark();
                (1..=3).for_each(|len| assert_eq!(next_end(submitter), aborted(len)));
                assert!((11..=12).all(|len| submit(submitter, len + round)));
                issue(submitter, unpark);
                (11..=12).for_each(|len| assert_eq!(next_end(submitter), executed(len + round)));
            }
        },
    );
}

#[test]
fn a_full_ring_refuses_until_ends_are_reported() {
    with_worker(
        4,
        Duration::ZERO,
        |_| (),
        || (),
        |submitter, unpark| {
            assert!((1..=4).all(|len| submit(submitter, len)));
            assert!(!submit(submitter, 5));
            assert_eq!(look(submitter), None, "nothing runs before it is issued");
            issue(submitter, unpark);
            assert_eq!(next_end(submitter), executed(1));
            assert_eq!(submitter.space(), 1);
            assert!(submit(submitter, 5) && !submit(submitter, 6));
        },
    );
}

#[test]
fn a_stop_aborts_the_rest_and_work_goes_on() {
    let (started, on_start) = std::sync::mpsc::channel();
    let (go_on, gate) = std::sync::mpsc::channel::<()>();
    with_worker(
        8,
        Duration::ZERO,
        move |len| {
            if len == 1 {
                started.send(()).unwrap();
                gate.recv().unwrap();
            }
        },
        || (),
        |submitter, unpark| {
            for round in 0..3 {
                for len in 1..=4 {
                    assert!(submit(submitter, len));
                }
                issue(submitter, unpark);
                on_start.recv().unwrap();
                assert!(submit(submitter, 5), "one that is not issued");
                submitter.stop();
                unpark();
                assert!(!submitter.is_stopped(), "it is in the middle of an operation");
                go_on.send(()).unwrap();
                while !submitter.is_stopped() {
                    std::thread::yield_now();
                }
                submitter.abort_and_resume();
                // The second round takes up work before the worker has woken from its stop, the
                // third stops it once more.
                if round != 1 {
                    unpark();
                }
                assert_eq!(look(submitter), Some(executed(1)));
                for len in 2..=5 {
                    assert_eq!(look(submitter), Some(aborted(len)));
                }
                assert_eq!((look(submitter), submitter.space()), (None, 8));
                if round == 2 {
                    submitter.stop();
                    assert!(submit(submitter, 6));
                    unpark();
                    while !submitter.is_stopped() {
                        std::thread::yield_now();
                    }
                    submitter.abort_and_resume();
                    unpark();
                    assert_eq!(next_end(submitter), aborted(6));
                }
                assert!(submit(submitter, 7));
                issue(submitter, unpark);
                unpark();
                assert_eq!(next_end(submitter), executed(7));
            }
        },
    );
}

#[test]
fn every_armed_event_fires_once() {
    let (fire, fired) = std::sync::mpsc::channel();
    let mut events = 0;
    with_worker(
        8,
        Duration::ZERO,
        |_| (),
        move || fire.send(()).unwrap(),
        |submitter, unpark| {
            assert!(!submitter.arm(), "nothing to wait for");
            for _ in 0..ROUNDS / 10 {
                assert!(submit(submitter, 1) && submit(submitter, 2));
                issue(submitter, unpark);
                if submitter.arm() {
                    fired.recv_timeout(Duration::from_secs(10)).expect("the event was lost");
                    events += 1;
                }
                assert_eq!(look(submitter), Some(executed(1)));
                assert_eq!(look(submitter), Some(executed(2)));
                assert!(!submitter.arm());
            }
            assert!(fired.try_recv().is_err(), "an event that nobody asked for");
        },
    );
    assert!(events > 0, "no round had to wait");
}
