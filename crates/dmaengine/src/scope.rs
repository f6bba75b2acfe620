//! Operations on borrowed memory, which end before the borrow does.
//!
//! # Model
//!
//! [`scope`] is [`std::thread::scope`] with an engine in place of threads. Within its closure,
//! operations on anything that outlives the call can be started; when the call returns, in whatever
//! way, none of them is in flight:
//!
//! ```text
//!   'env:    the buffers are borrowed ------------------------------------------------>
//!   'scope:      | scope(.., |scope| { copy, copy, xor, .. })    join |
//!                                                                     '-> statuses; buffers usable
//! ```
//!
//! # Invariants
//!
//! 1. An operation reads memory that is shared for `'env`, and writes memory that was exclusive for
//!    `'env` and was given up: neither can be touched or freed otherwise before `'env` ends.
//! 2. `'env` does not end before [`scope`] returns, and `scope` returns, or unwinds, only after the
//!    channel reported every operation or was proven idle. If neither can be reached, the process
//!    aborts: there is no state in which the buffers could be given back.
//! 3. What leaves the closure cannot change that: the state is in `scope`'s frame, and a
//!    [`Scope`] or a [`Prefix`] cannot outlive it or move to another thread. Forgetting a handle
//!    forgets nothing but the handle.
//! 4. A child that is forked within a scope has a copy of the buffers which no engine writes. Its
//!    copy of the scope ends at once, and what was in flight counts as [`Status::TimedOut`](crate::Status::TimedOut).

mod failure;
mod prefix;
mod running;

use std::{
    cell::{RefCell, RefMut},
    fmt,
    marker::PhantomData,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr::NonNull,
    time::Duration,
};

use self::{failure::Failures, running::Running};
pub use self::{
    failure::ScopeError,
    prefix::{Prefix, PrefixError},
};
use crate::{
    Argument, Channel, Operation, Refused, SubmitError, Syndromes, memory::abort_for_memory,
    queue::Lists, segments::Segments,
};

/// Where operations on borrowed memory are started: what [`scope`] gives to its closure.
///
/// Operations are issued when the closure ends, when the ring is full, and with
/// [`issue_pending`](Self::issue_pending). Their order is the channel's; targets are disjoint, so
/// that it does not matter.
///
/// If the ring is full, each of them issues and waits for room, for as long as the scope's timeout.
pub struct Scope<'scope, 'env: 'scope> {
    state: RefCell<State<'scope>>,
    /// Invariant, both: as [`std::thread::Scope`].
    _scope: PhantomData<&'scope mut &'scope ()>,
    _env: PhantomData<&'env mut &'env ()>,
}

struct State<'scope> {
    running: Running<'scope>,
    lists: Lists,
}

/// Calls `body`, in which operations on borrowed memory can be started on `channel`, and returns
/// when all of them have ended: after `body` returned, with a value or an error, and also when it
/// panics.
///
/// Operations that have not ended `timeout` after `body` did are terminated and count as
/// [`Status::TimedOut`](crate::Status::TimedOut). If the engine cannot be proven idle within five more seconds, **the process
/// aborts**: the engine might still write to memory that nobody lends it any more.
///
/// ```
/// use std::time::Duration;
/// use dmaengine::{CpuDevice, Registry, SubmitError, scope};
///
/// let registry = Registry::new();
/// registry.register(std::sync::Arc::new(CpuDevice::new(1)));
/// let mut channel = registry.request("dma0chan0")?;
///
/// let (header, body) = ([1u8; 4], vec![2u8; 60]);
/// let mut frame = [0u8; 64];
/// let (front, back) = frame.split_at_mut(4);
/// scope(&mut channel, Duration::from_secs(5), |scope| -> Result<(), SubmitError> {
///     scope.copy(&header, front)?;
///     scope.copy(&body, back)?;
///     Ok(())
/// })??;
/// assert_eq!((&frame[..4], &frame[4..]), (&header[..], &body[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`ScopeError`] if an operation did not end with success: it has the closure's value, and says how
/// many failed and how the first did.
///
/// # Panics
///
/// With the panic of `body`, when all has ended.
pub fn scope<'env, F, R>(
    channel: &mut Channel,
    timeout: Duration,
    body: F,
) -> Result<R, ScopeError<R>>
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
{
    let scope = Scope {
        state: RefCell::new(State {
            running: Running::new(channel, timeout),
            lists: Lists::default(),
        }),
        _scope: PhantomData,
        _env: PhantomData,
    };
    let value = catch_unwind(AssertUnwindSafe(|| body(&scope)));
    let failures = scope.join();
    match value {
        Err(panic) => resume_unwind(panic),
        Ok(value) => failures.into_result(value),
    }
}

