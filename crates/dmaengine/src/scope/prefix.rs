//! The part of a copy that is there already.

use std::{fmt, time::Duration};

use super::Scope;
use crate::{Status, Wait, queue::Waiting};

/// A view of a copy that is under way, from [`Scope::copy_segmented`]: its completed prefix can be
/// read, and nothing else of the target. Bytes of the prefix stay what they are; the engine does not
/// come back to them.
///
/// Dropping it, or forgetting it, changes nothing about the copy.
///
/// ```
/// use std::{num::NonZeroUsize, sync::Arc, time::Duration};
/// use dmaengine::{Registry, ThreadsDevice, scope};
///
/// let registry = Registry::new();
/// registry.register(Arc::new(ThreadsDevice::new(1)));
/// let mut channel = registry.request("dma0chan0")?;
/// let timeout = Duration::from_secs(5);
/// let segment_len = NonZeroUsize::new(64 << 10).expect("not zero");
///
/// let source = vec![1u8; 1 << 20];
/// let mut target = vec![0u8; 1 << 20];
/// let sum = scope(&mut channel, timeout, |scope| {
///     let mut prefix = scope.copy_segmented(&source, &mut target, segment_len).ok()?;
///     let mut sum = 0;
///     let mut used = 0;
///     while used < source.len() {
///         // Adds up what is there while the engine copies the rest.
///         let ready = prefix.wait_for(used + 1, timeout).ok()?;
///         sum += ready[used..].iter().map(|&byte| u64::from(byte)).sum::<u64>();
///         used = ready.len();
///     }
///     Some(sum)
/// })?;
/// assert_eq!(sum, Some(1 << 20));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Prefix<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    /// Which of the scope's copies in segments.
    copy: usize,
    target: *mut u8,
}

/// Why a copy in segments is not where it was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PrefixError {
    /// A segment failed; what is behind it is not copied.
    #[error(
        "a segment ended with: {status}; the {ready} bytes before it are there, copy the rest with \
         the CPU when the copy is over"
    )]
    Failed {
        /// How it ended.
        status: Status,
        /// The length of the prefix in bytes.
        ready: usize,
    },
    /// It takes longer.
    #[error(
        "only {ready} bytes were there in time: wait again, or leave the scope to end the copy"
    )]
    TimedOut {
        /// The length of the prefix in bytes.
        ready: usize,
    },
}

impl<'scope, 'env> Prefix<'scope, 'env> {
    pub(super) const fn new(
        scope: &'scope Scope<'scope, 'env>,
        copy: usize,
        target: *mut u8,
    ) -> Self {
        Self { scope, copy, target }
    }

    /// The prefix of the target that is there now. Looking at it also keeps the copy going.
    pub fn ready(&mut self) -> &[u8] {
        self.scope.state().running.advance();
        self.bytes()
    }

    /// Waits until at least `len` bytes are there, or the whole copy if that is less, and returns all
    /// that are.
    ///
    /// # Errors
    ///
    /// [`PrefixError`] if a segment before that failed, or it takes longer than `timeout`.
    pub fn wait_for(&mut self, len: usize, timeout: Duration) -> Result<&[u8], PrefixError> {
        let waiting = Waiting::new(Wait::default(), timeout);
        loop {
            let running = &mut self.scope.state().running;
            running.advance();
            let segments = running.segments(self.copy);
            let ready = segments.ready();
            if ready >= len.min(segments.len()) {
                break;
            }
            if let Some(status) = segments.failure() {
                return Err(PrefixError::Failed { status, ready });
            }
            if !waiting.pause(running.channel()) {
                return Err(PrefixError::TimedOut { ready });
            }
        }
        Ok(self.bytes())
    }

    /// Waits until the whole copy is there, and gives the target back to be used within the scope, to
    /// write to it or as a source.
    ///
    /// # Errors
    ///
    /// As for [`wait_for`](Self::wait_for). The target can then be used after the scope.
    pub fn finish(mut self, timeout: Duration) -> Result<&'env mut [u8], PrefixError> {
        let len = self.wait_for(usize::MAX, timeout)?.len();
        // SAFETY:
        // - valid: the scope was given this memory for `'env`;
        // - exclusive: all segments have ended, none is left to be submitted, and the view is gone
        //   with all that it gave out.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.target, len) })
    }

    fn bytes(&self) -> &[u8] {
        let ready = self.scope.state().running.segments(self.copy).ready();
        // SAFETY:
        // - valid: a prefix of what the scope was given for `'env`;
        // - unwritten: the segments of these bytes have ended with success, so the engine is through
        //   with them, and nobody else can write them while the view, or what it gave out, is used.
        unsafe { std::slice::from_raw_parts(self.target, ready) }
    }
}

impl fmt::Debug for Prefix<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.scope.state();
        f.debug_tuple("Prefix").field(state.running.segments(self.copy)).finish()
    }
}
