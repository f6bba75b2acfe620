//! Drivers that panic.

use super::*;

/// For operations that are late when a test says so.
const SOON: Duration = Duration::from_secs(100);

#[test]
fn who_polls_is_told_and_no_memory_goes() {
    for (channel, strings) in puppets() {
        let copier = Memories::new(channel, TIMEOUT).unwrap();
        let mut copying = copy(&copier, &strings);
        let (waker, _bell) = Bell::hang();
        // Until it is seen here: the reaper polls as well.
        strings.panic_in_poll(usize::MAX);
        let panic = catch_unwind(AssertUnwindSafe(|| is_pending(&mut copying, &waker)));
        strings.panic_in_poll(0);
        assert!(panic.is_err());
        assert_eq!((strings.in_ring(), strings.dropped()), (1, (0, 0)));

        // Copier and future are as good as before.
        strings.end(0, Status::Success);
        assert_eq!(copying.wait().unwrap().target.as_ref(), b"from");
        strings.end_after_polls(0);
        assert_eq!(block_on(copy(&copier, &strings)).unwrap().status, Status::Success);
        assert_eq!(strings.dropped().1, 0);
    }
}

#[test]
fn the_reaper_goes_on() {
    for (channel, strings) in puppets() {
        let copier = Memories::new(channel, TIMEOUT).unwrap();
        let mut copying = copy(&copier, &strings);
        let (waker, bell) = Bell::hang();
        assert!(is_pending(&mut copying, &waker));
        strings.panic_in_poll(usize::MAX);
        strings.end(0, Status::Success);
        // Nobody else polls.
        eventually("the reaper polls", || strings.panics_to_come() < usize::MAX);
        strings.panic_in_poll(0);
        bell.recv_timeout(TIMEOUT).expect("to be woken");
        assert!(!is_pending(&mut copying, &waker));
        assert_eq!(strings.dropped(), (2, 0));
    }
}

#[test]
fn a_deadline_is_kept_however_often_it_panics() {
    for (channel, strings) in puppets() {
        let copier = Memories::new(channel, SOON).unwrap();
        let mut copying = copy(&copier, &strings);
        let (waker, bell) = Bell::hang();
        assert!(is_pending(&mut copying, &waker));
        strings.panic_in_poll(usize::MAX);
        // The channel is stopped; what has ended there nobody can learn. So it is given up, as one
        // that does not stop.
        for late in [SOON, SOON + Duration::from_secs(2)] {
            copier.handles.core.with(|state| state.expire(Instant::now() + late));
        }
        bell.recv_timeout(TIMEOUT).expect("to be woken");
        strings.panic_in_poll(0);
        assert!(matches!(copying.wait(), Err(CopyError::Stuck)));
        eventually("the memory is free when the driver tells", || strings.dropped() == (2, 0));
    }
}
