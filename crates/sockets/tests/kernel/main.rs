//! The same calls on the kernel's sockets, over loopback, and on ours, over a wire in memory: the same
//! bytes, results, error numbers and readiness.
//!
//! What is compared has settled: after each step both wait until everything under way has arrived.
//! So a mismatch is a difference of meaning, not of timing.
//!
//! `IOAT_TEST_CASES` is how many random scripts run; a few hundred otherwise.

use std::fmt::Write;

use self::{
    random::Random,
    script::{Step, run},
    world::{Kernel, Ours, World},
};

mod random;
mod script;
mod waits;
mod world;

/// Runs a script on both; what was observed must be the same, step by step.
fn compare(kernel: &Kernel, ours: &Ours, script: &[Step]) {
    let expected = run(&kernel.connect(), script);
    let seen = run(&ours.connect(), script);
    let Some(at) = (0..script.len()).find(|&at| expected[at] != seen[at]) else { return };
    let mut steps = String::new();
    for (step, observed) in script[..=at].iter().zip(&expected) {
        let _ = writeln!(steps, "  {step:?}: {observed:?}");
    }
    panic!("the kernel saw\n{steps}and we\n  {:?}", seen[at]);
}

fn both(scripts: &[&[Step]]) {
    let kernel = Kernel::new();
    for ours in Ours::all() {
        for script in scripts {
            compare(&kernel, &ours, script);
        }
    }
}

mod scripts {
    use super::{both, script::Step::*};
    use sockets::RecvFlags as F;

    const NONE: F = F::empty();

    #[test]
    fn reads_and_empty_reads() {
        both(&[
            &[Recv(10, NONE), Send(5), Recv(3, NONE), Recv(10, NONE), Recv(10, NONE)],
            &[Recv(0, NONE), Send(5), Recv(0, NONE), Recv(5, NONE), Recv(0, NONE)],
            &[Send(3000), Send(3000), Poll, Inq, Recv(1, NONE), Recv(9000, NONE), Poll, Inq],
        ]);
    }

    #[test]
    fn peek() {
        both(&[
            &[Recv(10, F::PEEK), Send(5), Recv(3, F::PEEK), Recv(10, F::PEEK), Recv(10, NONE)],
            &[Send(5), Send(5), Recv(8, F::PEEK), Recv(4, NONE), Recv(20, F::PEEK), Inq, Poll],
            &[
                Send(5),
                Recv(0, F::PEEK),
                Recv(20, F::PEEK | F::WAITALL),
                Recv(20, F::PEEK | F::TRUNC),
            ],
            &[Send(5), PeerShutdown, Recv(9, F::PEEK), Recv(9, NONE), Recv(9, F::PEEK)],
            &[
                Send(5),
                PeerReset,
                Recv(9, F::PEEK),
                Recv(9, NONE),
                Recv(9, F::PEEK),
                Recv(9, F::PEEK),
            ],
        ]);
    }

    #[test]
    fn trunc() {
        both(&[
            &[Recv(10, F::TRUNC), Send(10), Recv(4, F::TRUNC), Recv(4, NONE), Recv(9, F::TRUNC)],
            &[Send(3000), Recv(2000, F::TRUNC), Inq, Recv(9000, F::TRUNC), Inq, Recv(1, F::TRUNC)],
            &[Send(5), PeerShutdown, Recv(9, F::TRUNC), Recv(9, F::TRUNC)],
        ]);
    }

    #[test]
    fn waitall_without_waiting() {
        both(&[
            &[Recv(10, F::WAITALL), Send(5), Recv(10, F::WAITALL), Recv(10, F::WAITALL)],
            &[Send(5), PeerShutdown, Recv(10, F::WAITALL), Recv(10, F::WAITALL)],
            &[Send(5), PeerReset, Recv(10, F::WAITALL), Recv(10, F::WAITALL), Recv(1, F::WAITALL)],
        ]);
    }

