use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use super::*;
use crate::{
    Arena, Argument, CpuDevice, DmaBuf, DmaDevice, PacketBuf, PacketPool,
    puppet::{Memory, Puppet, Strings},
};

const TIMEOUT: Duration = Duration::from_secs(10);

type Copies = Queue<Memory, Memory, u32>;

/// A queue with `count` copies of four bytes in flight, numbered.
fn in_flight(count: u32) -> (Copies, Strings) {
    let (channel, strings) = Puppet::channel();
    let mut queue = Queue::new(channel);
    for number in 0..count {
        queue.copy(strings.memory(b"from"), strings.memory(b"to.."), number).unwrap();
    }
    queue.issue_pending();
    (queue, strings)
}

#[test]
fn memory_comes_back_when_its_operation_is_reported_and_not_before() {
    let (mut queue, strings) = in_flight(3);
    assert_eq!(queue.poll(|_| panic!("nothing has ended")), 0);
    strings.end(1, Status::Success);
    strings.end(2, Status::ReadError);
    let mut ended = Vec::new();
    queue.poll(|done| ended.push(done));
    let [first, second] = &ended[..] else { panic!("two have ended") };
    assert_eq!((first.tag, first.status, first.bytes), (1, Status::Success, 4));
    assert_eq!((second.tag, second.status, second.bytes), (2, Status::ReadError, 0));
    assert_eq!((first.target.as_ref(), strings.dropped()), (&b"from"[..], (0, 0)));
    assert_eq!((queue.in_flight(), strings.in_ring()), (1, 1));
}

#[test]
fn an_end_that_is_reported_twice_gives_nothing_twice() {
    let (mut queue, strings) = in_flight(2);
    let [first, second] = strings.cookies()[..] else { panic!("two are in flight") };
    strings.end(0, Status::Success);
    strings.lie(first);
    assert_eq!(queue.poll(drop), 1);
    assert_eq!((queue.in_flight(), queue.spurious_completions()), (1, 1));
    assert_eq!(strings.dropped().0, 2, "source and target of the first");
    strings.lie(second.next());
    assert_eq!(queue.poll(drop), 0, "an end of an operation to come");
    strings.lie(Cookie::new(u64::MAX / 2));
    assert_eq!(queue.poll(drop), 0);
    assert_eq!(queue.spurious_completions(), 3);
    assert_eq!(strings.dropped(), (2, 0));
}

#[test]
fn successes_at_once_give_back_as_many_and_the_rest_is_polled_for() {
    let (mut queue, strings) = in_flight(4);
    let first = strings.cookies()[0];
    (0..3).for_each(|place| strings.end(place, Status::Success));
    strings.succeed(first, 3, true);
    strings.end(0, Status::WriteError);
    let mut ended = Vec::new();
    assert_eq!(queue.poll(|done| ended.push((done.tag, done.status, done.bytes))), 4);
    let succeeded = [0, 1, 2].map(|tag| (tag, Status::Success, 4));
    assert_eq!(ended, [&succeeded[..], &[(3, Status::WriteError, 0)]].concat());
    let counted = queue.stats().snapshot();
    assert_eq!((counted.completed(), counted.failed(), counted.bytes_transferred()), (4, 1, 12));
    assert_eq!((strings.dropped(), queue.spurious_completions()), ((8, 0), 0));
}

#[test]
fn with_nothing_more_a_channel_is_not_polled() {
    let (mut queue, strings) = in_flight(2);
    let first = strings.cookies()[0];
    (0..2).for_each(|place| strings.end(place, Status::Success));
    strings.succeed(first, 1, false);
    assert_eq!((queue.poll(drop), queue.in_flight()), (1, 1));
    assert_eq!((queue.poll(drop), queue.in_flight()), (1, 0));
}