impl<'scope, 'env> Scope<'scope, 'env> {
    /// Copies all of `source` to all of `target`.
    ///
    /// # Errors
    ///
    /// [`Refused`] gives the two back and says why; nothing was submitted. With `?` in a function
    /// that returns [`SubmitError`], only why.
    pub fn copy(
        &'scope self,
        source: &'env [u8],
        target: &'env mut [u8],
    ) -> Result<(), Refused<&'env [u8], &'env mut [u8], ()>> {
        let (source_len, target_len) = (source.len(), target.len());
        let submitted = if source_len == target_len {
            let target = target.as_mut_ptr();
            let copy = Operation::Memcpy { source: source.as_ptr(), target, len: source_len };
            // SAFETY: as `start` demands: the source is shared for `'env`; the target is
            // exclusive for `'env`, and given back to the caller only if it was refused.
            unsafe { self.start(&[], |_, _| Ok(copy)) }
        } else {
            Err(SubmitError::LengthMismatch { source_len, target_len })
        };
        // Not `map_err`: moving the target into a closure would claim it, while the engine has it.
        match submitted {
            Ok(()) => Ok(()),
            Err(error) => Err(Refused { error, source, target, tag: () }),
        }
    }

    /// Fills all of `target` with `pattern`, repeated from the first byte on, lowest byte first.
    ///
    /// # Errors
    ///
    /// As for [`copy`](Self::copy).
    pub fn fill(
        &'scope self,
        pattern: u64,
        target: &'env mut [u8],
    ) -> Result<(), Refused<(), &'env mut [u8], ()>> {
        let len = target.len();
        let fill = Operation::Memset { pattern, target: target.as_mut_ptr(), len };
        // SAFETY: as in `copy`.
        let submitted = unsafe { self.start(&[], |_, _| Ok(fill)) };
        match submitted {
            Ok(()) => Ok(()),
            Err(error) => Err(Refused { error, source: (), target, tag: () }),
        }
    }

    /// Copies all of `sources`, one after the other, to all of `targets`, one after the other. Both
    /// sides have the same length in all; their pieces need not match. The targets are taken out of
    /// their list: what is left there is empty.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]; nothing was submitted, and `targets` is as it was.
    pub fn copy_sg(
        &'scope self,
        sources: &[&'env [u8]],
        targets: &mut [&'env mut [u8]],
    ) -> Result<(), SubmitError> {
        let from = sources.iter().map(|piece| (piece.as_ptr(), piece.len()));
        let to = targets.iter_mut().map(|piece| (piece.as_mut_ptr(), piece.len()));
        // SAFETY: as in `copy`, for each piece; different exclusive pieces do not overlap. Once it is
        // submitted, the pieces are taken from the caller.
        unsafe { self.start(&[], |lists, _| Ok(lists.copy_sg(from, to))) }?;
        targets.fill_with(Default::default);
        Ok(())
    }

    /// Writes the exclusive or of all `sources`, which are as long as `target`, to `target`.
    ///
    /// # Errors
    ///
    /// As for [`copy`](Self::copy).
    pub fn xor(
        &'scope self,
        sources: &[&'env [u8]],
        target: &'env mut [u8],
    ) -> Result<(), Refused<(), &'env mut [u8], ()>> {
        let (to, target_len) = (target.as_mut_ptr(), target.len());
        // SAFETY: as in `copy`; all have the same length.
        let submitted = unsafe {
            self.start(&[], |lists, _| {
                let others = [(Argument::Target(0), Some(target_len)), (Argument::Q, None)];
                let (sources, len) = lists.sources(pieces(sources), others)?;
                Ok(Operation::Xor { sources, target: to, len })
            })
        };
        match submitted {
            Ok(()) => Ok(()),
            Err(error) => Err(Refused { error, source: (), target, tag: () }),
        }
    }

    /// Checks that the exclusive or of all `sources` is zero. If it is not, the operation counts as
    /// failed with [`Status::MismatchP`](crate::Status::MismatchP).
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]; nothing was submitted.
    pub fn xor_val(&'scope self, sources: &[&'env [u8]]) -> Result<(), SubmitError> {
        // SAFETY: as in `copy`; nothing is written.
        unsafe {
            self.start(&[], |lists, _| {
                let none = [(Argument::P, None), (Argument::Q, None)];
                let (sources, len) = lists.sources(pieces(sources), none)?;
                Ok(Operation::XorVal { sources, len })
            })
        }
    }

    /// Writes the syndromes P and Q of all `sources`, which are as long as the syndromes.
    ///
    /// # Errors
    ///
    /// As for [`copy`](Self::copy).
    pub fn pq(
        &'scope self,
        sources: &[&'env [u8]],
        coefficients: &[u8],
        mut syndromes: Syndromes<&'env mut [u8]>,
    ) -> Result<(), Refused<(), Syndromes<&'env mut [u8]>, ()>> {
        let len = |to: &Option<&mut [u8]>| to.as_ref().map(|to| to.len());
        let lens = [(Argument::P, len(&syndromes.p)), (Argument::Q, len(&syndromes.q))];
        let [p, q] = [&mut syndromes.p, &mut syndromes.q]
            .map(|to| to.as_mut().and_then(|to| NonNull::new(to.as_mut_ptr())));
        // SAFETY: as in `copy`; all have the same length.
        let submitted = unsafe {
            self.start(coefficients, |lists, coefficients| {
                let (sources, len) = lists.sources(pieces(sources), lens)?;
                Ok(Operation::Pq { sources, coefficients, p, q, len })
            })
        };
        match submitted {
            Ok(()) => Ok(()),
            Err(error) => Err(Refused { error, source: (), target: syndromes, tag: () }),
        }
    }

    /// Checks that P and Q are what [`pq`](Self::pq) would write. If not, the operation counts as
    /// failed with [`Status::MismatchP`](crate::Status::MismatchP), [`MismatchQ`](crate::Status::MismatchQ) or
    /// [`MismatchPq`](crate::Status::MismatchPq).
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]; nothing was submitted.
    pub fn pq_val(
        &'scope self,
        sources: &[&'env [u8]],
        coefficients: &[u8],
        syndromes: Syndromes<&'env [u8]>,
    ) -> Result<(), SubmitError> {
        let both = [syndromes.p, syndromes.q];
        let [p, q] = both.map(|from| from.map(|from| NonNull::from(from).cast()));
        // SAFETY: as in `copy`; nothing is written.
        unsafe {
            self.start(coefficients, |lists, coefficients| {
                let [p_len, q_len] = both.map(|from| from.map(<[u8]>::len));
                let lens = [(Argument::P, p_len), (Argument::Q, q_len)];
                let (sources, len) = lists.sources(pieces(sources), lens)?;
                Ok(Operation::PqVal { sources, coefficients, p, q, len })
            })
        }
    }

    /// Copies all of `source` to all of `target` in segments of `segment_len` bytes, and returns a
    /// view of what is there already.
    ///
    /// The copy goes on by itself as far as the ring and a window of 64 segments reach, and further
    /// with each look at the view or at the end of the scope.
    ///
    /// # Errors
    ///
    /// As for [`copy`](Self::copy).
    pub fn copy_segmented(
        &'scope self,
        source: &'env [u8],
        target: &'env mut [u8],
        segment_len: NonZeroUsize,
    ) -> Result<Prefix<'scope, 'env>, Refused<&'env [u8], &'env mut [u8], ()>> {
        let (source_len, target_len) = (source.len(), target.len());
        let to = target.as_mut_ptr();
        let started = if source_len == target_len {
            let segments = Segments::new(source_len, segment_len.get());
            // SAFETY: as in `copy`, with all of source and target for the operation from here on.
            unsafe { self.state().running.start_segmented(source.as_ptr(), to, segments) }
        } else {
            Err(SubmitError::LengthMismatch { source_len, target_len })
        };
        match started {
            Ok(copy) => Ok(Prefix::new(self, copy, to)),
            Err(error) => Err(Refused { error, source, target, tag: () }),
        }
    }

    /// Rings the doorbell for all that was submitted, so that the engine works while the closure goes
    /// on.
    pub fn issue_pending(&'scope self) {
        self.state().running.issue_pending();
    }

    /// Operations in flight.
    #[must_use]
    pub fn in_flight(&'scope self) -> usize {
        self.state().running.in_flight()
    }

    /// Submits the operation that `make` makes, with `coefficients` if it has some. If the ring is full, it waits for room first.
    ///
    /// # Safety
    ///
    /// What the operation reads is shared, and what it writes exclusive, for all of `'env`. If it is
    /// submitted, nobody else uses the latter before it has ended.
    unsafe fn start(
        &self,
        coefficients: &[u8],
        make: impl for<'l> FnOnce(&'l mut Lists, &'l [u8]) -> Result<Operation<'l>, SubmitError>,
    ) -> Result<(), SubmitError> {
        let State { running, lists } = &mut *self.state();
        let operation = make(lists, coefficients)?;
        // SAFETY: by the caller's promise.
        unsafe { running.start(&operation) }
    }

    /// The only borrow at any time: no code of the caller runs while it exists.
    fn state(&self) -> RefMut<'_, State<'scope>> {
        self.state.borrow_mut()
    }

    /// Returns when nothing is in flight, or not at all.
    fn join(&self) -> Failures {
        /// Whatever goes wrong in here, no unwinding may give the buffers back.
        struct Joining;
        impl Drop for Joining {
            fn drop(&mut self) {
                abort_for_memory();
            }
        }

        let joining = Joining;
        let failures = self.state().running.join();
        std::mem::forget(joining);
        failures
    }
}

/// The first bytes and lengths of sources.
fn pieces<'a>(sources: &'a [&[u8]]) -> impl Iterator<Item = (*const u8, usize)> + 'a {
    sources.iter().map(|source| (source.as_ptr(), source.len()))
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("in_flight", &self.state().running.in_flight())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
