//! Lending a borrowed buffer to an engine for the length of one call.

use std::{
    fmt,
    marker::PhantomData,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use super::DmaTarget;

/// How long [`lend`] waits, after its closure, for pieces that are still out. The closure itself is
/// where completions are waited for, with deadlines; what is left here is an engine that could not
/// be proven idle.
const RECLAIM_TIMEOUT: Duration = Duration::from_secs(5);

/// A piece of a buffer that was lent by [`lend`]: exclusive access to `len` bytes.
///
/// Pieces are split, handed to an engine, and dropped. The `lend` call they come from does not
/// return before the last one is gone.
pub struct Target {
    pointer: NonNull<u8>,
    len: usize,
    /// Counts the pieces that exist. Lives in the frame of `lend`, which outlives them all.
    pieces: NonNull<AtomicUsize>,
    /// A piece stands for a `&mut [u8]`.
    _bytes: PhantomData<*mut [u8]>,
}

// SAFETY: a piece is exclusive access to plain bytes; the counter is atomic.
unsafe impl Send for Target {}

// SAFETY: `as_mut` gives the bytes that the piece stands for. They stay valid and are reachable
// through this piece alone until it is dropped, because `lend` holds the caller's exclusive borrow
// until then. The fields are raw pointers: moving the piece asserts nothing about the bytes.
unsafe impl DmaTarget for Target {}

impl Target {
    /// The length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Splits off the first `at` bytes; `self` keeps the rest.
    ///
    /// # Panics
    ///
    /// If `at` is greater than the length.
    #[must_use]
    pub fn split_to(&mut self, at: usize) -> Self {
        assert!(at <= self.len, "split at {at} of a piece of {} bytes", self.len);
        // SAFETY: the counter outlives every piece, this one included.
        // Relaxed: a new piece comes from one that exists, so the count cannot reach zero meanwhile.
        unsafe { self.pieces.as_ref() }.fetch_add(1, Ordering::Relaxed);
        let front =
            Self { pointer: self.pointer, len: at, pieces: self.pieces, _bytes: PhantomData };
        // SAFETY: `at <= len`, so the result stays within the lent buffer or one past its end.
        self.pointer = unsafe { self.pointer.add(at) };
        self.len -= at;
        front
    }
}

impl AsMut<[u8]> for Target {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY:
        // - valid: `lend`'s borrow covers these bytes and outlives this piece;
        // - exclusive: pieces are disjoint by `split_to`, and the caller's reference is not used
        //   while pieces exist. An engine writes only through pieces that its queue owns.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // SAFETY: the counter outlives every piece, this one included; it is not touched after the
        // decrement.
        // Release: what was done with the bytes comes before `lend`'s acquire load of zero.
        unsafe { self.pieces.as_ref() }.fetch_sub(1, Ordering::Release);
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("pointer", &self.pointer).field("len", &self.len).finish()
    }
}

/// Lends `buffer` to `body` as a [`Target`] that can be split and handed to engines, and returns
/// only when every piece has been dropped, also when `body` panics.
///
/// This is a scope in the sense of [`std::thread::scope`], for memory instead of threads. `body` is
/// expected to wait for the operations that it started. If pieces are still out five seconds after
/// it ended, the engine that holds them could not be stopped, and there is no state in which the
/// buffer could be given back: **the process aborts**. Forgetting a piece has the same end.
///
/// ```
/// use dmaengine::lend;
///
/// let mut buffer = [0u8; 8];
/// lend(&mut buffer, |mut target| {
///     let mut front = target.split_to(3);
///     front.as_mut().copy_from_slice(b"abc");
/// });
/// assert_eq!(&buffer, b"abc\0\0\0\0\0");
/// ```
pub fn lend<R>(buffer: &mut [u8], body: impl FnOnce(Target) -> R) -> R {
    /// Waits in `drop`, so that unwinding joins as well. It borrows the counter, because `drop`'s
    /// `&mut self` would claim a counter of its own while pieces on other threads still count.
    struct Join<'a>(&'a AtomicUsize);

    impl Drop for Join<'_> {
        fn drop(&mut self) {
            // Acquire: pairs with the release of each piece's drop.
            if self.0.load(Ordering::Acquire) == 0 {
                return;
            }
            let deadline = Instant::now() + RECLAIM_TIMEOUT;
            while self.0.load(Ordering::Acquire) != 0 {
                if Instant::now() >= deadline {
                    abort_for_memory();
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    let pieces = AtomicUsize::new(1);
    let _join = Join(&pieces);
    let len = buffer.len();
    body(Target {
        pointer: NonNull::from(&mut *buffer).cast(),
        len,
        pieces: NonNull::from(&pieces),
        _bytes: PhantomData,
    })
}

/// What is left when borrowed memory must be given back and an engine still has it.
pub(crate) fn abort_for_memory() -> ! {
    eprintln!(
        "dmaengine: an engine still owns memory that must be given back and could not be stopped; \
         aborting rather than let it write freed memory"
    );
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_disjoint_and_in_order() {
        let mut buffer = [0u8; 10];
        lend(&mut buffer, |mut rest| {
            let mut a = rest.split_to(4);
            let mut b = rest.split_to(0);
            let mut c = rest.split_to(6);
            assert!(rest.is_empty() && b.is_empty());
            a.as_mut().fill(1);
            b.as_mut().fill(2);
            c.as_mut().fill(3);
        });
        assert_eq!(buffer, [1, 1, 1, 1, 3, 3, 3, 3, 3, 3]);
    }

    #[test]
    fn returns_only_when_a_piece_on_another_thread_is_gone() {
        let mut buffer = vec![0u8; 1024];
        let handle = lend(&mut buffer, |mut target| {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                target.as_mut().fill(7);
            })
        });
        assert!(buffer.iter().all(|&byte| byte == 7));
        handle.join().unwrap();
    }

    #[test]
    fn joins_when_the_body_panics() {
        let mut buffer = vec![0u8; 64];
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            lend(&mut buffer, |mut target| {
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(20));
                    target.as_mut().fill(9);
                });
                panic!("body");
            })
        }));
        assert!(unwound.is_err());
        assert!(buffer.iter().all(|&byte| byte == 9));
    }
}