#[test]
fn successes_of_others_give_nothing_back() {
    let (mut queue, strings) = in_flight(4);
    let first = strings.cookies()[0];
    let before = Cookie::new(first.get().wrapping_sub(5));
    strings.succeed(before, 5, false);
    assert_eq!((queue.poll(drop), queue.spurious_completions()), (0, 5));
    // From before the queue's first to its second; and one that has ended before all of them.
    strings.end(2, Status::Success);
    assert_eq!(queue.poll(drop), 1);
    (0..2).for_each(|place| strings.end(place, Status::Success));
    strings.succeed(before, 7, false);
    let mut tags = Vec::new();
    queue.poll(|done| tags.push(done.tag));
    assert_eq!((&tags[..], queue.spurious_completions()), (&[0, 1][..], 10));
    // Those that have ended, the one that has not, and all to come.
    strings.end(0, Status::Success);
    strings.succeed(first, usize::MAX, false);
    queue.poll(|done| tags.push(done.tag));
    assert_eq!(tags, [0, 1, 3]);
    assert_eq!(queue.spurious_completions(), u64::MAX);
    assert_eq!((queue.in_flight(), strings.dropped()), (0, (8, 0)));
}

#[test]
fn a_panic_among_successes_takes_only_what_was_given() {
    let (mut queue, strings) = in_flight(3);
    let first = strings.cookies()[0];
    (0..3).for_each(|place| strings.end(place, Status::Success));
    strings.succeed(first, 3, false);
    let panic = catch_unwind(AssertUnwindSafe(|| queue.poll(|done| assert_eq!(done.tag, 0))));
    assert!(panic.is_err());
    assert_eq!((queue.in_flight(), strings.dropped()), (1, (4, 0)));
    assert_eq!((queue.stats().completed(), queue.stats().bytes_transferred()), (3, 12));
    drop(queue);
    assert_eq!(strings.dropped(), (6, 0));
}

#[test]
fn dropping_a_queue_terminates_the_channel_before_the_memory_goes() {
    let (queue, strings) = in_flight(3);
    drop(queue);
    assert_eq!((strings.terminations(), strings.dropped()), (1, (6, 0)));
}

#[test]
fn memory_of_an_engine_that_cannot_be_stopped_is_leaked() {
    let (queue, strings) = in_flight(3);
    strings.set_stuck(true);
    drop(queue);
    assert_eq!(strings.dropped(), (0, 0));
    // The engine comes to life, and writes to memory that is still there.
    strings.end(0, Status::Success);
    assert_eq!(strings.in_ring(), 3);
}

#[test]
fn a_queue_that_is_leaked_leaks_its_memory() {
    let (queue, strings) = in_flight(2);
    std::mem::forget(queue);
    assert_eq!(strings.dropped(), (0, 0));
    strings.end(1, Status::Success);
}

#[test]
fn terminating_gives_everything_back_or_nothing() {
    let (mut queue, strings) = in_flight(2);
    strings.end(0, Status::Success);
    strings.set_stuck(true);
    assert_eq!(queue.terminate_sync(TIMEOUT, drop), Err(Stuck));
    assert_eq!((queue.in_flight(), strings.dropped()), (2, (0, 0)));
    strings.set_stuck(false);
    let mut ended = Vec::new();
    queue.terminate_sync(TIMEOUT, |done| ended.push(done.status)).unwrap();
    assert_eq!(ended, [Status::Success, Status::Aborted]);
    assert_eq!(strings.dropped(), (4, 0));
}

#[test]
fn a_driver_that_panics_with_an_operation_in_the_ring_leaks_its_memory() {
    let (mut queue, strings) = in_flight(0);
    strings.panic_in_submit("driver");
    let panic = catch_unwind(AssertUnwindSafe(|| {
        queue.copy(strings.memory(b"from"), strings.memory(b"to.."), 0)
    }));
    assert!(panic.is_err());
    assert_eq!((strings.in_ring(), strings.dropped()), (1, (0, 0)));
}

#[test]
fn a_panic_in_the_hands_of_the_caller_takes_only_what_it_was_given() {
    let (mut queue, strings) = in_flight(3);
    (0..3).for_each(|place| strings.end(place, Status::Success));
    let panic = catch_unwind(AssertUnwindSafe(|| queue.poll(|_| panic!("caller"))));
    assert!(panic.is_err());
    // The other two were reported to nobody; that engine is through with all three.
    assert_eq!((queue.in_flight(), strings.dropped()), (2, (2, 0)));
    drop(queue);
    assert_eq!(strings.dropped(), (6, 0));
}

