//! How a scope tells what failed.

use std::{error::Error, fmt};

use crate::{OperationKind, Status};

/// Operations of a scope did not end with success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeError<R> {
    /// What the closure returned.
    pub value: R,
    /// How many operations failed. A copy in segments is one.
    pub failed: usize,
    /// The how many-th operation of the scope, from 0, was the first of them.
    pub operation: usize,
    /// What it was.
    pub kind: OperationKind,
    /// How it ended.
    pub status: Status,
}

impl<R> fmt::Display for ScopeError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value: _, failed, operation, kind, status } = self;
        write!(
            f,
            "{failed} operations of the scope failed, number {operation} ({kind}) first: {status}; \
             the targets of those that failed are undefined, do them again with the CPU",
        )
    }
}

impl<R: fmt::Debug> Error for ScopeError<R> {}

/// The operations that failed so far.
#[derive(Debug, Default)]
pub(super) struct Failures {
    count: usize,
    /// The one that was started first, whichever ended first.
    first: Option<(usize, OperationKind, Status)>,
}

impl Failures {
    pub(super) fn record(&mut self, operation: usize, kind: OperationKind, status: Status) {
        self.count += 1;
        if self.first.is_none_or(|(first, ..)| operation < first) {
            self.first = Some((operation, kind, status));
        }
    }

    pub(super) fn into_result<R>(self, value: R) -> Result<R, ScopeError<R>> {
        match self.first {
            None => Ok(value),
            Some((operation, kind, status)) => {
                Err(ScopeError { value, failed: self.count, operation, kind, status })
            }
        }
    }
}
