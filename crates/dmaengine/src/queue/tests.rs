use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::*;
use crate::{Capabilities, DmaChannel, Kind};

/// What a [`Puppet`] was told, and is to do.
#[derive(Debug, Default)]
struct Strings {
    /// Cookies of the operations to come, last first.
    cookies: Vec<Cookie>,
    /// Operations that the engine has got.
    submitted: usize,
    /// Reported by the next poll.
    ended: Vec<Cookie>,
}

/// A channel that does what the test says, right or wrong, and moves nothing.
#[derive(Debug)]
struct Puppet {
    info: ChannelInfo,
    strings: Arc<Mutex<Strings>>,
}

impl Puppet {
    fn queue<S: DmaSource, D: DmaTarget>(
        cookies: &[Cookie],
    ) -> (Queue<S, D, ()>, Arc<Mutex<Strings>>) {
        let info = ChannelInfo {
            capabilities: Capabilities::MEMCPY | Capabilities::MEMSET,
            ordering: crate::Ordering::OutOfOrder,
            ring_size: 8,
            ..ChannelInfo::new("puppet", Kind::Software)
        };
        let cookies = cookies.iter().rev().copied().collect();
        let strings = Arc::new(Mutex::new(Strings { cookies, ..Strings::default() }));
        let puppet = Self { info, strings: Arc::clone(&strings) };
        (Queue::new(Box::new(puppet) as Box<dyn DmaChannel>), strings)
    }

    fn next_cookie(&self) -> Result<Cookie, SubmitError> {
        let mut strings = self.strings.lock().unwrap();
        let cookie = strings.cookies.pop().ok_or(SubmitError::RingFull)?;
        strings.submitted += 1;
        Ok(cookie)
    }
}

// SAFETY: there is no engine that could touch anything. The cookies may be wrong: that is tested.
unsafe impl DmaChannel for Puppet {
    fn info(&self) -> &ChannelInfo {
        &self.info
    }

    fn space(&self) -> usize {
        self.strings.lock().unwrap().cookies.len()
    }

    unsafe fn submit(&mut self, _: &Operation<'_>, _: Flags) -> Result<Cookie, SubmitError> {
        self.next_cookie()
    }

    fn issue_pending(&mut self) {}

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        let ended = std::mem::take(&mut self.strings.lock().unwrap().ended);
        for cookie in ended {
            report(Completion::success(cookie, 0));
        }
    }

    fn arm(&mut self) -> bool {
        false
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn terminate_sync(&mut self, _timeout: Duration) -> Result<(), Stuck> {
        Ok(())
    }
}

/// A target that counts how often one was given up.
#[derive(Debug)]
struct Counted {
    bytes: Vec<u8>,
    dropped: Arc<AtomicUsize>,
}

impl AsMut<[u8]> for Counted {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Relaxed: one thread.
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: the bytes are those of a vector that is not touched while the value exists.
unsafe impl DmaTarget for Counted {}

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

    let (mut queue, strings) = Puppet::queue::<Moody, Vec<u8>>(&[Cookie::FIRST]);
    assert!(catch_unwind(AssertUnwindSafe(|| queue.fill(7, vec![0; 8], ()))).is_err());
    assert_eq!(strings.lock().unwrap().submitted, 0, "its target is gone");
    assert!(queue.is_idle());
}

#[test]
fn cookies_may_start_anywhere() {
    let seventh = (0..6).fold(Cookie::FIRST, |cookie, _| cookie.next());
    let cookies = [seventh, seventh.next(), seventh.next().next()];
    let (mut queue, strings) = Puppet::queue::<Vec<u8>, Vec<u8>>(&cookies);
    for _ in 0..3 {
        queue.copy(vec![1], vec![0], ()).unwrap();
    }
    strings.lock().unwrap().ended = vec![Cookie::FIRST, cookies[1], cookies[0]];
    let mut ended = Vec::new();
    assert_eq!(queue.poll(|done| ended.push(done.cookie)), 2);
    assert_eq!(ended, [cookies[1], cookies[0]]);
    assert_eq!((queue.in_flight(), queue.spurious_completions()), (1, 1));
}

#[test]
fn a_driver_that_skips_a_cookie_gets_no_memory_freed() {
    let third = Cookie::FIRST.next().next();
    for wrong in [Cookie::FIRST, third] {
        let (mut queue, strings) = Puppet::queue::<Vec<u8>, Counted>(&[Cookie::FIRST, wrong]);
        let dropped = Arc::new(AtomicUsize::new(0));
        let target = || Counted { bytes: vec![0], dropped: Arc::clone(&dropped) };
        queue.copy(vec![1], target(), ()).unwrap();
        let panic = catch_unwind(AssertUnwindSafe(|| queue.copy(vec![1], target(), ())));
        let message = *panic.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("cookies are consecutive"), "{message}");

        strings.lock().unwrap().ended = vec![third];
        assert_eq!(queue.poll(drop), 0, "whose memory that is, nobody knows");
        drop(queue);
        // Relaxed: one thread.
        assert_eq!(dropped.load(Ordering::Relaxed), 1, "the first ended with its queue");
    }
}