#[test]
fn a_default_source_that_panics_is_not_asked_for_while_the_engine_has_the_target() {
    #[derive(Debug)]
    struct Moody;
    impl Default for Moody {
        fn default() -> Self {
            panic!("no source today");
        }
    }
    impl AsRef<[u8]> for Moody {
        fn as_ref(&self) -> &[u8] {
            &[]
        }
    }
    // SAFETY: no bytes.
    unsafe impl DmaSource for Moody {}

    let (channel, strings) = Puppet::channel();
    let mut queue: Queue<Moody, Vec<u8>, ()> = Queue::new(channel);
    assert!(catch_unwind(AssertUnwindSafe(|| queue.fill(7, vec![0; 8], ()))).is_err());
    assert_eq!(strings.in_ring(), 0, "its target is gone");
    assert!(queue.is_idle());
}

#[test]
fn cookies_may_start_anywhere_but_have_no_gaps() {
    for gap in [0, 2, u64::MAX] {
        let (channel, strings) = Puppet::channel();
        let mut queue: Copies = Queue::new(channel);
        let mut copy = |number| {
            queue.copy(strings.memory(b"from"), strings.memory(b"to.."), number).unwrap();
        };
        let seventh = Cookie::new(7);
        strings.set_next(seventh);
        copy(0);
        strings.set_next(Cookie::new(7u64.wrapping_add(gap)));
        let panic = catch_unwind(AssertUnwindSafe(|| copy(1)));
        let message = *panic.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("cookies are consecutive"), "{message}");
        assert_eq!(strings.dropped(), (0, 0));

        strings.end(1, Status::Success);
        let given_back = queue.poll(drop);
        if gap == 0 {
            // It has the first one's name; whose memory that is, nobody can know. The first one's
            // was given back while the engine has it: such a driver cannot be used.
            assert_eq!(given_back, 1);
            continue;
        }
        assert_eq!((given_back, queue.in_flight()), (0, 1));
        drop(queue);
        assert_eq!(strings.dropped(), (2, 0), "the first ended with its queue");
    }
}

#[test]
fn waits_end_at_their_deadline_whatever_the_way() {
    let spin = Duration::from_micros(1);
    for wait in [Wait::Spin, Wait::Yield { spin }, Wait::Block { spin }] {
        let (channel, strings) = Puppet::with_event();
        let mut queue: Copies = Queue::new(channel);
        queue.copy(strings.memory(b"from"), strings.memory(b"to.."), 0).unwrap();
        queue.copy(strings.memory(b"from"), strings.memory(b"to.."), 1).unwrap();
        let short = Duration::from_millis(5);
        assert_eq!(queue.wait_with(wait, short, drop), Err(WaitTimeout { in_flight: 2 }));
        assert_eq!(strings.doorbells(), 1);

        let [first, second] = strings.cookies()[..] else { panic!("two are in flight") };
        strings.end(1, Status::Success);
        let mut ended = Vec::new();
        queue.wait_for(second, wait, TIMEOUT, |done| ended.push(done.tag)).unwrap();
        assert_eq!(ended, [1]);
        assert_eq!(queue.wait_for(first, wait, short, drop), Err(WaitTimeout { in_flight: 1 }));
        assert_eq!(queue.wait_for(second, wait, TIMEOUT, drop), Ok(()), "has ended before");

        std::thread::scope(|scope| {
            scope.spawn(|| strings.end(0, Status::Success));
            queue.wait_with(wait, TIMEOUT, drop).unwrap();
        });
    }
}

/// Whether a thread of this process sleeps in the kernel.
fn is_asleep(thread: rustix::thread::Pid) -> bool {
    let path = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
    let stat = std::fs::read_to_string(path).unwrap();
    // The name before it may be anything, also brackets.
    stat.rsplit_once(')').unwrap().1.trim_start().starts_with('S')
}

#[test]
#[cfg_attr(miri, ignore = "no poll")]
fn a_wait_that_may_block_sleeps_until_the_event() {
    let (channel, strings) = Puppet::with_event();
    let mut queue: Copies = Queue::new(channel);
    queue.copy(strings.memory(b"from"), strings.memory(b"to.."), 0).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || {
            sender.send(rustix::thread::gettid()).unwrap();
            queue.wait_with(Wait::Block { spin: Duration::ZERO }, TIMEOUT, drop)
        });
        let thread = receiver.recv().unwrap();
        while strings.arms() == 0 {
            std::thread::yield_now();
        }
        // Nobody has the puppet's lock any more: there is nothing else that it could sleep in. If it
        // does not sleep it ends after its time, and cannot be looked at.
        while !is_asleep(thread) {
            std::thread::yield_now();
        }
        // Once to begin with, and once for each `MAX_BLOCK` that this machine has taken so far.
        let most = 2 + start.elapsed().as_millis() / wait::MAX_BLOCK.as_millis();
        assert!(strings.arms() as u128 <= most, "{} times within {most}", strings.arms());
        strings.end(0, Status::Success);
        assert_eq!(waiter.join().unwrap(), Ok(()));
    });
}

