mod batches;
mod deadlines;
mod kinds;
mod panics;

use std::{
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Wake, Waker},
};

use super::*;
use crate::{
    CpuDevice, DmaDevice, Status, SubmitError, ThreadsDevice, ThreadsOptions,
    fork::child::in_child,
    puppet::{Memory, Puppet, Strings},
};

const TIMEOUT: Duration = Duration::from_secs(10);
/// For copies that never end.
const SHORT: Duration = Duration::from_millis(5);

/// Waits for what another thread does, by looking: there is nothing else to see it by.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < TIMEOUT, "{what}");
        std::thread::yield_now();
    }
}

/// Tells a test when it was woken.
struct Bell(mpsc::Sender<()>);

impl Bell {
    fn hang() -> (Waker, mpsc::Receiver<()>) {
        let (sender, receiver) = mpsc::channel();
        (Waker::from(Arc::new(Self(sender))), receiver)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // The test may have seen enough.
        let _ = self.0.send(());
    }
}

/// Runs one future; it must wake its task, in time.
fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    let (waker, bell) = Bell::hang();
    loop {
        match Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => bell.recv_timeout(TIMEOUT).expect("to be woken"),
        }
    }
}

fn is_pending<F: Future + Unpin>(future: &mut F, waker: &Waker) -> bool {
    Pin::new(future).poll(&mut Context::from_waker(waker)).is_pending()
}

type Memories = Copier<Memory, Memory>;

fn puppets() -> [(Channel, Strings); 2] {
    [Puppet::channel(), Puppet::with_event()]
}

fn copy(copier: &Memories, strings: &Strings) -> Copying<Memory, Memory> {
    copier.copy(strings.memory(b"from"), strings.memory(b"to.."))
}

#[test]
fn many_threads_and_tasks_share_a_channel() {
    const THREADS: u8 = if cfg!(miri) { 2 } else { 4 };
    const ROUNDS: u8 = if cfg!(miri) { 4 } else { 200 };
    let options = ThreadsOptions { ring_size: 4, ..ThreadsOptions::default() };
    let threads = ThreadsDevice::with_options(options);
    let cpu = CpuDevice::new(1);
    for device in [&threads as &dyn DmaDevice, &cpu] {
        let copier = Copier::new(device.request_channel(0).unwrap(), TIMEOUT).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let copier = copier.clone();
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let start = |task| {
                            let source = vec![thread ^ round ^ task; 1 + usize::from(round) * 16];
                            let target = vec![0; source.len()];
                            copier.copy(source, target)
                        };
                        let copies: Vec<_> = (0..5).map(start).collect();
                        for (index, copy) in copies.into_iter().enumerate() {
                            let done = match index {
                                // Its memory must not come back as another's.
                                0 => continue,
                                1 | 2 => copy.wait(),
                                _ => block_on(copy),
                            };
                            let done = done.unwrap();
                            assert_eq!(done.status, Status::Success);
                            assert_eq!(done.source[0], thread ^ round ^ index as u8);
                            assert_eq!(done.target, done.source);
                        }
                    }
                });
            }
        });
        // Of those that were dropped some had no turn; all others end.
        let stats = copier.stats();
        eventually("all copies end", || stats.completed() == stats.submitted());
        let all = u64::from(THREADS) * u64::from(ROUNDS);
        assert!((all * 4..=all * 5).contains(&stats.ended(Status::Success)));
    }
}

#[test]
fn a_copy_is_under_way_before_its_future_is_polled() {
    let (channel, strings) = Puppet::channel();
    let copier = Memories::new(channel, TIMEOUT).unwrap();
    let copying = copy(&copier, &strings);
    assert_eq!((strings.in_ring(), strings.doorbells()), (1, 1));
    strings.end(0, Status::Success);
    assert_eq!(copying.wait().unwrap().target.as_ref(), b"from");
}

#[test]
fn a_sleeping_future_is_woken_by_the_reaper() {
    for (channel, strings) in puppets() {
        let copier = Memories::new(channel, TIMEOUT).unwrap();
        // Twice: the second time, the reaper has an old event behind it.
        for _ in 0..2 {
            let mut copying = copy(&copier, &strings);
            let (waker, bell) = Bell::hang();
            assert!(is_pending(&mut copying, &waker));
            assert!(bell.try_recv().is_err());
            strings.end(0, Status::Success);
            bell.recv_timeout(TIMEOUT).unwrap();
            assert!(!is_pending(&mut copying, &waker));
        }
    }
}

