use std::{fmt, time::Duration};

use super::{MAX_FAILURES, Mismatch, Operation, buffers::Test};
use crate::{Status, SubmitError};

/// Why a test failed. The words are Linux's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The channel did not take the operation.
    Submit(SubmitError),
    /// It did not end in time.
    TimedOut,
    /// It ended, with this status.
    Completion(Status),
    /// It ended with success, and the bytes are wrong.
    Data(Mismatch),
    /// The channel checked what had been damaged, and found nothing; it should have found this.
    Missed(Status),
}

impl Cause {
    const fn message(&self) -> &'static str {
        match self {
            Self::Submit(_) => "submit error",
            Self::TimedOut => "test timed out",
            Self::Completion(_) => "completion error status",
            Self::Data(_) => "data error",
            Self::Missed(_) => "damage not found",
        }
    }
}

/// How a test went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestResult {
    /// Which, from 1 on.
    pub test: u64,
    /// Why it failed; `None` if it passed.
    pub failure: Option<Cause>,
    /// Where in the source buffer the operation began, in bytes.
    pub src_off: usize,
    /// Where in the target buffer the operation began, in bytes.
    pub dst_off: usize,
    /// The operation's length in bytes.
    pub len: usize,
}

impl fmt::Display for TestResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { test, failure, src_off, dst_off, len } = self;
        let message = failure.as_ref().map_or("test passed", Cause::message);
        write!(
            f,
            "#{test}: '{message}' with src_off={src_off:#x} dst_off={dst_off:#x} len={len:#x}"
        )?;
        match failure {
            None | Some(Cause::TimedOut) => Ok(()),
            Some(Cause::Submit(error)) => write!(f, " ({error})"),
            Some(Cause::Completion(status)) => write!(f, " ({status})"),
            Some(Cause::Data(mismatch)) => write!(f, " ({mismatch})"),
            Some(Cause::Missed(expected)) => write!(f, " (expected: {expected})"),
        }
    }
}

/// What a run found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The channel's name.
    pub channel: String,
    /// What was tested.
    pub operation: Operation,
    /// Tests that were done.
    pub tests: u64,
    /// How many of them failed.
    pub failures: u64,
    /// Operations that were right, per second; a test of parity that the channel checks itself has
    /// three. The time of filling and checking the buffers is not counted.
    pub iops: u64,
    /// Kibibytes per second, of the same operations and in the same time. Of an operation with
    /// several sources, the length of one.
    pub kbps: u64,
    /// The first tests that failed, 32 at most.
    pub failed: Vec<TestResult>,
    /// The channel could neither finish nor stop; the run ended there.
    pub stuck: bool,
}

impl Summary {
    /// Of a channel of which nothing has been tested yet.
    #[must_use]
    pub fn of_channel(channel: &str, operation: Operation) -> Self {
        Self {
            channel: channel.to_owned(),
            operation,
            tests: 0,
            failures: 0,
            iops: 0,
            kbps: 0,
            failed: Vec::new(),
            stuck: false,
        }
    }

    /// The name that Linux gives to the test's thread.
    #[must_use]
    pub fn thread_name(&self) -> String {
        let operation = match self.operation {
            Operation::Memcpy => "copy",
            Operation::Memset => "set",
            Operation::Xor => "xor",
            Operation::Pq => "pq",
        };
        format!("{}-{operation}0", self.channel)
    }

    /// The line for one test, as Linux logs it.
    #[must_use]
    pub fn describe(&self, result: &TestResult) -> String {
        format!("dmatest: {}: result {result}", self.thread_name())
    }

    /// Counts a test that is over.
    pub(super) fn count(&mut self, test: &Test, outcome: Result<(), Cause>) -> TestResult {
        let Test { number, source_offset: src_off, target_offset: dst_off, len, .. } = *test;
        let result = TestResult { test: number, failure: outcome.err(), src_off, dst_off, len };
        self.tests += 1;
        if result.failure.is_some() {
            self.failures += 1;
            if self.failed.len() < MAX_FAILURES {
                self.failed.push(result);
            }
        }
        result
    }

    pub(super) fn rate(&mut self, busy: Duration, operations: u64, bytes: u64) {
        let per_second = |count: u64| {
            let nanoseconds = busy.as_nanos().max(1);
            u64::try_from(u128::from(count) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX)
        };
        self.iops = per_second(operations);
        self.kbps = per_second(bytes) / 1024;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "dmatest: {}: summary {} tests, {} failures {} iops {} KB/s",
            self.thread_name(),
            self.tests,
            self.failures,
            self.iops,
            self.kbps
        )
    }
}
