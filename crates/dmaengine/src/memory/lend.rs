//! Lending a borrowed buffer to an engine for the length of one call.

use std::{
    fmt,
    marker::PhantomData,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering, fence},
    time::{Duration, Instant},
};

use super::DmaTarget;

/// How long [`lend`] waits, after its closure, for pieces that are still out. The closure itself is
/// where completions are waited for, with deadlines; what is left here is an engine that could not
/// be proven idle.
const RECLAIM_TIMEOUT: Duration = Duration::from_secs(5);

/// What the pieces of a buffer share. It outlives them all.
#[derive(Debug)]
pub(super) struct Pieces {
    /// How many there are; the owner of a [`Loan`](super::Loan) counts as one.
    pub(super) count: AtomicUsize,
    /// Frees this, with the buffer, when the count has come to zero; `None` if the owner waits for
    /// that: then it is not touched any more.
    pub(super) free: Option<unsafe fn(NonNull<Self>)>,
}

impl Pieces {
    /// One piece less.
    ///
    /// # Safety
    ///
    /// The caller is, or was, one of those that are counted, and is counted no longer.
    pub(super) unsafe fn release(this: NonNull<Self>) {
        // SAFETY: the caller is counted, so it exists.
        let Self { count, free } = unsafe { this.as_ref() };
        let free = *free;
        // Release: what was done with the bytes comes before the acquire of who sees zero.
        if count.fetch_sub(1, Ordering::Release) == 1
            && let Some(free) = free
        {
            // Acquire: pairs with the release of every other piece.
            fence(Ordering::Acquire);
            // SAFETY: the last one is gone, and nobody waits to free it.
            unsafe { free(this) };
        }
    }
}

/// A piece of a buffer that was lent, by [`lend`] or in a [`Loan`](super::Loan): exclusive access to
/// `len` bytes.
///
/// Pieces are split, handed to an engine, and dropped. The `lend` call they come from does not
/// return, and the loan does not give the buffer back, before the last one is gone.
pub struct Target {
    pointer: NonNull<u8>,
    len: usize,
    /// Counts the pieces that exist.
    pieces: NonNull<Pieces>,
    /// A piece stands for a `&mut [u8]`.
    _bytes: PhantomData<*mut [u8]>,
}

// SAFETY: a piece is exclusive access to plain bytes; the counter is atomic.
unsafe impl Send for Target {}

// SAFETY: `as_mut` gives the bytes that the piece stands for. They stay valid and are reachable
// through this piece alone until it is dropped, because `lend` holds the caller's exclusive borrow
// until then, and a `Loan` its buffer. The fields are raw pointers: moving the piece asserts nothing about the bytes.
unsafe impl DmaTarget for Target {}

impl Target {
    /// The first piece of a buffer.
    ///
    /// # Safety
    ///
    /// The `len` bytes at `pointer` are valid for reads and writes and nobody else's until `pieces`,
    /// which counts this piece already, has come down to what it is without any.
    pub(super) const unsafe fn new(
        pointer: NonNull<u8>,
        len: usize,
        pieces: NonNull<Pieces>,
    ) -> Self {
        Self { pointer, len, pieces, _bytes: PhantomData }
    }

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
        unsafe { self.pieces.as_ref() }.count.fetch_add(1, Ordering::Relaxed);
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
        // - valid: `lend`'s borrow, or the loan's buffer, covers these bytes and outlives this piece;
        // - exclusive: pieces are disjoint by `split_to`, and the caller's reference is not used
        //   while pieces exist. An engine writes only through pieces that its queue owns.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // SAFETY: this piece was counted.
        unsafe { Pieces::release(self.pieces) };
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

    let pieces = Pieces { count: AtomicUsize::new(1), free: None };
    let _join = Join(&pieces.count);
    let len = buffer.len();
    // SAFETY: the caller's exclusive borrow lasts until this returns, and `_join` waits until the
    // count is zero; the one piece that is counted is this.
    body(unsafe { Target::new(NonNull::from(&mut *buffer).cast(), len, NonNull::from(&pieces)) })
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