#[test]
fn whoever_polls_wakes_the_others() {
    let (channel, strings) = Puppet::channel();
    let copier = Memories::new(channel, TIMEOUT).unwrap();
    let mut copies = [copy(&copier, &strings), copy(&copier, &strings)];
    let bells = [Bell::hang(), Bell::hang()];
    // A waker is replaced by the last one.
    let (old, silent) = Bell::hang();
    assert!(is_pending(&mut copies[1], &old));
    for (copying, (waker, _)) in copies.iter_mut().zip(&bells) {
        assert!(is_pending(copying, waker));
    }
    strings.end(1, Status::Success);
    assert!(is_pending(&mut copies[0], &bells[0].0));
    bells[1].1.recv_timeout(TIMEOUT).unwrap();
    assert!(silent.try_recv().is_err() && bells[0].1.try_recv().is_err());
}

#[test]
fn a_blocked_thread_gets_its_end() {
    for (channel, strings) in puppets() {
        let copier = Memories::new(channel, TIMEOUT).unwrap();
        let copying = copy(&copier, &strings);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| copying.wait());
            strings.end(0, Status::WriteError);
            assert_eq!(waiting.join().unwrap().unwrap().status, Status::WriteError);
        });
    }
}

#[test]
fn dropping_a_future_frees_its_memory_at_the_end_of_the_copy() {
    for (channel, strings) in puppets() {
        let copier = Memories::new(channel, TIMEOUT).unwrap();
        let (waker, _bell) = Bell::hang();
        let mut polled = copy(&copier, &strings);
        assert!(is_pending(&mut polled, &waker));
        drop(polled);
        drop(copy(&copier, &strings));
        assert_eq!((strings.in_ring(), strings.dropped()), (2, (0, 0)), "nothing is cancelled");
        strings.end(0, Status::Success);
        strings.end(1, Status::Success);
        eventually("the reaper frees it", || strings.dropped() == (4, 0));
        assert_eq!(strings.terminations(), 0);

        let ended = copy(&copier, &strings);
        strings.end(0, Status::Success);
        let other = copy(&copier, &strings);
        drop(ended);
        drop(other);
        strings.end_after_polls(0);
        eventually("the reaper frees it", || strings.dropped() == (8, 0));
    }
}

#[test]
fn forgetting_a_future_leaks_its_memory_and_harms_nobody() {
    for (channel, strings) in puppets() {
        let copier = Memories::new(channel, TIMEOUT).unwrap();
        std::mem::forget(copy(&copier, &strings));
        let copying = copy(&copier, &strings);
        strings.end(0, Status::Success);
        strings.end(1, Status::Success);
        assert_eq!(copying.wait().unwrap().status, Status::Success);
        assert_eq!(strings.dropped(), (2, 0));
    }
}

#[test]
fn memory_of_an_engine_that_does_not_stop_stays_until_it_comes_back() {
    for (channel, strings) in puppets() {
        let copier = Memories::new(channel, SHORT).unwrap();
        strings.set_stuck(true);
        assert!(matches!(block_on(copy(&copier, &strings)), Err(CopyError::Stuck)));
        assert_eq!((strings.dropped(), strings.in_ring()), ((0, 0), 1));

        // The slot is used again, by a copy that must not get the old one's end.
        let (source, target) = (strings.memory(b"from"), strings.memory(b"to.."));
        let mut copying = copier.copy_with(source, target, TIMEOUT);
        strings.end(0, Status::Success);
        eventually("the reaper frees it", || strings.dropped() == (2, 0));
        let (waker, _bell) = Bell::hang();
        assert!(is_pending(&mut copying, &waker));
        strings.end(0, Status::Success);
        assert_eq!(copying.wait().unwrap().status, Status::Success);
    }
}