#[test]
fn a_wait_that_may_not_block_asks_for_no_event() {
    for wait in [Wait::Spin, Wait::Yield { spin: Duration::ZERO }, Wait::Yield { spin: TIMEOUT }] {
        let (channel, strings) = Puppet::with_event();
        let mut queue: Copies = Queue::new(channel);
        queue.copy(strings.memory(b"from"), strings.memory(b"to.."), 0).unwrap();
        strings.end_after_polls(100);
        queue.wait_with(wait, TIMEOUT, drop).unwrap();
        assert_eq!(strings.arms(), 0, "{wait:?}");
    }
}

/// What becomes of a token of a pool whose operation is in flight.
#[test]
fn pool_tokens_go_back_when_the_engine_is_through_with_them() {
    type Tokens = Queue<PacketBuf, DmaBuf, ()>;
    type End = fn(Tokens, &Strings);
    let cases: [(&str, usize, End); 8] = [
        ("completion", 2, |mut queue, strings| {
            strings.end(0, Status::Success);
            queue.poll(drop);
            assert!(queue.is_idle());
        }),
        ("failure", 2, |mut queue, strings| {
            strings.end(0, Status::ReadError);
            queue.poll(drop);
            assert!(queue.is_idle());
        }),
        ("completion that is kept", 1, |mut queue, strings| {
            strings.end(0, Status::Success);
            queue.poll(std::mem::forget);
        }),
        ("termination", 2, |mut queue, _| queue.terminate_sync(TIMEOUT, drop).unwrap()),
        ("drop", 2, |queue, _| drop(queue)),
        ("drop while stuck", 1, |queue, strings| {
            strings.set_stuck(true);
            drop(queue);
        }),
        ("termination while stuck, then not", 2, |mut queue, strings| {
            strings.set_stuck(true);
            assert_eq!(queue.terminate_sync(TIMEOUT, drop), Err(Stuck));
            assert_eq!(queue.in_flight(), 1);
            strings.set_stuck(false);
            queue.terminate_sync(TIMEOUT, drop).unwrap();
        }),
        ("forgotten queue", 1, |queue, _| std::mem::forget(queue)),
    ];
    for (case, left, end) in cases {
        let arena = Arena::new(1 << 16).unwrap();
        let pool = PacketPool::new(&arena, 64, 2).unwrap();
        let (channel, strings) = Puppet::channel();
        let mut queue: Tokens = Queue::new(channel);
        let packet = pool.take().unwrap().freeze(64);
        let shared = packet.clone();
        queue.copy(packet, arena.alloc(64).unwrap(), ()).unwrap();
        queue.issue_pending();
        drop(shared);
        assert_eq!(pool.available(), 1, "{case}: in flight");
        end(queue, &strings);
        assert_eq!(pool.available(), left, "{case}");
    }
}

