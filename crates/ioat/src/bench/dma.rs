//! What copies through an engine cost the thread that submits them, and what they give.
//!
//! # What is measured
//!
//! One thread keeps a channel busy: while there is room for a batch below the *depth*, it submits one
//! and rings the doorbell; then it polls; and so on, for the length of a *pass*. The operations walk
//! over a number of pairs of buffers, so that the payload is as warm as that many buffers are.
//!
//! * **Caller's cost**, in nanoseconds per operation: the time in submitting (and the doorbell), over
//!   the operations submitted; plus the time in polls that returned something, over the operations
//!   that ended. A poll that returned nothing is waiting: a program would do something else.
//! * **Throughput**: the operations that ended in the pass, over its time. The pipeline is full before
//!   it begins and at its end.
//! * **Latency**, in a pass of its own: from before an operation's batch is submitted until its end
//!   was seen, with one batch in flight; and again at the depth.
//!
//! Our engines are measured with buffers of an arena, through a [`Queue`](dmaengine::Queue), which is
//! what a program uses; or through the bare [`DmaChannel`](dmaengine::DmaChannel) beneath it, which
//! takes addresses and keeps nothing, as DPDK's interface does. DPDK's engine is measured in the same
//! way by the program in `bench/dpdk`.
//!
//! # What it is compared with
//!
//! * `memcpy` is what the caller could do instead: copy by itself, without a queue. The *break-even
//!   size* of an engine is where its caller begins to pay less than that.
//! * `dpdk` is `dma_skeleton`, the software engine of DPDK's dmadev, if DPDK is there.
//! * `null` completes without copying: it shows what is left to pay with a perfect engine. It exists
//!   in here only.
//!
//! Each pass is checked when it is over: the targets of all operations hold what their sources do,
//! and all else is as it was.

mod bare;
mod break_even;
mod contest;
mod contestant;
mod dpdk;
mod engine;
mod figures;
mod memcpy;
mod pairs;
mod pass;
mod picture;
mod queued;
mod results;

pub use break_even::BreakEven;
pub use contest::{Contest, Error, Settings};
pub use dpdk::{DpdkError, NoDpdk};
pub use engine::{BenchEngine, LeftOut};
pub use figures::{Figures, Interface, LatencyNs, ParseInterfaceError, Point, Row};
pub use pass::PassError;
pub use picture::draw;
pub use results::{BreakEvenRow, Results};
