//! Owned buffers of which pieces are out.

use std::{
    fmt,
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{DmaTarget, Target, lend::Pieces};

/// A buffer that is filled in pieces: several engines, or several operations of one, may write it at
/// once, each its part.
///
/// Where [`lend`](crate::lend) waits for the last piece, a loan is asked whether it
/// [is back](Self::is_back). Whoever drops it gives the buffer up, which is freed with the last
/// piece. Forgetting one leaks it.
///
/// ```
/// use dmaengine::Loan;
///
/// let (loan, mut rest) = Loan::new(vec![0; 8]);
/// let mut front = rest.split_to(3);
/// front.as_mut().copy_from_slice(b"abc");
/// drop(front);
/// let loan = loan.into_inner().expect_err("the rest is still out");
/// drop(rest);
/// assert_eq!(loan.into_inner().unwrap(), b"abc\0\0\0\0\0");
/// ```
pub struct Loan<B: DmaTarget> {
    shared: NonNull<Shared<B>>,
    _owned: PhantomData<B>,
}

/// The buffer, with the count of its pieces.
#[repr(C)]
struct Shared<B> {
    /// First, so that a pointer to it is one to the whole.
    pieces: Pieces,
    buffer: B,
}

// SAFETY: `B` is `Send`, and is dropped or given out by whoever is the last to be counted. The count
// is atomic.
unsafe impl<B: DmaTarget> Send for Loan<B> {}

impl<B: DmaTarget> Loan<B> {
    /// Lends `buffer`, all of it in one piece.
    #[must_use]
    pub fn new(mut buffer: B) -> (Self, Target) {
        let bytes = buffer.as_mut();
        let (pointer, len) = (NonNull::from(&mut *bytes).cast(), bytes.len());
        // The loan and the piece.
        let pieces = Pieces { count: AtomicUsize::new(2), free: Some(free::<B>) };
        let shared = NonNull::from(Box::leak(Box::new(Shared { pieces, buffer })));
        // SAFETY:
        // - by the promise of `DmaTarget` the bytes stay where they are, valid, and reachable
        //   through the buffer alone, which is not touched while a piece is counted;
        // - the count says two.
        let target = unsafe { Target::new(pointer, len, shared.cast()) };
        (Self { shared, _owned: PhantomData }, target)
    }

    /// Whether no piece is out.
    #[must_use]
    pub fn is_back(&self) -> bool {
        // SAFETY: the loan is counted, so it exists. Nobody has a `&mut` to the count.
        let count = unsafe { &(*self.shared.as_ptr()).pieces.count };
        // Acquire: what was done with each piece comes before its release.
        count.load(Ordering::Acquire) == 1
    }

    /// The buffer.
    ///
    /// # Errors
    ///
    /// The loan, if a piece of it is still out.
    pub fn into_inner(self) -> Result<B, Self> {
        if !self.is_back() {
            return Err(self);
        }
        let this = ManuallyDrop::new(self);
        // SAFETY: it came out of a `Box`. The loan is the only one that is counted, and pieces come
        // only from pieces, so nobody else will touch it.
        let shared = unsafe { Box::from_raw(this.shared.as_ptr()) };
        Ok(shared.buffer)
    }
}

/// Frees a buffer whose loan and pieces are all gone.
///
/// # Safety
///
/// `pieces` is the beginning of a `Shared<B>` out of a `Box`, that nobody uses any more.
unsafe fn free<B>(pieces: NonNull<Pieces>) {
    // SAFETY: by the caller's promise.
    drop(unsafe { Box::from_raw(pieces.cast::<Shared<B>>().as_ptr()) });
}

impl<B: DmaTarget> Drop for Loan<B> {
    fn drop(&mut self) {
        // SAFETY: the loan was counted.
        unsafe { Pieces::release(self.shared.cast()) };
    }
}

impl<B: DmaTarget> fmt::Debug for Loan<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").field("is_back", &self.is_back()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arena, DmaBuf};
    use std::thread;

    #[test]
    fn the_buffer_comes_back_with_what_all_pieces_wrote() {
        let (loan, mut rest) = Loan::new(vec![0u8; 10]);
        let pieces = [rest.split_to(4), rest.split_to(0), rest];
        thread::scope(|scope| {
            for (n, mut piece) in pieces.into_iter().enumerate() {
                scope.spawn(move || piece.as_mut().fill(n as u8 + 1));
            }
        });
        assert!(loan.is_back());
        assert_eq!(loan.into_inner().unwrap(), [1, 1, 1, 1, 3, 3, 3, 3, 3, 3]);
    }

    #[test]
    fn whoever_is_last_frees_the_buffer() {
        let arena = Arena::new(4096).unwrap();
        let alloc = || arena.alloc(4096).expect("it was freed");
        // The piece.
        let (loan, piece) = Loan::new(alloc());
        drop(loan);
        assert!(arena.alloc(4096).is_err(), "a piece is out");
        drop(piece);
        // The loan.
        let (loan, piece) = Loan::new(alloc());
        drop(piece);
        assert!(arena.alloc(4096).is_err(), "the loan has it");
        drop(loan);
        // Whoever got it.
        let (loan, piece) = Loan::new(alloc());
        drop(piece);
        let buffer: DmaBuf = loan.into_inner().unwrap();
        assert!(arena.alloc(4096).is_err());
        drop(buffer);
        drop(alloc());
    }

    #[test]
    fn an_empty_buffer_is_lent_as_well() {
        let (loan, piece) = Loan::new(Vec::new());
        assert!(piece.is_empty() && !loan.is_back());
        drop(piece);
        assert_eq!(loan.into_inner().unwrap(), []);
    }
}