    #[test]
    fn urgent_data() {
        for inline in [false, true] {
            both(&[
                &[Inline(inline), Recv(1, F::OOB), Urgent(1), Poll, Inq, AtMark, Recv(1, F::OOB)],
                &[
                    Inline(inline),
                    Urgent(3),
                    Recv(9, F::OOB | F::PEEK),
                    Recv(9, F::OOB),
                    Recv(9, F::OOB),
                ],
                &[
                    Inline(inline),
                    Send(3),
                    Urgent(1),
                    Send(3),
                    Inq,
                    Recv(9, NONE),
                    AtMark,
                    Inq,
                    Poll,
                    Recv(9, NONE),
                    AtMark,
                    Recv(1, F::OOB),
                ],
                &[
                    Inline(inline),
                    Send(3),
                    Urgent(1),
                    Send(3),
                    Recv(9, F::PEEK),
                    Recv(3, NONE),
                    AtMark,
                    Recv(9, F::PEEK),
                    AtMark,
                    Recv(1, NONE),
                    AtMark,
                    Recv(9, NONE),
                    Recv(9, NONE),
                ],
                &[Inline(inline), Urgent(1), Poll, Recv(9, NONE), AtMark, Recv(1, F::OOB), Poll],
                &[Inline(inline), Urgent(1), Urgent(1), Inq, Recv(9, NONE), AtMark, Recv(9, NONE)],
                &[
                    Inline(inline),
                    Send(2),
                    Urgent(1),
                    Recv(2, NONE),
                    Urgent(1),
                    AtMark,
                    Recv(9, NONE),
                    Recv(9, F::OOB),
                    Recv(9, NONE),
                ],
                &[
                    Inline(inline),
                    Urgent(1),
                    Recv(0, F::OOB),
                    Recv(1, F::OOB),
                    Recv(0, NONE),
                    AtMark,
                ],
                &[
                    Inline(inline),
                    Urgent(2),
                    Recv(1, F::OOB | F::TRUNC),
                    Recv(9, F::WAITALL),
                    AtMark,
                ],
                &[Inline(inline), Send(2), Urgent(2), Recv(9, F::TRUNC), Recv(9, F::TRUNC), Inq],
                &[
                    Inline(inline),
                    Urgent(1),
                    PeerShutdown,
                    Recv(1, F::OOB),
                    Recv(1, NONE),
                    Recv(1, F::OOB),
                ],
                &[
                    Inline(inline),
                    Urgent(1),
                    PeerReset,
                    Recv(1, F::OOB),
                    Recv(1, NONE),
                    Recv(1, F::OOB),
                ],
                &[
                    Send(2),
                    Urgent(1),
                    Inline(inline),
                    Recv(9, NONE),
                    Inline(!inline),
                    Recv(9, NONE),
                ],
            ]);
        }
    }

    #[test]
    fn ends_errors_and_shutdowns() {
        both(&[
            &[
                PeerShutdown,
                Poll,
                Recv(1, NONE),
                Recv(1, NONE),
                Error,
                Reply,
                Error,
                ShutdownWrite,
                Poll,
            ],
            &[PeerReset, Poll, Recv(1, NONE), Recv(1, NONE), Error, Poll, Reply, ShutdownRead],
            &[PeerReset, Error, Error, Recv(1, NONE), Reply, ShutdownWrite, Poll],
            &[PeerReset, Reply, Reply, Recv(1, NONE), Poll],
            &[PeerShutdown, PeerReset, Poll, Recv(1, NONE), Reply, Reply, Error],
            &[PeerShutdown, PeerReset, Error, Poll, Reply],
            &[Send(3), PeerReset, Poll, Recv(1, NONE), Error, Recv(9, NONE), Recv(9, NONE)],
            &[
                ShutdownRead,
                Poll,
                Recv(1, NONE),
                Send(3),
                Poll,
                Inq,
                Recv(1, NONE),
                Recv(9, NONE),
                Recv(1, NONE),
            ],
            &[
                ShutdownWrite,
                Poll,
                Reply,
                Send(3),
                Recv(9, NONE),
                PeerShutdown,
                Poll,
                Recv(1, NONE),
            ],
            &[ShutdownWrite, PeerReset, Poll, Recv(1, NONE), Recv(1, NONE)],
            &[PeerShutdown, ShutdownWrite, Poll, ShutdownWrite, ShutdownRead, Recv(1, NONE)],
            &[ShutdownRead, ShutdownWrite, Poll, PeerShutdown, Poll, ShutdownRead],
            &[ShutdownRead, PeerReset, Recv(1, NONE), Recv(1, NONE), Recv(1, F::OOB)],
        ]);
    }

    #[test]
    fn low_water_mark() {
        both(&[
            &[LowWater(5), Send(4), Poll, Recv(9, NONE), Send(5), Poll, Recv(2, NONE), Poll],
            &[LowWater(5), Send(4), PeerShutdown, Poll, Recv(9, NONE), Recv(9, NONE)],
            &[LowWater(0), Poll, Send(1), Poll, LowWater(2), Poll],
            &[LowWater(2), Urgent(1), Poll, Send(1), Poll, Send(1), Poll],
        ]);
    }
}

#[test]
fn random_scripts() {
    let cases = std::env::var("IOAT_TEST_CASES")
        .map_or(300, |cases| cases.parse().expect("IOAT_TEST_CASES is a number"));
    let kernel = Kernel::new();
    for ours in Ours::all() {
        for seed in 0..cases {
            let script = script::random(&mut Random(seed));
            compare(&kernel, &ours, &script);
        }
    }
}