#[test]
fn the_channel_goes_with_the_last_user_when_nothing_is_in_flight() {
    for (channel, strings) in puppets() {
        let copier = Memories::new(channel, TIMEOUT).unwrap();
        let handle = Arc::downgrade(&copier.handles.core);
        let copying = copy(&copier, &strings);
        drop((copier.clone(), copier));
        strings.end(0, Status::Success);
        let (waker, _bell) = Bell::hang();
        assert!(!is_pending(&mut { copying }, &waker), "a future is a user");
        eventually("the reaper ends", || handle.strong_count() == 0);
    }
}

#[test]
fn copies_in_flight_outlive_the_last_user() {
    for (channel, strings) in puppets() {
        let copier = Memories::new(channel, TIMEOUT).unwrap();
        let handle = Arc::downgrade(&copier.handles.core);
        drop(copy(&copier, &strings));
        drop(copier);
        assert_eq!(strings.dropped(), (0, 0));
        strings.end(0, Status::Success);
        eventually("the reaper ends", || handle.strong_count() == 0);
        assert_eq!((strings.dropped(), strings.terminations()), ((2, 0), 0));
    }
}

#[test]
fn an_engine_that_does_not_stop_keeps_its_channel() {
    let (channel, strings) = Puppet::channel();
    let copier = Memories::new(channel, SHORT).unwrap();
    let handle = Arc::downgrade(&copier.handles.core);
    strings.set_stuck(true);
    let copying = copy(&copier, &strings);
    drop(copier);
    assert!(matches!(copying.wait(), Err(CopyError::Stuck)));
    // Before that it has tried often, and never for so long: others wait for the lock.
    eventually("the reaper tries for the last time", || strings.patience() >= TIMEOUT / 10);
    // What it leaks: everything.
    assert_eq!((strings.dropped(), handle.strong_count()), ((0, 0), 1));
}

#[test]
fn a_full_ring_makes_copies_wait_for_their_turn() {
    let (channel, strings) = Puppet::with_ring(2);
    let copier = Memories::new(channel, TIMEOUT).unwrap();
    let mut copies: Vec<_> = (0..5).map(|_| copy(&copier, &strings)).collect();
    assert_eq!(strings.in_ring(), 2);
    // One that is given up has no turn, and its memory is free at once.
    drop(copies.remove(2));
    assert_eq!(strings.dropped(), (2, 0));
    strings.end(0, Status::Success);
    let first = copies.remove(0);
    assert_eq!(first.wait().unwrap().status, Status::Success);
    assert_eq!(strings.in_ring(), 2);
    strings.end_after_polls(0);
    for copying in copies {
        assert_eq!(block_on(copying).unwrap().status, Status::Success);
    }
    assert_eq!(strings.cookies(), []);
}

#[test]
fn a_ring_that_stays_full_refuses_at_the_deadline() {
    let (channel, strings) = Puppet::with_ring(1);
    let copier = Memories::new(channel, TIMEOUT).unwrap();
    let _first = copy(&copier, &strings);
    let (source, target) = (strings.memory(b"from"), strings.memory(b"to.."));
    let second = block_on(copier.copy_with(source, target, SHORT));
    let Err(CopyError::Refused(refused)) = second else { panic!("{second:?}") };
    assert_eq!(refused.error, SubmitError::RingFull);
    assert_eq!((strings.terminations(), strings.in_ring()), (0, 1), "the first is not disturbed");
    strings.end(0, Status::Success);
}

#[test]
fn what_is_refused_comes_back_at_once() {
    let (channel, strings) = Puppet::channel();
    let copier = Memories::new(channel, TIMEOUT).unwrap();
    let refused = copier.copy(strings.memory(b"from"), strings.memory(b"to")).wait().unwrap_err();
    let CopyError::Refused(Refused { error, source, .. }) = refused else { panic!("{refused}") };
    assert_eq!(error, SubmitError::LengthMismatch { source_len: 4, target_len: 2 });
    assert_eq!((source.as_ref(), strings.doorbells()), (&b"from"[..], 0));
}

#[test]
fn ends_that_are_reported_twice_or_under_a_wrong_name_end_nothing() {
    let (channel, strings) = Puppet::channel();
    let copier = Memories::new(channel, TIMEOUT).unwrap();
    let first = copy(&copier, &strings);
    let mut second = copy(&copier, &strings);
    let [one, two] = strings.cookies()[..] else { panic!("two are in flight") };
    strings.end(0, Status::Success);
    [one, one, two.next()].into_iter().for_each(|cookie| strings.lie(cookie));
    assert_eq!(first.wait().unwrap().status, Status::Success);
    let (waker, _bell) = Bell::hang();
    assert!(is_pending(&mut second, &waker));
    assert_eq!(strings.dropped(), (2, 0));
    strings.end(0, Status::Success);
    assert_eq!(second.wait().unwrap().status, Status::Success);
}