#[test]
fn lists_go_in_and_come_out() {
    let channel = || CpuDevice::new(1).request_channel(0).unwrap();
    let mut lists: Queue<Vec<Vec<u8>>, Vec<Vec<u8>>, ()> = Queue::new(channel());
    let bytes = |len, value| vec![value; len];
    let refused = lists
        .copy_sg(vec![bytes(3, 1)], vec![bytes(1, 0), bytes(1, 0)], Flags::empty(), ())
        .unwrap_err();
    assert_eq!(refused.error, SubmitError::LengthMismatch { source_len: 3, target_len: 2 });
    assert_eq!((refused.source.len(), refused.target.len()), (1, 2));
    let empty = lists.copy_sg(vec![], vec![], Flags::empty(), ()).unwrap_err();
    assert_eq!(empty.error, SubmitError::ZeroLength);
    lists
        .copy_sg(vec![bytes(3, 1), bytes(2, 2)], vec![bytes(1, 0), bytes(4, 0)], Flags::FENCE, ())
        .unwrap();
    lists.wait(TIMEOUT, |done| assert_eq!(done.target, [vec![1], vec![1, 1, 2, 2]])).unwrap();

    let mut stripes: Queue<Vec<Vec<u8>>, Syndromes<Vec<u8>>, u32> = Queue::new(channel());
    let sources = || vec![bytes(8, 0x11), bytes(8, 0x22), bytes(8, 0x44)];
    let both = || Syndromes { p: Some(bytes(8, 0)), q: Some(bytes(8, 0)) };
    let none = Flags::empty();
    let refused = stripes.xor(sources(), Syndromes::default(), none, 0).unwrap_err();
    assert_eq!(refused.error, SubmitError::NoTarget);
    let short = Syndromes { p: None, q: Some(bytes(7, 0)) };
    let refused = stripes.pq(sources(), &[1, 2, 4], short, none, 0).unwrap_err();
    let short = |argument, len| SubmitError::UnequalLengths { argument, len, first_len: 8 };
    assert_eq!(refused.error, short(Argument::Q, 7));
    let uneven = vec![bytes(8, 0), bytes(9, 0)];
    let refused = stripes.xor_val(uneven, Syndromes::default(), none, 0).unwrap_err();
    assert_eq!(refused.error, short(Argument::Source(1), 9));
    assert_eq!(
        refused.error.to_string(),
        "source 1 has 9 bytes and the first source 8; they must be equal"
    );
    let short_p = || Syndromes { p: Some(bytes(7, 0)), q: None };
    let refused = stripes.xor(sources(), short_p(), none, 0).unwrap_err();
    assert_eq!(refused.error, short(Argument::P, 7));
    let refused = stripes.xor_val(sources(), short_p(), none, 0).unwrap_err();
    assert_eq!(refused.error, short(Argument::P, 7));
    let nothing = stripes.xor_val(vec![], Syndromes::default(), none, 0).unwrap_err();
    assert!(matches!(nothing.error, SubmitError::SourceCount { sources: 0, .. }));
    let refused = stripes.pq(sources(), &[1, 2], both(), none, 0).unwrap_err();
    assert_eq!(refused.error, SubmitError::CoefficientCount { sources: 3, coefficients: 2 });

    stripes.xor(sources(), both(), none, 0).unwrap();
    stripes.pq(sources(), &[1, 2, 4], both(), none, 1).unwrap();
    let mut ended = Vec::new();
    stripes.wait(TIMEOUT, |done| ended.push((done.tag, done.status, done.target))).unwrap();
    let p = Some(bytes(8, 0x77));
    assert_eq!(ended[0], (0, Status::Success, Syndromes { p: p.clone(), q: Some(bytes(8, 0)) }));
    let (1, Status::Success, syndromes) = ended.pop().unwrap() else { panic!("pq") };
    assert_eq!(syndromes.p, p);

    let mut wrong = syndromes.clone();
    wrong.q.as_mut().unwrap()[7] ^= 1;
    stripes.pq_val(sources(), &[1, 2, 4], syndromes.clone(), none, 2).unwrap();
    stripes.pq_val(sources(), &[1, 2, 4], wrong, none, 3).unwrap();
    stripes.xor_val(sources(), syndromes, none, 4).unwrap();
    stripes.xor_val(sources(), Syndromes::default(), none, 5).unwrap();
    let alone = Syndromes { p: Some(bytes(8, 1)), q: None };
    stripes.xor_val(vec![], alone, none, 6).unwrap();
    let mut ended = Vec::new();
    stripes.wait(TIMEOUT, |done| ended.push((done.tag, done.status))).unwrap();
    let (p, q) = (Status::MismatchP, Status::MismatchQ);
    let expected = [Status::Success, q, Status::Success, p, p];
    assert_eq!(ended, [2, 3, 4, 5, 6].into_iter().zip(expected).collect::<Vec<_>>());
}

#[test]
fn a_list_that_is_dropped_with_its_queue_waits_for_the_engine() {
    let (channel, strings) = Puppet::channel();
    let mut queue = Queue::new(channel);
    let memory = || strings.memory(b"four");
    queue.copy_sg(vec![memory(), memory()], vec![memory(), memory()], Flags::empty(), ()).unwrap();
    strings.set_stuck(true);
    drop(queue);
    assert_eq!(strings.dropped(), (0, 0));
}
