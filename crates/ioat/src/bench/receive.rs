//! What receiving costs the thread that receives, with an engine for the copies and without.
//!
//! # What is measured
//!
//! One thread accepts a connection and reads it to its end, in reads of one size into one buffer that
//! the engine can reach: a *turn*. Before and after, the wall clock and the CPU time of that thread
//! and of the engine's own are read.
//!
//! * **Receiver's CPU time**, in seconds per gigabyte (10^9 bytes): all that the thread does, the
//!   stack's work included, since that runs in the call that reads. A thread that sleeps until the
//!   engine is done pays for falling asleep and waking up, not for the time in between.
//! * **Engine's CPU time**, beside it, and never subtracted: for an engine of threads the work has
//!   moved to another CPU; a device has no CPU time at all.
//! * **Throughput**: with a sender that is always ready, which is what the receiver can take.
//!
//! # Where the stream comes from
//!
//! * Over the *wire*, from a [`Generator`]: a TCP sender without cost or thread, whose payload is
//!   cold. What remains is the receiver's own. Its frames hold 64 KiB (45 segments in one, as a link
//!   with offload delivers them) or 1448 bytes.
//! * Over *TAP*, from Linux's TCP. There the kernel's copy into the frame is the receiver's too, and
//!   leaves the payload warm.
//!
//! # What it is compared with
//!
//! * `cpu`: the receiving thread copies by itself.
//! * `null` completes without copying: what is left to pay with a perfect engine.
//!
//! A program may block in its reads; or wait for readiness first and then read, as with `epoll`; or
//! post buffers of a read's length ahead of the data, some megabytes of them, and take them as they
//! come back. All take turns, A B A B; a ratio is that of one round. Before the rounds each has a turn at each
//! point in which every byte is checked, and that is not timed. A reader may also *touch* the data: add
//! up all bytes, in the timed part; lines that an engine has left elsewhere are paid for then.

mod contest;
mod contestant;
mod engine;
mod explain;
mod figures;
mod generator;
mod picture;
mod results;

pub use contest::{Contest, Error, Settings};
pub use engine::ReceiveEngine;
pub use explain::{BreakEven, ExplainedClass, ExplainedDecision, Explanation, Question, explain};
pub use figures::{Figures, LinkKind, ParseLinkError, Point, Program, Row, Scene};
pub use generator::{FrameKind, Generator, GeneratorHandle, ParseFrameError, Station};
pub use picture::draw;
pub use results::{Results, ScenePlacement};