#[test]
fn wakers_may_own_futures_of_the_same_copier() {
    /// A task as executors have it: the waker owns the future.
    struct Task(#[expect(dead_code)] Mutex<Option<Copying<Memory, Memory>>>);
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    let (channel, strings) = Puppet::channel();
    let copier = Memories::new(channel, TIMEOUT).unwrap();
    let task = || Waker::from(Arc::new(Task(Mutex::new(Some(copy(&copier, &strings))))));
    let (waker, _bell) = Bell::hang();
    let [mut a, mut b, mut c] = std::array::from_fn(|_| copy(&copier, &strings));
    // Each waker's last owner is the slot.
    assert!(
        is_pending(&mut a, &task()) && is_pending(&mut b, &task()) && is_pending(&mut c, &task())
    );
    assert!(is_pending(&mut a, &waker), "replaced");
    drop(b);
    strings.end(2, Status::Success);
    assert!(is_pending(&mut a, &waker), "woken, and dropped by that");
    strings.end_after_polls(0);
    assert_eq!(c.wait().unwrap().status, Status::Success);
    assert_eq!(a.wait().unwrap().status, Status::Success);
}

#[test]
fn a_waker_that_panics_does_not_keep_others_asleep() {
    struct Mine(AtomicUsize);
    impl Wake for Mine {
        fn wake(self: Arc<Self>) {
            // Relaxed: the bell orders it.
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("waker");
        }
    }

    let (channel, strings) = Puppet::with_event();
    let copier = Memories::new(channel, TIMEOUT).unwrap();
    let mine = Arc::new(Mine(AtomicUsize::new(0)));
    let (waker, bell) = Bell::hang();
    let mut first = copy(&copier, &strings);
    let mut second = copy(&copier, &strings);
    assert!(is_pending(&mut first, &Waker::from(Arc::clone(&mine))));
    assert!(is_pending(&mut second, &waker));
    strings.end(0, Status::Success);
    strings.end(1, Status::Success);
    bell.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(mine.0.load(Ordering::Relaxed), 1);
    assert_eq!(second.wait().unwrap().status, Status::Success);
}

#[test]
#[should_panic(expected = "polled after its end")]
fn a_future_ends_once() {
    let (channel, strings) = Puppet::channel();
    let copier = Memories::new(channel, TIMEOUT).unwrap();
    let mut copying = copy(&copier, &strings);
    strings.end(0, Status::Success);
    let (waker, _bell) = Bell::hang();
    assert!(!is_pending(&mut copying, &waker));
    let _ = is_pending(&mut copying, &waker);
}

#[test]
#[cfg_attr(miri, ignore = "no fork")]
fn a_forked_child_waits_for_nobody() {
    let copier = Copier::new(CpuDevice::new(1).request_channel(0).unwrap(), TIMEOUT).unwrap();
    let (waker, _bell) = Bell::hang();
    let buffers = || (vec![1u8; 4], vec![0u8; 4]);
    let [mut polled, dropped] = std::array::from_fn(|_| {
        let (source, target) = buffers();
        copier.copy(source, target)
    });
    let mut dropped = Some(dropped);
    let (source, target) = buffers();
    // As if the reaper, or another thread, was just in there.
    let lock = copier.handles.core.lock();
    let is_right = in_child(|| {
        let refused = copier.copy(source, target);
        let is_refused = matches!(&refused.progress, Progress::Refused(SubmitError::Forked, _));
        let polled = Pin::new(&mut polled).poll(&mut Context::from_waker(&waker));
        let is_stuck = matches!(&polled, Poll::Ready(Err(CopyError::Stuck)));
        drop((dropped.take(), copier.clone()));
        is_refused && is_stuck
    });
    drop(lock);
    assert!(is_right);
    assert_eq!(polled.wait().unwrap().target, [1; 4]);
}
