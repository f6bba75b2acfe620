//! What a receive call does next: the decisions of Linux's `tcp_recvmsg`, without the waiting.

use netstack::{ConnectionError, ReceiveStatus};

use crate::{Copybreak, RecvFlags};

/// What a receive call asks for, besides its buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Its flags. [`RecvFlags::PEEK`] and [`RecvFlags::OOB`] are other calls.
    pub flags: RecvFlags,
    /// The socket's low-water mark (`SO_RCVLOWAT`) in bytes: with fewer a call does not return,
    /// unless it has to. 0 is as 1.
    pub low_water: usize,
    /// The socket's own copybreak; `None`: the stack's.
    pub copybreak: Option<Copybreak>,
    /// Who waits for the bytes.
    pub waiting: Waiting,
}

/// Who waits for a receive, and so how urgent its last copies are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Waiting {
    /// A call that returns with what is at hand: all of its copies are urgent.
    Never,
    /// A call that may wait for more, if that is not enough: what fills its buffer is urgent.
    ForMore,
    /// Nobody, for now: the buffer was posted ahead of the data. Nothing is urgent.
    #[default]
    Elsewhere,
}

impl Request {
    /// With how many bytes a call for `len` may return: Linux's `sock_rcvlowat`.
    pub(crate) fn goal(&self, len: usize) -> usize {
        let all = self.flags.contains(RecvFlags::WAITALL);
        if all { len.max(1) } else { self.low_water.min(len).max(1) }
    }
}

/// What else bears on whether a call goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// It may wait: it is not a non-blocking one, and its timeout has not passed.
    pub may_wait: bool,
    /// A signal, or what stands for it, wants it to end.
    pub interrupted: bool,
}

/// What a receive call does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It returns so many bytes. All of them are in the buffer.
    Return(usize),
    /// It fails.
    Fail(RecvError),
    /// It takes no more bytes and waits only for its copies.
    Copying,
    /// It waits for more.
    Wait,
}

/// Why a receive call gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// There is nothing, and the call does not wait (`EAGAIN`).
    #[error("nothing to read: wait until the socket is readable")]
    WouldBlock,
    /// It was interrupted before there was anything (`EINTR`).
    #[error("the receive call was interrupted: call it again")]
    Interrupted,
    /// The connection has failed. The next call finds the end of the stream.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// The decision, when `taken` bytes were had and no more are in the queue. The order of the
/// questions is `tcp_recvmsg`'s.
pub(crate) fn decide(
    taken: usize,
    goal: usize,
    status: ReceiveStatus,
    conditions: Conditions,
) -> Verdict {
    let Conditions { may_wait, interrupted } = conditions;
    let over = status != ReceiveStatus::Open;
    if taken >= goal || (taken > 0 && (over || !may_wait || interrupted)) {
        return Verdict::Return(taken);
    }
    match status {
        _ if taken > 0 => Verdict::Wait,
        ReceiveStatus::EndOfStream => Verdict::Return(0),
        ReceiveStatus::Failed(error) => Verdict::Fail(error.into()),
        ReceiveStatus::Open if !may_wait => Verdict::Fail(RecvError::WouldBlock),
        ReceiveStatus::Open if interrupted => Verdict::Fail(RecvError::Interrupted),
        ReceiveStatus::Open => Verdict::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: Conditions = Conditions { may_wait: true, interrupted: false };
    const NEVER_WAITS: Conditions = Conditions { may_wait: false, interrupted: false };
    const SIGNAL: Conditions = Conditions { may_wait: true, interrupted: true };
    const FAILED: ReceiveStatus = ReceiveStatus::Failed(ConnectionError::Reset);

    #[test]
    fn the_low_water_mark_is_the_buffer_at_most_and_one_at_least() {
        let request = |low_water, flags| Request { flags, low_water, ..Request::default() };
        for (low_water, len, goal) in [(0, 10, 1), (1, 10, 1), (5, 10, 5), (20, 10, 10), (5, 0, 1)]
        {
            assert_eq!(request(low_water, RecvFlags::empty()).goal(len), goal);
        }
        assert_eq!(request(1, RecvFlags::WAITALL).goal(10), 10);
        assert_eq!(request(1, RecvFlags::WAITALL).goal(0), 1);
    }

    #[test]
    fn bytes_are_returned_before_anything_else_is_told() {
        for conditions in [WAITS, NEVER_WAITS, SIGNAL] {
            for status in [ReceiveStatus::Open, ReceiveStatus::EndOfStream, FAILED] {
                assert_eq!(decide(10, 10, status, conditions), Verdict::Return(10));
                // Too few are enough when no more will come, or the call has to end.
                let waits = status == ReceiveStatus::Open && conditions == WAITS;
                let expected = if waits { Verdict::Wait } else { Verdict::Return(9) };
                assert_eq!(decide(9, 10, status, conditions), expected);
            }
        }
    }

    #[test]
    fn without_bytes_the_end_comes_first_and_the_signal_last() {
        for conditions in [WAITS, NEVER_WAITS, SIGNAL] {
            let at_end = decide(0, 1, ReceiveStatus::EndOfStream, conditions);
            assert_eq!(at_end, Verdict::Return(0));
            let failed = Verdict::Fail(RecvError::Connection(ConnectionError::Reset));
            assert_eq!(decide(0, 1, FAILED, conditions), failed);
        }
        let open = |conditions| decide(0, 1, ReceiveStatus::Open, conditions);
        assert_eq!(open(WAITS), Verdict::Wait);
        assert_eq!(open(NEVER_WAITS), Verdict::Fail(RecvError::WouldBlock));
        assert_eq!(open(SIGNAL), Verdict::Fail(RecvError::Interrupted));
        let both = Conditions { may_wait: false, interrupted: true };
        assert_eq!(open(both), Verdict::Fail(RecvError::WouldBlock));
    }
}
